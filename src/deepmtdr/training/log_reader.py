"""What a run has logged, read back: each value over the steps of its stage."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from deepmtdr.datasets.layout import read_table
from deepmtdr.errors import DataError
from deepmtdr.recipe import STAGES


class LoggedSeries(NamedTuple):
    """A loss or a score in the course of a stage."""

    steps: Float[np.ndarray, " n"]
    """Ascending."""
    values: Float[np.ndarray, " n"]


LoggedSeriesByStage = Mapping[str, Mapping[str, LoggedSeries]]
"""By stage and name."""


def read_log(path: Path, name: str) -> LoggedSeriesByStage:
    """Read a table of the columns stage, step, `name` and value.

    Args:
        path: metrics.csv or validation.csv.
        name: the third column, "term" or "score".

    Returns:
        The traces, stages in the order of training. Values that are not finite, or left empty, are left out.

    Raises:
        DataError: if the file is missing or damaged, naming file and row.
    """
    rows: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for where, cells in read_table(path, ("stage", "step", name, "value")):
        try:
            step, value = int(cells["step"]), float(cells["value"] or "nan")
        except ValueError as error:
            raise DataError(f"{where}: expected a whole step and a number as value ({error})") from error
        own = rows.setdefault(cells["stage"], {}).setdefault(cells[name], [])
        if math.isfinite(value):
            own.append((step, value))
    return {stage: {key: _trace(rows[stage][key]) for key in rows[stage]} for stage in sorted(rows, key=stage_order)}


def _trace(pairs: list[tuple[int, float]]) -> LoggedSeries:
    steps, values = np.array(sorted(pairs), np.float64).reshape(-1, 2).T
    return LoggedSeries(steps, values)


def stage_order(stage: str) -> tuple[int, str]:
    """Stages in the order of training, then whatever else there is."""
    return (STAGES.index(stage) if stage in STAGES else len(STAGES)), stage
