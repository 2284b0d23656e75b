"""Mirrored and turned copies of a photograph: averaging, and the check that they get the same grade."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from deepmtdr.errors import PredictionError
from deepmtdr.grade_decision import GradeDecision
from deepmtdr.photographs.turns import TURNS, turn
from deepmtdr.screening.engine import ScreeningEngine
from deepmtdr.screening.predictor import Findings
from deepmtdr.screening.turned_copies import MIRROR, TurnedCopies, choose_copies, predict_copies
from fake_predictor import FakePredictor
from tiny_model import save_photograph

GRADES = np.eye(5, dtype=np.float32) * 4
"""Logits of a sure prediction of each grade."""


class SidedPredictor(FakePredictor):
    """Returns other logits for each turn, maps that follow the image, and an SR image that is the input."""

    def __init__(self, logits_of_turns: Sequence[NDArray[np.float32]], **info: Any) -> None:
        super().__init__(**info)
        self.logits_of_turns = logits_of_turns

    def predict(self, lr: NDArray[np.uint8], scale: int) -> Findings:
        found = super().predict(lr, scale)
        level = found.sr[..., 0].astype(np.float32) / 255
        logits = self.logits_of_turns[(len(self.calls) - 1) % len(self.logits_of_turns)]
        return Findings(sr=found.sr, lesions=np.stack([level] * 4), grade_logits=logits, evidence=level)


@pytest.fixture(scope="module")
def lr() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)


@pytest.fixture(scope="module")
def photograph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_photograph(tmp_path_factory.mktemp("photographs") / "eye.png")


def test_without_copies_the_findings_are_those_of_the_predictor(lr: NDArray[np.uint8]) -> None:
    predictor = SidedPredictor([GRADES[1], GRADES[2]])
    found = predict_copies(predictor, lr, 2, TurnedCopies.NONE)
    assert len(predictor.calls) == 1 and len(found.logits) == 1
    np.testing.assert_array_equal(found.findings.grade_logits, GRADES[1])


def test_the_mirror_image_is_predicted_but_not_averaged(lr: NDArray[np.uint8]) -> None:
    predictor = SidedPredictor([GRADES[1], GRADES[2]])
    found = predict_copies(predictor, lr, 2, TurnedCopies.MIRROR)
    (first, _), (second, scale) = predictor.calls
    np.testing.assert_array_equal(first, lr)
    np.testing.assert_array_equal(second, lr[:, ::-1])
    assert scale == 2
    np.testing.assert_array_equal(found.findings.grade_logits, GRADES[1])
    np.testing.assert_array_equal(found.logits, GRADES[[1, 2]])


def test_logits_and_maps_are_averaged_over_the_eight_turns_with_maps_turned_back(lr: NDArray[np.uint8]) -> None:
    logits = np.random.default_rng(1).normal(size=(TURNS, 5)).astype(np.float32)
    predictor = SidedPredictor(list(logits))
    found = predict_copies(predictor, lr, 4, TurnedCopies.ALL)
    for number, (image, _) in enumerate(predictor.calls):
        np.testing.assert_array_equal(image, turn(lr, number))
    assert found.findings.grade_logits == pytest.approx(logits.mean(axis=0), abs=1e-6)
    level = lr[..., 0].repeat(4, axis=0).repeat(4, axis=1) / 255
    for map_ in (*found.findings.lesions, found.findings.evidence):
        np.testing.assert_allclose(map_, level, atol=1e-6)
    np.testing.assert_array_equal(found.findings.sr, lr.repeat(4, axis=0).repeat(4, axis=1))
    assert found.findings.lesions.dtype == found.findings.grade_logits.dtype == np.float32


def test_findings_of_the_predictor_are_not_changed(lr: NDArray[np.uint8]) -> None:
    """An engine may return the same arrays again."""

    class Cached(FakePredictor):
        kept: Findings | None = None

        def predict(self, lr: NDArray[np.uint8], scale: int) -> Findings:
            self.kept = self.kept or super().predict(lr, scale)
            return self.kept

    predictor = Cached()
    before = predictor.predict(lr, 2).lesions.copy()
    predict_copies(predictor, lr, 2, TurnedCopies.ALL)
    np.testing.assert_array_equal(predictor.predict(lr, 2).lesions, before)


def test_a_turn_that_is_not_finite_is_an_error(lr: NDArray[np.uint8]) -> None:
    predictor = SidedPredictor([GRADES[0]] * 7 + [GRADES[0] * np.float32("nan")])
    with pytest.raises(PredictionError, match="grade logits that are not finite"):
        predict_copies(predictor, lr, 2, TurnedCopies.ALL)


def test_options_choose_the_copies() -> None:
    assert choose_copies(tta=False, check_mirror=False) is TurnedCopies.NONE
    assert choose_copies(tta=False, check_mirror=True) is TurnedCopies.MIRROR
    assert choose_copies(tta=True, check_mirror=True) is TurnedCopies.ALL
    assert MIRROR in TurnedCopies.ALL.numbers and TurnedCopies.ALL.numbers == tuple(range(8))


def test_a_mirror_image_with_another_grade_is_a_reason_for_a_review(photograph: Path) -> None:
    predictor = SidedPredictor([GRADES[0], GRADES[2]])
    report = ScreeningEngine(predictor, TurnedCopies.MIRROR).predict(photograph)
    assert (report.status, report.grade, report.turn_grades) == ("ok", 0, (0, 2))
    assert report.review_reasons == ("grades 0, 2 for the photograph and its turned copies",)
    written = report.to_json()
    assert (written["turned_copies"], written["turn_grades"]) == ("mirror", [0, 2])
    assert written["for_reader"] == list(report.review_reasons)


def test_copies_with_the_same_grade_are_no_reason(photograph: Path) -> None:
    report = ScreeningEngine(SidedPredictor([GRADES[0], GRADES[0] / 2]), TurnedCopies.MIRROR).predict(photograph)
    assert report.turn_grades == (0, 0) and report.review_reasons == ()


def test_the_grade_of_the_average_is_reported_and_turns_that_differ_are_a_reason(photograph: Path) -> None:
    predictor = SidedPredictor([GRADES[0]] + [GRADES[2]] * 7)
    report = ScreeningEngine(predictor, TurnedCopies.ALL).predict(photograph)
    assert (report.grade, report.turn_grades) == (2, (0, *[2] * 7))
    assert "grades 0, 2 for the photograph and its turned copies" in report.review_reasons
    assert report.probabilities == pytest.approx(np.exp(m := np.array([0.5, 0, 3.5, 0, 0])) / np.exp(m).sum(), abs=1e-5)


def test_the_calibrated_decision_determines_the_grade_of_each_turn(photograph: Path) -> None:
    """Expected grades 0.9 and 1.1: the most probable grade is 0 both times, the threshold 1 lies between them."""
    logits = [np.log(np.array([0.55, 0.1, 0.3 - d, 0.04 + d, 0.01], np.float32)) for d in (0.0, 0.2)]
    decision = GradeDecision(thresholds=(0.2, 1.0, 3.0, 3.5))
    engine = ScreeningEngine(SidedPredictor(logits, decision=decision), TurnedCopies.MIRROR)
    assert engine.predict(photograph).turn_grades == (1, 2)


def test_without_copies_report_and_settings_are_unchanged(photograph: Path) -> None:
    report = ScreeningEngine(FakePredictor()).predict(photograph)
    assert report.turn_grades == () and report.settings_text == "fp32"
    assert not {"turned_copies", "turn_grades"} & report.to_json().keys()


def test_the_settings_of_reports_differ_by_their_copies(photograph: Path) -> None:
    texts = {ScreeningEngine(FakePredictor(), copies).predict(photograph).settings_text for copies in TurnedCopies}
    assert texts == {"fp32", "fp32, turned copies: mirror", "fp32, turned copies: all"}
