"""The verbs: each a thin door to a function that Python can call too. Heavy imports stay inside them."""

from deepmtdr.cli import data, evaluation, screening, training
from deepmtdr.cli import dicom as clinic
from deepmtdr.cli.app import app

__all__ = ["app", "clinic", "data", "evaluation", "screening", "training"]
