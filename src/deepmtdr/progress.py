"""A progress bar with the time left and, while training, the running losses."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress


class Progress:
    """`with Progress("grading", 100) as progress: ... progress.advance({"loss": 0.3})`."""

    def __init__(self, name: str, total: int, done: int = 0, *, shown: bool = True) -> None:
        self._bar = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[terms]}"),
            disable=not shown,
        )
        self._task = self._bar.add_task(name, total=total, completed=done, terms="")
        self._running: dict[str, float] = {}

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def advance(self, terms: Mapping[str, float] | None = None) -> None:
        """One step further; the terms are shown as running means over about fifty steps."""
        for name, value in (terms or {}).items():
            self._running[name] = self._running.get(name, value) * 0.98 + value * 0.02
        shown = "  ".join(f"{name} {value:.4g}" for name, value in self._running.items())
        self._bar.update(self._task, advance=1, terms=shown)
