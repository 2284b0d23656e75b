"""Scores by input image, and the paired gain of SR over bicubic."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from deepmtdr.evaluation.input_scores import hallucination_scores, input_scores
from deepmtdr.evaluation.measure import lesion_result
from deepmtdr.evaluation.photograph_result import Agreement, InputImage, InputResult, LesionResult, PhotographResult
from deepmtdr.evaluation.scores import Bootstrap, Score
from deepmtdr.labels import DIABETIC_RETINOPATHY
from deepmtdr.metrics import PooledCurve, average_precision, kappa_quadratic

SR, BICUBIC, HR = InputImage.SR, InputImage.BICUBIC, InputImage.HR
FEW = Bootstrap(resamples=100)


def probs(grade: int) -> tuple[float, ...]:
    return tuple(0.6 if g == grade else 0.1 for g in range(5))


def pick(rows: list[Score], subject: str, name: str) -> Score:
    (found,) = (row for row in rows if (row.subject, row.score) == (subject, name))
    return found


def test_grades_are_scored_on_each_image_and_the_gain_is_paired() -> None:
    truth = np.arange(40) % 5
    measured = [
        PhotographResult(
            dataset="x",
            name=f"{i}",
            patient=f"{i}",
            grade=int(g),
            probs=probs(g),
            other_inputs={
                BICUBIC: InputResult(probs(0 if i % 4 == 0 else g), {}),
                HR: InputResult(probs(min(g + 1, 4)), {}),
            },
        )
        for i, g in enumerate(truth)
    ]
    rows = input_scores(measured, {}, FEW, DIABETIC_RETINOPATHY)
    from_bicubic = np.where(np.arange(40) % 4 == 0, 0, truth)
    expected = kappa_quadratic(from_bicubic, truth)
    assert pick(rows, SR, "kappa_quadratic").value == 1
    assert pick(rows, BICUBIC, "kappa_quadratic").value == pytest.approx(expected)
    gain = pick(rows, "gain", "kappa_quadratic")
    assert gain.value == pytest.approx(1 - expected)
    assert 0 < gain.low < gain.value < gain.high
    assert pick(rows, SR, "same_grade_as_hr").value == pytest.approx((truth == 4).mean())
    assert pick(rows, HR, "accuracy").value == pytest.approx((truth == 4).mean())


def found(seed: int, sharp: float) -> tuple[LesionResult, PooledCurve, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.random(400) < 0.2
    probability = np.clip(rng.normal(0.3 + sharp * truth, 0.2), 0, 1).astype(np.float32)
    curve = PooledCurve()
    curve.update(probability, truth)
    return lesion_result(curve), curve, probability, truth


def test_lesions_are_scored_on_each_image_over_all_pixels() -> None:
    measured, pools = [], {name: {("x", "HE"): PooledCurve()} for name in (SR, BICUBIC, HR)}
    pixels: dict[InputImage, list[tuple[np.ndarray, np.ndarray]]] = {SR: [], BICUBIC: [], HR: []}
    for i in range(6):
        own = {}
        for name, sharp in ((SR, 0.4), (BICUBIC, 0.1), (HR, 0.6)):
            own[name], curve, *arrays = found(i, sharp)
            pools[name]["x", "HE"].merge(curve)
            pixels[name].append((arrays[0], arrays[1]))
        beside = {name: InputResult(probs(0), {"HE": own[name]}) for name in (BICUBIC, HR)}
        measured.append(
            PhotographResult(
                dataset="x",
                name=f"{i}",
                patient=f"{i}",
                probs=probs(0),
                lesions={"HE": own[SR]},
                other_inputs=beside,
            )
        )
    rows = input_scores(measured, pools, FEW, DIABETIC_RETINOPATHY)
    expected = {
        name: average_precision(*map(np.concatenate, zip(*pairs, strict=True))) for name, pairs in pixels.items()
    }
    for name in (SR, BICUBIC, HR):
        assert pick(rows, name, "aupr_HE").value == pytest.approx(expected[name], abs=1e-4)
    gain = pick(rows, "gain", "aupr_HE")
    assert gain.value == pytest.approx(expected[SR] - expected[BICUBIC], abs=2e-4)
    assert gain.low > 0


def test_photographs_without_hr_frame_have_no_scores_by_input() -> None:
    graded = PhotographResult(dataset="x", name="a", patient="a", grade=1, probs=probs(1))
    assert input_scores([graded], {}, FEW, DIABETIC_RETINOPATHY) == []
    assert hallucination_scores([graded], FEW, DIABETIC_RETINOPATHY) == []


def test_invented_and_lost_lesions_are_fractions_of_all() -> None:
    counts = [Agreement(10, 1, 12, 3), Agreement(0, 0, 8, 8), Agreement(10, 4, 0, 0)]
    nothing = dict.fromkeys(DIABETIC_RETINOPATHY.codes, Agreement(0, 0, 0, 0))
    measured = [
        PhotographResult(
            dataset="x",
            name=f"{i}",
            patient=f"{i}",
            agreement={SR: {**nothing, "MA": own}, BICUBIC: nothing},
        )
        for i, own in enumerate(counts)
    ]
    rows = hallucination_scores(measured, FEW, DIABETIC_RETINOPATHY)
    assert pick(rows, "MA on sr", "seen_per_photograph").value == pytest.approx(20 / 3)
    assert pick(rows, "MA on sr", "invented_share").value == pytest.approx(5 / 20)
    assert pick(rows, "MA on sr", "lost_share").value == pytest.approx(11 / 20)
    unseen = pick(rows, "HE on bicubic", "invented_share")
    assert np.isnan(unseen.value) and unseen.note == "no lesion was detected"


def test_change_of_invented_and_lost_lesions_from_bicubic_to_sr_is_paired() -> None:
    nothing = dict.fromkeys(DIABETIC_RETINOPATHY.codes, Agreement(0, 0, 0, 0))
    measured = [
        PhotographResult(
            dataset="x",
            name=f"{i}",
            patient=f"{i}",
            agreement={
                SR: {**nothing, "MA": Agreement(10, 2 + i % 3, 20, 4)},
                BICUBIC: {**nothing, "MA": Agreement(10, 3 + i % 3, 20, 10)},
            },
        )
        for i in range(12)
    ]
    rows = hallucination_scores(measured, FEW, DIABETIC_RETINOPATHY)
    invented, lost = (pick(rows, "MA on sr - bicubic", name) for name in ("invented_share", "lost_share"))
    assert (invented.value, invented.low, invented.high) == pytest.approx((-0.1, -0.1, -0.1))
    assert (lost.value, lost.high) == pytest.approx((-0.3, -0.3))


def test_lesions_are_compared_with_the_annotation_on_each_image() -> None:
    of_image = {SR: Agreement(10, 3, 8, 1), BICUBIC: Agreement(4, 1, 8, 5), HR: Agreement(10, 2, 8, 0)}
    annotated = PhotographResult(
        dataset="x",
        name="a",
        patient="a",
        annotated_agreement={image: {"HE": own} for image, own in of_image.items()},
    )
    rows = hallucination_scores([annotated, replace(annotated, name="b", patient="b")], FEW, DIABETIC_RETINOPATHY)
    assert {row.task for row in rows} == {"lesions not annotated"}
    assert pick(rows, "HE on hr", "invented_share").value == pytest.approx(0.2)
    assert pick(rows, "HE on sr", "lost_share").value == pytest.approx(1 / 8)
    assert pick(rows, "HE on sr - hr", "invented_share").value == pytest.approx(0.1)
    assert pick(rows, "HE on sr - bicubic", "lost_share").value == pytest.approx(-0.5)
