"""The PDF report: the text of the page, searching in it, and that its bytes are always the same."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pypdf import PdfReader

import deepmtdr.dicom.pdf_report as pdf_report
from deepmtdr.dicom.attributes import format_person_name
from deepmtdr.dicom.pdf_report import draw_pdf_report
from deepmtdr.errors import ClinicError
from deepmtdr.labels import GradeLabel, LabelSet, LesionType
from deepmtdr.rendering.overlays import draw_evidence_overlay, draw_lesion_overlay
from deepmtdr.rendering.pdf_text import TextWriter
from deepmtdr.screening.report import ScreeningReport
from dicom_objects import make_report
from dicom_reports import glaucoma_report, graded_report, make_examination, ungradable_report

PATIENT = "Yamada Tarou · born 1950-01-01 · P-17"


@pytest.fixture(autouse=True)
def small_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pdf_report, "PICTURE_SIDE_PX", 64)


def read(report: ScreeningReport, patient: str = PATIENT, **about: Any) -> str:
    """The text of the page, as a viewer finds it."""
    (page,) = PdfReader(io.BytesIO(draw_pdf_report(report, make_examination(**about), patient))).pages
    assert [round(float(edge)) for edge in page.mediabox] == [0, 0, 595, 842]
    return " ".join(page.extract_text().split())


def test_the_page_has_grade_probabilities_and_lesions() -> None:
    text = read(graded_report())
    assert "Moderate diabetic retinopathy" in text and "Grade 2 on the scale of 0 to 4" in text
    for line in ("0 none 5 %", "1 mild 15 %", "2 moderate 60 %", "3 severe 15 %", "4 proliferative 5 %", "80 %"):
        assert line in text
    assert (
        "Microaneurysms 3 0.02 %" in text and "Haemorrhages 1 1.50 %" in text and "Soft exudates 0 none found" in text
    )


def test_the_page_has_patient_eye_and_photograph() -> None:
    text = read(graded_report())
    for part in (PATIENT, "Right eye", "A-17", "2024-05-01 10:00", "Drawn Camera", "320 x 300 px", "2.25.3"):
        assert part in text
    assert "Eye of unknown side" in read(graded_report(), laterality=None)
    assert "Taken unknown" in read(graded_report(), acquired=None, device="")


def test_the_page_has_the_research_notice_and_the_weights() -> None:
    for report in (graded_report(), ungradable_report()):
        text = read(report)
        assert "Research use: not a medical device" in text
        assert "its content was not checked by a person" in text
        assert "deepmtdr 1.2 · weights w-0123456789ab" in text


def test_the_page_has_the_referral_with_its_operating_point() -> None:
    assert "Called referable: the operating point is 31 %, set to find 90 %" in read(graded_report())
    rare = graded_report(grade=0, probabilities=(0.9, 0.05, 0.03, 0.01, 0.01))
    assert "Called not referable" in read(rare) and "No diabetic retinopathy" in read(rare)
    assert "No operating point: these weights are not calibrated" in read(graded_report(operating_point=None))


def test_the_page_of_an_ungradable_photograph_has_a_reason_and_no_finding() -> None:
    text = read(ungradable_report())
    assert "Not graded" in text and "too dark: median brightness 3 of 255, expected at least 8" in text
    assert "No grade, no probability and no finding is given" in text
    assert "Microaneurysms" not in text and "moderate" not in text and "Referable" not in text


def test_quality_and_review_reasons_are_written_if_the_report_has_them() -> None:
    assert "Quality" not in read(graded_report()) and "A person must check" not in read(graded_report())
    report = graded_report(quality=0.75, review_reasons=("low confidence", "poor quality"))
    assert "Quality of the photograph: 0.75 of 1" in read(report)
    assert "A person must check this photograph: low confidence; poor quality" in read(report)


def test_the_pictures_are_photograph_super_resolved_image_lesions_and_evidence() -> None:
    report = graded_report()
    assert report.pictures is not None
    report = graded_report(pictures=report.pictures._replace(photograph=report.pictures.photograph // 2))
    assert report.pictures is not None
    (page,) = PdfReader(io.BytesIO(draw_pdf_report(report, make_examination(), PATIENT))).pages
    drawn = [np.asarray(one.image, float) for one in page.images]
    photograph, sr, lesions, evidence = report.pictures
    wanted = (
        photograph,
        sr,
        draw_lesion_overlay(sr, lesions, report.labels, 64),
        draw_evidence_overlay(sr, evidence, 64),
    )
    near = [[float(abs(one - picture).mean()) < 4 for picture in drawn] for one in wanted]
    assert sorted(row.index(True) for row in near) == [0, 1, 2, 3] and np.sum(near) == 4
    assert (
        len(PdfReader(io.BytesIO(draw_pdf_report(ungradable_report(), make_examination(), PATIENT))).pages[0].images)
        == 0
    )


def test_the_same_report_gives_the_same_bytes() -> None:
    assert draw_pdf_report(graded_report(), make_examination(), PATIENT) == draw_pdf_report(
        graded_report(), make_examination(), PATIENT
    )
    assert draw_pdf_report(graded_report(), make_examination(), PATIENT) != draw_pdf_report(
        graded_report(), make_examination(), PATIENT + "!"
    )


def test_the_file_name_is_not_on_the_page() -> None:
    for report in (graded_report(), ungradable_report("Müller^Hans 1950.dcm is poor")):
        content = draw_pdf_report(report, make_examination(), "P-17")
        assert "Müller" not in read(report, "P-17") and "1950" not in read(report, "P-17")
        assert b"Hans" not in content and "Hans" not in str(PdfReader(io.BytesIO(content)).metadata)


@pytest.mark.parametrize(
    "name", ["Müller-Lüdenscheidt^José", "Иванов^Иван", "김^철수", "山田^太郎", "ΠΑΠΑΔΟΠΟΥΛΟΣ^ΓΙΩΡΓΟΣ"]
)
def test_a_name_in_another_script_can_be_searched(name: str) -> None:
    words = name.replace("^", " ")
    assert words in read(graded_report(), format_person_name(name)).replace("\N{NO-BREAK SPACE}", " ")


@pytest.mark.parametrize(
    "name", ["كريم", "สมชาย", "\x1b$B\ud800", "a\nb\tc\N{RIGHT-TO-LEFT OVERRIDE}d", "", "X" * 5000]
)
def test_letters_that_no_font_has_are_reported_on_the_page(name: str) -> None:
    text = read(graded_report(), name + " · P-17")
    assert "Moderate diabetic retinopathy" in text
    assert ("letters that this font lacks are shown as ?" in text) is any("\u0600" < c < "\u1000" for c in name)


def test_a_site_can_add_fonts_and_an_invalid_one_is_an_error(tmp_path: Path) -> None:
    import reportlab

    own = Path(reportlab.__file__).parent / "fonts" / "hb-test.ttf"
    letter = next(
        chr(code) for code in TextWriter([own]).fonts[1].face.charToGlyph if TextWriter().has_missing_glyphs(chr(code))
    )
    assert not TextWriter([own]).has_missing_glyphs(letter)
    content = draw_pdf_report(graded_report(), make_examination(), letter, [own])
    assert letter in PdfReader(io.BytesIO(content)).pages[0].extract_text()
    (tmp_path / "no.ttf").write_text("no font")
    with pytest.raises(ClinicError, match=r"no\.ttf: found no TrueType font"):
        draw_pdf_report(graded_report(), make_examination(), "x", [tmp_path / "no.ttf"])


def test_a_report_without_results_is_refused() -> None:
    with pytest.raises(ClinicError, match="status error, expected ok or ungradable"):
        draw_pdf_report(make_report("error"), make_examination(), PATIENT)
    with pytest.raises(ValueError, match="status ok without pictures"):
        draw_pdf_report(graded_report(pictures=None), make_examination(), PATIENT)


def test_the_page_follows_the_label_set() -> None:
    text = read(glaucoma_report())
    assert "Manifest glaucoma" in text and "Grade 2 on the scale of 0 to 2" in text
    for line in ("0 none 10 %", "1 suspected 20 %", "2 manifest 70 %", "Referable: grade 1 or worse 90 %"):
        assert line in text
    assert "Disc haemorrhages 1 0.28 %" in text and "RNFL defects 1 1.12 %" in text
    assert "only for glaucoma" in text and "etinopathy" not in text


def test_many_grades_and_lesion_types_fit_on_the_page() -> None:
    lesions = tuple(LesionType(code=f"L{n}", name=f"lesions of type {n} with a rather long name") for n in range(12))
    grades = tuple(GradeLabel(name=f"grade number {n} with a rather long name") for n in range(12))
    labels = LabelSet(name="many", disease="a disease", lesions=lesions, grades=grades)
    report = replace(make_report(labels=labels), probabilities=(1 / 12,) * 12)
    content = draw_pdf_report(report, make_examination(), PATIENT)
    heights: dict[str, float] = {}

    def visit(text: str, _: object, place: list[float], *__: object) -> None:
        heights.setdefault(text.strip(), place[5])

    PdfReader(io.BytesIO(content)).pages[0].extract_text(visitor_text=visit)
    found = {name[:20]: y for name, y in heights.items()}
    assert found["Lesions of type 11 w"] > found["Research use: not a "] + 10
    assert found["11  grade number 11 "] > found["Referable: grade 2 o"] > found["Lesions of type 0 wi"]


def test_long_texts_stay_on_the_page() -> None:
    assert "Research use" in read(ungradable_report("x " * 3000), device="Camera " * 200)
