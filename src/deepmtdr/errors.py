"""The exceptions that deepmtdr raises on purpose.

The tree:

    DeepMTDRError
    |- PhotographError        a file cannot be decoded as one photograph
    |  '- UngradableError          the photograph can be decoded, but is not fit to be graded
    |     '- NoFieldOfViewError    it shows no fundus field of view
    |- InputSizeError         a low-resolution size does not fit the frame (also a ValueError)
    |- DataError              a data set, manifest or mask contradicts its layout
    |- ConfigError            a settings file has an unknown key or a wrong value
    |  |- RecipeError              the same in a recipe
    |  '- LabelSetError            lesion types, grades or thresholds contradict each other
    |- ResultsError           a results folder is in use, or has results of another run
    |- CheckpointError        weights are damaged, or belong to another architecture
    |  '- PredictionError          a network returned something other than finite numbers of the expected shapes
    |- TrainingError          a training run cannot continue (non-finite loss, wrong stage)
    |  '- TrainingStopped          it was stopped by a signal
    '- ClinicError            root of the errors of DICOM and of the service
       |- DicomError               a DICOM object cannot be processed
       '- ServiceError             `deepmtdr serve` cannot start or continue

Each message gives what was found, what was expected, and where, in one line of printable characters.
"""

from __future__ import annotations

import traceback
from pathlib import Path


class DeepMTDRError(Exception):
    r"""Root of the tree: `except DeepMTDRError` catches every error that this package raises on purpose.

    Its text is one line of printable characters, since it may quote a file: others are written as \x1b.
    """

    def __str__(self) -> str:
        text = super().__str__()
        if text.isprintable():
            return text
        return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


class PhotographError(DeepMTDRError):
    """A file cannot be decoded as one photograph."""


class UngradableError(PhotographError):
    """A photograph can be decoded, but is not fit to be graded."""


class NoFieldOfViewError(UngradableError):
    """A photograph shows no fundus field of view."""


class InputSizeError(DeepMTDRError, ValueError):
    """No scale leads from the requested low-resolution size to the frame."""


class DataError(DeepMTDRError):
    """A data set, manifest or mask contradicts its layout."""


class ConfigError(DeepMTDRError):
    """A settings file has an unknown key or a wrong value."""


class RecipeError(ConfigError):
    """A recipe has an unknown key or a wrong value."""


class LabelSetError(ConfigError):
    """Lesion types, grades or thresholds of a label set contradict each other."""


class ResultsError(DeepMTDRError):
    """A results folder is in use by another run, or has results that may not be mixed with those of this run."""


class CheckpointError(DeepMTDRError):
    """Weights are damaged, or belong to another architecture."""


class PredictionError(CheckpointError):
    """A network returned something other than finite numbers of the expected shapes and ranges."""


class TrainingError(DeepMTDRError):
    """A training run cannot continue."""


class TrainingStopped(TrainingError):
    """A training run was stopped by a signal."""


class ClinicError(DeepMTDRError):
    """Root of the errors of DICOM and of the service."""


class DicomError(ClinicError):
    """A DICOM object cannot be processed."""


class ServiceError(ClinicError):
    """`deepmtdr serve` cannot start or continue."""


def describe_error_location(error: Exception) -> str:
    """The type of an unexpected error and where it was raised, without its message, which may quote patient data."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{type(error).__name__} at " + " < ".join(f"{Path(at.filename).name}:{at.lineno}" for at in frames[:-4:-1])
