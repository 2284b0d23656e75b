"""Everything that deepmtdr raises on purpose.

The tree:

    DeepMTDRError
    |- PhotographError        a file that cannot be decoded as one photograph
    |  '- UngradableError          decoded, but not fit to be graded
    |     '- NoFieldOfViewError    no fundus field of view is in it
    |- DataError              a data set, manifest or mask that contradicts its layout
    |- RecipeError            an unknown key or a value out of range in a recipe
    |  '- LabelSetError       lesion types, grades or thresholds that contradict each other
    |- ClinicError            a DICOM object that cannot be answered, or a service that cannot be set up
    |- CheckpointError        weights that are damaged, or of another architecture
    '- TrainingError          a run that cannot go on (non-finite loss, wrong stage)
       '- TrainingStopped             a run that was asked to stop

Each message says what was found, what was expected, and where.
"""

from __future__ import annotations

import traceback
from pathlib import Path


class DeepMTDRError(Exception):
    """Root of the tree: `except DeepMTDRError` catches whatever this package raises on purpose."""


class PhotographError(DeepMTDRError):
    """A file that cannot be decoded as one photograph."""


class UngradableError(PhotographError):
    """A photograph that is not fit to be graded."""


class NoFieldOfViewError(UngradableError):
    """A photograph in which no fundus field of view was found."""


class DataError(DeepMTDRError):
    """A data set, manifest or mask that contradicts its layout."""


class RecipeError(DeepMTDRError):
    """An unknown key or a value out of range in a recipe."""


class LabelSetError(RecipeError):
    """Lesion types, grades or thresholds of a label set that contradict each other."""


class ClinicError(DeepMTDRError):
    """A DICOM object that cannot be answered, or a service that cannot be set up."""


class CheckpointError(DeepMTDRError):
    """Weights that are damaged, or of another architecture."""


class TrainingError(DeepMTDRError):
    """A training run that cannot go on."""


class TrainingStopped(TrainingError):
    """A training run that was asked to stop, by a signal."""


def describe_error_location(error: Exception) -> str:
    """What went wrong and where, without the text of an error that nobody foresaw: it may quote a patient's name."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{type(error).__name__} at " + " < ".join(f"{Path(at.filename).name}:{at.lineno}" for at in frames[:-4:-1])
