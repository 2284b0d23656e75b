"""The examination in a worker process: load the network once, then grade one DICOM object after another."""

from __future__ import annotations

from pathlib import Path

from deepmtdr.dicom.codes import Namespaces, load_codes
from deepmtdr.dicom.results import write_results
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
        A function that reads a DICOM file and writes all its result files into a folder.

    Raises:
        DeepMTDRError: if the checkpoint or the codes cannot be used.
    """
    settings = settings or WorkerSettings()
    copies = choose_copies(tta=settings.tta, check_mirror=settings.check_mirror)
    engine = ScreeningEngine.load(settings.weights, turned_copies=copies)
    all_codes = load_codes(settings.codes, engine.labels)

    def examine(photograph: Path, folder: Path) -> None:
        write_results(engine, photograph, folder, all_codes, namespaces=namespaces)

    return examine
