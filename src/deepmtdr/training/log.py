"""Logs of a run: the losses of every step, the scores of every validation, and TensorBoard on request."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from deepmtdr.csv_tables import format_table
from deepmtdr.errors import DataError, TrainingError
from deepmtdr.files import write_atomically
from deepmtdr.recipe import STAGES

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

LOSSES_FILE, VALIDATION_FILE = "metrics.csv", "validation.csv"


class Log:
    """Writes metrics.csv (a row per step and loss), validation.csv (a row per validation and score), TensorBoard."""

    def __init__(self, out: Path, *, tensorboard: bool = False) -> None:
        self.out = out
        self._tensorboard = _open_tensorboard(out / "tensorboard") if tensorboard else None

    def write_losses(self, stage: str, step: int, terms: Mapping[str, float]) -> None:
        """Append the losses of a step, unweighted (Eqs. 4-11)."""
        self._append(LOSSES_FILE, "term", stage, step, terms)

    def write_scores(self, stage: str, step: int, scores: Mapping[str, float]) -> None:
        """Append the scores of a validation."""
        self._append(VALIDATION_FILE, "score", stage, step, scores)

    def _append(self, name: str, column: str, stage: str, step: int, values: Mapping[str, float]) -> None:
        path = self.out / name
        is_new = not path.exists()
        with path.open("a", encoding="utf-8") as file:
            # Not flushed to the disk at every step: a resumed run removes the rows after its checkpoint anyway.
            header = [("stage", "step", column, "value")] if is_new else []
            file.write(format_table([*header, *((stage, step, key, f"{value:.6g}") for key, value in values.items())]))
        if self._tensorboard is not None:
            for key, value in values.items():
                self._tensorboard.add_scalar(f"{stage}/{key}", value, step)

    def truncate(self, stage: str, step: int) -> None:
        """Remove the rows after a checkpoint: a resumed run writes them again.

        Losses have the number of their step, from 0. A validation has the number of steps done, and comes before the
        checkpoint of that step.

        Args:
            stage: stage of the checkpoint.
            step: number of steps done at the checkpoint.

        Raises:
            DataError: if a row has an unknown stage or no step.
        """
        for name, end in ((LOSSES_FILE, step), (VALIDATION_FILE, step + 1)):
            path = self.out / name
            if path.exists():
                _truncate(path, (stage, end))

    def clear(self) -> None:
        """Remove all rows: no validation.csv, and an empty metrics.csv, which a run without a step needs too."""
        (self.out / VALIDATION_FILE).unlink(missing_ok=True)
        write_atomically(self.out / LOSSES_FILE, b"stage,step,term,value\n")

    def close(self) -> None:
        """Flush the buffers of TensorBoard."""
        if self._tensorboard is not None:
            self._tensorboard.close()


def _truncate(path: Path, end: tuple[str, int]) -> None:
    header, *lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    complete = [line for line in lines if line.endswith("\n")]  # a killed process may leave half a line
    kept = [
        line for row, line in enumerate(complete, 2) if _place(line, f"{path}, row {row}") < (_order(end[0]), end[1])
    ]
    write_atomically(path, "".join([header, *kept]).encode())


def _place(line: str, where: str) -> tuple[int, int]:
    try:
        stage, step, *_ = next(csv.reader([line]))
        return _order(stage), int(step)
    except (ValueError, StopIteration) as error:
        raise DataError(f"{where}: found {line.strip()!r}, expected stage,step,... with a stage of {STAGES}") from error


def _order(stage: str) -> int:
    return (*STAGES, "done").index(stage)


def _open_tensorboard(folder: Path) -> SummaryWriter:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise TrainingError(f"the package tensorboard is missing ({error}); run pip install tensorboard") from error
    return SummaryWriter(str(folder))
