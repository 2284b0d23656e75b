"""Evidence of one photograph, for a network that grades by one square, and for an untrained network."""

from __future__ import annotations

import jaxtyping
import numpy as np
import pytest
import torch
from torch import Tensor

from deepmtdr.evaluation.evidence import EvidenceScores, RemovalCurves, evidence_scores
from deepmtdr.metrics import evidence_auc, pointing_chance
from deepmtdr.model.deepmtdr import DeepMTDR, ModelConfig, Prediction
from deepmtdr.model.grading import GradingConfig
from deepmtdr.model.isr import ISRConfig
from deepmtdr.model.segmentation import SegmentationConfig

SIDE = 64
SMALL = ModelConfig(
    isr=ISRConfig(width=4, blocks=1),
    segmentation=SegmentationConfig(width=2),
    grading=GradingConfig(width=2, hidden=8),
)
SQUARE = np.zeros((SIDE, SIDE), bool)
SQUARE[8:40, 16:48] = True
"""A quarter of the frame, so one of four fractions of the pixels."""
EVERYWHERE = np.ones((SIDE, SIDE), bool)
BLANK = np.zeros((SIDE, SIDE))


class GradesBySquare(DeepMTDR):
    """P(grade >= 1) is the mean brightness of the square, mostly as grade 2; the evidence is given."""

    def __init__(self, evidence: np.ndarray) -> None:
        super().__init__(SMALL)
        self.given_evidence = torch.from_numpy(evidence.astype(np.float32))[None, None]
        self.predictions = 0
        self.precision: set[torch.dtype] = set()

    def segment_and_grade(self, frame: Tensor) -> Prediction:
        self.predictions += 1
        self.precision.add(torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else torch.float32)
        p = frame[0, :, torch.from_numpy(SQUARE)].mean()
        probs = torch.stack([1 - p, 0.1 * p, 0.7 * p, 0.1 * p, 0.1 * p])
        nothing = frame.new_zeros(1, 4, SIDE, SIDE)
        return Prediction(frame, nothing, nothing[:, :1], probs.log()[None], ())

    def predict(self, lr: Tensor, scale: int = 4) -> tuple[Prediction, Tensor]:
        assert scale == 1
        nothing = lr.new_zeros(1, 4, SIDE, SIDE)
        return Prediction(lr, nothing, nothing[:, :1], lr.new_zeros(1, 5), ()), self.given_evidence


def bright_square() -> Tensor:
    return torch.from_numpy(np.where(SQUARE, 0.9, 0.1).astype(np.float32)).expand(1, 3, SIDE, SIDE)


def removal(
    evidence: np.ndarray, sr: Tensor | None = None, inside: np.ndarray = EVERYWHERE, steps: int = 4
) -> RemovalCurves:
    model = GradesBySquare(evidence)
    found = evidence_scores(model, bright_square() if sr is None else sr, {}, inside, steps=steps).removal
    assert found is not None
    assert model.predictions == 3 * (steps - 1) + 2
    return found


@pytest.fixture(scope="module")
def untrained() -> DeepMTDR:
    torch.manual_seed(0)
    return DeepMTDR(SMALL).eval()


def test_deleting_the_decisive_pixels_lowers_the_probability_at_once() -> None:
    done = removal(SQUARE * 1.0)
    gone = 1 - done.deletion[-1, 0]
    assert 1 - done.deletion[:, 0] == pytest.approx([0.9, gone, gone, gone, gone], abs=1e-6)
    assert 1 - done.insertion[:, 0] == pytest.approx([gone, 0.9, 0.9, 0.9, 0.9], abs=1e-6)
    assert 1 - done.random[:, 0] == pytest.approx(np.linspace(0.9, gone, 5), abs=0.02)
    assert gone < 0.85
    areas = done.disease_areas()
    assert areas.deletion == pytest.approx(((0.9 + gone) / 2 + 3 * gone) / 4, abs=1e-6)
    assert areas.insertion == pytest.approx(((0.9 + gone) / 2 + 3 * 0.9) / 4, abs=1e-6)
    assert areas.deletion < areas.random < areas.insertion
    assert done.grade_areas(2) == pytest.approx([0.7 * area for area in areas], abs=1e-6)


def test_evidence_in_the_wrong_place_is_worse_than_random() -> None:
    areas = removal(~SQUARE * 1.0).disease_areas()
    assert areas.deletion > areas.random > areas.insertion


@pytest.mark.parametrize("evidence", [BLANK, BLANK + 0.5])
def test_constant_evidence_gives_the_random_order(evidence: np.ndarray) -> None:
    done = removal(evidence)
    assert np.array_equal(done.deletion, done.random)


@pytest.mark.parametrize("steps", [1, 3, 7])
def test_curves_start_and_end_with_the_original_and_the_blurred_photograph(steps: int) -> None:
    done = removal(SQUARE * 1.0, steps=steps)
    for probs in done:
        assert probs.shape == (steps + 1, 5)
        assert probs.sum(axis=1) == pytest.approx(1)
    assert np.array_equal(done.deletion[[0, -1]], done.random[[0, -1]])
    assert np.array_equal(done.deletion[[0, -1]], done.insertion[[-1, 0]])


def test_blur_does_not_change_a_retina_without_details() -> None:
    inside = np.hypot(*(np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2)) < SIDE / 2
    flat = torch.from_numpy(np.where(inside, 0.6, 0.0).astype(np.float32)).expand(1, 3, SIDE, SIDE)
    done = removal(SQUARE * 1.0, flat, inside)  # the square touches the border of the field of view
    for probs in done:
        assert probs == pytest.approx(np.tile(probs[0], (5, 1)), abs=1e-6)


