"""Lesion segmentation with an EfficientNet-Lite0 encoder."""

from __future__ import annotations

import pytest
import torch

from deepmtdr.losses import LesionLabels, LossWeights, dice_loss, lesion_cross_entropy_loss
from deepmtdr.model.deepmtdr import ModelConfig
from deepmtdr.model.efficientnet_lite0 import EfficientNetLite0
from deepmtdr.model.efficientnet_segmentation import (
    CONTRAST_GAIN,
    EfficientNetSegmentationConfig,
    EfficientNetSegmentationSubnet,
)
from deepmtdr.model.preprocessing import local_contrast
from deepmtdr.model.segmentation import LesionSegmentationSubnet, fuse_scales
from deepmtdr.systems import DEEPMTDR, EFFICIENTNET_FORM, PartNames, build_system

NARROW = EfficientNetSegmentationConfig(widths=(8, 8, 8, 8))


def test_probabilities_sum_to_1_in_each_pixel_of_the_frame() -> None:
    classes = EfficientNetSegmentationSubnet(config=NARROW).eval()(torch.randn(2, 3, 64, 96))
    assert classes.shape == (2, 5, 64, 96) and classes.dtype == torch.float32
    torch.testing.assert_close(classes.sum(dim=1), torch.ones(2, 64, 96))


def test_untrained_network_predicts_background() -> None:
    classes = EfficientNetSegmentationSubnet(config=NARROW).eval()(torch.zeros(1, 3, 64, 64))
    assert classes[:, -1].min() > 0.9


def test_a_side_that_is_no_multiple_of_32_is_an_error() -> None:
    with pytest.raises(ValueError, match="frame of 64x48 px, expected multiples of 32"):
        EfficientNetSegmentationSubnet(config=NARROW)(torch.zeros(1, 3, 64, 48))


def test_five_maps_from_stride_32_to_stride_2_are_fused_by_equation_1() -> None:
    subnet, maps = EfficientNetSegmentationSubnet(config=NARROW).eval(), []
    hooks = [layer.register_forward_hook(lambda _, __, output: maps.append(output)) for layer in subnet.to_map]
    classes = subnet(torch.randn(1, 3, 64, 64))
    for hook in hooks:
        hook.remove()
    assert [each.shape[-1] for each in maps] == [2, 4, 8, 16, 32]
    torch.testing.assert_close(classes, fuse_scales(maps, (0.4, 0.2, 0.2, 0.2, 1.0), (64, 64)))


def test_stage_outputs_are_those_of_the_last_block_at_each_stride() -> None:
    encoder = EfficientNetLite0(drop_connect=0.0).eval()
    outputs = encoder.stage_outputs(torch.randn(1, 3, 64, 64))
    assert tuple(each.shape[1] for each in outputs) == encoder.output_channels
    assert [each.shape[-1] for each in outputs] == [32, 16, 8, 4, 2]
    assert min(float(each.detach().min()) for each in outputs) < 0  # no ReLU6 after a block


def test_input_of_the_encoder_is_local_contrast_times_its_gain() -> None:
    subnet, seen = EfficientNetSegmentationSubnet(config=NARROW).eval(), []
    subnet.encoder._conv_stem.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    contrast = torch.randn(1, 3, 64, 64)
    subnet(contrast)
    torch.testing.assert_close(seen[0], CONTRAST_GAIN * contrast)
    assert EfficientNetSegmentationSubnet.preprocess is local_contrast


def test_imagenet_weights_go_to_the_encoder_all_or_none() -> None:
    published = EfficientNetLite0().state_dict()
    subnet = EfficientNetSegmentationSubnet(config=NARROW)
    subnet.load_imagenet(published)
    for name, tensor in subnet.encoder.state_dict().items():
        assert torch.equal(tensor, published[name])
    assert {id(p) for p in subnet.imagenet_parameters()} == {id(p) for p in subnet.encoder.parameters()}
    with pytest.raises(ValueError, match="is missing"):
        subnet.load_imagenet({})


def test_loss_is_equation_8_and_cross_entropy_with_their_weights() -> None:
    classes = torch.rand(2, 5, 32, 32).softmax(dim=1)
    labels = LesionLabels((torch.rand(2, 4, 32, 32) > 0.8).float(), torch.ones(2, 4, dtype=torch.bool))
    loss = EfficientNetSegmentationSubnet(config=NARROW).loss(
        classes, labels, LossWeights(dice=2.0, lesion_cross_entropy=3.0)
    )
    expected = 2 * dice_loss(classes[:, :-1], *labels) + 3 * lesion_cross_entropy_loss(classes[:, :-1], *labels)
    torch.testing.assert_close(loss, expected)


def test_either_form_of_a_subnet_can_be_part_of_either_system() -> None:
    form = build_system(EFFICIENTNET_FORM, PartNames(), ModelConfig())
    assert isinstance(form.segmentation, EfficientNetSegmentationSubnet)
    mixed = build_system(EFFICIENTNET_FORM, PartNames(segmentation=DEEPMTDR), ModelConfig())
    assert isinstance(mixed.segmentation, LesionSegmentationSubnet) and mixed.task_aware
    other = build_system(DEEPMTDR, PartNames(segmentation=EFFICIENTNET_FORM), ModelConfig())
    assert isinstance(other.segmentation, EfficientNetSegmentationSubnet)
    assert type(other.grading) is type(build_system(DEEPMTDR, PartNames(), ModelConfig()).grading)
