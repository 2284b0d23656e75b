"""SqueezeNet 1.0 and 1.1: equal to their descriptions."""

from __future__ import annotations

from pathlib import Path

import pytest
import skimage.data
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from deepmtdr.baselines.squeezenet import Fire, SqueezeNet, SqueezeNet11
from deepmtdr.model.preprocessing import resize_frame

FIRES: dict[type[SqueezeNet], tuple[tuple[int, ...], ...]] = {
    SqueezeNet: ((3, 4, 5), (7, 8, 9, 10), (12,)),
    SqueezeNet11: ((3, 4), (6, 7), (9, 10, 11, 12)),
}
"""Indices of fire 2 to 9 in `features` of the published state-dicts, with a pooling before each group."""
CATS = {281, 282, 285}
"""Indices of the classes "tabby", "tiger cat" and "Egyptian cat" among the 1,000 of ImageNet."""


def described(state: dict[str, Tensor], rgb: Tensor, fires: tuple[tuple[int, ...], ...]) -> Tensor:
    """The paper's Table 1, from top to bottom."""

    def conv(x: Tensor, name: str, **how: int) -> Tensor:
        return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], **how).relu()

    def fire(x: Tensor, place: int) -> Tensor:
        x = conv(x, f"features.{place}.squeeze")
        one = conv(x, f"features.{place}.expand1x1")
        return torch.cat([one, conv(x, f"features.{place}.expand3x3", padding=1)], dim=1)

    mean, sd = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = conv((rgb - mean[:, None, None]) / sd[:, None, None], "features.0", stride=2)
    for group in fires:
        x = F.max_pool2d(x, 3, 2, ceil_mode=True)
        for place in group:
            x = fire(x, place)
    return conv(x, "classifier.1").mean(dim=(2, 3))


@pytest.mark.parametrize("kind", FIRES)
def test_logits_equal_those_of_the_published_description(kind: type[SqueezeNet]) -> None:
    model, rgb = kind().eval(), torch.rand(2, 3, 224, 224)
    with torch.no_grad():
        logits = model.grade(rgb, torch.zeros(2, 4, 224, 224)).logits
        torch.testing.assert_close(logits, described(model.state_dict(), rgb, FIRES[kind]), atol=1e-6, rtol=1e-5)


def test_sizes_of_the_features_are_those_of_table_1_at_227_px() -> None:
    with torch.device("meta"):
        model = SqueezeNet()
        assert [feature.shape[-1] for feature in model.extract_features(torch.zeros(1, 3, 227, 227))] == [
            111,
            55,
            27,
            13,
        ]


@pytest.mark.parametrize(
    ("channels_in", "squeezed", "of_table_1"),
    [(96, 16, 11_920), (128, 16, 12_432), (128, 32, 45_344), (256, 32, 49_440), (256, 48, 104_880),
     (384, 48, 111_024), (384, 64, 188_992), (512, 64, 197_184)],
)  # fmt: skip
def test_fire_module_has_the_parameters_of_table_1(channels_in: int, squeezed: int, of_table_1: int) -> None:
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in Fire(channels_in, squeezed).parameters()) == of_table_1


def test_logit_of_a_grade_is_the_mean_of_its_map() -> None:
    model, x = SqueezeNet().eval(), torch.zeros(1, 512, 2, 2)
    x[0, 0] = torch.tensor([[4.0, 0.0], [0.0, -8.0]])
    for parameter in model.classifier.parameters():
        torch.nn.init.zeros_(parameter)
    with torch.no_grad():
        model.classifier[1].weight[3, 0] = 1  # type: ignore[union-attr,index]
        assert model.head(x).tolist() == [[0, 0, 0, 1, 0]]  # (4 + 0 + 0 + 0) / 4: negative values become 0


def test_version_1_1_has_its_stem_of_64_channels_and_3_px_without_padding() -> None:
    with torch.device("meta"):
        model = SqueezeNet11()
        sides = [feature.shape[-1] for feature in model.extract_features(torch.zeros(1, 3, 224, 224))]
    assert tuple(model.state_dict()["features.0.weight"].shape) == (64, 3, 3, 3)
    assert model.channels == (64, 128, 256, 512) and sides == [111, 55, 27, 13]


@pytest.mark.data
def test_published_imagenet_weights_of_version_1_1_load_and_recognise_a_cat(root: Path) -> None:
    path = root.parent / "shared" / "weights" / "squeezenet1_1_imagenet.safetensors"
    if not path.exists():
        pytest.skip(f"no ImageNet weights: {path} does not exist")
    model, state = SqueezeNet11().eval(), load_file(path)
    model.load_imagenet(state)
    cat = torch.from_numpy(skimage.data.chelsea()[:, 75:375]).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        last = model.extract_features(resize_frame(cat, 224))[-1]
        logits = F.conv2d(last, state["classifier.1.weight"].float(), state["classifier.1.bias"].float()).relu()
    assert set(logits.mean(dim=(2, 3))[0].topk(3).indices.tolist()) == CATS
