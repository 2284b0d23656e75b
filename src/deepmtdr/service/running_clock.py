"""Time for waits and ages that does not depend on the clock of the computer, and a check for jumps of that clock.

The clock of a computer can be set, by a person or by a time server. A wait until a time of that clock would then end
too early, or never. So the queue measures waits and ages in seconds in which services have run on it (*running
seconds*): they come from the monotonic clock, continue after a restart, and do not grow while no service runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable

MIN_JUMP_SECONDS = 5.0
"""Smallest change of the clock that is reported, s. A time server corrects smaller errors all the time."""


class RunningClock:
    """Counts running seconds: those of earlier services, and those since this object was created."""

    def __init__(self, earlier: float) -> None:
        """Start counting.

        Args:
            earlier: running seconds of earlier services.
        """
        self._offset = earlier - time.monotonic()

    def now(self) -> float:
        """Return the running seconds."""
        return time.monotonic() + self._offset


class ClockJumpDetector:
    """Finds jumps of the computer's clock by comparing it with the monotonic clock."""

    def __init__(self, wall: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Remember the present difference of both clocks.

        Args:
            wall: clock of the computer, s since 1970.
            monotonic: the monotonic clock, which cannot be set, s.
        """
        self._wall, self._monotonic = wall, monotonic
        self._difference = wall() - monotonic()

    def jump(self) -> float:
        """Return by how many seconds the clock was set since the last call: > 0 forward, < 0 back, 0 not at all."""
        difference = self._wall() - self._monotonic()
        jump, self._difference = difference - self._difference, difference
        return jump if abs(jump) >= MIN_JUMP_SECONDS else 0.0
