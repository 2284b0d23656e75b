"""Rejecting the results of a photograph that was corrected."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fhir.resources.R4B.bundle import Bundle
from pydicom import dcmread
from pydicom.uid import KeyObjectSelectionDocumentStorage

from deepmtdr.dicom.codes import load_codes
from deepmtdr.dicom.fhir import to_bundle, to_json
from deepmtdr.dicom.objects import to_file_bytes
from deepmtdr.dicom.rejection import create_rejection, reject_bundle, write_rejection
from deepmtdr.errors import DicomError
from dicom_objects import NAME, find_dciodvfy_errors, make_objects, make_photograph, make_report, make_result
from dicom_reports import graded_report, make_examination
from external_programs import requires_programs

pytestmark = pytest.mark.usefixtures("quick_pages")


def results_folder(folder: Path, status: str = "ok") -> Path:
    """A folder with the results of a photograph."""
    folder.mkdir()
    for name, made in make_objects(make_result(report=make_report(status))).items():
        (folder / f"{name}.dcm").write_bytes(to_file_bytes(made))
    (folder / "fhir.json").write_bytes(to_json(to_bundle(graded_report(), make_examination(), load_codes())))
    return folder


@pytest.mark.parametrize("status", ["ok", "ungradable"])
def test_the_rejection_names_every_object_with_its_patient_and_study(tmp_path: Path, status: str) -> None:
    folder = results_folder(tmp_path / "results", status)
    rejected = {dcmread(path).SOPInstanceUID for path in folder.glob("*.dcm")}
    assert write_rejection(folder) == ["rejection.dcm", "fhir-rejection.json"]
    made = dcmread(folder / "rejection.dcm")
    assert made.SOPClassUID == KeyObjectSelectionDocumentStorage
    assert (str(made.PatientName), made.PatientID, made.StudyInstanceUID, made.Modality) == (
        NAME,
        "P-17",
        "2.25.1",
        "KO",
    )
    title = made.ConceptNameCodeSequence[0]
    assert (title.CodeValue, title.CodingSchemeDesignator) == ("113037", "DCM")
    evidence = {
        one.ReferencedSOPInstanceUID
        for study in made.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for one in series.ReferencedSOPSequence
    }
    content = {
        one.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        for one in made.ContentSequence
        if "ReferencedSOPSequence" in one
    }
    assert evidence == content == rejected


@requires_programs("dciodvfy")
def test_dciodvfy_finds_no_error_in_a_rejection(tmp_path: Path) -> None:
    assert find_dciodvfy_errors(create_rejection(list(make_objects(make_result()).values())), tmp_path) == []


def test_every_finding_of_the_bundle_becomes_entered_in_error() -> None:
    bundle = json.loads(to_json(to_bundle(graded_report(), make_examination(), load_codes())))
    rejected = json.loads(reject_bundle(json.dumps(bundle).encode()))
    Bundle.model_validate_json(json.dumps(rejected))
    assert len(rejected["entry"]) == len(bundle["entry"]) > 5
    for before, after in zip(bundle["entry"], rejected["entry"], strict=True):
        assert after["fullUrl"] == before["fullUrl"]
        if before["resource"]["resourceType"] == "Device":
            assert after == before
            continue
        assert after["resource"] == before["resource"] | {"status": "entered-in-error"}
        search = f"identifier=urn:ietf:rfc:3986|{before['fullUrl']}"
        assert after["request"] == {"method": "PUT", "url": f"{before['resource']['resourceType']}?{search}"}


def test_results_of_another_photograph_are_another_rejection() -> None:
    once, again = (
        create_rejection(list(make_objects(make_result(make_photograph(uid))).values())) for uid in ("2.25.1", "2.25.3")
    )
    assert once.SOPInstanceUID != again.SOPInstanceUID


def test_a_folder_without_results_or_with_damaged_results_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DicomError, match="found no DICOM results"):
        write_rejection(tmp_path)
    (tmp_path / "sr.dcm").write_bytes(b"damaged")
    with pytest.raises(DicomError, match="found damaged results"):
        write_rejection(tmp_path)
