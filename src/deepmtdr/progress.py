"""A progress bar on stderr, with the time left and, in training, the running losses."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress


class Progress:
    """`with Progress("grading", 100) as progress: ... progress.advance({"loss": 0.3})`.

    The bar is drawn on stderr, so that stdout can be redirected; it is not drawn if stderr is not a terminal.
    """

    def __init__(self, name: str, total: int, done: int = 0, *, shown: bool = True) -> None:
        """Create the bar; `with` starts it.

        Args:
            name: text in front of the bar.
            total: number of steps.
            done: number of steps that were done before.
            shown: False draws nothing.
        """
        console = Console(stderr=True)
        self._bar = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[terms]}"),
            console=console,
            disable=not (shown and console.is_terminal),
        )
        self._task = self._bar.add_task(name, total=total, completed=done, terms="")
        self._means: dict[str, float] = {}

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def advance(self, terms: Mapping[str, float] | None = None) -> None:
        """Count one step.

        Args:
            terms: losses to show after the bar, each as a running mean over about fifty steps.
        """
        for name, value in (terms or {}).items():
            self._means[name] = self._means.get(name, value) * 0.98 + value * 0.02
        text = "  ".join(f"{name} {value:.4g}" for name, value in self._means.items())
        self._bar.update(self._task, advance=1, terms=text)
