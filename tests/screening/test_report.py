"""Columns, report.json, pictures and summary image of a report."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deepmtdr.files import printable_path, write_atomically
from deepmtdr.labels import DIABETIC_RETINOPATHY, GradeLabel, LabelSet, LesionType
from deepmtdr.photographs.geometry import FieldOfView, InputScale
from deepmtdr.rendering.overlays import draw_evidence_overlay, draw_lesion_overlay
from deepmtdr.screening.quality_model import Fault
from deepmtdr.screening.report import Pictures, ScreeningReport, result_columns
from deepmtdr.screening.report_files import picture_files, save_report
from deepmtdr.screening.summary_image import LARGE_SIDE, PAGE_SIZE, draw_not_graded, draw_summary
from fake_predictor import MACULAR_DEGENERATION
from fundus import draw_fundus

S = 128
COLUMNS = result_columns(DIABETIC_RETINOPATHY)
PICTURE_FILES = picture_files(DIABETIC_RETINOPATHY)


def graded(name: str = "eye.png", labels: LabelSet = DIABETIC_RETINOPATHY) -> ScreeningReport:
    """Grade 2; lesion type n is a square of its own size at (40, 30 + 20 n), counted n + 1 times."""
    photograph = draw_fundus(S, S, (S / 2, S / 2), S / 2)
    lesions = np.zeros((len(labels.lesions), S, S), np.float32)
    for n in range(min(len(lesions), 4)):
        lesions[n, 40 : 46 + 2 * n, 30 + 20 * n : 36 + 22 * n] = 0.8
    evidence = np.zeros((S, S), np.float32)
    evidence[40:50, 30:60] = 1.0
    probabilities = np.array([0.1, 0.2, 0.4, 0.25, 0.05, *(0.0 for _ in labels.grades)])[: len(labels.grades)]
    return ScreeningReport(
        path=Path("folder", name),
        status="ok",
        labels=labels,
        sha256="ab" * 32,
        grade=2,
        probabilities=tuple(float(p) for p in probabilities / probabilities.sum()),
        counts={code: n + 1 for n, code in enumerate(labels.codes)},
        areas=dict(zip(labels.codes, (0.1234567, 0.2, 0.3, 0.0), strict=False)),
        width=320,
        height=300,
        fov=FieldOfView(-3, 10, 280),
        way=InputScale(256, 4),
        weights="tiny-0123456789ab",
        version="0.1.0",
        pictures=Pictures(photograph, photograph, lesions, evidence),
    )


def failed() -> ScreeningReport:
    return ScreeningReport(path=Path("a.jpg"), status="error", message="a.jpg: no photograph", weights="w", version="v")


def labels_of_size(lesions: int, grades: int) -> LabelSet:
    """A label set with any number of lesion types and grades, and long names."""
    return LabelSet(
        name="long",
        disease="a disease with a name that is longer than its panel is wide",
        lesions=tuple(LesionType(code=f"L{n}", name=f"lesions of the long type number {n}") for n in range(lesions)),
        grades=tuple(GradeLabel(name=f"grade number {n} with a long name") for n in range(grades)),
        thresholds={"any": 1, "referable": grades - 1},
    )


def test_columns_for_diabetic_retinopathy_are_those_documented() -> None:
    documented = (
        "path, sha256, status, message, grade, grade_name, p0, p1, p2, p3, p4, p_referable, "
        "count_MA, count_HE, count_EX, count_SE, area_MA, area_HE, area_EX, area_SE, quality, fault, for_reader, "
        "width, height, weights, version"
    )
    assert ", ".join(COLUMNS) == documented
    assert tuple(graded().row()) == COLUMNS


def test_columns_follow_the_label_set() -> None:
    row = graded(labels=MACULAR_DEGENERATION).row()
    assert tuple(row) == result_columns(MACULAR_DEGENERATION)
    assert ", ".join(row).startswith("path, sha256, status, message, grade, grade_name, p0, p1, p2, p_referable, ")
    assert "p_referable, count_DR, count_GA, area_DR, area_GA, quality" in ", ".join(row)
    assert (row["grade_name"], row["p_referable"], row["p2"]) == ("late", 0.571429, 0.571429)
    assert (row["count_DR"], row["count_GA"], row["area_DR"]) == (1, 2, 0.12346)


def test_the_row_has_the_values_of_the_report() -> None:
    row = graded().row()
    assert row["p_referable"] == pytest.approx(0.4 + 0.25 + 0.05)
    assert (row["grade"], row["grade_name"]) == (2, "moderate")
    assert (row["count_SE"], row["area_MA"]) == (4, 0.12346)


def test_a_row_without_a_grade_is_empty_where_nothing_is_known() -> None:
    filled = {column for column, value in failed().row().items() if value is not None}
    assert filled == {"path", "status", "message", "weights", "version"}


def test_quality_fault_and_review_reasons_are_in_row_and_json() -> None:
    marked = replace(graded(), quality=0.71234567, review_reasons=("borderline quality 0.71", "uncertain grade"))
    assert marked.row()["quality"] == 0.7123
    assert marked.row()["for_reader"] == "borderline quality 0.71; uncertain grade"
    assert marked.to_json()["for_reader"] == ["borderline quality 0.71", "uncertain grade"]
    refused = replace(failed(), status="ungradable", fault=Fault.NO_FUNDUS).to_json()
    assert (refused["fault"], refused["quality"], json.loads(json.dumps(refused))) == ("no_fundus", None, refused)


def test_review_reasons_are_in_the_header_of_the_summary() -> None:
    plain, marked = (
        draw_summary(replace(graded(), review_reasons=marks)) for marks in ((), ("uncertain grade " * 20,))
    )
    changed = np.argwhere((np.asarray(plain) != np.asarray(marked)).any(axis=2))
    assert len(changed) > 100
    assert changed[:, 0].max() < 128, "only the header changes"


def test_grade_0_is_not_taken_for_no_grade() -> None:
    row = replace(graded(), grade=0).row()
    assert (row["grade"], row["grade_name"]) == (0, "no diabetic retinopathy")


def test_report_json_has_row_scaling_and_geometry(tmp_path: Path) -> None:
    save_report(graded(), tmp_path / "eye")
    written = json.loads((tmp_path / "eye" / "report.json").read_text())
    assert {column: written[column] for column in COLUMNS} == graded().row() | {"for_reader": []}
    assert written["way"] == "x4 from 256 px"
    assert written["geometry"] == {"x": -3, "y": 10, "side": 280, "frame": 1024}
    assert written["disease"] == "diabetic retinopathy"


def test_every_picture_is_written_and_maps_hold_probability_times_255(tmp_path: Path) -> None:
    report = graded()
    save_report(report, tmp_path / "eye")
    assert {file.name for file in (tmp_path / "eye").iterdir()} == {*PICTURE_FILES, "report.json"}
    assert report.pictures is not None
    for code, lesions in zip(("MA", "HE", "EX", "SE"), report.pictures.lesions, strict=True):
        with Image.open(tmp_path / "eye" / f"lesion_{code}.png") as image:
            assert image.mode == "L"
            np.testing.assert_array_equal(np.asarray(image), np.rint(255 * lesions))
    with Image.open(tmp_path / "eye" / "sr.png") as image:
        np.testing.assert_array_equal(np.asarray(image), report.pictures.sr)


def test_a_repeated_run_writes_the_same_bytes(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        save_report(replace(graded(), seconds=float(len(folder))), tmp_path / folder)
    for name in (*PICTURE_FILES, "report.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_pictures_of_an_earlier_run_do_not_stay_beside_an_error(tmp_path: Path) -> None:
    save_report(graded(), tmp_path / "eye")
    (tmp_path / "eye" / "notes.txt").write_text("mine")
    save_report(failed(), tmp_path / "eye")
    assert {file.name for file in (tmp_path / "eye").iterdir()} == {"report.json", "notes.txt"}
    assert json.loads((tmp_path / "eye" / "report.json").read_text())["geometry"] is None


def test_lesion_maps_of_another_label_set_do_not_stay(tmp_path: Path) -> None:
    save_report(graded(), tmp_path / "eye")
    save_report(graded(labels=MACULAR_DEGENERATION), tmp_path / "eye")
    expected = {"sr.png", "lesion_DR.png", "lesion_GA.png", "evidence.png", "summary.png", "report.json"}
    assert {file.name for file in (tmp_path / "eye").iterdir()} == expected


def test_a_write_that_is_cut_off_leaves_the_old_file_and_no_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_atomically(tmp_path / "file", b"old")

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "file", b"new")
    assert [file.name for file in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == b"old"


def test_a_path_stays_on_one_line_and_is_utf8() -> None:
    assert printable_path(Path("a\nb\x1b.jpg")) == "a\\nb\\x1b.jpg"
    assert printable_path(Path("b\udcff.jpg")) == "b\\xff.jpg"
    assert printable_path(Path("œil 眼.jpg")) == "œil 眼.jpg"


@pytest.mark.parametrize("labels", [DIABETIC_RETINOPATHY, MACULAR_DEGENERATION])
def test_the_summary_shows_each_lesion_type_in_its_colour(labels: LabelSet) -> None:
    report = graded(labels=labels)
    assert report.pictures is not None
    assert draw_summary(report).size == PAGE_SIZE
    drawn = draw_lesion_overlay(report.pictures.sr, report.pictures.lesions, labels, LARGE_SIDE).astype(int)
    step = LARGE_SIDE / S
    for n, lesion in enumerate(labels.lesions):
        y, x = round((43 + n) * step), round((33 + 21 * n) * step)
        shift = drawn[y, x] - drawn[y, x].mean()
        expected = np.array(lesion.colour) - np.mean(lesion.colour)
        assert np.corrcoef(shift, expected)[0, 1] > 0.99, lesion.code


@pytest.mark.parametrize(("code", "low", "right"), [("MA", 0, 0), ("HE", 0, 1), ("EX", 1, 0), ("SE", 1, 1)])
def test_each_of_four_lesion_types_has_a_corner_of_the_summary(code: str, low: int, right: int) -> None:
    plain = graded()
    other = replace(plain, counts={**(plain.counts or {}), code: 1234})
    changed = np.argwhere((np.asarray(draw_summary(plain)) != np.asarray(draw_summary(other))).any(axis=2))
    y, x = changed.mean(axis=0)
    assert len(changed) > 20 and np.ptp(changed[:, 0]) < 40
    assert (y > 168 + LARGE_SIDE / 2, x > 48 + LARGE_SIDE / 2) == (low, right)


@pytest.mark.parametrize(("lesions", "grades"), [(1, 2), (2, 3), (3, 10), (5, 11), (12, 25)])
def test_the_summary_takes_any_number_of_lesion_types_and_grades(lesions: int, grades: int) -> None:
    report = replace(graded(labels=labels_of_size(lesions, grades)), grade=1)
    assert draw_summary(report).size == PAGE_SIZE
    named = replace(report, labels=replace(report.labels, disease="another disease"))
    assert draw_summary(report).tobytes() != draw_summary(named).tobytes()


def test_pixels_without_lesion_and_evidence_stay_grey() -> None:
    pictures = graded().pictures
    assert pictures is not None
    lesions = draw_lesion_overlay(pictures.sr, pictures.lesions, DIABETIC_RETINOPATHY, S)
    for drawn in (lesions, draw_evidence_overlay(pictures.sr, pictures.evidence, S)):
        assert (drawn[90:110, 30:100] == drawn[90:110, 30:100, :1]).all()


@pytest.mark.parametrize("name", ["x" * 240 + ".png", "", "眼底\n.png"])
def test_the_summary_takes_any_name(name: str) -> None:
    assert draw_summary(graded(name)).size == PAGE_SIZE


def test_the_summary_takes_any_probabilities_and_scaling() -> None:
    certain = replace(graded(), probabilities=(1.0, 0.0, 0.0, 0.0, 0.0), grade=0, way=InputScale(1024, 1))
    assert draw_summary(certain).tobytes() != draw_summary(graded()).tobytes()


def test_a_photograph_without_a_grade_has_no_summary() -> None:
    with pytest.raises(ValueError, match=r"a\.jpg: found status error without pictures"):
        draw_summary(failed())


def test_the_page_of_a_photograph_without_a_grade_shows_the_reason() -> None:
    page = draw_not_graded(failed())
    assert page.width == PAGE_SIZE[0]
    assert page.tobytes() != draw_not_graded(replace(failed(), message="a.jpg: too dark")).tobytes()
