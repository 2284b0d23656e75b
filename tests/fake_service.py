"""A service without a network for the tests: an examination that writes small results, objects, senders, a server.

`python fake_service.py SETTINGS` is `deepmtdr serve SETTINGS` with it.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from pydicom import Dataset, dcmread, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, OphthalmicPhotography8BitImageStorage, generate_uid
from pynetdicom import AE

from deepmtdr.errors import ClinicError
from deepmtdr.service.settings import HealthSettings, ReceiverSettings, RetrySettings, ServiceSettings, WorkerSettings

PATIENT_NAME, PATIENT_ID = "Ångström^Żaneta", "PATIENT-4711"


def make_photograph(uid: str = "", patient: str = PATIENT_ID, side: int = 8, **attributes: Any) -> Dataset:
    """A photograph of nothing. The patient's ID tells the stand-in what to do."""
    data = Dataset()
    data.SpecificCharacterSet = "ISO_IR 192"
    data.SOPClassUID = OphthalmicPhotography8BitImageStorage
    data.SOPInstanceUID = uid or generate_uid()
    data.StudyInstanceUID, data.SeriesInstanceUID = generate_uid(), generate_uid()
    data.PatientName, data.PatientID = PATIENT_NAME, patient
    data.Rows = data.Columns = side
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PlanarConfiguration = 3, "RGB", 0
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit, data.PixelRepresentation = 7, 0
    data.PixelData = bytes(3 * side * side)
    for name, value in attributes.items():
        setattr(data, name, value)
    data.file_meta = FileMetaDataset()
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return data


def to_bytes(data: Dataset) -> bytes:
    """The bytes of a DICOM file."""
    file = BytesIO()
    dcmwrite(file, data, enforce_file_format=True)
    return file.getvalue()


def examine(source: Path, folder: Path) -> None:
    """Write a result of the same study, a bundle and a report, or whatever trouble the patient's ID names."""
    data = dcmread(source)
    trouble = str(data.get("PatientID", ""))
    if "PixelData" not in data or trouble == "REFUSED":
        raise ClinicError(f"{source}: found no pixels, expected some")
    if trouble == "CRASH":
        os._exit(7)
    if trouble == "HANG":
        time.sleep(3600)
    if trouble == "BUG":
        raise ValueError(f"{data.PatientName} surprises")
    if trouble == "PRINTS":
        print(data.PatientName, flush=True)
        os.system("echo PATIENT-4711 >&2")
    if trouble == "MEMORY":
        eaten = bytearray(1 << 29)
        eaten[:: 1 << 12] = b"x" * (1 << 17)
        time.sleep(60)
    if trouble == "SLOW":
        time.sleep(0.5)
    data.SOPInstanceUID = generate_uid(entropy_srcs=[str(data.SOPInstanceUID)])
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    dcmwrite(folder / "result.dcm", data, enforce_file_format=True)
    (folder / "fhir.json").write_text("{}")
    (folder / "report.json").write_text("{}")


def make_examiner() -> Callable[[Path, Path], None]:
    return examine


def make_failing() -> Callable[[Path, Path], None]:
    raise ClinicError("weights.safetensors: damaged")


def make_settings(
    folder: Path, *, workers: WorkerSettings | None = None, receiver: ReceiverSettings | None = None, **more: Any
) -> ServiceSettings:
    """Free ports, short waits."""
    return ServiceSettings(
        folder=folder,
        receiver=receiver or ReceiverSettings(port=0, idle_seconds=3.0),
        workers=workers or WorkerSettings(seconds=20.0),
        **{
            "health": HealthSettings(port=0),
            "retry": RetrySettings(first_wait=0.05, longest_wait=0.2),
            "least_free_mb": 0.0,
            "stop_seconds": 5.0,
            **more,
        },
    )


def send(port: int, objects: Sequence[Dataset], calling: str = "CAMERA", called: str = "DEEPMTDR") -> list[int]:
    """The statuses of C-STORE requests in one association; those that were not answered are left out."""
    entity = AE(calling)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = entity.connection_timeout = 20
    for kind in sorted({(data.SOPClassUID, data.file_meta.TransferSyntaxUID) for data in objects}):
        entity.add_requested_context(*kind)
    association = entity.associate("127.0.0.1", port, ae_title=called)
    statuses: list[int] = []
    try:
        for data in objects:
            if not association.is_established:
                break
            answer = association.send_c_store(data)
            statuses += [answer.Status] if "Status" in answer else []
    finally:
        if association.is_established:
            association.release()
    return statuses


def wait_until(true: Callable[[], Any], seconds: float = 15.0) -> Any:
    """Wait for something, and fail if it does not come."""
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)
    return found


if __name__ == "__main__":
    from deepmtdr.service.serve import serve
    from deepmtdr.service.settings import load_settings

    serve(load_settings(Path(sys.argv[1])), make_examiner)
