"""The examination in a worker process: load the network once, then grade one DICOM object after another."""

from __future__ import annotations

from pathlib import Path

from deepmtdr.dicom.codes import Namespaces, load_codes
from deepmtdr.dicom.identity import read_identity
from deepmtdr.dicom.results import write_results
from deepmtdr.dicom.source import read_source
from deepmtdr.errors import DicomError
from deepmtdr.screening.engine import ScreeningEngine
from deepmtdr.screening.turned_copies import choose_copies
from deepmtdr.service.settings import WorkerSettings
from deepmtdr.service.worker_child import Examiner


def load_examiner(settings: WorkerSettings | None = None, namespaces: Namespaces | None = None) -> Examiner:
    """Load the network and the codes.

    Args:
        settings: weights, codes, and which turned copies of each photograph are predicted; None: the defaults.
        namespaces: URIs for the identifiers of patients and accession numbers, for FHIR.

    Returns:
        A function that reads a DICOM file and writes all its result files into a folder (`worker_child.Examiner`).

    Raises:
        DeepMTDRError: if the checkpoint or the codes cannot be used.
    """
    settings = settings or WorkerSettings()
    copies = choose_copies(tta=settings.tta, check_mirror=settings.check_mirror)
    engine = ScreeningEngine.load(settings.weights, turned_copies=copies)
    all_codes = load_codes(settings.codes, engine.labels)

    def examine(photograph: Path, folder: Path, uid: str) -> str:
        check_announced_uid(photograph, uid)
        write_results(engine, photograph, folder, all_codes, namespaces=namespaces)
        return read_identity(photograph).to_text()

    return examine


def check_announced_uid(photograph: Path, uid: str) -> None:
    """Check that a file is the object that its sender announced, also if its elements are out of order.

    Raises:
        DicomError: if it has another SOP Instance UID, or its header cannot be used. Results for it could otherwise
            exist twice, for two patients.
    """
    if read_source(photograph).uid != uid:
        raise DicomError("found another SOP Instance UID than the sender announced, expected the same")
