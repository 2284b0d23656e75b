"""What a worker process of `deepmtdr serve` does: the network is loaded once, then one object after another is read."""

from __future__ import annotations

from pathlib import Path

from deepmtdr.clinic.worker import Examine
from deepmtdr.errors import ClinicError


def load_examine(weights: Path | None = None, codes: Path | None = None) -> Examine:
    """Load the network and the codes, to examine with.

    Args:
        weights: checkpoint (.safetensors); None: the shipped one.
        codes: the site's own codes (TOML) over the shipped ones.

    Returns:
        A function of a DICOM file and a folder that writes every result file of the one into the other.

    Raises:
        DeepMTDRError: if the checkpoint or the codes cannot be used.
    """
    # TO BE WIRED: from deepmtdr.clinic.results import write_results, the engine, load_codes(codes), and
    # return partial(write_results, engine, codes=...)
    raise ClinicError("nothing writes results yet")
