"""Which files of one SOP Instance UID are the same photograph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom.uid import ImplicitVRLittleEndian, JPEG2000Lossless, RLELossless

from deepmtdr.dicom.identity import find_differences, identity_from_text, read_identity
from deepmtdr.errors import DicomError
from dicom_objects import make_photograph, save_dicom
from fundus import draw_fundus


def test_the_same_pixels_in_another_transfer_syntax_are_the_same_photograph(tmp_path: Path) -> None:
    known = read_identity(save_dicom(tmp_path / "a.dcm", make_photograph()))
    compressed = make_photograph()
    compressed.compress(RLELossless, generate_instance_uid=False)
    assert find_differences(known, save_dicom(tmp_path / "rle.dcm", compressed)) == ()
    compressed = make_photograph()
    compressed.compress(JPEG2000Lossless, generate_instance_uid=False)
    assert find_differences(known, save_dicom(tmp_path / "j2k.dcm", compressed)) == ()
    other = make_photograph()
    other.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    assert find_differences(known, save_dicom(tmp_path / "implicit.dcm", other)) == ()


@pytest.mark.parametrize(
    ("tags", "different"),
    [
        ({"PatientID": "P-18"}, ("patient",)),
        ({"PatientName": "Other^Name"}, ("patient",)),
        ({"IssuerOfPatientID": "Haus 2", "StudyInstanceUID": "2.25.7"}, ("patient", "study")),
        ({"ImageLaterality": "L"}, ("eye",)),
        ({"AccessionNumber": "A18"}, ("study",)),
        ({"pixels": draw_fundus(300, 320, (160, 150), 139)}, ("pixels",)),
        ({"pixels": np.zeros((320, 300, 3), np.uint8)}, ("pixels",)),
        ({"StudyDescription": "added by an archive", "SpecificCharacterSet": ["", "ISO 2022 IR 87"]}, ()),
        ({"PatientName": "Yamada^Tarou^^=山田^太郎=やまだ^たろう^"}, ()),
    ],
)
def test_each_difference_is_named(tmp_path: Path, tags: dict[str, object], different: tuple[str, ...]) -> None:
    known = read_identity(save_dicom(tmp_path / "a.dcm", make_photograph()))
    assert find_differences(known, save_dicom(tmp_path / "b.dcm", make_photograph(**tags))) == different


def test_an_identity_can_be_stored() -> None:
    known = read_identity(Path(__file__).parents[2] / "examples" / "dicom" / "drawing_2.dcm")
    assert identity_from_text(known.to_text()) == known


def test_damaged_pixels_have_no_identity(tmp_path: Path) -> None:
    path = save_dicom(tmp_path / "a.dcm", make_photograph())
    path.write_bytes(path.read_bytes()[:9000])
    with pytest.raises(DicomError, match="cannot be decoded"):
        read_identity(path)
