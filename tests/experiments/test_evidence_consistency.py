"""Self-consistency of the evidence: masks of the photograph, its mirror image and a shifted copy."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from deepmtdr.experiments.evidence_consistency import measure_evidence_consistency
from deepmtdr.model.deepmtdr import DeepMTDR
from deepmtdr.model.interfaces import Prediction
from deepmtdr.model.stable_evidence import StableEvidenceConfig

FRAME = torch.arange(64.0).reshape(1, 1, 8, 8).expand(1, 3, 8, 8) / 64


class GivenEvidence(DeepMTDR):
    """A network whose evidence is the first channel of the frame, or the left half of every frame."""

    def __init__(self, *, fixed: bool) -> None:
        torch.nn.Module.__init__(self)
        self.fixed, self.turns = fixed, []

    def predict(self, lr: Tensor, scale: int = 4, turns: int = 1) -> tuple[Prediction, Tensor]:
        self.turns.append((scale, turns))
        evidence = lr[:, :1]
        if self.fixed:
            evidence = torch.zeros_like(evidence)
            evidence[..., :4] = 1
        return Prediction(lr, lr, evidence, lr.new_zeros(1, 5), ()), evidence


def test_evidence_that_follows_the_photograph_is_consistent() -> None:
    model = GivenEvidence(fixed=False)
    found = measure_evidence_consistency(model, FRAME, StableEvidenceConfig(turns=4, smoothing=0.0, percentile=100.0))
    assert found.mirrored == found.shifted == 1
    assert found.area == pytest.approx((FRAME[0, 0] / FRAME.max() > 0.5).float().mean().item())
    assert model.turns == [(1, 4)] * 3


def test_evidence_that_stays_where_it_is_is_not() -> None:
    # The left half: mirrored back it is the right half, without overlap. Shifted back by 1 px it is the last and the
    # first three columns: 3 of 5 columns are common.
    found = measure_evidence_consistency(GivenEvidence(fixed=True), FRAME)
    assert found.mirrored == 0
    assert found.shifted == pytest.approx(3 / 5)
    assert measure_evidence_consistency(GivenEvidence(fixed=True), FRAME, shift=2).shifted == pytest.approx(2 / 6)


def test_two_empty_masks_agree() -> None:
    found = measure_evidence_consistency(GivenEvidence(fixed=False), torch.zeros(1, 3, 8, 8))
    assert found == (1.0, 1.0, 0.0)
