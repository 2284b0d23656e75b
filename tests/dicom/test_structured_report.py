"""The structured report, read back."""

from __future__ import annotations

import highdicom as hd
import pytest

from deepmtdr.dicom.objects import to_file_bytes
from dicom_objects import make_objects, make_report, make_result, read_back
from dicom_reports import glaucoma_report

pytestmark = pytest.mark.usefixtures("quick_pages")


def test_the_report_has_grade_probabilities_lesions_and_weights() -> None:
    given = make_result()
    made = hd.sr.Comprehensive3DSR.from_dataset(read_back(make_objects(given)["report"]))
    groups = made.content.get_image_measurement_groups() + made.content.get_planar_roi_measurement_groups()
    eye = groups[0]
    numbers = {m.name.value: m.value for m in eye.get_measurements()}
    assert [numbers[f"p{grade}"] for grade in range(5)] == [0.1, 0.2, 0.4, 0.2, 0.1]
    assert numbers["p_referable"] == pytest.approx(0.7)
    answers = {e.name.value: e.value.value for e in eye.get_qualitative_evaluations()}
    assert answers == {"gradable": "373066001", "71491-5": "LA18645-4", "4855003": "312904009"}
    by_type = {group.finding_type.value: group for group in groups[1:]}
    haemorrhages = {m.name.value: m.value for m in by_type["28998008"].get_measurements()}
    assert haemorrhages == {"count": 1, "area": 1.12}
    assert by_type["28998008"].referenced_segmentation_frame.referenced_segment_numbers == [2]
    assert "w-0123456789ab" in str(made)
    assert (made.PreliminaryFlag, made.VerificationFlag) == ("PRELIMINARY", "UNVERIFIED")


def test_the_report_of_an_ungradable_photograph_has_a_reason_and_no_grade() -> None:
    made = make_objects(make_result(report=make_report("ungradable")))
    assert {*made} == {"report", "overlay", "document"}
    text = to_file_bytes(made["report"])
    assert b"too dark: median brightness 3 of 255" in text
    assert b"LA186" not in text and b"71491-5" not in text


def test_the_structured_report_follows_the_label_set() -> None:
    report = make_objects(make_result(report=glaucoma_report()))["report"]
    content = hd.sr.Comprehensive3DSR.from_dataset(report).content
    eye = content.get_image_measurement_groups()[0]
    assert eye.finding_type.meaning == "Glaucoma"
    measured = {one.name.meaning: one.value for one in eye.get_measurements()}
    assert measured["Probability of grade 1: suspected"] == 0.2 and len(measured) == 4
    answers = {one.name.meaning: one.value.meaning for one in eye.get_qualitative_evaluations()}
    assert answers["Right eye: severity of glaucoma"] == "Manifest" and answers["Glaucoma"] == "Glaucoma"
    regions = content.get_planar_roi_measurement_groups()
    assert [one.finding_type.meaning for one in regions] == ["Disc haemorrhages", "A defect"]
    assert [one.referenced_segmentation_frame.referenced_segment_numbers for one in regions] == [[1], [2]]
