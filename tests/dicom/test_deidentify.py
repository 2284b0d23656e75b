"""De-identification: what is removed, what is kept, and which objects still belong together."""

from __future__ import annotations

import io
import re
import stat
import subprocess
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.dataset import FileDataset
from pydicom.tag import Tag
from pydicom.uid import UID, ImplicitVRLittleEndian

from deepmtdr.dicom.deidentify import DUMMY_VALUES, EDITION, action_of, deidentify, load_or_create_key
from deepmtdr.dicom.derived_objects import create_encapsulated_pdf, create_sr_image
from deepmtdr.dicom.objects import to_file_bytes
from deepmtdr.dicom.structured_report import create_structured_report
from deepmtdr.errors import DicomError
from dicom_objects import make_code_item, make_photograph, make_result, save_dicom
from external_programs import requires_programs
from fundus import draw_fundus

KEY = b"a key of thirty-two bytes, secret"
SECRETS = (
    "Yamada",
    "山田",
    "やまだ",
    "P-17",
    "1950",
    "A17",
    "S1 ",
    "20240102",
    "101112",
    "Dr^House",
    "Geheim",
    "Ward 7",
)


def read_back(content: bytes) -> FileDataset:
    return dcmread(io.BytesIO(content))


def identified_photograph() -> FileDataset:
    """A photograph with patient data in every kind of attribute and at every depth."""
    made = make_photograph(ReferringPhysicianName="Dr^House", StudyDescription="Geheim", InstitutionName="Ward 7")
    made.file_meta.SourceApplicationEntityTitle = "Geheim"
    made.preamble = b"Geheim".ljust(128, b"\0")
    made.private_block(0x0011, "Geheim", create=True).add_new(1, "LO", "Yamada")
    made.add_new(0x60003000, "OW", b"Geheim")
    made.add_new(0x60000010, "US", 1)
    made.add_new(0x50003000, "OW", b"Geheim")
    made.add_new(0x00100000, "UL", 4)
    source = make_code_item("121322", "DCM", "Source image")
    source.ReferencedSOPClassUID, source.ReferencedSOPInstanceUID = made.SOPClassUID, UID("2.25.77")
    source.PatientName, source.StudyDate, source.ReferencedSeriesSequence = "Yamada^Tarou", "20240102", [Dataset()]
    source.ReferencedSeriesSequence[0].SeriesInstanceUID = made.SeriesInstanceUID
    source.ReferencedSeriesSequence[0].PatientID = "P-17"
    made.SourceImageSequence = [source]
    return made


def test_no_patient_data_is_left_at_any_depth() -> None:
    before, after = to_file_bytes(identified_photograph()), to_file_bytes(deidentify(identified_photograph(), KEY))
    assert all(secret.strip().encode() in before for secret in SECRETS)
    assert [secret for secret in SECRETS if secret.encode() in after] == []


def test_the_given_object_is_not_changed() -> None:
    made = identified_photograph()
    before = to_file_bytes(made)
    deidentify(made, KEY)
    assert to_file_bytes(made) == before


def test_private_tags_curves_overlays_and_group_lengths_are_removed() -> None:
    assert any(element.tag.is_private for element in identified_photograph())
    for element in deidentify(identified_photograph(), KEY).iterall():
        assert element.tag.group % 2 == 0 and element.tag.group >> 8 not in (0x50, 0x60) and element.tag.element


def test_the_method_is_recorded() -> None:
    clean = read_back(to_file_bytes(deidentify(identified_photograph(), KEY)))
    assert clean.PatientIdentityRemoved == "YES"
    assert EDITION in clean.DeidentificationMethod[0]
    (method,) = clean.DeidentificationMethodCodeSequence
    assert (method.CodeValue, method.CodingSchemeDesignator) == ("113100", "DCM")
    assert clean.LongitudinalTemporalInformationModified == "REMOVED"


def test_dates_become_empty_or_a_dummy_where_they_must_not_be_empty() -> None:
    clean = deidentify(identified_photograph(), KEY)
    assert clean.StudyDate is None and clean.StudyTime is None and clean.PatientBirthDate is None
    assert clean.ContentDate == "19000101" and clean.ContentTime == "000000"
    assert clean.AcquisitionDateTime == "19000101000000"


