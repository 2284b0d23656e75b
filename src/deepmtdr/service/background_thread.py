"""A thread that runs in the background until it is stopped: receiver, workers, senders and health server."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod


class BackgroundThread(ABC):
    """One daemon thread with start, alive, stop and join. A subclass implements `run`."""

    def __init__(self, name: str) -> None:
        """Create the thread without starting it.

        Args:
            name: appears in the log if the thread fails.
        """
        self.stop_requested = threading.Event()
        self._thread = threading.Thread(target=self.run, name=name, daemon=True)

    @abstractmethod
    def run(self) -> None:
        """Work until `stop_requested` is set."""

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread is running."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """Request the thread to end, without waiting for it."""
        self.stop_requested.set()

    def join(self, seconds: float | None = None) -> None:
        """Wait until the thread has ended; returns at once if it was never started.

        Args:
            seconds: longest wait, s; None: no limit.
        """
        if self._thread.ident is not None:
            self._thread.join(seconds)
