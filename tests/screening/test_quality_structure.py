"""Features of vessels: dark connected lines stand out from grain, steps and bright spots."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from deepmtdr.photographs.geometry import inscribed_disc
from deepmtdr.screening.quality_features import MaskedImage
from deepmtdr.screening.quality_structure import STRUCTURE_NAMES, compute_structure_features
from deepmtdr.screening.retina_model import RETINA_FEATURE_NAMES, load_retina_model


def structure(light: NDArray) -> dict[str, float]:
    pixels = (light * inscribed_disc(128)).clip(0, 255)[..., None].repeat(3, axis=2).astype(np.uint8)
    image = MaskedImage.of(pixels)
    assert image is not None
    return dict(zip(STRUCTURE_NAMES, compute_structure_features(image), strict=True))


@pytest.fixture
def grain(rng: np.random.Generator) -> NDArray:
    return 120 + rng.normal(0, 4, (128, 128))


def test_dark_lines_raise_the_features_of_dark_lines_only(grain: NDArray) -> None:
    y, x = np.mgrid[:128, :128]
    lines = abs((y - 64) - 25 * np.sin(x / 20)) < 1.5
    plain, dark, bright = (structure(grain + level * lines) for level in (0, -40, 40))
    assert dark["darkest_lines"] > plain["darkest_lines"] + 0.5
    assert dark["longest_dark"] > np.log(0.6) > plain["longest_dark"]
    assert bright["longest_bright"] > np.log(0.6) > plain["longest_bright"]


def test_line_stands_out_more_than_a_step_of_the_same_contrast(grain: NDArray) -> None:
    column = np.arange(128)
    step, line = grain - 40 * (column > 64), grain - 40 * (abs(column - 64) < 2)
    assert structure(line)["darkest_lines"] > structure(step)["darkest_lines"] + 0.5


def test_structure_does_not_depend_on_the_exposure(grain: NDArray) -> None:
    light = grain - 40 * (abs(np.arange(128) - 50) < 2)
    bright, dim = structure(light * 2), structure(light)
    for name in STRUCTURE_NAMES:
        assert dim[name] == pytest.approx(bright[name], abs=0.25), name


def test_model_file_has_a_finite_row_for_each_feature() -> None:
    model = load_retina_model()
    for column in (model.mean, model.deviation, model.weights, model.square_weights):
        assert column.shape == (len(RETINA_FEATURE_NAMES),)
        assert np.isfinite(column).all()
    assert (model.deviation > 0).all()