def test_only_pixels_of_the_field_of_view_change() -> None:
    done = removal(SQUARE * 1.0, inside=~SQUARE)
    for probs in done:
        assert probs == pytest.approx(np.tile(probs[0], (5, 1)), abs=1e-6)


def test_the_given_photograph_is_not_modified() -> None:
    sr = bright_square().contiguous()
    before = sr.clone()
    removal(SQUARE * 1.0, sr)
    assert torch.equal(sr, before)


def test_photograph_in_any_memory_layout_has_the_same_curves() -> None:
    by_column = bright_square().mT.contiguous().mT  # the rows of a column are neighbours in memory
    assert not by_column.is_contiguous()
    for found, expected in zip(removal(SQUARE * 1.0, by_column), removal(SQUARE * 1.0), strict=True):
        assert np.array_equal(found, expected)


def test_photograph_in_bfloat16_is_blurred_too() -> None:
    half, full = removal(SQUARE * 1.0, bright_square().bfloat16()), removal(SQUARE * 1.0)
    assert 1 - half.deletion[:, 0] == pytest.approx(1 - full.deletion[:, 0], abs=0.02)
    assert half.deletion[1, 0] > half.deletion[0, 0] + 0.05


@pytest.mark.parametrize(
    ("settings", "precision"), [({}, torch.float32), ({"bf16": False}, torch.float32), ({"bf16": True}, torch.bfloat16)]
)
def test_evidence_is_computed_in_float32_unless_bf16_is_set(settings: dict[str, bool], precision: torch.dtype) -> None:
    model = GradesBySquare(SQUARE * 1.0)
    evidence_scores(model, bright_square(), {}, EVERYWHERE, steps=1, **settings)
    assert model.precision == {precision}


def scores_of(evidence: np.ndarray, masks: dict[str, np.ndarray], inside: np.ndarray = EVERYWHERE) -> EvidenceScores:
    return evidence_scores(GradesBySquare(evidence), bright_square(), masks, inside, steps=0)


def test_each_lesion_type_all_lesions_and_the_background_are_scored() -> None:
    left, right = SQUARE.copy(), SQUARE.copy()
    left[:, 24:], right[:, :40] = False, False  # two bars of the square with a gap
    evidence = np.where(left, 1.0, np.where(right, 0.5, 0.0))
    done = scores_of(evidence, {"MA": left, "EX": right, "SE": ~EVERYWHERE})
    assert set(done.lesions) == {"MA", "EX"}  # annotated types with a lesion
    others = SIDE * SIDE - left.sum()
    assert (done.lesions["MA"].auc, done.lesions["MA"].hit) == (1, 1)
    # The right bar has more evidence than all other pixels but the left bar.
    assert done.lesions["EX"].auc == pytest.approx((others - right.sum()) / others)
    assert done.lesions["EX"].hit == 0
    assert (done.any_lesion.auc, done.any_lesion.hit, done.background) == (1, 1, 0)
    assert done.any_lesion.chance == pytest.approx(pointing_chance(left | right, EVERYWHERE, 15 / 16))
    assert done.removal is None


def test_photograph_without_lesions_has_no_auc_but_removal_curves() -> None:
    for masks in ({}, {"HE": ~EVERYWHERE}):
        done = evidence_scores(GradesBySquare(SQUARE * 1.0), bright_square(), masks, EVERYWHERE, steps=1)
        assert done.lesions == {}
        assert np.isnan(np.hstack([*done.any_lesion, done.background])).all()
        assert done.removal is not None


def test_empty_field_of_view_has_neither_auc_nor_curves() -> None:
    done = evidence_scores(GradesBySquare(SQUARE * 1.0), bright_square(), {"HE": SQUARE}, ~EVERYWHERE)
    assert (done.lesions, done.removal) == ({}, None)
    assert np.isnan(np.hstack([*done.any_lesion, done.background])).all()


@pytest.mark.parametrize("bf16", [False, True])
def test_network_is_scored_by_its_own_evidence_and_grades(untrained: DeepMTDR, bf16: bool) -> None:
    with torch.inference_mode():  # as in an evaluation
        sr = torch.rand(1, 3, SIDE, SIDE)
    done = evidence_scores(untrained, sr, {"HE": SQUARE}, EVERYWHERE, steps=2, bf16=bf16)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        prediction, evidence = untrained.predict(sr, 1)
    auc = evidence_auc(evidence[0, 0].numpy(), SQUARE, EVERYWHERE)
    assert done.lesions["HE"].auc == done.any_lesion.auc == pytest.approx(auc)
    assert done.background == pytest.approx(1 - auc)
    assert done.removal is not None
    assert done.removal.deletion[0] == pytest.approx(prediction.grade_probs[0].double().numpy(), abs=1e-6)
    again = evidence_scores(untrained, sr, {}, EVERYWHERE, steps=2, bf16=bf16).removal
    assert again is not None
    assert np.array_equal(again.random, done.removal.random)


def test_wrong_shapes_and_steps_are_errors(untrained: DeepMTDR, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # types are checked in tests only
    sr, half = bright_square(), SQUARE[::2]
    with pytest.raises(ValueError, match=r"mask of SE has the shape \(32, 64\), expected \(64, 64\)"):
        evidence_scores(untrained, sr, {"SE": half}, EVERYWHERE)
    with pytest.raises(ValueError, match=r"field of view has the shape \(32, 64\), expected \(64, 64\)"):
        evidence_scores(untrained, sr, {}, half)
    with pytest.raises(ValueError, match="2 photographs, expected one"):
        evidence_scores(untrained, sr.expand(2, 3, SIDE, SIDE), {}, EVERYWHERE)
    with pytest.raises(ValueError, match="-1 steps, expected at least 0"):
        evidence_scores(untrained, sr, {}, EVERYWHERE, steps=-1)
