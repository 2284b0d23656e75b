"""Read the logs of a run: each loss or score over the steps of its stage."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from deepmtdr.csv_tables import read_table
from deepmtdr.errors import DataError
from deepmtdr.recipe import STAGES


class LoggedSeries(NamedTuple):
    """A loss or a score over the steps of a stage."""

    steps: Float[np.ndarray, " n"]
    """Numbers of the steps, ascending."""
    values: Float[np.ndarray, " n"]


LoggedSeriesByStage = Mapping[str, Mapping[str, LoggedSeries]]
"""Stage -> name -> series."""


def read_log(path: Path, name: str) -> LoggedSeriesByStage:
    """Read a table with the columns stage, step, `name` and value.

    Args:
        path: metrics.csv or validation.csv.
        name: the third column, "term" or "score".

    Returns:
        The series, stages in the order of training. Values that are empty or not finite are left out.

    Raises:
        DataError: if the file is missing or damaged; the message has file and row.
    """
    stages: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for where, cells in read_table(path, ("stage", "step", name, "value")):
        try:
            step, value = int(cells["step"]), float(cells["value"] or "nan")
            float(step)  # as `_series` needs it
        except (ValueError, OverflowError) as error:
            raise DataError(f"{where}: expected an integer as step and a number as value ({error})") from error
        pairs = stages.setdefault(cells["stage"], {}).setdefault(cells[name], [])
        if math.isfinite(value):
            pairs.append((step, value))
    return {
        stage: {key: _series(pairs) for key, pairs in stages[stage].items()}
        for stage in sorted(stages, key=stage_order)
    }


def _series(pairs: list[tuple[int, float]]) -> LoggedSeries:
    steps, values = np.array(sorted(pairs), np.float64).reshape(-1, 2).T
    return LoggedSeries(steps, values)


def stage_order(stage: str) -> tuple[int, str]:
    """Return a sort key: stages in the order of training, then other names."""
    return (STAGES.index(stage) if stage in STAGES else len(STAGES)), stage
