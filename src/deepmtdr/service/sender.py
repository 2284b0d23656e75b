"""Send results: one thread for each destination, which waits longer after each failure."""

from __future__ import annotations

import logging
import random
import sqlite3
from collections import deque
from collections.abc import Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

from deepmtdr.errors import ServiceError
from deepmtdr.service.background_thread import BackgroundThread
from deepmtdr.service.queue import Queue
from deepmtdr.service.settings import RetrySettings
from deepmtdr.service.states import DeliveryState, OutboxItem

BATCH_SIZE = 50
"""Largest number of files in one association or connection."""
SECONDS_PER_HOUR = 3600

log = logging.getLogger(__name__)


class DeliveryResult(NamedTuple):
    """How an attempt to deliver one file ended."""

    state: DeliveryState
    """State of the delivery. `WAITING`: send again later; `DEAD`: refused, not sent again."""
    reason: str = ""


class DestinationUnreachable(ServiceError):
    """A destination cannot be reached, or refuses this service. The files are not the cause."""


@runtime_checkable
class Destination(Protocol):
    """A server to which results are sent."""

    def accepts(self, file: str) -> bool:
        """Whether result files of this name are sent to it."""
        ...

    def deliver(self, paths: Sequence[Path]) -> Generator[DeliveryResult, None, None]:
        """Send files over one connection, in their order; yields the result of each file as soon as it is known.

        Raises:
            DestinationUnreachable: if a file could not be sent, and the file is not the cause.
        """
        ...


class _Outcome(NamedTuple):
    """How an attempt to deliver a file ended; the arguments of `Queue.record_delivery`."""

    item: OutboxItem
    state: DeliveryState
    reason: str
    wait: float
    """Wait before the next attempt, s."""


class Sender(BackgroundThread):
    """Sends all deliveries to one destination."""

    def __init__(self, name: str, destination: Destination, queue: Queue, retry: RetrySettings) -> None:
        """Create the sender without starting it."""
        super().__init__(f"sender {name}")
        self.name, self.destination, self.queue, self.retry = name, destination, queue, retry
        self.failures = 0
        """Number of successive attempts that did not reach the destination."""
        self._unrecorded: deque[_Outcome] = deque()
        """Outcomes that the queue does not have yet. Nothing is sent before it has them."""
        self._queue_failures = 0

    def stop(self) -> None:
        """Request the sender to end after the file that is being sent.

        A file that was sent without its delivery being stored is sent again by the next service, with the same UIDs.
        """
        super().stop()
        self.queue.notify()

    def run(self) -> None:
        """Send what is due until `stop`."""
        while not self.stop_requested.is_set():
            try:
                self._store_outcomes()
                self._send_what_is_due()
                self._queue_failures = 0
            except sqlite3.Error as error:  # for example a full disk
                wait = retry_delay(self.retry, self._queue_failures)
                self._queue_failures += 1
                log.error("%s: the queue failed (%s); waiting %.0f s", self.name, type(error).__name__, wait)
                self.stop_requested.wait(wait)

    def _send_what_is_due(self) -> None:
        unsent = self.queue.due_deliveries(self.name, BATCH_SIZE)
        if not unsent:
            return self.queue.wait()
        try:
            with closing(self.destination.deliver([item.path for item in unsent])) as results:
                for result in results:
                    self.failures = 0
                    self._record(unsent.pop(0), result)
                    if self.stop_requested.is_set():
                        break
        except DestinationUnreachable as error:
            self._wait_for_destination(unsent, str(error))
        except sqlite3.Error:
            raise
        except Exception as error:  # for example a secret that cannot be read; the thread must go on
            self._wait_for_destination(unsent, f"{type(error).__name__}: {error}")
        return None

    def _record(self, item: OutboxItem, result: DeliveryResult) -> None:
        """Store how the delivery of one file ended."""
        state = self._dead_if_old(item) if result.state == DeliveryState.WAITING else result.state
        wait = retry_delay(self.retry, item.attempts) if state == DeliveryState.WAITING else 0.0
        self._unrecorded.append(_Outcome(item, state, result.reason, wait))
        self._store_outcomes()
        level = logging.INFO if state == DeliveryState.SENT else logging.WARNING
        log.log(level, "job %d, result %d: %s (%s)", item.job, item.id, state, self.name)

    def _wait_for_destination(self, unsent: Sequence[OutboxItem], reason: str) -> None:
        """Wait after a failure. The first file waits longer than the other files, because it may be the cause."""
        wait = retry_delay(self.retry, self.failures)
        self.failures += 1
        log.warning("%s cannot be reached, attempt %d; waiting %.0f s", self.name, self.failures, wait)
        for number, item in enumerate(unsent):
            longer = wait + retry_delay(self.retry, item.attempts) if number == 0 else 0.0
            self._unrecorded.append(_Outcome(item, self._dead_if_old(item), reason, longer))
        self._store_outcomes()
        self.stop_requested.wait(wait)

    def _store_outcomes(self) -> None:
        """Store the outcomes that the queue does not have yet, oldest first.

        Raises:
            sqlite3.Error: if the queue fails; then the others are kept, so that no file is sent twice.
        """
        while self._unrecorded:
            self.queue.record_delivery(*self._unrecorded[0])
            self._unrecorded.popleft()

    def _dead_if_old(self, item: OutboxItem) -> DeliveryState:
        """Return the state after a failed attempt: waiting, or dead after `give_up_hours`."""
        old = item.age > SECONDS_PER_HOUR * self.retry.give_up_hours
        return DeliveryState.DEAD if old else DeliveryState.WAITING


def retry_delay(retry: RetrySettings, failures: int) -> float:
    """Return the seconds before the next attempt: a random time between half of the present step and the whole step.

    Args:
        retry: first step, factor and longest step.
        failures: failed attempts before the last one.
    """
    step = min(retry.first_wait * retry.factor ** min(failures, 100), retry.longest_wait)
    return step * random.uniform(0.5, 1.0)
