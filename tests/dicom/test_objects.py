"""The DICOM objects of a result: written, read back, and checked by dciodvfy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import DataElement
from pydicom.datadict import dictionary_VR
from pydicom.uid import (
    UID,
    OphthalmicPhotography16BitImageStorage,
    SecondaryCaptureImageStorage,
    VLPhotographicImageStorage,
)

from deepmtdr.dicom.codes import load_codes
from deepmtdr.dicom.objects import DicomResult, ObjectKind, to_file_bytes
from deepmtdr.dicom.results import create_objects
from deepmtdr.dicom.source import source_from_dataset
from deepmtdr.errors import DicomError
from dicom_objects import NAME, find_dciodvfy_errors, make_objects, make_photograph, make_report, make_result, read_back
from dicom_reports import glaucoma_report
from external_programs import requires_programs

pytestmark = pytest.mark.usefixtures("quick_pages")


BARE = ("ContentDate", "ContentTime", "AcquisitionDateTime", "StudyDate", "StudyTime", "StudyID", "AccessionNumber")
SOURCES = {
    "valid and complete": make_photograph(),
    "left eye": make_photograph(ImageLaterality="L"),
    "unknown side": make_photograph(ImageLaterality=None),
    "16 bits": make_photograph(sop_class=OphthalmicPhotography16BitImageStorage),
    "secondary capture": make_photograph(sop_class=SecondaryCaptureImageStorage),
    "secondary capture, unknown side": make_photograph(sop_class=SecondaryCaptureImageStorage, ImageLaterality=None),
    "VL photograph": make_photograph(sop_class=VLPhotographicImageStorage),
    "without dates, numbers and patient": make_photograph(
        **dict.fromkeys((*BARE, "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "InstanceNumber"))
    ),
    "without acquisition attributes": make_photograph(
        **dict.fromkeys(
            ("AcquisitionDeviceTypeCodeSequence", "PupilDilated", "DetectorType", "LensesCodeSequence", "ImageType")
        )
    ),
    "says nothing about text, loss and synchronisation": make_photograph(
        BurnedInAnnotation=None, LossyImageCompression=None, SynchronizationTrigger=None
    ),
    "Latin 1": make_photograph(SpecificCharacterSet="ISO_IR 100", PatientName="Müller^Jörg"),
    "Greek": make_photograph(SpecificCharacterSet="ISO_IR 126", PatientName="Διονυσιος^Σ"),
    "lossy": make_photograph(
        LossyImageCompression="01", LossyImageCompressionRatio="20", LossyImageCompressionMethod="ISO_10918_1"
    ),
}


@requires_programs("dciodvfy")
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("status", ["ok", "ungradable"])
def test_dciodvfy_finds_no_error(tmp_path: Path, source: str, status: str) -> None:
    made = make_objects(make_result(SOURCES[source], make_report(status)))
    found = {name: find_dciodvfy_errors(one, tmp_path) for name, one in made.items()}
    assert found == {name: [] for name in made}


@requires_programs("dciodvfy")
def test_dciodvfy_finds_a_missing_attribute(tmp_path: Path) -> None:
    made = make_objects(make_result())["sr"]
    del made.ImageLaterality
    assert find_dciodvfy_errors(made, tmp_path)


@requires_programs("dciodvfy")
def test_dciodvfy_finds_no_error_in_the_photographs_of_these_tests(tmp_path: Path) -> None:
    assert find_dciodvfy_errors(make_photograph(), tmp_path) == []


def test_a_repeat_gives_the_same_bytes() -> None:
    once, again = (make_objects(make_result(make_photograph())) for _ in range(2))
    assert {name: to_file_bytes(made) for name, made in once.items()} == {
        name: to_file_bytes(made) for name, made in again.items()
    }


def test_objects_with_other_content_have_other_identifiers() -> None:
    """Another processor may change the last digit of a result; an archive would keep only the first of two objects."""
    report = make_report()
    assert report.pictures is not None and report.probabilities is not None
    first, *others = report.probabilities
    evidence = report.pictures.evidence.copy()
    evidence[8, 8] = 0.5
    changed = {
        "probabilities": replace(report, pictures=report.pictures._replace(evidence=evidence)),
        "report": replace(report, probabilities=(first + 2e-6, *others)),
    }
    once = make_objects(make_result(report=report))
    for kind, other in changed.items():
        again = make_objects(make_result(report=other))
        for name in once:
            same_bytes = to_file_bytes(once[name]) == to_file_bytes(again[name])
            assert (once[name].SOPInstanceUID == again[name].SOPInstanceUID) == same_bytes, name
        assert once[kind].SOPInstanceUID != again[kind].SOPInstanceUID


def test_equal_results_of_another_file_have_other_identifiers() -> None:
    """A corrected photograph may have the same results; those of the wrong photograph were rejected."""
    once, again = (
        make_objects(DicomResult(source_from_dataset(make_photograph(), sha256), make_report(), load_codes()))
        for sha256 in ("a", "b")
    )
    assert all(once[name].SOPInstanceUID != again[name].SOPInstanceUID for name in once)


def test_the_same_series_uid_of_another_patient_gives_another_result_series() -> None:
    once, again = make_objects(make_result()), make_objects(make_result(make_photograph(PatientID="P-18")))
    assert all(once[name].SeriesInstanceUID != again[name].SeriesInstanceUID for name in once)


@pytest.mark.parametrize("other", [{"weights": "w-other"}, {"version": "1.3"}, {"precision": "bf16"}])
def test_other_weights_versions_and_precisions_give_other_identifiers(other: dict[str, str]) -> None:
    once, again = make_objects(make_result()), make_objects(make_result(report=make_report(**other)))
    for name in once:
        assert once[name].SOPInstanceUID != again[name].SOPInstanceUID
        assert once[name].SeriesInstanceUID != again[name].SeriesInstanceUID


def test_no_two_objects_share_an_identifier() -> None:
    made = [*make_objects(make_result()).values(), *make_objects(make_result(make_photograph("2.25.124"))).values()]
    assert len({one.SOPInstanceUID for one in made}) == len(made)
    assert all(UID(one.SOPInstanceUID).is_valid and one.SOPInstanceUID.startswith("2.25.") for one in made)
    assert len({one.SeriesInstanceUID for one in made}) == len(made) / 2  # one series a kind, for both photographs


def test_each_eye_of_a_series_has_its_own_result_series() -> None:
    left_eye = make_photograph("2.25.124", ImageLaterality="L")
    right, left = make_objects(make_result()), make_objects(make_result(left_eye))
    assert all(right[name].SeriesInstanceUID != left[name].SeriesInstanceUID for name in right)


def test_patient_and_study_are_those_of_the_photograph() -> None:
    for made in make_objects(make_result()).values():
        read = read_back(made)
        assert str(read.PatientName) == NAME and read.PatientID == "P-17"
        assert (read.StudyInstanceUID, read.AccessionNumber, read.StudyDate) == ("2.25.1", "A17", "20240102")
        assert (read.ContentDate, read.ContentTime) == ("20240102", "101300")


def test_private_and_other_attributes_of_the_photograph_are_not_copied() -> None:
    source = make_photograph(PatientComments="confidential")
    source.private_block(0x0009, "CAMERA", create=True).add_new(1, "LO", "Yamada")
    for made in make_objects(make_result(source)).values():
        assert "confidential" not in str(made) and "CAMERA" not in str(made)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_an_invalid_birth_date_is_left_out_but_not_a_long_patient_number() -> None:
    source = make_photograph()
    source["PatientBirthDate"]._value = "unknown"
    source["PatientID"]._value = "P" * 70
    made = make_objects(make_result(source))["overlay"]
    assert (made.PatientBirthDate, made.PatientID) == ("", "P" * 70)


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
def test_uids_with_leading_zeros_are_copied_as_archives_do() -> None:
    source, uid = make_photograph(), "1.2.276.0.0076.5.007"
    for keyword in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        source[keyword]._value = UID(uid, validation_mode=0)
    source.file_meta.MediaStorageSOPInstanceUID = source.SOPInstanceUID
    made = {name: read_back(one) for name, one in make_objects(make_result(source)).items()}
    assert {str(one.StudyInstanceUID) for one in made.values()} == {uid}
    assert made["sr"].SourceImageSequence[0].ReferencedSOPInstanceUID == uid
    assert made["document"].SourceInstanceSequence[0].ReferencedSOPInstanceUID == uid


def test_every_object_refers_to_the_photograph_and_to_the_image_that_it_describes() -> None:
    given = make_result()
    made = make_objects(given)
    for name in ("sr", "overlay"):
        assert made[name].SourceImageSequence[0].ReferencedSOPInstanceUID == given.source.uid
    assert made["document"].SourceInstanceSequence[0].ReferencedSOPInstanceUID == given.source.uid
    for name in ("lesions", "probabilities"):
        assert made[name].SourceImageSequence[0].ReferencedSOPInstanceUID == made["sr"].SOPInstanceUID
        assert (made[name].Rows, made[name].Columns) == (made["sr"].Rows, made["sr"].Columns)
    referenced = {
        one.ReferencedSOPInstanceUID
        for study in made["report"].CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for one in series.ReferencedSOPSequence
    }
    assert referenced == {given.source.uid, made["sr"].SOPInstanceUID, made["lesions"].SOPInstanceUID}


# Invalid and unusual headers


CHARACTER_SETS = {
    "Japanese": (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
    "Korean": (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동"),
    "Chinese": (["", "ISO 2022 IR 58"], "Zhang^XiaoDong=张^小东"),
    "GB18030": ("GB18030", "Wang^XiaoDong=王^小东"),
    "empty": ("", "Doe^Jane"),
}


@pytest.mark.parametrize("name", CHARACTER_SETS)
@pytest.mark.parametrize("status", ["ok", "ungradable"])
def test_names_in_every_character_set_are_copied(name: str, status: str) -> None:
    characters, person = CHARACTER_SETS[name]
    given = make_result(make_photograph(SpecificCharacterSet=characters, PatientName=person), make_report(status))
    for made in make_objects(given).values():
        assert str(read_back(made).PatientName) == person


WRONG: dict[str, dict[str, object]] = {
    "date that does not exist": {"StudyDate": "20240230", "ContentDate": "20230230"},
    "range of dates": {"ContentDate": "20240101-20240102"},
    "time that does not exist": {"ContentTime": "235960"},
    "short time": {"ContentTime": "1013"},
    "two names": {"PatientName": ["A^B", "C^D"]},
    "huge number": {"InstanceNumber": "99999999999999"},
    "ratio that is not a number": {"LossyImageCompression": "01", "LossyImageCompressionRatio": "abc"},
    "lossy without method": {"LossyImageCompression": "01"},
    "orientation of one letter": {"PatientOrientation": "L"},
    "orientation in words": {"PatientOrientation": ["left", "feet"]},
    "undefined terms": {"PupilDilated": "maybe", "DetectorType": "ccd"},
}


@requires_programs("dciodvfy")
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("fault", WRONG)
def test_invalid_attributes_are_not_copied(tmp_path: Path, fault: str) -> None:
    source = make_photograph()
    for keyword, value in WRONG[fault].items():
        source.add_new(keyword, dictionary_VR(keyword), None)
        source[keyword]._value = value
    made = make_objects(make_result(source))
    assert {name: find_dciodvfy_errors(one, tmp_path) for name, one in made.items()} == {name: [] for name in made}


@pytest.mark.parametrize("value", [["A", "B"], "P\x0017"])
def test_an_invalid_patient_number_is_refused(value: object) -> None:
    source = make_photograph()
    source["PatientID"]._value = value
    with pytest.raises(DicomError, match="found a PatientID with several values or unprintable characters"):
        make_result(source)


def test_attributes_of_the_wrong_value_representation_are_left_out() -> None:
    source = make_photograph()
    source["StudyDate"] = DataElement("StudyDate", "US", 5)
    source["LensesCodeSequence"] = DataElement("LensesCodeSequence", "LO", "none")
    made = make_objects(make_result(source))["sr"]
    assert made.StudyDate == "" and len(made.LensesCodeSequence) == 0


def test_the_same_photograph_uid_of_another_patient_gives_other_identifiers() -> None:
    one, other = make_result(), make_result(make_photograph(PatientID="P-18"))
    assert {made.SOPInstanceUID for made in make_objects(one).values()}.isdisjoint(
        made.SOPInstanceUID for made in make_objects(other).values()
    )


def test_the_time_of_an_examination_is_that_of_the_acquisition() -> None:
    given = make_result(make_photograph(AcquisitionDateTime="20190101", ContentDate="20240601", ContentTime="0800"))
    assert str(given.source.examination.acquired) == "2019-01-01 00:00:00"
    assert (make_objects(given)["sr"].ContentDate, make_objects(given)["sr"].ContentTime) == ("20240601", "080000")


# Another label set


@requires_programs("dciodvfy")
def test_dciodvfy_finds_no_error_with_another_label_set(tmp_path: Path) -> None:
    made = make_objects(make_result(report=glaucoma_report()))
    assert {name: find_dciodvfy_errors(one, tmp_path) for name, one in made.items()} == {name: [] for name in made}


def test_report_and_codes_of_different_label_sets_are_refused() -> None:
    with pytest.raises(DicomError, match="report of label set 'glaucoma' and codes of 'diabetic-retinopathy'"):
        DicomResult(make_result().source, glaucoma_report(), load_codes())


def test_each_kind_of_object_has_its_series_number_and_file() -> None:
    assert {kind.file_name: kind.series_number for kind in ObjectKind} == {
        "sr.dcm": 9001,
        "lesions.dcm": 9002,
        "probabilities.dcm": 9003,
        "report.dcm": 9004,
        "overlay.dcm": 9005,
        "document.dcm": 9006,
    }
    made = create_objects(make_result())
    assert {kind: one.SeriesNumber for kind, one in made.items()} == {kind: kind.series_number for kind in ObjectKind}


def test_identifiers_of_a_known_photograph_never_change() -> None:
    """An archive keeps a repeated result once only if the identifiers stay the same from version to version."""
    result = make_result()
    assert result.uid(ObjectKind.LESIONS) == "2.25.53815692136581125923271673900217682057"
    assert result.series_uid(ObjectKind.LESIONS) == "2.25.283561077751750087632355493970198054130"
