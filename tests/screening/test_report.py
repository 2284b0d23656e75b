from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deepmtdr.files import printable_path, write_atomically
from deepmtdr.photographs.geometry import FieldOfView, InputScale
from deepmtdr.rendering.overlays import LESION_COLOURS, draw_evidence_overlay, draw_lesion_overlay
from deepmtdr.screening.quality_model import Fault
from deepmtdr.screening.report import RESULT_COLUMNS, Pictures, ScreeningReport
from deepmtdr.screening.report_files import PICTURE_FILES, save_report
from deepmtdr.screening.summary_image import LARGE_SIDE, PAGE_SIZE, draw_summary
from deepmtdr.terms import Grade, Lesion
from fundus import draw_fundus

S = 128


def graded(name: str = "eye.png") -> ScreeningReport:
    photograph = draw_fundus(S, S, (S / 2, S / 2), S / 2)
    lesions = np.zeros((4, S, S), np.float32)
    for lesion in Lesion:
        lesions[lesion, 40 : 46 + 2 * lesion, 30 + 20 * lesion : 36 + 22 * lesion] = 0.8
    evidence = np.zeros((S, S), np.float32)
    evidence[40:50, 30:60] = 1.0
    return ScreeningReport(
        path=Path("folder", name),
        status="ok",
        sha256="ab" * 32,
        grade=Grade.MODERATE,
        probabilities=(0.1, 0.2, 0.4, 0.25, 0.05),
        counts={Lesion.MA: 1, Lesion.HE: 2, Lesion.EX: 3, Lesion.SE: 4},
        areas={Lesion.MA: 0.1234567, Lesion.HE: 0.2, Lesion.EX: 0.3, Lesion.SE: 0.0},
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


def test_columns_are_those_that_were_promised() -> None:
    promised = (
        "path, sha256, status, message, grade, grade_name, p0, p1, p2, p3, p4, p_referable, "
        "count_MA, count_HE, count_EX, count_SE, area_MA, area_HE, area_EX, area_SE, quality, fault, for_reader, "
        "width, height, weights, version"
    )
    assert ", ".join(RESULT_COLUMNS) == promised
    assert tuple(graded().row()) == RESULT_COLUMNS


def test_the_row_says_what_the_report_says() -> None:
    row = graded().row()
    assert row["p_referable"] == pytest.approx(0.4 + 0.25 + 0.05)
    assert (row["grade"], row["grade_name"]) == (2, "moderate")
    assert (row["count_SE"], row["area_MA"]) == (4, 0.12346)


def test_a_row_without_a_grade_is_empty_where_nothing_is_known() -> None:
    said = {column for column, value in failed().row().items() if value is not None}
    assert said == {"path", "status", "message", "weights", "version"}


def test_quality_fault_and_marks_are_written_for_people_and_machines() -> None:
    marked = replace(graded(), quality=0.71234567, review_reasons=("borderline quality 0.71", "uncertain grade"))
    assert marked.row()["quality"] == 0.7123
    assert marked.row()["for_reader"] == "borderline quality 0.71; uncertain grade"
    assert marked.to_json()["for_reader"] == ["borderline quality 0.71", "uncertain grade"]
    refused = replace(failed(), status="ungradable", fault=Fault.NO_FUNDUS).to_json()
    assert (refused["fault"], refused["quality"], json.loads(json.dumps(refused))) == ("no_fundus", None, refused)


def test_a_mark_for_a_reader_is_seen_on_the_summary() -> None:
    plain, marked = (
        draw_summary(replace(graded(), review_reasons=marks)) for marks in ((), ("uncertain grade " * 20,))
    )
    changed = np.argwhere((np.asarray(plain) != np.asarray(marked)).any(axis=2))
    assert len(changed) > 100
    assert changed[:, 0].max() < 128, "only the header changes"


def test_a_grade_without_retinopathy_is_not_taken_for_no_grade() -> None:
    row = replace(graded(), grade=Grade.NEGATIVE).row()
    assert (row["grade"], row["grade_name"]) == (0, "no diabetic retinopathy")


def test_report_json_has_row_way_and_geometry(tmp_path: Path) -> None:
    save_report(graded(), tmp_path / "eye")
    written = json.loads((tmp_path / "eye" / "report.json").read_text())
    assert {column: written[column] for column in RESULT_COLUMNS} == graded().row() | {"for_reader": []}
    assert written["way"] == "x4 from 256 px"
    assert written["geometry"] == {"x": -3, "y": 10, "side": 280, "frame": 1024}


def test_every_picture_is_written_and_maps_hold_probability_times_255(tmp_path: Path) -> None:
    report = graded()
    save_report(report, tmp_path / "eye")
    assert {file.name for file in (tmp_path / "eye").iterdir()} == {*PICTURE_FILES, "report.json"}
    assert report.pictures is not None
    for lesion in Lesion:
        with Image.open(tmp_path / "eye" / f"lesion_{lesion.name}.png") as image:
            assert image.mode == "L"
            np.testing.assert_array_equal(np.asarray(image), np.rint(255 * report.pictures.lesions[lesion]))
    with Image.open(tmp_path / "eye" / "sr.png") as image:
        np.testing.assert_array_equal(np.asarray(image), report.pictures.sr)


def test_writing_again_writes_the_same_bytes(tmp_path: Path) -> None:
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


def test_the_summary_is_a_page_with_each_lesion_in_its_colour() -> None:
    report = graded()
    assert report.pictures is not None
    assert draw_summary(report).size == PAGE_SIZE
    drawn = draw_lesion_overlay(report.pictures.sr, report.pictures.lesions, LARGE_SIDE).astype(int)
    step = LARGE_SIDE / S
    for lesion, colour in LESION_COLOURS.items():
        y, x = round((43 + lesion) * step), round((33 + 21 * lesion) * step)
        shift = drawn[y, x] - drawn[y, x].mean()
        expected = np.array(colour) - np.mean(colour)
        assert np.corrcoef(shift, expected)[0, 1] > 0.99, lesion.name


def test_what_is_no_lesion_and_no_evidence_stays_grey() -> None:
    pictures = graded().pictures
    assert pictures is not None
    lesions = draw_lesion_overlay(pictures.sr, pictures.lesions, S)
    for drawn in (lesions, draw_evidence_overlay(pictures.sr, pictures.evidence, S)):
        assert (drawn[90:110, 30:100] == drawn[90:110, 30:100, :1]).all()


@pytest.mark.parametrize("name", ["x" * 240 + ".png", "", "眼底\n.png"])
def test_the_summary_takes_any_name(name: str) -> None:
    assert draw_summary(graded(name)).size == PAGE_SIZE


def test_the_summary_takes_any_probabilities_and_way() -> None:
    certain = replace(graded(), probabilities=(1.0, 0.0, 0.0, 0.0, 0.0), grade=Grade.NEGATIVE, way=InputScale(1024, 1))
    assert draw_summary(certain).tobytes() != draw_summary(graded()).tobytes()


def test_a_photograph_without_a_grade_has_no_summary() -> None:
    with pytest.raises(ValueError, match=r"a\.jpg: status error without pictures"):
        draw_summary(failed())
