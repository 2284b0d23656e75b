"""The objects that answer a photograph, written, read back and judged from outside."""

from __future__ import annotations

import io
import subprocess
from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
from pydicom import DataElement, Dataset, dcmread
from pydicom.datadict import dictionary_VR
from pydicom.uid import (
    UID,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    OphthalmicPhotography8BitImageStorage,
    OphthalmicPhotography16BitImageStorage,
    SecondaryCaptureImageStorage,
    VLPhotographicImageStorage,
)

from deepmtdr.dicom.derived_objects import create_encapsulated_pdf, create_overlay, create_sr_image
from deepmtdr.dicom.objects import DicomResult, to_file_bytes
from deepmtdr.dicom.segmentations import create_lesion_segmentation, create_probability_segmentation
from deepmtdr.dicom.structured_report import create_structured_report
from deepmtdr.errors import ClinicError
from deepmtdr.terms import Lesion
from dicom_objects import NAME, make_photograph, make_report, make_result
from external_programs import requires_programs

PAGE = np.zeros((60, 80, 3), np.uint8)


def objects(given: DicomResult) -> dict[str, Dataset]:
    pictures, made = given.report.pictures, {}
    if pictures is not None:
        made["sr"] = create_sr_image(given, pictures.sr)
        made["lesions"] = create_lesion_segmentation(given, made["sr"], pictures)
        made["probabilities"] = create_probability_segmentation(given, made["sr"], pictures)
    made["report"] = create_structured_report(given, made.get("sr"), made.get("lesions"))
    return {**made, "overlay": create_overlay(given, PAGE), "document": create_encapsulated_pdf(given, b"%PDF-1.4\n%")}


def errors(made: Dataset, folder: Path) -> list[str]:
    """What dciodvfy has against an object; that it does not know our own codes is no fault."""
    (folder / "made.dcm").write_bytes(to_file_bytes(made))
    said = subprocess.run(["dciodvfy", folder / "made.dcm"], capture_output=True, text=True, check=False).stderr
    return [line for line in said.splitlines() if line.startswith("Error")]


def as_bytes(made: Dataset) -> io.BytesIO:
    return io.BytesIO(to_file_bytes(made))


