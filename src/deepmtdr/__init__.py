"""deepmtdr reads a low-resolution fundus photograph as if it were a good one (DeepMT-DR, Wang et al.).

The public names below are loaded when they are first asked for, so that `import deepmtdr` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deepmtdr.checkpoint import Checkpoint, load
    from deepmtdr.datasets.sample import Sample
    from deepmtdr.errors import DeepMTDRError
    from deepmtdr.model.deepmtdr import DeepMTDR, Prediction
    from deepmtdr.photographs.decode import read_photograph
    from deepmtdr.photographs.field_of_view import map_to_photograph
    from deepmtdr.recipe import Recipe
    from deepmtdr.screening.engine import ScreeningEngine
    from deepmtdr.screening.report import ScreeningReport
    from deepmtdr.terms import Grade, Lesion

__version__ = "0.1.0"

__all__ = [
    "Checkpoint",
    "DeepMTDR",
    "DeepMTDRError",
    "Grade",
    "Lesion",
    "Prediction",
    "Recipe",
    "Sample",
    "ScreeningEngine",
    "ScreeningReport",
    "load",
    "map_to_photograph",
    "read_photograph",
]

_LAZY_NAMES = {
    "Checkpoint": "deepmtdr.checkpoint",
    "DeepMTDR": "deepmtdr.model.deepmtdr",
    "DeepMTDRError": "deepmtdr.errors",
    "Grade": "deepmtdr.terms",
    "Lesion": "deepmtdr.terms",
    "Prediction": "deepmtdr.model.deepmtdr",
    "Recipe": "deepmtdr.recipe",
    "Sample": "deepmtdr.datasets.sample",
    "ScreeningEngine": "deepmtdr.screening.engine",
    "ScreeningReport": "deepmtdr.screening.report",
    "map_to_photograph": "deepmtdr.photographs.field_of_view",
    "load": "deepmtdr.checkpoint",
    "read_photograph": "deepmtdr.photographs.decode",
}


def __getattr__(name: str) -> object:
    """Load a public name from its home at first use (PEP 562)."""
    if name not in _LAZY_NAMES:
        raise AttributeError(f"module 'deepmtdr' has no attribute {name!r}; public names are {', '.join(__all__)}")
    value = getattr(import_module(_LAZY_NAMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted({*globals(), *__all__})
