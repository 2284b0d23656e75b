"""What a worker process of `deepmtdr serve` does: the network is loaded once, then one object after another is read."""

from __future__ import annotations

from pathlib import Path

from deepmtdr.dicom.codes import Namespaces, load_codes
from deepmtdr.dicom.results import write_results
from deepmtdr.screening.engine import ScreeningEngine
from deepmtdr.service.worker import Examiner


def load_examiner(
    weights: Path | None = None, codes: Path | None = None, namespaces: Namespaces | None = None
) -> Examiner:
    """Load the network and the codes, to examine with.

    Args:
        weights: checkpoint (.safetensors); None: the shipped one.
        codes: the site's own codes (TOML) over the shipped ones.
        namespaces: of the site's numbers.

    Returns:
        A function of a DICOM file and a folder that writes every result file of the one into the other.

    Raises:
        DeepMTDRError: if the checkpoint or the codes cannot be used.
    """
    engine, known = ScreeningEngine.load(weights), load_codes(codes)

    def examine(photograph: Path, folder: Path) -> None:
        write_results(engine, photograph, folder, known, namespaces=namespaces)

    return examine
