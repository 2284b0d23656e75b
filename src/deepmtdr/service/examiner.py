"""The examination in a worker process: load the network once, then grade one DICOM object after another."""

from __future__ import annotations

from pathlib import Path

from deepmtdr.dicom.codes import Namespaces, load_codes
from deepmtdr.dicom.results import write_results
from deepmtdr.screening.engine import ScreeningEngine
from deepmtdr.service.worker_child import Examiner


def load_examiner(
    weights: Path | None = None, codes: Path | None = None, namespaces: Namespaces | None = None
) -> Examiner:
    """Load the network and the codes.

    Args:
        weights: checkpoint (.safetensors); None: the shipped one.
        codes: TOML file of codes that differ from the shipped ones.
        namespaces: URIs for the identifiers of patients and accession numbers, for FHIR.

    Returns:
        A function that reads a DICOM file and writes all its result files into a folder.

    Raises:
        DeepMTDRError: if the checkpoint or the codes cannot be used.
    """
    engine = ScreeningEngine.load(weights)
    all_codes = load_codes(codes, engine.labels)

    def examine(photograph: Path, folder: Path) -> None:
        write_results(engine, photograph, folder, all_codes, namespaces=namespaces)

    return examine
