"""Stop a run after its current step when a signal arrives."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def catch_stop_signals() -> Iterator[list[str]]:
    """Context manager that records SIGTERM and SIGINT in a list; a second signal of the same kind ends the process."""
    received: list[str] = []
    if threading.current_thread() is not threading.main_thread():  # only the main thread may catch signals
        yield received
        return

    def record(number: int, frame: object) -> None:
        received.append(signal.Signals(number).name)
        signal.signal(number, before[signal.Signals(number)])

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    for number in before:
        signal.signal(number, record)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
