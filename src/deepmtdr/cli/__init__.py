"""The commands ("verbs") of the program `deepmtdr`, each a thin layer over a Python function.

Importing this package loads neither PyTorch nor pandas: commands import what they need when they run.
"""

from deepmtdr.cli import data, dicom, evaluation, screening, service, training
from deepmtdr.cli.app import app

__all__ = ["app", "data", "dicom", "evaluation", "screening", "service", "training"]
