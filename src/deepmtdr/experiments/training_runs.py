"""One training run of a study or comparison: continue it, skip it if it is finished, and describe its error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deepmtdr import training
from deepmtdr.errors import DeepMTDRError, TrainingStopped
from deepmtdr.recipe import Recipe
from deepmtdr.training.report import RUN_FILE
from deepmtdr.training.state import RESUME_FILE

WEIGHTS_FILE = "weights.safetensors"
NO_WEIGHTS = training.StartWeights()


class RunFailedError(Exception):
    """A run failed; the message is the reason, for the list of failures."""


def train_unless_finished(
    recipe: Recipe, data: Path, folder: Path, cache: Path, start: training.StartWeights = NO_WEIGHTS
) -> None:
    """Train a run; one that was stopped continues, and a finished one stays as it is.

    Args:
        recipe: the recipe of the run.
        data: folder with a folder for each data set.
        folder: folder of the run.
        cache: folder of the prepared photographs, which all runs share.
        start: weights that the run starts from.
    """
    if not (folder / RUN_FILE).exists():
        training.run(recipe, data, folder, resume=(folder / RESUME_FILE).exists(), start=start, cache=cache)


@contextmanager
def describe_failure() -> Iterator[None]:
    """Context manager for training and scoring a run, so that the error of one does not end the others.

    Raises:
        RunFailedError: for every error that concerns only this run.
        TrainingStopped: if a signal stopped the training.
    """
    try:
        yield
    except TrainingStopped:
        raise
    except DeepMTDRError as error:
        raise RunFailedError(str(error)) from error
    except (RuntimeError, ValueError) as error:  # out of memory; a batch too small for batch normalisation
        raise RunFailedError(f"{type(error).__name__}: {error}") from error