def test_pixels_laterality_and_camera_are_kept() -> None:
    made, clean = identified_photograph(), deidentify(identified_photograph(), KEY)
    assert clean.PixelData == made.PixelData
    for keyword in ("ImageLaterality", "ManufacturerModelName", "HorizontalFieldOfView", "AnatomicRegionSequence"):
        assert clean[keyword] == made[keyword]
    assert clean.DeviceSerialNumber == "REMOVED"


def test_references_between_objects_stay_valid() -> None:
    clean = deidentify(identified_photograph(), KEY)
    (source,) = clean.SourceImageSequence
    assert source.ReferencedSeriesSequence[0].SeriesInstanceUID == clean.SeriesInstanceUID != "2.25.2"
    assert source.ReferencedSOPInstanceUID == deidentify(make_photograph("2.25.77"), KEY).SOPInstanceUID
    assert clean.file_meta.MediaStorageSOPInstanceUID == clean.SOPInstanceUID != "2.25.123"
    assert source.ReferencedSOPClassUID == clean.SOPClassUID == identified_photograph().SOPClassUID
    uids = [str(element.value) for element in clean.iterall() if element.VR == "UI"]
    assert len(uids) > 6 and all(re.fullmatch(r"2\.25\.[1-9]\d{20,38}|1\.2\.840\.10008\.[\d.]+", uid) for uid in uids)


def test_a_uid_of_the_standard_is_kept() -> None:
    clock = UID("1.2.840.10008.15.1.1")  # coordinated universal time
    clean = deidentify(make_photograph(SynchronizationFrameOfReferenceUID=clock), KEY)
    assert clean.SynchronizationFrameOfReferenceUID == clock


def test_a_derived_image_still_refers_to_its_photograph() -> None:
    made = make_photograph()
    derived, source = (
        deidentify(create_sr_image(make_result(made), draw_fundus(64, 64, (32, 32), 32)), KEY),
        deidentify(made, KEY),
    )
    assert derived.SourceImageSequence[0].ReferencedSOPInstanceUID == source.SOPInstanceUID
    assert (derived.StudyInstanceUID, derived.PatientID) == (source.StudyInstanceUID, source.PatientID)


def test_the_same_key_gives_the_same_bytes_and_another_key_other_pseudonyms() -> None:
    once, again = (to_file_bytes(deidentify(identified_photograph(), KEY)) for _ in range(2))
    assert once == again
    one, other = deidentify(identified_photograph(), KEY), deidentify(identified_photograph(), KEY[::-1])
    assert one.PatientID != other.PatientID and one.SOPInstanceUID != other.SOPInstanceUID


def test_patients_and_issuers_have_different_pseudonyms() -> None:
    def pseudonym(**tags: object) -> str:
        return deidentify(make_photograph(**tags), KEY).PatientID

    names = {pseudonym(), pseudonym(PatientID="P-18"), pseudonym(IssuerOfPatientID="Haus 1")}
    assert len(names) == 3 and all(re.fullmatch("[0-9A-F]{16}", name) for name in names)
    assert pseudonym(PatientID=" P-17 ") == pseudonym(SOPInstanceUID=UID("2.25.5"))
    assert pseudonym(PatientID="") == ""


def test_burned_in_text_is_refused() -> None:
    with pytest.raises(DicomError, match="Burned In Annotation is YES, expected NO"):
        deidentify(make_photograph(BurnedInAnnotation="YES"), KEY)


def test_documents_are_refused() -> None:
    with pytest.raises(DicomError, match="found a structured document, expected an image"):
        deidentify(create_structured_report(make_result()), KEY)
    with pytest.raises(DicomError, match="found an encapsulated document, expected an image"):
        made = create_encapsulated_pdf(make_result(), b"%PDF-1.4")
        made.BurnedInAnnotation = "NO"
        deidentify(made, KEY)


def test_the_error_for_a_damaged_attribute_does_not_quote_it() -> None:
    made = make_photograph()
    made.add_new("ReferencedSeriesSequence", "SQ", [Dataset()])
    made.ReferencedSeriesSequence[0].add_new("SeriesInstanceUID", "UI", "2.25.2")
    content = to_file_bytes(made).replace(b"\x20\x00\x0e\x00UI\x06\x00", b"\x20\x00\x0e\x00UI\xff\x7f")
    with pytest.raises(DicomError, match=r"found a damaged attribute .*, expected a readable object") as caught:
        deidentify(read_back(content), KEY)
    assert caught.value.__cause__ is None