BARE = ("ContentDate", "ContentTime", "AcquisitionDateTime", "StudyDate", "StudyTime", "StudyID", "AccessionNumber")
SOURCES = {
    "as a good camera writes it": make_photograph(),
    "of a left eye": make_photograph(ImageLaterality="L"),
    "of an unknown side": make_photograph(ImageLaterality=None),
    "of sixteen bits": make_photograph(sop_class=OphthalmicPhotography16BitImageStorage),
    "a secondary capture": make_photograph(sop_class=SecondaryCaptureImageStorage),
    "a secondary capture without a side": make_photograph(sop_class=SecondaryCaptureImageStorage, ImageLaterality=None),
    "any photograph": make_photograph(sop_class=VLPhotographicImageStorage),
    "without a date, a number, a patient": make_photograph(
        **dict.fromkeys((*BARE, "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "InstanceNumber"))
    ),
    "with nothing said of its making": make_photograph(
        **dict.fromkeys(
            ("AcquisitionDeviceTypeCodeSequence", "PupilDilated", "DetectorType", "LensesCodeSequence", "ImageType")
        )
    ),
    "in Latin 1": make_photograph(SpecificCharacterSet="ISO_IR 100", PatientName="Müller^Jörg"),
    "in Greek": make_photograph(SpecificCharacterSet="ISO_IR 126", PatientName="Διονυσιος^Σ"),
    "lossy before": make_photograph(
        LossyImageCompression="01", LossyImageCompressionRatio="20", LossyImageCompressionMethod="ISO_10918_1"
    ),
}


@requires_programs("dciodvfy")
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("status", ["ok", "ungradable"])
def test_an_outside_validator_finds_no_error(tmp_path: Path, source: str, status: str) -> None:
    made = objects(make_result(SOURCES[source], make_report(status)))
    found = {name: errors(one, tmp_path) for name, one in made.items()}
    assert found == {name: [] for name in made}


@requires_programs("dciodvfy")
def test_the_outside_validator_would_find_one(tmp_path: Path) -> None:
    made = objects(make_result())["sr"]
    del made.ImageLaterality
    assert errors(made, tmp_path)


@requires_programs("dciodvfy")
def test_the_photographs_of_the_tests_are_without_fault_themselves(tmp_path: Path) -> None:
    assert errors(make_photograph(), tmp_path) == []


def test_a_repeat_is_the_same_object_byte_by_byte() -> None:
    once, again = (objects(make_result(make_photograph())) for _ in range(2))
    assert {name: to_file_bytes(made) for name, made in once.items()} == {
        name: to_file_bytes(made) for name, made in again.items()
    }


@pytest.mark.parametrize("other", [{"weights": "w-other"}, {"version": "1.3"}, {"precision": "bf16"}])
def test_another_reading_is_another_object(other: dict[str, str]) -> None:
    once, again = objects(make_result()), objects(make_result(report=make_report(**other)))
    for name in once:
        assert once[name].SOPInstanceUID != again[name].SOPInstanceUID
        assert once[name].SeriesInstanceUID != again[name].SeriesInstanceUID


def test_no_two_objects_share_an_identifier() -> None:
    made = [*objects(make_result()).values(), *objects(make_result(make_photograph("2.25.124"))).values()]
    assert len({one.SOPInstanceUID for one in made}) == len(made)
    assert all(UID(one.SOPInstanceUID).is_valid and one.SOPInstanceUID.startswith("2.25.") for one in made)
    assert len({one.SeriesInstanceUID for one in made}) == len(made) / 2  # one series a kind, for both photographs


def test_both_eyes_of_one_series_are_answered_in_series_of_their_own() -> None:
    right, left = objects(make_result()), objects(make_result(make_photograph("2.25.124", ImageLaterality="L")))
    assert all(right[name].SeriesInstanceUID != left[name].SeriesInstanceUID for name in right)


def test_patient_and_study_are_the_photographs() -> None:
    for made in objects(make_result()).values():
        read = dcmread(as_bytes(made))
        assert str(read.PatientName) == NAME and read.PatientID == "P-17"
        assert (read.StudyInstanceUID, read.AccessionNumber, read.StudyDate) == ("2.25.1", "A17", "20240102")
        assert (read.ContentDate, read.ContentTime) == ("20240102", "101300")


def test_private_and_other_attributes_of_the_photograph_stay_there() -> None:
    source = make_photograph(PatientComments="tell nobody")
    source.private_block(0x0009, "CAMERA", create=True).add_new(1, "LO", "Yamada")
    for made in objects(make_result(source)).values():
        assert "tell nobody" not in str(made) and "CAMERA" not in str(made)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_birth_date_that_is_none_is_left_out_but_a_patients_number_never() -> None:
    source = make_photograph()
    source["PatientBirthDate"]._value = "unknown"
    source["PatientID"]._value = "P" * 70
    made = objects(make_result(source))["overlay"]
    assert (made.PatientBirthDate, made.PatientID) == ("", "P" * 70)


def test_every_object_refers_to_the_photograph_and_to_what_it_lies_on() -> None:
    given = make_result()
    made = objects(given)
    for name in ("sr", "overlay"):
        assert made[name].SourceImageSequence[0].ReferencedSOPInstanceUID == given.source.uid
    assert made["document"].SourceInstanceSequence[0].ReferencedSOPInstanceUID == given.source.uid
    for name in ("lesions", "probabilities"):
        assert made[name].SourceImageSequence[0].ReferencedSOPInstanceUID == made["sr"].SOPInstanceUID
        assert (made[name].Rows, made[name].Columns) == (made["sr"].Rows, made["sr"].Columns)
    said = {
        one.ReferencedSOPInstanceUID
        for study in made["report"].CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for one in series.ReferencedSOPSequence
    }
    assert said == {given.source.uid, made["sr"].SOPInstanceUID, made["lesions"].SOPInstanceUID}


def test_the_super_resolved_image_comes_back_pixel_by_pixel() -> None:
    given = make_result()
    made = dcmread(as_bytes(objects(given)["sr"]))
    assert given.report.pictures is not None
    assert np.array_equal(made.pixel_array, given.report.pictures.sr)
    assert made.SOPClassUID == OphthalmicPhotography8BitImageStorage
    assert (made.ImageLaterality, made.ImageType[0]) == ("R", "DERIVED")
    assert "x 20, y 10, side 280 px" in made.DerivationDescription and "x4 from 16 px" in made.DerivationDescription
    assert made.HorizontalFieldOfView is None  # the square is not what the camera's angle spans


def test_without_a_side_the_image_is_a_capture_for_none_is_guessed() -> None:
    made = objects(make_result(make_photograph(ImageLaterality=None)))
    assert made["sr"].SOPClassUID == SecondaryCaptureImageStorage
    assert "AnatomicRegionModifierSequence" not in made["lesions"].SegmentSequence[0].AnatomicRegionSequence[0]


def test_lesions_come_back_as_they_were_counted() -> None:
    given = make_result()
    made = hd.seg.Segmentation.from_dataset(dcmread(as_bytes(objects(given)["lesions"])))
    pictures = given.report.pictures
    assert pictures is not None
    assert made.SegmentationType == "BINARY"
    assert np.array_equal(made.pixel_array.astype(bool), pictures.lesions >= 0.5)
    codes = [segment.SegmentedPropertyTypeCodeSequence[0].CodeValue for segment in made.SegmentSequence]
    assert codes == [given.codes[f"lesion.{lesion.name}"].value for lesion in Lesion]
    sides = [s.AnatomicRegionSequence[0].AnatomicRegionModifierSequence[0].CodeValue for s in made.SegmentSequence]
    assert sides == ["24028007"] * 4


def test_probabilities_and_evidence_come_back_within_half_a_step() -> None:
    given = make_result()
    made = dcmread(as_bytes(objects(given)["probabilities"]))
    pictures = given.report.pictures
    assert pictures is not None
    assert (made.SegmentationType, made.SegmentationFractionalType) == ("FRACTIONAL", "PROBABILITY")
    maps = np.concatenate([pictures.lesions, pictures.evidence[None]])
    assert np.abs(made.pixel_array / 255 - maps).max() <= 0.5 / 255 + 1e-6


def test_the_report_says_grade_probabilities_lesions_and_who_read_it() -> None:
    given = make_result()
    made = hd.sr.Comprehensive3DSR.from_dataset(dcmread(as_bytes(objects(given)["report"])))
    groups = made.content.get_image_measurement_groups() + made.content.get_planar_roi_measurement_groups()
    eye = groups[0]
    numbers = {m.name.value: m.value for m in eye.get_measurements()}
    assert [numbers[f"p{grade}"] for grade in range(5)] == [0.1, 0.2, 0.4, 0.2, 0.1]
    assert numbers["p_referable"] == pytest.approx(0.7)
    said = {e.name.value: e.value.value for e in eye.get_qualitative_evaluations()}
    assert said == {"gradable": "373066001", "71491-5": "LA18645-4", "4855003": "312904009"}
    by_type = {group.finding_type.value: group for group in groups[1:]}
    haemorrhages = {m.name.value: m.value for m in by_type["28998008"].get_measurements()}
    assert haemorrhages == {"count": 1, "area": 1.12}
    assert by_type["28998008"].referenced_segmentation_frame.referenced_segment_numbers == [2]
    assert "w-0123456789ab" in str(made)
    assert (made.PreliminaryFlag, made.VerificationFlag) == ("PRELIMINARY", "UNVERIFIED")


def test_an_ungradable_photograph_gets_no_grade_and_says_why() -> None:
    made = objects(make_result(report=make_report("ungradable")))
    assert {*made} == {"report", "overlay", "document"}
    text = to_file_bytes(made["report"])
    assert b"too dark: median brightness 3 of 255" in text
    assert b"LA186" not in text and b"71491-5" not in text


def test_the_document_is_of_modality_doc_and_names_its_length() -> None:
    made = dcmread(as_bytes(objects(make_result())["document"]))
    assert (made.Modality, made.MIMETypeOfEncapsulatedDocument, made.EncapsulatedDocumentLength) == (
        *("DOC", "application/pdf"),
        10,
    )
    assert made.EncapsulatedDocument[:10] == b"%PDF-1.4\n%"


def test_the_page_is_drawn_without_the_patient() -> None:
    made = objects(make_result())["overlay"]
    assert (made.BurnedInAnnotation, made.SOPClassUID) == ("NO", SecondaryCaptureImageStorage)


@pytest.mark.parametrize(("syntax", "lossy"), [(JPEGBaseline8Bit, "01"), (JPEG2000Lossless, "00")])
def test_what_was_lossy_once_is_lossy_for_ever(syntax: UID, lossy: str) -> None:
    source = make_photograph()
    source.file_meta.TransferSyntaxUID = syntax
    assert objects(make_result(source))["sr"].LossyImageCompression == lossy
    assert objects(make_result(source))["lesions"].LossyImageCompression == lossy


# Headers as they come


CHARACTER_SETS = {
    "Japanese": (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
    "Korean": (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동"),
    "Chinese": (["", "ISO 2022 IR 58"], "Zhang^XiaoDong=张^小东"),
    "GB18030": ("GB18030", "Wang^XiaoDong=王^小东"),
    "empty": ("", "Doe^Jane"),
}


@pytest.mark.parametrize("name", CHARACTER_SETS)
@pytest.mark.parametrize("status", ["ok", "ungradable"])
def test_names_in_the_standards_character_sets_come_back(name: str, status: str) -> None:
    characters, person = CHARACTER_SETS[name]
    given = make_result(make_photograph(SpecificCharacterSet=characters, PatientName=person), make_report(status))
    for made in objects(given).values():
        assert str(dcmread(as_bytes(made)).PatientName) == person


WRONG: dict[str, dict[str, object]] = {
    "a day that is none": {"StudyDate": "20240230", "ContentDate": "20230230"},
    "a range of days": {"ContentDate": "20240101-20240102"},
    "a second that is none": {"ContentTime": "235960"},
    "a short time": {"ContentTime": "1013"},
    "two names": {"PatientName": ["A^B", "C^D"]},
    "a huge number": {"InstanceNumber": "99999999999999"},
    "a ratio in words": {"LossyImageCompression": "01", "LossyImageCompressionRatio": "abc"},
    "lossy without a method": {"LossyImageCompression": "01"},
    "an orientation of one letter": {"PatientOrientation": "L"},
    "an orientation in words": {"PatientOrientation": ["left", "feet"]},
    "a word that is none": {"PupilDilated": "maybe", "DetectorType": "ccd"},
}


@requires_programs("dciodvfy")
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("fault", WRONG)
def test_a_faulty_header_is_answered_without_its_faults(tmp_path: Path, fault: str) -> None:
    source = make_photograph()
    for keyword, value in WRONG[fault].items():
        source.add_new(keyword, dictionary_VR(keyword), None)
        source[keyword]._value = value
    made = objects(make_result(source))
    assert {name: errors(one, tmp_path) for name, one in made.items()} == {name: [] for name in made}


@pytest.mark.parametrize("value", [["A", "B"], "P\x0017"])
def test_a_patients_number_that_is_none_is_refused(value: object) -> None:
    source = make_photograph()
    source["PatientID"]._value = value
    with pytest.raises(ClinicError, match="found a PatientID that is no single printable text"):
        make_result(source)


def test_values_of_another_kind_than_the_standards_are_left_out() -> None:
    source = make_photograph()
    source["StudyDate"] = DataElement("StudyDate", "US", 5)
    source["LensesCodeSequence"] = DataElement("LensesCodeSequence", "LO", "none")
    made = objects(make_result(source))["sr"]
    assert made.StudyDate == "" and len(made.LensesCodeSequence) == 0


def test_the_same_identifier_for_another_patient_gives_other_identifiers() -> None:
    one, other = make_result(), make_result(make_photograph(PatientID="P-18"))
    assert {made.SOPInstanceUID for made in objects(one).values()}.isdisjoint(
        made.SOPInstanceUID for made in objects(other).values()
    )


def test_the_time_of_the_photograph_is_that_of_its_acquisition() -> None:
    given = make_result(make_photograph(AcquisitionDateTime="20190101", ContentDate="20240601", ContentTime="0800"))
    assert str(given.source.examination.acquired) == "2019-01-01 00:00:00"
    assert (objects(given)["sr"].ContentDate, objects(given)["sr"].ContentTime) == ("20240601", "080000")


def test_text_in_the_photographs_pixels_is_owned_up_to_in_every_picture_of_it() -> None:
    made = objects(make_result(make_photograph(BurnedInAnnotation="YES")))
    assert (made["sr"].BurnedInAnnotation, made["overlay"].BurnedInAnnotation) == ("YES", "YES")
