"""Self-consistency of the evidence: its mask should turn and move with the photograph (interpretation R28)."""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Bool, Float
from torch import Tensor

from deepmtdr.model.deepmtdr import DeepMTDR
from deepmtdr.model.stable_evidence import UNPREPARED_EVIDENCE, StableEvidenceConfig, turn, turn_back

MIRROR = 1
"""The turn that flips left and right."""


class EvidenceConsistency(NamedTuple):
    """Agreement of the evidence mask of a photograph with that of a copy, as IoU; 1 if neither has evidence."""

    mirrored: float
    """IoU with the mask of the mirror image, mirrored back."""
    shifted: float
    """IoU with the mask of the shifted image, shifted back."""
    area: float
    """Share of the frame that the mask covers."""


def measure_evidence_consistency(
    model: DeepMTDR,
    frame: Float[Tensor, "1 3 f f"],
    config: StableEvidenceConfig = UNPREPARED_EVIDENCE,
    *,
    phi_vis: float = 0.5,
    shift: int = 1,
) -> EvidenceConsistency:
    """Compare the evidence mask of a photograph with those of its mirror image and of a shifted copy.

    Args:
        model: the network, in evaluation mode, on the device of the frame.
        frame: the photograph in the HR frame, RGB in [0, 1].
        config: how the mask is made of the evidence.
        phi_vis: threshold of the mask.
        shift: shift to the right, px; the pixels that leave the frame come in again on the left.
    """

    def mask(image: Tensor) -> Bool[Tensor, "1 1 f f"]:
        return config.prepare(model.predict(image, 1, config.turns)[1]) > phi_vis

    own = mask(frame)
    mirrored = turn_back(mask(turn(frame, MIRROR)), MIRROR)
    shifted = mask(frame.roll(shift, dims=3)).roll(-shift, dims=3)
    return EvidenceConsistency(_iou(own, mirrored), _iou(own, shifted), float(own.float().mean()))


def _iou(one: Bool[Tensor, "1 1 f f"], other: Bool[Tensor, "1 1 f f"]) -> float:
    union = (one | other).sum()
    return float((one & other).sum() / union) if union else 1.0
