"""Inputs that are no RGB image in [0, 1], and outputs that are not finite, are errors that name what was expected."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from deepmtdr.errors import PredictionError
from deepmtdr.model.deepmtdr import DeepMTDR
from deepmtdr.model.value_checks import check_8_bit_rgb, check_finite_outputs, check_image
from tiny_model import tiny_recipe

IMAGE = torch.linspace(0, 1, 2 * 3 * 8 * 8).view(2, 3, 8, 8)
EXPECTED = "expected a float32 tensor b x 3 x h x w, RGB in [0, 1]"

WRONG_IMAGES: dict[str, tuple[Any, str]] = {
    "0 to 255": (255 * IMAGE, f"found an image with values from 0 to 255, {EXPECTED}; divide by 255"),
    "uint8": ((255 * IMAGE).byte(), f"found an image of torch.uint8, {EXPECTED}; use .float() / 255"),
    "int64": ((255 * IMAGE).long(), "found an image of torch.int64"),
    "bool": (IMAGE > 0.5, "found an image of torch.bool"),
    "float64": (IMAGE.double(), f"found an image of torch.float64, {EXPECTED}; convert it with .float()"),
    "float16": (IMAGE.half(), "found an image of torch.float16"),
    "CHW": (IMAGE[0], f"found an image of shape 3 x 8 x 8, {EXPECTED}; add a batch dimension: image[None]"),
    "HWC": (IMAGE[0].movedim(0, -1), f"found an image of shape 8 x 8 x 3, {EXPECTED}; the channels are last"),
    "BHWC": (IMAGE.movedim(1, -1), f"found an image of shape 2 x 8 x 8 x 3, {EXPECTED}; the channels are last"),
    "grey": (IMAGE[:, :1], f"found an image of shape 2 x 1 x 8 x 8, {EXPECTED}; this image is grey"),
    "grey HW": (IMAGE[0, 0], f"found an image of shape 8 x 8, {EXPECTED}"),
    "RGBA": (torch.cat([IMAGE, IMAGE[:, :1]], 1), "found an image of shape 2 x 4 x 8 x 8"),
    "number": (torch.tensor(0.5), "found an image of shape a number"),
    "no image": (IMAGE[:0], "found an image of shape 0 x 3 x 8 x 8"),
    "no pixels": (IMAGE[..., :0], "found an image of shape 2 x 3 x 8 x 0"),
    "NaN": (IMAGE + float("nan"), "found an image with values from nan to nan"),
    "one infinity": (IMAGE.clone().index_fill_(0, torch.tensor([1]), float("inf")), "from 0 to inf"),
    "-1 to 1": (2 * IMAGE - 1, "found an image with values from -1 to 1"),
    "ImageNet's mean": ((IMAGE - 0.45) / 0.22, "found an image with values from -2.045 to 2.5"),
    "array": (IMAGE.numpy(), "found an image of type ndarray, expected a float32 tensor"),
    "path": ("eye.jpg", "found an image of type str"),
}


@pytest.mark.parametrize(("image", "expected"), WRONG_IMAGES.values(), ids=WRONG_IMAGES)
def test_another_kind_of_image_is_an_error_that_names_what_was_expected(image: Any, expected: str) -> None:
    with pytest.raises(ValueError) as caught:
        check_image(image, 4)
    assert expected in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("scale", [0, -1, 3, 16, 4.0, "4", None])
def test_another_scale_is_an_error(scale: Any) -> None:
    with pytest.raises(ValueError, match=r"found the scale .*, expected one of 1, 2, 4, 8"):
        check_image(IMAGE, scale)


def test_images_in_range_are_accepted_at_every_scale() -> None:
    for scale in (1, 2, 4, 8):
        check_image(IMAGE, scale)
    check_image(IMAGE.bfloat16(), 4)
    check_image(1.009 * IMAGE, 4)  # a little too high, as after bicubic interpolation
    check_image(torch.zeros(1, 3, 8, 8), 4)


@pytest.fixture(scope="module")
def model() -> DeepMTDR:
    torch.manual_seed(0)
    return DeepMTDR(tiny_recipe().model).eval()


def test_predict_checks_its_input(model: DeepMTDR) -> None:
    with pytest.raises(ValueError, match=r"values from 0 to 255.*divide by 255"):
        model.predict(255 * IMAGE, 4)
    with pytest.raises(ValueError, match="found the scale 3"):
        model.predict(IMAGE, 3)
    with pytest.raises(ValueError, match="found 3 turns, expected one of 1, 2, 4, 8"):
        model.predict(IMAGE, 4, turns=3)


@pytest.mark.parametrize("part", ["isr", "segmentation", "grading"])
def test_predict_refuses_outputs_that_are_not_finite(part: str) -> None:
    """Finite weights can overflow: the products of a layer exceed float32."""
    model = DeepMTDR(tiny_recipe().model).eval()
    with torch.no_grad():
        for parameter in model.subnets[part].parameters():
            parameter.fill_(1e30)
    with pytest.raises(PredictionError, match=r"the network returned a value that is not finite \(.*grade logits"):
        model.predict(torch.rand(1, 3, 32, 32), 4)


def test_finite_outputs_are_accepted_and_others_are_named() -> None:
    check_finite_outputs({"lesions": IMAGE, "evidence": IMAGE})
    with pytest.raises(PredictionError, match=r"not finite \(evidence\), expected finite numbers; do not use"):
        check_finite_outputs({"lesions": IMAGE, "evidence": IMAGE / 0})


@pytest.mark.parametrize(
    ("shape", "number_format"),
    [((4, 4, 3), np.float32), ((4, 4, 4), np.uint8), ((4, 4), np.uint8), ((3, 4, 4), np.uint16)],
)
def test_an_array_that_is_no_8_bit_rgb_image_is_an_error(shape: tuple[int, ...], number_format: type) -> None:
    with pytest.raises(ValueError, match=r"found an array of \w+, 3|4 x 4.*; expected 8-bit RGB, h x w x 3"):
        check_8_bit_rgb(np.ones(shape, number_format))
