"""Segmentations: lesions, probabilities and evidence, read back."""

from __future__ import annotations

import highdicom as hd
import numpy as np
import pytest

from deepmtdr.dicom.codes import load_codes
from dicom_objects import make_objects, make_result, read_back
from dicom_reports import GLAUCOMA_LABELS, glaucoma_report

pytestmark = pytest.mark.usefixtures("quick_pages")


def test_the_lesion_segmentation_has_the_counted_lesions() -> None:
    given = make_result()
    made = hd.seg.Segmentation.from_dataset(read_back(make_objects(given)["lesions"]))
    pictures = given.report.pictures
    assert pictures is not None
    assert made.SegmentationType == "BINARY"
    assert np.array_equal(made.pixel_array.astype(bool), pictures.lesions >= 0.5)
    codes = [segment.SegmentedPropertyTypeCodeSequence[0].CodeValue for segment in made.SegmentSequence]
    assert codes == ["25412000", "28998008", "EX", "SE"]
    sides = [s.AnatomicRegionSequence[0].AnatomicRegionModifierSequence[0].CodeValue for s in made.SegmentSequence]
    assert sides == ["24028007"] * 4


def test_probabilities_and_evidence_are_stored_within_half_a_step() -> None:
    given = make_result()
    made = read_back(make_objects(given)["probabilities"])
    pictures = given.report.pictures
    assert pictures is not None
    assert (made.SegmentationType, made.SegmentationFractionalType) == ("FRACTIONAL", "PROBABILITY")
    maps = np.concatenate([pictures.lesions, pictures.evidence[None]])
    assert np.abs(made.pixel_array / 255 - maps).max() <= 0.5 / 255 + 1e-6


def test_segments_follow_the_label_set() -> None:
    made = make_objects(make_result(report=glaucoma_report()))
    lesions = made["lesions"]
    assert [(segment.SegmentNumber, segment.SegmentLabel) for segment in lesions.SegmentSequence] == [
        (1, "Disc haemorrhages"),
        (2, "RNFL defects"),
    ]
    assert lesions.ContentDescription == "deepmtdr: lesions of DH, report"
    assert lesions.pixel_array.shape == (2, 64, 64)
    codes = [segment.SegmentedPropertyTypeCodeSequence[0].CodeValue for segment in lesions.SegmentSequence]
    assert codes == [load_codes(labels=GLAUCOMA_LABELS)["lesion.DH"].value, "RNFL"]
    assert [segment.SegmentLabel for segment in made["probabilities"].SegmentSequence] == [
        "Disc haemorrhages, probability",
        "RNFL defects, probability",
        "Evidence",
    ]