def test_a_name_that_cannot_be_decoded_is_removed() -> None:
    made = make_photograph(SpecificCharacterSet="ISO_IR 100", PatientName="Meier")
    content = to_file_bytes(made).replace(b"Meier", b"\xff\x1b$B\xfe")
    assert deidentify(read_back(content), KEY).PatientName is None


def test_an_attribute_of_the_wrong_value_representation_is_cleaned() -> None:
    inner = Dataset()
    inner.PatientName = "Yamada"
    made = make_photograph()
    made.add_new("ManufacturerModelName", "SQ", [inner])  # a sequence where the standard has text
    made.add_new("ReferencedSeriesSequence", "OB", b"Yamada")  # bytes where it has a sequence
    assert b"Yamada" not in to_file_bytes(deidentify(made, KEY))


def test_names_and_times_that_are_newer_than_the_table_are_removed() -> None:
    assert action_of(Tag("EvaluatorName")) == action_of(Tag("ExpiryDate")) == "K"
    clean = deidentify(make_photograph(EvaluatorName="Yamada", ExpiryDate="20240102"), KEY)
    assert clean.EvaluatorName is None and clean.ExpiryDate == DUMMY_VALUES["DA"]


@pytest.mark.parametrize(
    ("keyword", "action"),
    [
        ("PatientName", "Z"),
        ("PatientID", "Z/D"),
        ("OtherPatientIDsSequence", "X"),
        ("AcquisitionDate", "X/Z"),
        ("AcquisitionDateTime", "X/Z/D"),
        ("AcquisitionDeviceProcessingDescription", "X/D"),
        ("AccessionNumber", "Z"),
        ("SOPInstanceUID", "U"),
        ("SOPClassUID", "K"),
        ("ImageLaterality", "K"),
        ("AdditionalPatientHistory", "X"),
        ("AcquisitionContextSequence", "X/Z"),
        ("IconImageSequence", "X"),
        ("PersonName", "D"),
        ("ContentDate", "Z/D"),
        ("DigitalSignaturesSequence", "X"),
        ("OriginalAttributesSequence", "X"),
    ],
)
def test_actions_are_those_of_the_standard(keyword: str, action: str) -> None:
    assert action_of(Tag(keyword)) == action


def test_an_implicit_vr_file_is_cleaned(tmp_path: Path) -> None:
    made = identified_photograph()
    made.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    clean = deidentify(dcmread(save_dicom(tmp_path / "P-17.dcm", made)), KEY)
    content = to_file_bytes(clean)
    assert [secret for secret in SECRETS if secret.encode() in content] == []
    assert "P-17" not in str(clean.filename)
    assert np.array_equal(read_back(content).pixel_array, made.pixel_array)


@requires_programs("dciodvfy")
def test_a_valid_photograph_stays_valid(tmp_path: Path) -> None:
    def errors(dataset: FileDataset) -> list[str]:
        path = save_dicom(tmp_path / "a.dcm", dataset)
        done = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False, timeout=60)
        assert "OphthalmicPhotography8BitImage" in done.stdout + done.stderr
        return re.findall("^Error.*", done.stdout + done.stderr, re.MULTILINE)

    assert errors(make_photograph()) == []
    assert errors(deidentify(make_photograph(), KEY)) == []


def test_the_key_is_created_once_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    path = tmp_path / "key"
    key = load_or_create_key(path)
    assert len(key) == 32 and load_or_create_key(path) == key != load_or_create_key(tmp_path / "other")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sorted(file.name for file in tmp_path.iterdir()) == ["key", "other"]


def test_an_invalid_key_and_one_that_others_can_read_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "key"
    load_or_create_key(path)
    path.chmod(0o644)
    with pytest.raises(DicomError, match="permissions 0644, expected 0600; use chmod 600"):
        load_or_create_key(path)
    path.chmod(0o600)
    path.write_text("secret")
    with pytest.raises(DicomError, match="found no key, expected 64 hexadecimal digits"):
        load_or_create_key(path)
    with pytest.raises(DicomError, match="key of 6 bytes, expected at least 16"):
        deidentify(make_photograph(), b"secret")
