"""CE-Net: equal to its published layer table; DAC and RMP by hand; it learns."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepmtdr.baselines.ce_net import CENet, DenseAtrousConvolution, ResidualMultiKernelPooling
from deepmtdr.losses import LesionLabels
from deepmtdr.model.preprocessing import rgb_to_input
from segmenter_checks import (
    ALL_ANNOTATED,
    assert_all_parameters_get_gradients,
    assert_class_probabilities,
    overfit_precision,
)

SMALL = (32, 64, 96, 128)


def layer_table(net: CENet, rgb: Tensor) -> Tensor:
    """The published network in evaluation mode, line by line, with the weights of ours."""
    w = net.state_dict()

    def norm(x: Tensor, name: str) -> Tensor:
        mean, var = w[f"{name}.running_mean"], w[f"{name}.running_var"]
        return F.batch_norm(x, mean, var, w[f"{name}.weight"], w[f"{name}.bias"])

    def conv(x: Tensor, name: str, **how: int) -> Tensor:
        return F.conv2d(x, w[f"{name}.weight"], w.get(f"{name}.bias"), **how)

    mean, sd = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = (rgb - mean[:, None, None]) / sd[:, None, None]
    x = F.relu(norm(conv(x, "encoder.conv1", stride=2, padding=3), "encoder.bn1"))
    x = F.max_pool2d(x, 3, 2, 1)
    skips = []
    for stage, blocks in ((1, 3), (2, 4), (3, 6), (4, 3)):
        for number in range(blocks):
            name, shortcut, stride = f"encoder.layer{stage}.{number}", x, 1 + (stage > 1 and number == 0)
            if stride == 2:
                shortcut = norm(conv(x, f"{name}.downsample.0", stride=2), f"{name}.downsample.1")
            x = F.relu(norm(conv(x, f"{name}.conv1", stride=stride, padding=1), f"{name}.bn1"))
            x = F.relu(norm(conv(x, f"{name}.conv2", padding=1), f"{name}.bn2") + shortcut)
        skips.append(x)
    one, three = (
        (lambda y: conv(y, "dac.dilate1", padding=1)),
        (lambda y: conv(y, "dac.dilate3", padding=3, dilation=3)),
    )
    five, mix = (lambda y: conv(y, "dac.dilate5", padding=5, dilation=5)), (lambda y: conv(y, "dac.conv1x1"))
    x = x + F.relu(one(x)) + F.relu(mix(three(x))) + F.relu(mix(three(one(x)))) + F.relu(mix(five(three(one(x)))))
    pools = [conv(F.max_pool2d(x, k), "rmp.to_one") for k in (2, 3, 5, 6)]
    x = torch.cat([*(F.interpolate(p, size=x.shape[2:], mode="bilinear") for p in pools), x], dim=1)
    for number in range(4):
        name = f"decoder.{number}"
        x = F.relu(norm(conv(x, f"{name}.0"), f"{name}.1"))
        x = F.conv_transpose2d(x, w[f"{name}.3.weight"], stride=2, padding=1, output_padding=1)
        x = F.relu(norm(conv(F.relu(norm(x, f"{name}.4")), f"{name}.6"), f"{name}.7"))
        x = x + skips[2 - number] if number < 3 else x
    x = F.relu(F.conv_transpose2d(x, w["to_map.0.weight"], w["to_map.0.bias"], stride=2, padding=1))
    return conv(F.relu(conv(x, "to_map.2", padding=1)), "to_map.4", padding=1).softmax(dim=1)


def test_equals_the_published_layer_table() -> None:
    # At 192 px the coarsest map has 6x6 cells, so that no pool is larger than the map.
    net, rgb = CENet(), torch.rand(1, 3, 192, 192)
    with torch.no_grad():
        net(rgb_to_input(torch.rand(2, 3, 64, 64)))  # so that the running statistics are not the initial ones
        assert torch.allclose(net.eval()(rgb_to_input(rgb)), layer_table(net, rgb), atol=1e-5)


def test_parameters_are_those_of_the_published_layer_table() -> None:
    encoder = 21_797_672 - 513_000  # ResNet-34 without its last layer
    context = 3 * (9 * 512 * 512 + 512) + 512 * 512 + 512 + 512 + 1
    ways = ((516, 256), (256, 128), (128, 64), (64, 64))
    decoder = sum((i * q + q) + (9 * q * q + q) + (q * o + o) + 2 * (2 * q + o) for i, o in ways for q in (i // 4,))
    last = (16 * 64 * 32 + 32) + (9 * 32 * 32 + 32) + (9 * 32 + 1)
    published = encoder + context + decoder + last
    assert CENet.published_parameters is not None
    assert abs(published / 1e6 - CENet.published_parameters) < 0.01
    biases_before_norms = sum(2 * (i // 4) + o for i, o in ways)
    further_classes = 4 * (9 * 32 + 1)
    assert sum(p.numel() for p in CENet().parameters()) == published - biases_before_norms + further_classes


def test_receptive_fields_of_the_dac_branches_are_3_7_9_and_19_cells() -> None:
    dac = DenseAtrousConvolution(1)
    for conv in (dac.dilate1, dac.dilate3, dac.dilate5, dac.conv1x1):
        nn.init.ones_(conv.weight)
    impulse = torch.zeros(1, 1, 41, 41)
    impulse[..., 20, 20] = 1
    widths = [(branch[0, 0].sum(dim=0) > 0).nonzero().flatten() for branch in dac.branches(impulse)]
    assert [int(w.max() - w.min()) + 1 for w in widths] == [3, 7, 9, 19]


def test_dac_block_by_hand() -> None:
    # Kernels that double, and a 1x1 convolution that doubles: 1 + 2 + 4 + 8 + 16.
    dac = DenseAtrousConvolution(1)
    for conv in (dac.dilate1, dac.dilate3, dac.dilate5, dac.conv1x1):
        nn.init.dirac_(conv.weight)
        conv.weight.data *= 2
    assert (dac(torch.ones(1, 1, 12, 12)) == 31).all()


def test_rmp_block_by_hand() -> None:
    # One bright cell in the corner of 6x6: the only pool of 6 and of 5, one of four pools of 3, one of nine of 2.
    rmp, x = ResidualMultiKernelPooling(1), torch.zeros(1, 1, 6, 6)
    nn.init.ones_(rmp.to_one.weight)
    nn.init.zeros_(rmp.to_one.bias)  # pyright: ignore[reportArgumentType]
    x[..., 0, 0] = 1
    two, three, five, six, same = rmp(x)[0]
    assert torch.equal(same, x[0, 0])
    assert torch.allclose(torch.stack([five, six]), torch.tensor(1.0))
    assert torch.allclose(three[0], torch.tensor([1, 1, 2 / 3, 1 / 3, 0, 0]), atol=1e-6)
    assert torch.allclose(two[0], torch.tensor([1, 3 / 4, 1 / 4, 0, 0, 0]))


def test_rmp_block_gives_516_channels() -> None:
    assert ResidualMultiKernelPooling(512)(torch.rand(1, 512, 14, 14)).shape == (1, 516, 14, 14)


@pytest.mark.parametrize("side", [1, 2, 3, 4, 5])
def test_pools_larger_than_the_map_cover_all_of_it(side: int) -> None:
    rmp, x = ResidualMultiKernelPooling(8), torch.randn(2, 8, side, side)
    whole = rmp.to_one(x.amax(dim=(2, 3), keepdim=True))
    assert torch.allclose(rmp(x)[:, 3:4], whole.expand(2, 1, side, side), atol=1e-6)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (80, 112), (192, 64)])
def test_classes_sum_to_one_at_the_frames_size(height: int, width: int) -> None:
    assert_class_probabilities(CENet(widths=SMALL), height, width)


def test_every_parameter_gets_a_gradient_from_the_loss() -> None:
    assert_all_parameters_get_gradients(CENet(widths=SMALL))


def test_loss_by_hand() -> None:
    # MA everywhere, predicted with 0.8: Dice 1 - 2 * 0.8 / (0.8 + 1) = 1 / 9 for MA and 1 for three absent types with
    # 0.05 each; cross-entropy -log 0.8.
    classes = torch.tensor([0.8, 0.05, 0.05, 0.05, 0.05])[None, :, None, None].expand(2, 5, 8, 8)
    masks = torch.zeros(2, 4, 8, 8)
    masks[:, 0] = 1
    dice, entropy = (1 / 9 + 3) / 4, -torch.tensor(0.8).log()
    loss = CENet(widths=SMALL).loss
    assert torch.allclose(loss(classes, LesionLabels(masks, ALL_ANNOTATED)), dice + entropy, atol=1e-5)
    only_ma = torch.tensor([[True, False, False, False]] * 2)
    assert torch.allclose(loss(classes, LesionLabels(masks, only_ma)), torch.tensor(1 / 9), atol=1e-5)
    assert loss(classes, LesionLabels(masks, ~ALL_ANNOTATED)) == 0


def test_imagenet_weights_load_under_their_published_names() -> None:
    net = CENet()
    names = net.encoder.state_dict()
    assert len(names) == 36 + 36 * 5  # 33 + 3 convolutions, each with its norm
    assert {"conv1.weight", "bn1.running_var", "layer2.0.downsample.1.bias", "layer3.5.conv2.weight"} <= set(names)
    assert sum(p.numel() for p in net.encoder.parameters()) == 21_797_672 - 513_000
    published = {name: torch.rand_like(t.float()).to(t.dtype) for name, t in names.items()}
    net.load_imagenet({**published, "fc.weight": torch.rand(1000, 512), "fc.bias": torch.rand(1000)})
    assert all(torch.equal(tensor, published[name]) for name, tensor in net.encoder.state_dict().items())


def test_missing_imagenet_weights_are_named() -> None:
    net = CENet(widths=SMALL)
    state = dict(net.encoder.state_dict())
    del state["layer4.2.conv1.weight"]
    with pytest.raises(ValueError, match=r"layer4\.2\.conv1\.weight is missing, expected a state-dict for ResNet34"):
        net.load_imagenet(state)


@pytest.mark.slow
def test_it_overfits_two_drawings() -> None:
    assert overfit_precision(CENet(widths=SMALL), 100, 3e-3) > 0.5
