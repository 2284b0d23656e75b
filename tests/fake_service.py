"""A service without a network for the tests: a fast examination that can fail on request, photographs, a sender.

`python fake_service.py [--slow-load] SETTINGS` is `deepmtdr serve SETTINGS` with this examination.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from enum import StrEnum
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar

from pydicom import Dataset, dcmread, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, OphthalmicPhotography8BitImageStorage, generate_uid
from pynetdicom import AE

import deepmtdr
from deepmtdr.errors import DicomError
from deepmtdr.service.settings import HealthSettings, ReceiverSettings, RetrySettings, ServiceSettings, WorkerSettings
from deepmtdr.service.worker_child import Examiner

T = TypeVar("T")

PATIENT_NAME, PATIENT_ID = "Ångström^Żaneta", "PATIENT-4711"
SOURCES = str(Path(deepmtdr.__file__ or "").parents[1])
"""PYTHONPATH of a process that runs this file."""
EATEN_BYTES = 1 << 28
SLOW_LOAD = "--slow-load"
"""Argument with which loading the network takes an hour."""


class Trouble(StrEnum):
    """What the examination does with a photograph whose Patient ID is one of these."""

    REFUSED = "REFUSED"
    """Raise the error of an object that cannot be examined."""
    CRASH = "CRASH"
    """End the process."""
    HANG = "HANG"
    """Start a child process, write its number into `child.pid`, and wait for it for an hour."""
    BUG = "BUG"
    """Raise an unexpected error."""
    PRINTS = "PRINTS"
    """Print the patient's name and ID, then succeed."""
    MEMORY = "MEMORY"
    """Allocate 256 MiB, then wait for an hour."""
    WAITS = "WAITS"
    """Write the file `waiting` into the folder of the service, and succeed when the file `release` is there."""


def make_photograph(uid: str = "", patient: str = PATIENT_ID, side: int = 8, **attributes: Any) -> Dataset:
    """A black photograph.

    Args:
        uid: its SOP Instance UID; empty: a new one.
        patient: its Patient ID, or a `Trouble`.
        side: its rows and columns, px.
        attributes: other attributes by keyword.
    """
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


def examine(source: Path, folder: Path, uid: str) -> str:
    """Write a DICOM object of the same study, a bundle and a report, or cause the trouble that Patient ID names."""
    data = dcmread(source)
    trouble = str(data.get("PatientID", ""))
    if trouble == Trouble.REFUSED:
        raise DicomError(f"{source}: no pixel data, expected some")
    if trouble in list(Trouble):
        _cause(Trouble(trouble), data, source.parents[1])
    data.SOPInstanceUID = generate_uid(entropy_srcs=[str(data.SOPInstanceUID)])
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    dcmwrite(folder / "result.dcm", data, enforce_file_format=True)
    (folder / "fhir.json").write_text("{}")
    (folder / "report.json").write_text("{}")
    return ""


def _cause(trouble: Trouble, data: Dataset, service_folder: Path) -> None:
    match trouble:
        case Trouble.CRASH:
            os._exit(7)
        case Trouble.HANG:
            with subprocess.Popen(["sleep", "3600"]) as child:
                (service_folder / "child.pid").write_text(str(child.pid))
        case Trouble.BUG:
            raise ValueError(f"{data.PatientName} surprises")
        case Trouble.PRINTS:
            print(data.PatientName, flush=True)
            os.system("echo PATIENT-4711 >&2")
        case Trouble.MEMORY:
            eaten = bytearray(EATEN_BYTES)
            eaten[:: 1 << 12] = b"x" * len(eaten[:: 1 << 12])  # touch every page
            time.sleep(3600)
        case Trouble.WAITS:
            (service_folder / "waiting").touch()
            wait_until((service_folder / "release").exists)


def make_examiner() -> Examiner:
    return examine


def make_failing() -> Examiner:
    raise DicomError("weights.safetensors: damaged")


def make_slow() -> Examiner:
    """A network that takes an hour to load."""
    time.sleep(3600)
    return examine


def make_settings(
    folder: Path, *, workers: WorkerSettings | None = None, receiver: ReceiverSettings | None = None, **more: Any
) -> ServiceSettings:
    """Settings with free ports and short waits."""
    defaults: dict[str, Any] = {
        "health": HealthSettings(port=0),
        "retry": RetrySettings(first_wait=0.05, longest_wait=0.2),
        "least_free_mb": 0.0,
        "stop_seconds": 5.0,
    }
    return ServiceSettings(
        folder=folder,
        receiver=receiver or ReceiverSettings(port=0, idle_seconds=3.0),
        workers=workers or WorkerSettings(seconds=20.0),
        **(defaults | more),
    )


def send(port: int, objects: Sequence[Dataset], calling: str = "CAMERA", called: str = "DEEPMTDR") -> list[int]:
    """Send objects in one association; the statuses of those that were answered."""
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


def free_port() -> int:
    """A port that no program listens on."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return bound.getsockname()[1]


def wait_until(condition: Callable[[], T], what: str = "the condition", seconds: float = 60.0) -> T:
    """Wait until a condition is true, and return its value.

    Raises:
        AssertionError: if it is not true in time.
    """
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"waited {seconds:g} s for {what}"
        time.sleep(0.02)
    return found


if __name__ == "__main__":
    from deepmtdr.service.serve import serve
    from deepmtdr.service.settings_file import load_settings

    serve(load_settings(Path(sys.argv[-1])), make_slow if SLOW_LOAD in sys.argv else make_examiner)
