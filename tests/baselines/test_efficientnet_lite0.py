"""EfficientNet-Lite0 as a compared grader: fine-tuned, and frozen with a linear head."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from deepmtdr.baselines.efficientnet_lite0 import EfficientNetLite0Classifier, FrozenEfficientNetLite0
from deepmtdr.baselines.rgb_grader import RGBGrader
from deepmtdr.losses import GradeLabels
from deepmtdr.model.cost import count_parameters
from deepmtdr.model.deepmtdr import DeepMTDR, ModelConfig
from deepmtdr.model.efficientnet_lite0 import EfficientNetLite0
from deepmtdr.model.preprocessing import local_contrast, normalise_imagenet
from deepmtdr.recipe import GradingStage
from deepmtdr.systems import PartNames, build_system
from deepmtdr.training.batch_norm import reestimate_batch_norm, warm_start_batch_norm
from deepmtdr.training.optimiser import build_optimiser, has_trainable_parameters

BOTH = [EfficientNetLite0Classifier, FrozenEfficientNetLite0]
NO_LESIONS = torch.zeros(2, 4, 64, 64)


def test_native_size_is_twice_that_of_the_published_network() -> None:
    assert [kind().native_sizes for kind in BOTH] == [(448,), (448,)]


@pytest.fixture
def small_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Native sizes of 64 px in place of 448: the networks are the same, the tests are faster."""
    for kind in BOTH:
        monkeypatch.setattr(kind, "size", 64)


@pytest.fixture
def published() -> dict[str, Tensor]:
    """A state-dict with the names of the published one, and other weights."""
    torch.manual_seed(5)
    return {**EfficientNetLite0().state_dict(), "_fc.weight": torch.rand(1000, 1280), "_fc.bias": torch.rand(1000)}


def frozen_system() -> DeepMTDR:
    return build_system("EfficientNet-Lite0, frozen", PartNames(), ModelConfig())


def labels() -> GradeLabels:
    return GradeLabels(torch.tensor([0, 3]), torch.tensor([True, True]))


def test_logits_are_linear_in_the_mean_of_the_last_features_of_the_normalised_image() -> None:
    grader, rgb = EfficientNetLite0Classifier().eval(), torch.rand(2, 3, 64, 64)
    graded = grader.grade(rgb, NO_LESIONS)
    last = grader.backbone(normalise_imagenet(rgb))[-1]
    assert torch.allclose(graded.logits, grader.classifier(last.mean(dim=(2, 3))), atol=1e-6)


def test_frozen_logits_are_linear_in_mean_and_maximum_of_the_last_features_of_the_local_contrast() -> None:
    grader, rgb = FrozenEfficientNetLite0().eval(), torch.rand(2, 3, 64, 64)
    last = grader.backbone(local_contrast(rgb))[-1]
    norm = nn.LayerNorm(1280)
    pooled = torch.cat([norm(last.mean(dim=(2, 3))), norm(last.amax(dim=(2, 3)))], dim=1)
    assert torch.allclose(grader.grade(rgb, NO_LESIONS).logits, grader.classifier(pooled), atol=1e-5)


@pytest.mark.usefixtures("small_size")
@pytest.mark.parametrize("kind", BOTH)
def test_features_have_the_stated_channels_and_strides_2_to_32(kind: type[RGBGrader]) -> None:
    grader = kind().eval()
    graded = grader(torch.rand(2, 3, 96, 96), torch.zeros(2, 4, 96, 96))
    assert [tuple(f.shape[1:]) for f in graded.features] == [
        (channels, side, side) for channels, side in zip(grader.channels, (32, 16, 8, 4, 2), strict=True)
    ]
    assert graded.logits.shape == (2, 5) and graded.logits.mean().item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("kind", BOTH)
def test_published_weights_load_except_for_the_last_layer(kind: type[RGBGrader], published: dict[str, Tensor]) -> None:
    grader = kind()
    before = grader.state_dict()["classifier.weight"].clone()
    grader.load_imagenet(published)
    loaded = grader.state_dict()
    assert torch.equal(loaded["classifier.weight"], before)
    backbone = {name for name in loaded if name.startswith("backbone.")}
    assert {f"backbone.{name}" for name in published if not name.startswith("_fc.")} == backbone
    assert all(torch.equal(loaded[name], published[name.removeprefix("backbone.")]) for name in backbone)
    del published["_conv_head.weight"]
    with pytest.raises(ValueError, match=r"_conv_head\.weight is missing"):
        grader.load_imagenet(published)


def test_only_the_linear_head_of_the_frozen_network_is_trained() -> None:
    model, stage = frozen_system(), GradingStage()
    optimiser = build_optimiser(model, stage)
    trained = {name for name, parameter in model.grading.named_parameters() if parameter.requires_grad}
    assert trained == {"classifier.weight", "classifier.bias"}
    assert sum(p.numel() for g in optimiser.param_groups if g["subnet"] == "grading" for p in g["params"]) == 12_805
    assert count_parameters(model.grading) == 12_805 == 2560 * 5 + 5
    assert has_trainable_parameters(model, stage)


@pytest.mark.usefixtures("small_size")
def test_frozen_layers_keep_their_weights_and_statistics_in_a_training_step() -> None:
    model = frozen_system()
    before = {name: tensor.clone() for name, tensor in model.grading.state_dict().items()}
    optimiser = build_optimiser(model, GradingStage())
    model.train()
    assert not any(module.training for module in model.grading.backbone.modules())  # type: ignore[union-attr]
    assert model.grading.training and model.isr.training
    with warm_start_batch_norm(model):
        model.grading.loss(model.grading(torch.rand(2, 3, 64, 64), NO_LESIONS), labels()).backward()
    for group in optimiser.param_groups:
        group["lr"] = 1e-2
    optimiser.step()
    changed = {name for name, t in model.grading.state_dict().items() if not torch.equal(t, before[name])}
    assert changed == {"classifier.weight", "classifier.bias"}


@pytest.mark.usefixtures("small_size")
def test_frozen_layers_keep_their_statistics_when_those_of_the_subnets_are_estimated_again() -> None:
    model = frozen_system()
    build_optimiser(model, GradingStage())
    before = model.grading.state_dict()["backbone._bn0.running_mean"].clone()
    reestimate_batch_norm(model.grading, lambda rgb: model.grading(rgb, NO_LESIONS), [torch.rand(2, 3, 64, 64)])
    assert torch.equal(model.grading.state_dict()["backbone._bn0.running_mean"], before)


@pytest.mark.usefixtures("small_size")
def test_gradient_reaches_image_and_features_through_the_frozen_layers() -> None:
    grader, image = FrozenEfficientNetLite0(), torch.rand(2, 3, 64, 64, requires_grad=True)
    graded = grader(image, NO_LESIONS)
    gradients = torch.autograd.grad(graded.logits[:, 1:].sum(), [image, *graded.features])
    assert all(gradient.isfinite().all() and gradient.any() for gradient in gradients)


@pytest.mark.usefixtures("small_size")
def test_every_parameter_of_the_fine_tuned_network_gets_a_gradient() -> None:
    grader = EfficientNetLite0Classifier()
    for module in grader.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    grader.loss(grader(torch.rand(2, 3, 64, 64), NO_LESIONS), labels()).backward()
    assert [name for name, parameter in grader.named_parameters() if parameter.grad is None] == []
