"""The outbox: one thread for each destination, which sends what is due and waits longer after each failure."""

from __future__ import annotations

import logging
import random
import sqlite3
import threading
import time
from collections.abc import Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

from deepmtdr.errors import ClinicError
from deepmtdr.service.queue import OutboxItem, Queue
from deepmtdr.service.settings import RetrySettings

BATCH_SIZE = 50
"""Most files in one association or connection."""
IDLE_WAIT_SECONDS = 1.0
"""Wait, s."""

log = logging.getLogger(__name__)


class DeliveryResult(NamedTuple):
    """How the delivery of one file ended."""

    state: str
    """`sent`; `waiting`: to be tried again; `dead`: refused for good."""
    reason: str = ""


class DestinationUnreachable(ClinicError):
    """A destination that cannot be reached, or will not talk to this service: nothing is wrong with the files."""


@runtime_checkable
class Destination(Protocol):
    """Where results go."""

    def accepts(self, file: str) -> bool:
        """Whether a result file of this name is for it."""
        ...

    def deliver(self, paths: Sequence[Path]) -> Generator[DeliveryResult, None, None]:
        """Send files in their order, over one connection; what is said of each comes as soon as it is known.

        Raises:
            DestinationUnreachable: from the first file on that could not be sent for no fault of its own.
        """
        ...


class Sender:
    """The thread of one destination."""

    def __init__(self, name: str, destination: Destination, queue: Queue, retry: RetrySettings) -> None:
        """Nothing is sent yet."""
        self.name, self.destination, self.queue, self.retry = name, destination, queue, retry
        self.failures = 0
        """Attempts in a row that did not reach the destination."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"sender {name}", daemon=True)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether it still looks for something to send."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """Send no more than what is under way."""
        self._stop.set()
        self.queue.notify()

    def join(self, seconds: float) -> None:
        """Wait for that, at most so long; what was sent and not written down is sent again, and is the same object."""
        self._thread.join(seconds)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._send_what_is_due()
            except sqlite3.Error as error:
                log.error("%s: the queue failed (%s)", self.name, type(error).__name__)
                self._stop.wait(self.retry.first_wait)

    def _send_what_is_due(self) -> None:
        left = self.queue.due_deliveries(self.name, BATCH_SIZE)
        if not left:
            return self.queue.wait(IDLE_WAIT_SECONDS)
        try:
            with closing(self.destination.deliver([item.path for item in left])) as deliveries:
                for delivery in deliveries:
                    self.failures = 0
                    self._note(left.pop(0), delivery)
                    if self._stop.is_set():
                        break
        except DestinationUnreachable as error:
            self._unreachable(left, str(error))
        except sqlite3.Error:
            raise
        except Exception as error:  # a secret that is gone, a bug in a library: the thread goes on
            self._unreachable(left, f"{type(error).__name__}: {error}")
        return None

    def _note(self, item: OutboxItem, delivery: DeliveryResult) -> None:
        """Write down how one delivery ended."""
        old = time.time() - item.since > 3600 * self.retry.give_up_hours
        state = "dead" if delivery.state == "waiting" and old else delivery.state
        wait = retry_delay(self.retry, item.attempts) if state == "waiting" else 0.0
        self.queue.record_delivery(item, state, delivery.reason, wait)
        level = logging.INFO if state == "sent" else logging.WARNING
        log.log(level, "job %d, result %d: %s (%s)", item.job, item.id, state, self.name)

    def _unreachable(self, left: Sequence[OutboxItem], reason: str) -> None:
        """Wait for the destination. The file that was under way waits longer: it may be the cause."""
        wait = retry_delay(self.retry, self.failures)
        self.failures += 1
        log.warning("%s cannot be reached, attempt %d; waits %.0f s", self.name, self.failures, wait)
        for n, item in enumerate(left):
            old = time.time() - item.since > 3600 * self.retry.give_up_hours
            longer = wait + retry_delay(self.retry, item.attempts) if n == 0 else 0.0
            self.queue.record_delivery(item, "dead" if old else "waiting", reason, longer)
        self._stop.wait(wait)


def retry_delay(retry: RetrySettings, failures: int) -> float:
    """Seconds before the next attempt after so many failures before this one: from half to the whole of the step."""
    step = min(retry.first_wait * retry.factor ** min(failures, 100), retry.longest_wait)
    return step * random.uniform(0.5, 1.0)
