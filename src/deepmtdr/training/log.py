"""What a run writes while it goes on: the losses of every step, the scores of every look; TensorBoard if asked for."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deepmtdr.errors import TrainingError
from deepmtdr.recipe import STAGES

LOSSES_FILE, VALIDATION_FILE = "metrics.csv", "validation.csv"


class Log:
    """The tables of a run, a row for each step and term: long, so that any stage may have terms of its own."""

    def __init__(self, out: Path, *, tensorboard: bool = False) -> None:
        self.out = out
        self._board = _tensorboard(out / "tensorboard") if tensorboard else None

    def write_losses(self, stage: str, step: int, terms: Mapping[str, float]) -> None:
        """Of a step, unweighted (Eqs. 4-11)."""
        self._write(LOSSES_FILE, "term", stage, step, terms)

    def write_scores(self, stage: str, step: int, scores: Mapping[str, float]) -> None:
        """Of a look at the validation side."""
        self._write(VALIDATION_FILE, "score", stage, step, scores)

    def _write(self, name: str, column: str, stage: str, step: int, values: Mapping[str, float]) -> None:
        path = self.out / name
        new = not path.exists()
        with path.open("a", encoding="utf-8") as file:
            if new:
                file.write(f"stage,step,{column},value\n")
            file.writelines(f"{stage},{step},{key},{value:.6g}\n" for key, value in values.items())
        if self._board is not None:
            for key, value in values.items():
                self._board.add_scalar(f"{stage}/{key}", value, step)

    def truncate(self, stage: str, step: int) -> None:
        """Leave out what lies behind a checkpoint after so many steps: it will be done again.

        Losses are those of step 0, 1, ...; a look has the number of steps done, and is taken before their checkpoint.
        """
        for name, end in ((LOSSES_FILE, step), (VALIDATION_FILE, step + 1)):
            path = self.out / name
            if path.exists():
                _cut(path, (stage, end))

    def clear(self) -> None:
        """Leave out everything: a table of losses without a row, so that a run without a step has one too."""
        (self.out / VALIDATION_FILE).unlink(missing_ok=True)
        (self.out / LOSSES_FILE).write_text("stage,step,term,value\n", encoding="utf-8")

    def close(self) -> None:
        """Write what TensorBoard holds back."""
        if self._board is not None:
            self._board.close()


def _cut(path: Path, end: tuple[str, int]) -> None:
    order = (*STAGES, "done")
    header, *lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    whole = [line for line in lines if line.endswith("\n")]
    places = ((order.index(stage), int(step)) for stage, step, *_ in csv.reader(whole))
    kept = [line for line, place in zip(whole, places, strict=True) if place < (order.index(end[0]), end[1])]
    path.write_text("".join([header, *kept]), encoding="utf-8")


def _tensorboard(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise TrainingError(f"expected the package tensorboard, found none ({error}); pip install it") from error
    return SummaryWriter(str(folder))
