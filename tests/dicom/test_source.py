"""Reading the header: SOP class, identifiers, side of the eye."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom import Dataset, Sequence
from pydicom.uid import CTImageStorage, SecondaryCaptureImageStorage

from deepmtdr.dicom.attributes import format_person_name
from deepmtdr.dicom.source import read_source
from deepmtdr.errors import DicomError
from dicom_objects import NAME, make_code_item, make_photograph, save_dicom


def region(code: str) -> list[Dataset]:
    made = make_code_item("5665001", "SCT", "Retina")
    made.AnatomicRegionModifierSequence = Sequence([make_code_item(code, "SCT", "side of the eye")])
    return [made]


def test_the_side_is_found_in_each_attribute_that_may_have_it(tmp_path: Path) -> None:
    def side(**tags: object) -> str | None:
        return read_source(save_dicom(tmp_path / "a.dcm", make_photograph(**tags))).laterality

    assert side() == "R"
    assert side(ImageLaterality=None, Laterality="L") == "L"
    assert side(ImageLaterality=None, AnatomicRegionSequence=region("7771000")) == "L"
    assert side(ImageLaterality="B") is None
    assert side(ImageLaterality=None) is None


@pytest.mark.parametrize("tags", [{"Laterality": "L"}, {"AnatomicRegionSequence": region("7771000")}])
def test_a_header_with_both_sides_is_refused(tmp_path: Path, tags: dict[str, object]) -> None:
    with pytest.raises(DicomError, match=r"a\.dcm: found the sides L, R in the header, expected one"):
        read_source(save_dicom(tmp_path / "a.dcm", make_photograph(**tags)))


def test_a_secondary_capture_is_accepted(tmp_path: Path) -> None:
    made = make_photograph(sop_class=SecondaryCaptureImageStorage)
    assert read_source(save_dicom(tmp_path / "a.dcm", made)).dataset.SOPClassUID == SecondaryCaptureImageStorage


def test_the_error_for_another_sop_class_names_it(tmp_path: Path) -> None:
    path = save_dicom(tmp_path / "a.dcm", make_photograph(sop_class=CTImageStorage))
    with pytest.raises(DicomError, match="found CT Image Storage, expected one of Ophthalmic Photography 8 Bit"):
        read_source(path)


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID"])
def test_a_header_without_a_uid_is_refused(tmp_path: Path, keyword: str) -> None:
    with pytest.raises(DicomError, match=f"found no {keyword}, expected a UID"):
        read_source(save_dicom(tmp_path / "a.dcm", make_photograph(**{keyword: None})))


def test_an_invalid_uid_is_refused_without_quoting_it(tmp_path: Path) -> None:
    made = make_photograph()
    made["StudyInstanceUID"]._value = "P-17/left"
    path = save_dicom(tmp_path / "a.dcm", made)
    with pytest.raises(DicomError, match="found an invalid StudyInstanceUID") as caught:
        read_source(path)
    assert "P-17" not in str(caught.value)


@pytest.mark.parametrize("keyword", ["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"])
def test_a_uid_that_is_declared_as_text_is_refused(tmp_path: Path, keyword: str) -> None:
    made = make_photograph()
    made[keyword].VR = "LO"
    with pytest.raises(DicomError, match=f"found an invalid {keyword}"):
        read_source(save_dicom(tmp_path / "a.dcm", made))


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
@pytest.mark.parametrize("keyword", ["SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"])
def test_a_uid_with_leading_zeros_is_taken_unchanged(tmp_path: Path, keyword: str) -> None:
    made = make_photograph(SynchronizationFrameOfReferenceUID="2.25.9")
    for element in (made[keyword], made["SynchronizationFrameOfReferenceUID"]):
        element._value = "1.2.276.0.0076.5.007"
    made.file_meta.MediaStorageSOPInstanceUID._value = made.SOPInstanceUID
    source = read_source(save_dicom(tmp_path / "a.dcm", made))
    assert source.dataset[keyword].value == "1.2.276.0.0076.5.007"
    assert source.dataset.SynchronizationFrameOfReferenceUID == "1.2.276.0.0076.5.007"


def test_a_uid_of_more_than_64_characters_is_refused(tmp_path: Path) -> None:
    made = make_photograph()
    made["StudyInstanceUID"]._value = "1." + 63 * "2"
    with pytest.raises(DicomError, match="found an invalid StudyInstanceUID"):
        read_source(save_dicom(tmp_path / "a.dcm", made))


def test_different_uids_in_file_header_and_data_set_are_refused(tmp_path: Path) -> None:
    made = make_photograph()
    path = save_dicom(tmp_path / "a.dcm", made)
    content = path.read_bytes().replace(b"2.25.123", b"2.25.124", 1)
    path.write_bytes(content)
    with pytest.raises(DicomError, match="found different SOPInstanceUIDs in the file header"):
        read_source(path)


@pytest.mark.parametrize(
    "element", [b"\x02\0\x03\0UI\x08\x002.25.124", b"\x02\0\x10\0UI\x16\x001.2.840.10008.1.2.1.99"]
)
def test_elements_of_the_file_header_in_the_data_set_are_refused(tmp_path: Path, element: bytes) -> None:
    path = save_dicom(tmp_path / "a.dcm", make_photograph())
    content = path.read_bytes()
    end = 144 + int.from_bytes(content[140:144], "little")
    path.write_bytes(content[:end] + element + content[end:])
    with pytest.raises(DicomError, match=r"a\.dcm: found elements of group 0002 twice or out of order"):
        read_source(path)


def test_the_error_for_another_file_does_not_quote_its_content(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(b"Yamada" * 100)
    with pytest.raises(DicomError, match=r"a\.dcm: found no readable DICOM header \(InvalidDicomError\)") as caught:
        read_source(tmp_path / "a.dcm")
    assert "Yamada" not in str(caught.value)


def test_a_person_name_is_formatted_for_people() -> None:
    assert format_person_name(NAME) == "Yamada Tarou (山田 太郎)"
    assert format_person_name("=山田^太郎=やまだ") == "山田 太郎"
    assert format_person_name("Adams^John Robert^^Rev.^B.A.") == "Adams John Robert Rev. B.A."
    assert format_person_name("") == format_person_name("^^=^") == ""
