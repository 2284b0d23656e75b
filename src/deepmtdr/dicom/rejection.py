"""Reject the results of a photograph that was corrected: a Key Object Selection, and FHIR `entered-in-error`.

The Key Object Selection (PS3.16 TID 2010) is that of the IHE profile Imaging Object Change Management (IOCM): its title
says why, and it lists all rejected objects. An archive that supports the profile no longer shows them. The FHIR
transaction changes the status of every resource of the earlier report.
"""

from __future__ import annotations

import json
import uuid
import warnings
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import highdicom as hd
from pydicom import Dataset, dcmread
from pydicom.uid import UID

from deepmtdr.dicom.codes import Code
from deepmtdr.dicom.highdicom_items import coded_concept, normalise_highdicom_object, without_patient
from deepmtdr.dicom.objects import (
    FIRST_SERIES_NUMBER,
    PRODUCT,
    UID_NAMESPACE,
    ObjectKind,
    copy_patient_and_study,
    to_file_bytes,
)
from deepmtdr.dicom.results import FHIR_FILE
from deepmtdr.errors import DicomError
from deepmtdr.files import write_atomically

REJECTION_FILE, FHIR_REJECTION_FILE = "rejection.dcm", "fhir-rejection.json"
REJECTED = Code("DCM", "113037", "Rejected for Patient Safety Reasons")
"""Document title of the Key Object Selection: the results may be those of another patient or eye."""
DESCRIPTION = "The photograph was replaced by a corrected one. These results of the earlier photograph are not valid."
SERIES_NUMBER = FIRST_SERIES_NUMBER + len(ObjectKind)
"""Number of the series of rejections, after those of the results."""


def write_rejection(folder: Path) -> list[str]:
    """Write the rejection of all results in a folder into the same folder.

    Args:
        folder: results of one photograph, as `write_results` wrote them.

    Returns:
        Names of the written files: `REJECTION_FILE`, and `FHIR_REJECTION_FILE` if there is a FHIR bundle.

    Raises:
        DicomError: if the folder has no results, or they are damaged.
        OSError: if files cannot be read or written.
    """
    paths = [folder / kind.file_name for kind in ObjectKind if (folder / kind.file_name).is_file()]
    if not paths:
        raise DicomError("found no DICOM results, expected the results of the earlier photograph")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # names and numbers are copied unchanged, even if they are too long
            written = {REJECTION_FILE: to_file_bytes(create_rejection([dcmread(path) for path in paths]))}
            if (folder / FHIR_FILE).is_file():
                written[FHIR_REJECTION_FILE] = reject_bundle((folder / FHIR_FILE).read_bytes())
    except OSError:
        raise
    except Exception as error:
        raise DicomError(f"found damaged results ({type(error).__name__}), expected those of the photograph") from error
    for name, content in written.items():
        write_atomically(folder / name, content)
    return list(written)


def create_rejection(results: Sequence[Dataset]) -> Dataset:
    """Create the Key Object Selection that rejects results.

    Args:
        results: all DICOM objects of one photograph.
    """
    key = "|".join(["rejection", *sorted(str(one.SOPInstanceUID) for one in results)])
    series = "|".join(["rejections", str(results[0].StudyInstanceUID), str(results[0].get("PatientID"))])
    evidence = [without_patient(one) for one in results]
    created = hd.ko.KeyObjectSelectionDocument(
        evidence=evidence,
        content=hd.ko.KeyObjectSelection(
            document_title=coded_concept(REJECTED), referenced_objects=evidence, description=DESCRIPTION
        ),
        series_instance_uid=_uid(series),
        series_number=SERIES_NUMBER,
        sop_instance_uid=_uid(key),
        instance_number=max(int(results[0].get("InstanceNumber") or 1), 1),
        manufacturer=PRODUCT,
    )
    copy_patient_and_study(created, results[0])
    now = datetime.now()
    created.add_new("ContentDate", "DA", now.strftime("%Y%m%d"))
    created.add_new("ContentTime", "TM", now.strftime("%H%M%S"))
    created.SeriesDescription = "deepmtdr: rejected results"
    return normalise_highdicom_object(created)


def reject_bundle(content: bytes) -> bytes:
    """Change a FHIR transaction so that it marks the same resources as entered in error.

    Args:
        content: the transaction that created the resources (`fhir.to_json`).

    Returns:
        A transaction that updates each Observation and DiagnosticReport by its identifier (conditional update). The
        Device of the algorithm stays as it is.
    """
    bundle: dict[str, Any] = json.loads(content)
    for entry in bundle["entry"]:
        resource = entry["resource"]
        if "status" not in resource or resource["resourceType"] == "Device":
            continue
        resource["status"] = "entered-in-error"
        (identifier,) = resource["identifier"]
        search = f"identifier={identifier['system']}|{identifier['value']}"
        entry["request"] = {"method": "PUT", "url": f"{resource['resourceType']}?{search}"}
    return (json.dumps(bundle, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _uid(name: str) -> UID:
    return UID(f"2.25.{uuid.uuid5(UID_NAMESPACE, name).int}")
