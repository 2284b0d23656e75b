"""Union labels and ignored pixels in the scores of lesions (interpretation R32)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from deepmtdr.datasets.sample import Sample
from deepmtdr.evaluation.config import EvaluationConfig
from deepmtdr.evaluation.framed_photograph import FramedPhotograph, load_into_frame
from deepmtdr.evaluation.lesions import absent_note, dataset_curves, lesion_scores
from deepmtdr.evaluation.measure import lesion_probability, lesion_result, measure_prediction
from deepmtdr.evaluation.measure_inputs import measure_on_original
from deepmtdr.evaluation.photograph_result import PhotographResult
from deepmtdr.evaluation.scores import Bootstrap
from deepmtdr.labels import DIABETIC_RETINOPATHY
from deepmtdr.metrics import PooledCurve
from deepmtdr.model.interfaces import Prediction
from deepmtdr.preparation.prepare import prepare
from image_files import write_photograph

FRAME = 128
FEW = Bootstrap(resamples=20)


def curve(lesion: list[float], healthy: list[float]) -> PooledCurve:
    found = PooledCurve()
    found.update(np.array(lesion + healthy), np.array([True] * len(lesion) + [False] * len(healthy)))
    return found


def write_square(path: Path, left: int) -> Path:
    pixels = np.zeros((100, 120), np.uint8)
    pixels[45:55, left : left + 10] = 255
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def sample(tmp_path: Path) -> Sample:
    """Exudates on the left, ignored pixels on the right of the field of view."""
    return Sample(
        photograph=write_photograph(tmp_path / "x.png"),
        name="x",
        patient="p",
        dataset="d",
        union_masks={"EX+SE": write_square(tmp_path / "e.png", 35)},
        ignored_mask=write_square(tmp_path / "i.png", 75),
    )


# One photograph


def test_probability_of_a_union_label_is_the_sum_of_its_types() -> None:
    maps = np.array([0.1, 0.2, 0.3, 0.4], np.float32)[:, None, None]
    assert lesion_probability(maps, "EX+SE", DIABETIC_RETINOPATHY).item() == pytest.approx(0.7)
    assert lesion_probability(maps, "HE", DIABETIC_RETINOPATHY).item() == pytest.approx(0.2)
    assert lesion_probability(4 * maps, "EX+SE", DIABETIC_RETINOPATHY).item() == 1, "rounding may exceed 1"


def framed(inside: list[bool], exudates: list[bool], ignored: list[bool] | None) -> FramedPhotograph:
    """A square photograph whose rows are all alike."""
    size = len(inside)
    field, masks, out = (np.tile(values or [False], (size, 1)) for values in (inside, exudates, ignored))
    lr = np.zeros((size, size, 3), np.uint8)
    union = {"EX+SE": masks}
    return FramedPhotograph(lr, None, field, 1, {}, union_masks=union, ignored=None if ignored is None else out)


def test_pixels_of_the_field_of_view_count_without_the_ignored_ones() -> None:
    lesions = torch.tensor(
        [[0.0, 0.0, 0.0, 0.0, 0.0], [0.0] * 5, [0.5, 0.25, 0.5, 0.0, 0.5], [0.25, 0.25, 0.5, 0.5, 0.5]]
    )
    prediction = Prediction(
        sr=torch.zeros(1, 3, 5, 5),
        lesions=lesions[None, :, None].expand(1, 4, 5, 5),
        lesion_region=torch.zeros(1, 1, 5, 5),
        grade_logits=torch.zeros(1, 5),
        features=(),
    )
    photograph = framed(
        [True, True, True, True, False], [True, False, False, True, False], [False, False, True, False, False]
    )
    curves = measure_prediction(prediction, photograph, DIABETIC_RETINOPATHY, froc=True).curves
    # 0.75 inside a lesion, 0.5 outside, 0.5 inside; the third pixel (1.0) is ignored, the last is outside the field.
    assert curves.keys() == {"EX+SE"}
    assert curves["EX+SE"].values.tolist() == [0.5, 0.75]
    assert curves["EX+SE"].positives.tolist() == [5, 5] and curves["EX+SE"].negatives.tolist() == [5, 0]
    everything = measure_prediction(prediction, photograph._replace(ignored=None), DIABETIC_RETINOPATHY).curves
    assert everything["EX+SE"].values.tolist() == [0.5, 0.75, 1.0]


def test_original_and_prepared_photograph_have_the_same_masks(tmp_path: Path, sample: Sample) -> None:
    (again,) = prepare([sample], tmp_path, tmp_path / "out", size=FRAME, workers=1).samples()
    before, after = (load_into_frame(one, EvaluationConfig(), FRAME) for one in (sample, again))
    assert before.has_masks and not before.lesion_masks
    for one, other in ((before.union_masks["EX+SE"], after.union_masks["EX+SE"]), (before.ignored, after.ignored)):
        assert one is not None and other is not None
        assert one.any() and (one != other).mean() < 0.01
    assert before.ignored is not None and not (before.counted & before.ignored).any()
    assert before.counted.sum() < before.inside.sum()
    without = before.without_masks()
    assert not without.has_masks and without.ignored is None


def test_original_pixels_are_scored_without_the_ignored_ones(sample: Sample) -> None:
    photograph = load_into_frame(sample, EvaluationConfig(), FRAME)
    maps = np.zeros((4, FRAME, FRAME), np.float32)
    maps[3][photograph.union_masks["EX+SE"]] = 0.5
    assert photograph.ignored is not None
    maps[2][photograph.ignored] = 1.0
    lesions, curves = measure_on_original(maps, photograph, DIABETIC_RETINOPATHY)
    assert lesions.keys() == curves.keys() == {"EX+SE"}
    assert lesions["EX+SE"].average_precision > 0.9, "the false alarm is where pixels are ignored"
    lesions, _ = measure_on_original(maps, _with_all_pixels(photograph), DIABETIC_RETINOPATHY)
    assert lesions["EX+SE"].average_precision < 0.7


def _with_all_pixels(photograph: FramedPhotograph) -> FramedPhotograph:
    assert photograph.original is not None
    masks = photograph.original.masks._replace(ignored=None)
    return photograph._replace(original=photograph.original._replace(masks=masks))


# Several photographs


def test_union_label_has_its_own_rows_and_is_in_no_mean() -> None:
    types = {code: lesion_result(curve([0.9], [0.6])) for code in DIABETIC_RETINOPATHY.codes}
    union = {"EX+SE": lesion_result(curve([0.3], [0.8, 0.7]))}
    measured = [
        PhotographResult(dataset=dataset, name=dataset, patient=dataset, lesions=lesions)
        for dataset, lesions in (("x", types), ("y", union))
    ]
    pooled = {
        **{("x", code): curve([0.9], [0.6]) for code in types},
        ("y", "EX+SE"): curve([0.3], [0.8, 0.7]),
    }
    rows = lesion_scores(measured, pooled, FEW, DIABETIC_RETINOPATHY)
    found = {(row.dataset, row.subject, row.score): row for row in rows}
    assert {subject for dataset, subject, _ in found if dataset == "y"} == {"EX+SE"}, "no mean over types there"
    assert found["y", "EX+SE", "aupr_pooled"].value == pytest.approx(1 / 3)
    assert found["all", "EX+SE", "aupr_pooled"].value == pytest.approx(1 / 3)
    for dataset in ("x", "all"):
        mean = found[dataset, "mean", "aupr_pooled"]
        assert mean.value == pytest.approx(1) and mean.photographs == 1


def test_union_labels_follow_the_lesion_types_and_have_a_name() -> None:
    pooled = {("x", "EX+SE"): PooledCurve(), ("x", "SE"): PooledCurve()}
    assert list(dataset_curves(pooled, "x", DIABETIC_RETINOPATHY)) == ["SE", "EX+SE"]
    assert absent_note(DIABETIC_RETINOPATHY, "EX+SE") == "no hard exudates or soft exudates on these photographs"
