"""Tasks that a service does from time to time: notice a set clock, store running seconds, remove old files."""

from __future__ import annotations

import logging
import sqlite3
import time

from deepmtdr.service.background_thread import BackgroundThread
from deepmtdr.service.queue import Queue
from deepmtdr.service.running_clock import ClockJumpDetector
from deepmtdr.service.settings import RetentionSettings

CLOCK_CHECK_SECONDS = 1.0
"""How often the clock of the computer is compared with the monotonic clock, s."""
TASK_SECONDS = 60.0
"""How often running seconds are stored and retention rules are applied, s."""
REPORTED_SECONDS = 3600.0
"""How long a jump of the clock is reported as a warning, s."""

log = logging.getLogger(__name__)


class Housekeeping(BackgroundThread):
    """Does the tasks of one service."""

    def __init__(self, queue: Queue, retention: RetentionSettings, detector: ClockJumpDetector | None = None) -> None:
        """Create the thread without starting it.

        Args:
            queue: queue of the service.
            retention: which files are removed.
            detector: compares the clocks; None: those of this computer.
        """
        super().__init__("housekeeping")
        self.queue, self.retention = queue, retention
        self.clock_jumps = 0
        """Number of jumps of the clock since the start."""
        self._detector = detector or ClockJumpDetector()
        self._last_jump, self._last_jump_at = 0.0, 0.0
        self._next_tasks = time.monotonic()

    def run(self) -> None:
        """Do the tasks until `stop`."""
        while not self.stop_requested.wait(CLOCK_CHECK_SECONDS):
            self.check_clock()
            try:
                self.queue.update_reserve()
                if time.monotonic() >= self._next_tasks:
                    self._next_tasks = time.monotonic() + TASK_SECONDS
                    self.queue.store_clock()
                    self.queue.stored_files.apply(self.retention)
            except (OSError, sqlite3.Error) as error:
                log.error("housekeeping failed: %s", type(error).__name__)

    def check_clock(self) -> None:
        """Log and count a jump of the clock."""
        if jump := self._detector.jump():
            self.clock_jumps += 1
            self._last_jump, self._last_jump_at = jump, time.monotonic()
            message = "the clock of this computer was set %s by %.0f s, or it was suspended; waits are not affected"
            log.warning(message, *_direction(jump))

    def clock_warning(self) -> str:
        """Describe a recent jump of the clock; empty if there was none in the last hour."""
        if not self.clock_jumps or time.monotonic() - self._last_jump_at > REPORTED_SECONDS:
            return ""
        direction, seconds = _direction(self._last_jump)
        return f"the clock of this computer was set {direction} by {seconds:.0f} s; check its time server"


def _direction(jump: float) -> tuple[str, float]:
    return "forward" if jump > 0 else "back", abs(jump)
