"""Which objects are answered: of what class, with which identifiers, of which eye."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom import Dataset, Sequence
from pydicom.uid import CTImageStorage, SecondaryCaptureImageStorage

from deepmtdr.dicom.source import read_source
from deepmtdr.errors import ClinicError
from dicom_objects import make_code_item, make_photograph, save_dicom


def region(code: str) -> list[Dataset]:
    made = make_code_item("5665001", "SCT", "Retina")
    made.AnatomicRegionModifierSequence = Sequence([make_code_item(code, "SCT", "a side")])
    return [made]


def test_the_side_is_read_wherever_it_stands(tmp_path: Path) -> None:
    def side(**tags: object) -> str | None:
        return read_source(save_dicom(tmp_path / "a.dcm", make_photograph(**tags))).laterality

    assert side() == "R"
    assert side(ImageLaterality=None, Laterality="L") == "L"
    assert side(ImageLaterality=None, AnatomicRegionSequence=region("7771000")) == "L"
    assert side(ImageLaterality="B") is None
    assert side(ImageLaterality=None) is None


@pytest.mark.parametrize("tags", [{"Laterality": "L"}, {"AnatomicRegionSequence": region("7771000")}])
def test_an_eye_that_is_both_left_and_right_is_refused(tmp_path: Path, tags: dict[str, object]) -> None:
    with pytest.raises(ClinicError, match=r"a\.dcm: found eyes L, R in the header, expected one"):
        read_source(save_dicom(tmp_path / "a.dcm", make_photograph(**tags)))


def test_a_secondary_capture_is_a_photograph_too(tmp_path: Path) -> None:
    made = make_photograph(sop_class=SecondaryCaptureImageStorage)
    assert read_source(save_dicom(tmp_path / "a.dcm", made)).dataset.SOPClassUID == SecondaryCaptureImageStorage


def test_another_class_is_refused_by_name(tmp_path: Path) -> None:
    path = save_dicom(tmp_path / "a.dcm", make_photograph(sop_class=CTImageStorage))
    with pytest.raises(ClinicError, match="found CT Image Storage, expected one of Ophthalmic Photography 8 Bit"):
        read_source(path)


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID"])
def test_without_an_identifier_there_is_no_answer(tmp_path: Path, keyword: str) -> None:
    with pytest.raises(ClinicError, match=f"found no {keyword}, expected an identifier"):
        read_source(save_dicom(tmp_path / "a.dcm", make_photograph(**{keyword: None})))


def test_an_identifier_that_is_none_is_refused(tmp_path: Path) -> None:
    made = make_photograph()
    made["StudyInstanceUID"]._value = "P-17/left"
    path = save_dicom(tmp_path / "a.dcm", made)
    with pytest.raises(ClinicError, match="found no valid StudyInstanceUID") as caught:
        read_source(path)
    assert "P-17" not in str(caught.value)


def test_a_header_and_a_data_set_that_differ_are_refused(tmp_path: Path) -> None:
    made = make_photograph()
    path = save_dicom(tmp_path / "a.dcm", made)
    content = path.read_bytes().replace(b"2.25.123", b"2.25.124", 1)
    path.write_bytes(content)
    with pytest.raises(ClinicError, match="name different SOPInstanceUIDs"):
        read_source(path)


def test_what_is_no_dicom_file_is_said_without_its_content(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(b"Yamada" * 100)
    with pytest.raises(ClinicError, match=r"a\.dcm: no readable DICOM header \(InvalidDicomError\)") as caught:
        read_source(tmp_path / "a.dcm")
    assert "Yamada" not in str(caught.value)
