"""DeepMT-DR (Wang et al.): super-resolution, lesion segmentation and grading of low-resolution fundus photographs.

The names of `__all__` are the public interface. Each name is imported at its first use, so that `import deepmtdr` is
fast and does not load PyTorch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from deepmtdr._version import __version__ as __version__

if TYPE_CHECKING:
    from deepmtdr.checkpoint import Checkpoint, load
    from deepmtdr.datasets.sample import Sample
    from deepmtdr.errors import DeepMTDRError
    from deepmtdr.labels import DIABETIC_RETINOPATHY, LabelSet, load_label_set
    from deepmtdr.model.deepmtdr import DeepMTDR, Prediction
    from deepmtdr.photographs.decode import read_photograph
    from deepmtdr.photographs.geometry import map_to_photograph
    from deepmtdr.recipe import Recipe
    from deepmtdr.screening.engine import ScreeningEngine
    from deepmtdr.screening.report import ScreeningReport
    from deepmtdr.terms import Grade, Lesion

__all__ = [
    "DIABETIC_RETINOPATHY",
    "Checkpoint",
    "DeepMTDR",
    "DeepMTDRError",
    "Grade",
    "LabelSet",
    "Lesion",
    "Prediction",
    "Recipe",
    "Sample",
    "ScreeningEngine",
    "ScreeningReport",
    "load",
    "load_label_set",
    "map_to_photograph",
    "read_photograph",
]

_LAZY_NAMES = {
    "Checkpoint": "deepmtdr.checkpoint",
    "DIABETIC_RETINOPATHY": "deepmtdr.labels",
    "DeepMTDR": "deepmtdr.model.deepmtdr",
    "DeepMTDRError": "deepmtdr.errors",
    "Grade": "deepmtdr.terms",
    "LabelSet": "deepmtdr.labels",
    "Lesion": "deepmtdr.terms",
    "Prediction": "deepmtdr.model.deepmtdr",
    "Recipe": "deepmtdr.recipe",
    "Sample": "deepmtdr.datasets.sample",
    "ScreeningEngine": "deepmtdr.screening.engine",
    "ScreeningReport": "deepmtdr.screening.report",
    "load": "deepmtdr.checkpoint",
    "load_label_set": "deepmtdr.labels",
    "map_to_photograph": "deepmtdr.photographs.geometry",
    "read_photograph": "deepmtdr.photographs.decode",
}
"""Public name -> the module that defines it."""


def __getattr__(name: str) -> object:
    """Import a public name at its first use (PEP 562)."""
    if name not in _LAZY_NAMES:
        raise AttributeError(f"module 'deepmtdr' has no attribute {name!r}; public names are {', '.join(__all__)}")
    value = getattr(import_module(_LAZY_NAMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, imported or not."""
    return sorted({*globals(), *__all__})
