"""The commands of the program `deepmtdr`. Each one calls one Python function.

Importing this package loads neither PyTorch nor pandas: commands import what they need when they run.
"""

# The order of these imports is the order of the commands in the help text.
# isort: off
from deepmtdr.cli import screening
from deepmtdr.cli import dicom
from deepmtdr.cli import service
from deepmtdr.cli import data
from deepmtdr.cli import training
from deepmtdr.cli import evaluation
from deepmtdr.cli import experiments
from deepmtdr.cli.app import app
# isort: on

__all__ = ["app", "data", "dicom", "evaluation", "experiments", "screening", "service", "training"]
