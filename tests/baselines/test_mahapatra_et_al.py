"""Mahapatra et al.: a generator, its discriminator, and the saliency that weights the difference."""

from __future__ import annotations

from math import log, log2

import numpy as np
import pytest
import torch
from skimage.filters.rank import entropy
from torch import Tensor, nn

from deepmtdr.baselines.mahapatra_et_al import ADVERSARIAL, LEVELS, WINDOW, MahapatraEtAl, local_saliency
from deepmtdr.baselines.u_net import UNet
from deepmtdr.losses import LossWeights
from deepmtdr.model.deepmtdr import DeepMTDR, Parts
from deepmtdr.model.isr import bicubic
from deepmtdr.synthetic.drawings import draw_photograph
from deepmtdr.terms import SCALES, Grade
from deepmtdr.training.backward import backward_by_subnet
from deepmtdr.training.batches import Batch
from deepmtdr.training.step_losses import joint_losses, restoration_losses


def small() -> MahapatraEtAl:
    return MahapatraEtAl(width=8)


def wired(network: MahapatraEtAl, segmentation: UNet | None = None) -> DeepMTDR:
    """The network with other parts, as a compared method is trained."""
    return DeepMTDR(parts=Parts(network, segmentation, None, task_aware=False))


def drawn_batch(side: int = 64) -> Batch:
    """Two tiny drawings."""
    drawings = [draw_photograph(seed, Grade.SEVERE, 2 * side) for seed in (1, 2)]
    hr = torch.stack([torch.tensor(d.photograph)[-side:, :side].permute(2, 0, 1) / 255 for d in drawings])
    masks = torch.stack([torch.tensor(d.lesion_masks)[:, -side:, :side].float() for d in drawings])
    known = torch.ones(2, dtype=torch.bool)
    return Batch(hr, hr, masks, known[:, None].expand(2, 4), torch.tensor([3, 3]), known)


def half_and_half() -> Tensor:
    """32 x 32 px: black on the left, white on the right."""
    image = torch.zeros(1, 3, 32, 32)
    image[..., 16:] = 1
    return image


def trained(gradients: list[Tensor | None]) -> bool:
    return any(gradient is not None and gradient.any() for gradient in gradients)


def untrained(gradients: list[Tensor | None]) -> bool:
    return all(gradient is None for gradient in gradients)


def test_saliency_of_an_edge_by_hand() -> None:
    # A window of 9 px has 4, 3, 2, 1 and 0 columns of the other colour, one less with each step away from the edge.
    def share(columns: int) -> float:
        p = columns / 9
        return -p * log2(p) - (1 - p) * log2(1 - p)

    saliency = local_saliency(half_and_half())[0, 0, 10, 16:22]
    expected = [1.0, share(3) / share(4), share(2) / share(4), share(1) / share(4), 0.0, 0.0]
    assert saliency.tolist() == pytest.approx(expected, abs=1e-6)


def test_saliency_equals_scikit_images_entropy_of_the_green_levels(rng: np.random.Generator) -> None:
    rgb = torch.tensor(rng.random((1, 3, 24, 30)) ** 3).float()
    levels = np.floor(rgb[0, 1].numpy() * LEVELS).astype(np.uint8)
    theirs = entropy(levels, np.ones((WINDOW, WINDOW), np.uint8))
    assert np.abs(local_saliency(rgb)[0, 0].numpy() - theirs / theirs.max()).max() < 1e-5


def test_saliency_of_a_constant_image_is_0() -> None:
    assert not local_saliency(torch.full((2, 3, 16, 16), 0.4)).any()


def test_generator_loss_by_hand() -> None:
    # A discriminator whose logit is 0 gives each image the probability 0.5: ln 2.
    network = small()
    nn.init.zeros_(network.adversary.logit.weight)
    nn.init.zeros_(network.adversary.logit.bias)
    flat, edge = torch.full((1, 3, 32, 32), 0.5), half_and_half()
    assert network.loss(flat + 0.1, flat).item() == pytest.approx(0.01 + ADVERSARIAL * log(2))
    weight = 1 + local_saliency(edge).mean().item()
    assert network.loss(edge + 0.1, edge).item() == pytest.approx(0.01 * weight + ADVERSARIAL * log(2))


def test_saliency_doubles_the_weight_of_a_difference_at_most() -> None:
    network, edge = small(), half_and_half()
    nn.init.zeros_(network.adversary.logit.weight)
    errors = []
    for column in (2, 16):
        sr = edge.clone()
        sr[..., 10, column] += 0.3
        errors.append((network.loss(sr, edge) - network.loss(edge, edge)).item())
    assert errors[1] == pytest.approx(2 * errors[0], rel=1e-3)


def test_discriminator_loss_of_undecided_logits_is_2_ln_2() -> None:
    network = small()
    nn.init.zeros_(network.adversary.logit.weight)
    nn.init.zeros_(network.adversary.logit.bias)
    loss = network.discriminator_loss(torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32))
    assert loss.item() == pytest.approx(2 * log(2))


def test_generator_loss_grows_with_the_discriminators_certainty() -> None:
    network, hr = small(), torch.rand(2, 3, 32, 32)
    losses = []
    for logit in (4.0, 0.0, -4.0):
        nn.init.zeros_(network.adversary.logit.weight)
        nn.init.constant_(network.adversary.logit.bias, logit)
        losses.append(network.loss(hr, hr).item() / ADVERSARIAL)
    assert losses == pytest.approx([log(1 + np.exp(-4)), log(2), log(1 + np.exp(4))])


