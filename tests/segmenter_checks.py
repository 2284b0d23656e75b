"""What the compared segmentation methods are tried on: two drawings, and whether one learns them by heart."""

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
"""Every type of both is known."""


def randomise_lesion_maps(model: DeepMTDR) -> None:
    """Let an untrained network show lesions here and there; by itself it begins with background everywhere."""
    for module in model.segmentation.to_map:
        module.reset_parameters()


def draw_examples(side: int = 64) -> tuple[Tensor, Tensor]:
    """The middle of two drawings, as the network sees it, and its masks."""
    drawings = [draw_photograph(seed, Grade.SEVERE, 96) for seed in (2, 5)]
    cuts = [tuple(slice((n - side) // 2, (n + side) // 2) for n in d.photograph.shape[:2]) for d in drawings]
    photographs = torch.stack([torch.tensor(d.photograph[cut]) for d, cut in zip(drawings, cuts, strict=True)])
    masks = torch.stack([torch.tensor(d.lesion_masks[:, *cut]) for d, cut in zip(drawings, cuts, strict=True)])
    return rgb_to_input(photographs.permute(0, 3, 1, 2) / 255), masks.float()


def overfit_precision(net: Segmenter, steps: int, rate: float) -> float:
    """Average precision of any lesion on the drawings that it was trained on; chance gives less than 0.1."""
    seen, masks = draw_examples()
    optimiser = torch.optim.AdamW(net.parameters(), lr=rate)
    for _ in range(steps):
        loss = net.loss(net(seen), LesionLabels(masks, ALL_ANNOTATED))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        lesion_region = 1 - net.eval()(seen)[:, 4]
    there = masks.amax(dim=1).flatten() > 0
    assert there.float().mean() < 0.1
    return float(average_precision_score(there, lesion_region.flatten()))


def assert_class_probabilities(net: Segmenter, height: int, width: int) -> None:
    """In evaluation five classes sum to one in each pixel of the frame, in half precision too, given in full."""
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
    """Each has a finite gradient from the method's own loss that is not zero."""
    seen, masks = draw_examples()
    net.loss(net(seen), LesionLabels(masks, ALL_ANNOTATED)).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name
