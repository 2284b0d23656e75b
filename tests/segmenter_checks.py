"""Checks shared by the tests of the compared segmentation methods."""

from __future__ import annotations

import torch
from sklearn.metrics import average_precision_score
from torch import Tensor

from deepmtdr.losses import LesionLabels
from deepmtdr.model.deepmtdr import DeepMTDR
from deepmtdr.model.interfaces import Segmenter
from deepmtdr.model.preprocessing import rgb_to_input
from deepmtdr.synthetic.drawings import draw_photograph
from deepmtdr.terms import Grade

ALL_ANNOTATED = torch.ones(2, 4, dtype=torch.bool)
"""All lesion types of both photographs."""


def randomise_lesion_maps(model: DeepMTDR) -> None:
    """Make an untrained network predict some lesions; with its own initialisation it predicts only background."""
    for module in model.segmentation.to_map:
        module.reset_parameters()


def draw_examples(side: int = 64) -> tuple[Tensor, Tensor]:
    """Network inputs from the middle of two drawings, and their masks."""
    drawings = [draw_photograph(seed, Grade.SEVERE, 96) for seed in (2, 5)]
    cuts = [tuple(slice((n - side) // 2, (n + side) // 2) for n in d.photograph.shape[:2]) for d in drawings]
    photographs = torch.stack([torch.tensor(d.photograph[cut]) for d, cut in zip(drawings, cuts, strict=True)])
    masks = torch.stack([torch.tensor(d.lesion_masks[:, *cut]) for d, cut in zip(drawings, cuts, strict=True)])
    return rgb_to_input(photographs.permute(0, 3, 1, 2) / 255), masks.float()


def overfit_precision(net: Segmenter, steps: int, rate: float) -> float:
    """Average precision for any lesion on the drawings it was trained on; chance level is below 0.1."""
    network_input, masks = draw_examples()
    optimiser = torch.optim.AdamW(net.parameters(), lr=rate)
    for _ in range(steps):
        loss = net.loss(net(network_input), LesionLabels(masks, ALL_ANNOTATED))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        lesion_region = 1 - net.eval()(network_input)[:, 4]
    there = masks.amax(dim=1).flatten() > 0
    assert there.float().mean() < 0.1
    return float(average_precision_score(there, lesion_region.flatten()))


def assert_class_probabilities(net: Segmenter, height: int, width: int) -> None:
    """In evaluation mode the classes sum to 1 in each pixel, also in half precision; the output is single precision."""
    net.eval()
    with torch.no_grad():
        classes = net(torch.rand(1, 3, height, width))
        with torch.autocast("cpu", torch.bfloat16):
            rough = net(torch.rand(1, 3, height, width))
    assert classes.shape == rough.shape == (1, 5, height, width)
    assert classes.dtype == rough.dtype == torch.float32
    assert torch.allclose(classes.sum(dim=1), torch.tensor(1.0))
    assert torch.allclose(rough.sum(dim=1), torch.tensor(1.0))
    assert min(classes.min(), rough.min()) >= 0


def assert_all_parameters_get_gradients(net: Segmenter) -> None:
    """Every parameter gets a finite gradient, not zero, from the method's loss."""
    network_input, masks = draw_examples()
    net.loss(net(network_input), LesionLabels(masks, ALL_ANNOTATED)).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name