@pytest.mark.parametrize("scale", SCALES)
def test_untrained_generator_is_bicubic(scale: int) -> None:
    lr = torch.rand(2, 3, 8, 12)
    sr = small()(lr, scale)
    assert sr.shape == (2, 3, 8 * scale, 12 * scale)
    assert torch.equal(sr, bicubic(lr, scale))


def test_every_parameter_gets_a_finite_gradient_from_one_of_the_scales() -> None:
    model, batch = wired(small()), drawn_batch()
    for name, parameter in model.isr.named_parameters():
        if name.startswith("to_rgb"):
            nn.init.normal_(parameter, std=0.1)
    for scale in SCALES:
        backward_by_subnet(restoration_losses(model, batch, scale, LossWeights()), model, end_to_end=False)
    for name, parameter in model.isr.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.any(), name


@pytest.mark.parametrize("end_to_end", [False, True])
def test_generator_and_discriminator_are_trained_by_their_own_loss_only(end_to_end: bool) -> None:
    model, batch = wired(small(), UNet(widths=(4, 8, 16, 32, 64))), drawn_batch()

    def step(name: str) -> tuple[list[Tensor | None], list[Tensor | None]]:
        """Gradients of generator and discriminator from one loss only."""
        model.zero_grad()
        others = {other: torch.zeros(()) for other in ("isr", "discriminator", "segmentation") if other != name}
        backward_by_subnet(
            joint_losses(model, batch, 4, LossWeights())._replace(**others), model, end_to_end=end_to_end
        )
        named = list(model.isr.named_parameters())
        generator, discriminator = (
            [p.grad for n, p in named if n.startswith("adversary") is of] for of in (False, True)
        )
        return generator, discriminator

    generator, discriminator = step("isr")
    assert trained(generator) and untrained(discriminator)
    generator, discriminator = step("discriminator")
    assert trained(discriminator) and untrained(generator)
    generator, discriminator = step("segmentation")
    assert trained(generator) is end_to_end and untrained(discriminator)


def test_parameter_counts_by_hand() -> None:
    # No number is published, but the layers are: 4 residual blocks of 64 channels; 8 convolutions from 64 to 512, 1,024
    # units on the 6x6x512 features of a 96 px crop.
    generator = 3 * 9 * 64 + 4 * 2 * (64 * 9 * 64 + 2 * 64) + 3 * 64 * 9 * 64 + 3 * (64 * 9 * 3 + 3)
    pairs = [(64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 512), (512, 512)]
    discriminator = 3 * 9 * 64 + 64 + sum(9 * i * o + 2 * o for i, o in pairs) + 6 * 6 * 512 * 1024 + 1024 + 1024 + 1
    with torch.device("meta"):
        network = MahapatraEtAl()
    assert sum(p.numel() for p in network.adversary.parameters()) == discriminator == 23_563_649
    assert sum(p.numel() for p in network.parameters()) - discriminator == generator == 413_449


def test_discriminator_accepts_crops_of_any_size() -> None:
    network, sides = small().eval(), []
    network.adversary.features.register_forward_hook(lambda _module, _args, out: sides.append(tuple(out.shape[2:])))
    for side in (96, 64, 160):
        assert network.adversary(torch.rand(1, 3, side, side)).shape == (1,)
    assert sides == [(6, 6), (4, 4), (10, 10)]


def test_bf16_losses_are_finite_and_reproducible() -> None:
    batch, found = drawn_batch(), []
    for _ in range(2):
        torch.manual_seed(3)
        model = wired(small())
        with torch.autocast("cpu", torch.bfloat16):
            step = restoration_losses(model, batch, 4, LossWeights())
        assert step.discriminator is not None and step.discriminator.isfinite() and step.isr.isfinite()
        found.append((step.isr.item(), step.discriminator.item()))
    assert found[0] == found[1]


def test_a_few_adversarial_steps_are_better_than_bicubic() -> None:
    model, batch = wired(MahapatraEtAl(width=16)), drawn_batch()
    optimiser = torch.optim.AdamW(model.isr.parameters(), 2e-3)
    terms = []
    for _ in range(30):
        optimiser.zero_grad()
        step = restoration_losses(model, batch, 4, LossWeights())
        backward_by_subnet(step, model, end_to_end=False)
        optimiser.step()
        terms.append(step.terms)
    assert terms[-1]["image"] < 0.85 * terms[0]["image"]
    assert terms[-1]["isr"] < 0.6 * terms[0]["isr"]


def test_discriminator_learns_to_separate_photographs_from_bicubic() -> None:
    network, hr = small(), drawn_batch().hr
    blurred = bicubic(bicubic(hr, 0.25), 4)
    optimiser = torch.optim.AdamW(network.adversary.parameters(), 1e-3)
    for _ in range(25):
        optimiser.zero_grad()
        loss = network.discriminator_loss(blurred, hr)
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        assert network.discriminator_loss(blurred, hr) < log(2)
        assert (network.adversary(hr) > 0).all() and (network.adversary(blurred) < 0).all()


def test_another_scale_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"Mahapatra et al\.: scale 3, expected one of \(2, 4, 8\)"):
        small()(torch.rand(1, 3, 8, 8), 3)
