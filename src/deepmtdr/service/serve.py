"""`deepmtdr serve`: creates receiver, workers, senders and health server, and runs them until SIGTERM."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Mapping

from deepmtdr.errors import ServiceError
from deepmtdr.service.destinations import create_destinations
from deepmtdr.service.health import HealthServer
from deepmtdr.service.housekeeping import Housekeeping
from deepmtdr.service.open_files import reserve_open_files
from deepmtdr.service.queue import Queue
from deepmtdr.service.receiver import StoreServer
from deepmtdr.service.sender import Sender
from deepmtdr.service.settings import ServiceSettings
from deepmtdr.service.states import PlannedDelivery, QueueCounts, ReceiverEvent, StorageStatus
from deepmtdr.service.stored_files import BYTES_PER_GB
from deepmtdr.service.withdrawal import Withdrawal
from deepmtdr.service.worker import Worker
from deepmtdr.service.worker_child import ExaminerFactory

SIGNAL_POLL_SECONDS = 0.2
"""How often the main thread checks whether a signal was received, s."""

log = logging.getLogger(__name__)


class Service:
    """All parts of one service; a context manager that starts and stops them."""

    def __init__(
        self,
        settings: ServiceSettings,
        make_examiner: ExaminerFactory,
        stop_requested: Callable[[], bool] = lambda: False,
    ) -> None:
        """Create the service. Nothing is started, and nothing is written to the disk.

        Args:
            settings: checked settings.
            make_examiner: loads the network; called in each worker process, so it must be picklable.
            stop_requested: ends the start when it returns True while the network loads.
        """
        self.settings, self.make_examiner = settings, make_examiner
        self.stop_requested = stop_requested
        self._open = contextlib.ExitStack()

    def __enter__(self) -> Service:
        """Start: continue what an earlier service left, load the network, then listen.

        If `stop_requested` returns True while the network loads, the context begins without a running receiver.

        Raises:
            ServiceError: if another service runs in the folder, or a port, certificate or checkpoint cannot be used.
            OSError: if the folder cannot be used.
        """
        settings = self.settings
        reserve_open_files(settings)
        with self._open as opened:
            self.queue = Queue(settings.folder)
            opened.callback(self.queue.close)
            opened.enter_context(self.queue.spool.lock())
            self.queue.recover()
            self.receiver = StoreServer(settings.receiver, self.queue, self._min_free_bytes)
            self.health = HealthServer(settings.health, self)
            opened.callback(self.health.stop)
            destinations = create_destinations(settings)
            self._accepts = {name: destination.accepts for name, destination in destinations.items()}
            self.senders = [Sender(name, each, self.queue, settings.retry) for name, each in destinations.items()]
            self.housekeeping = Housekeeping(self.queue, settings.retention)
            self.withdrawal = Withdrawal(self.queue, self._deliveries)
            self.workers = [self._worker() for _ in range(settings.workers.count)]
            opened.callback(self._stop)
            self._start()
            self._open = opened.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop listening, wait for the running examination, unlock the folder."""
        self._open.close()

    @property
    def _min_free_bytes(self) -> int:
        return int(self.settings.least_free_mb * 2**20)

    def _worker(self) -> Worker:
        return Worker(self.settings.workers, self.queue, self.make_examiner, self._deliveries)

    def _deliveries(self, files: Iterable[str]) -> list[PlannedDelivery]:
        return [
            PlannedDelivery(file, name)
            for file in sorted(files)
            for name, accepts in self._accepts.items()
            if accepts(file)
        ]

    def _start(self) -> None:
        for worker in self.workers:
            worker.start()
        for worker in self.workers:
            while not worker.loaded.wait(SIGNAL_POLL_SECONDS):
                if self.stop_requested():
                    return
            if worker.load_error:
                raise ServiceError(f"cannot load the network: {worker.load_error}")
        for sender in self.senders:
            sender.start()
        self.withdrawal.start()
        self.housekeeping.start()
        self.receiver.start()
        self.health.start()

    def _stop(self) -> None:
        deadline = time.monotonic() + self.settings.stop_seconds
        self.receiver.stop()
        threads = [*self.workers, *self.senders, self.withdrawal, self.housekeeping]
        for thread in threads:
            thread.stop()
        for thread in threads:
            thread.join(max(deadline - time.monotonic(), 0))

    def problems(self) -> list[str]:
        """List what keeps the service from working; empty if it is healthy.

        Dead letters and destinations that are down are not listed: restarting the service would not help.
        """
        found = [] if self.receiver.alive else ["the receiver does not listen"]
        found += ["a worker is not running" for worker in self.workers if not worker.alive]
        found += [f"nothing is sent to {sender.name}" for sender in self.senders if not sender.alive]
        found += [] if self.withdrawal.alive else ["results of corrected photographs are not withdrawn"]
        if self.free_bytes() < self._min_free_bytes:
            found.append("the disk is full")
        return found

    def warnings(self) -> list[str]:
        """List what makes the service work worse than it should; empty if nothing does."""
        found = self.receiver.warnings() + self.health.warnings()
        found += [f"{sender.name} cannot be reached" for sender in self.senders if sender.failures]
        if self.free_bytes() < self._min_free_bytes + self.queue.spool.backlog_bytes:
            found.append("objects are refused: the free disk space is kept for the results of unfinished jobs")
        if clock := self.housekeeping.clock_warning():
            found.append(clock)
        limit = self.settings.retention.largest_gb * BYTES_PER_GB
        if limit and sum(self.queue.stored_files.size()) > limit:
            found.append("the files are larger than retention.largest_gb, but not all destinations have confirmed them")
        return found

    def storage(self) -> StorageStatus:
        """Return the size of the files on the disk."""
        files, backlog = self.queue.stored_files, self.queue.backlog_bytes()
        return StorageStatus(*files.size(), backlog, files.cleared_jobs())

    def clock_jumps(self) -> int:
        """Count how often the clock of the computer was set since the start."""
        return self.housekeeping.clock_jumps

    def counts(self) -> QueueCounts:
        """Count jobs and deliveries by state."""
        return self.queue.counts()

    def receiver_counts(self) -> Mapping[ReceiverEvent, int]:
        """Count the events of the receiver since the start."""
        return self.receiver.counts

    def free_bytes(self) -> int:
        """Return the free disk space, bytes."""
        return self.queue.spool.free_bytes()


def serve(settings: ServiceSettings, make_examiner: ExaminerFactory) -> None:
    """Run a service until SIGTERM or SIGINT. The log goes to stderr and holds no patient data.

    Raises:
        ServiceError, OSError: as `Service.__enter__`.
    """
    os.umask(0o077)
    warnings.simplefilter("ignore")  # warnings of pydicom quote values of the object
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    threading.excepthook = _log_thread_failure
    signals: list[
        int
    ] = []  # not an Event: its `set` can wait for ever in the handler of a signal that interrupts `wait`
    for stop in (signal.SIGTERM, signal.SIGINT):
        signal.signal(stop, lambda number, _: signals.append(number))
    with Service(settings, make_examiner, lambda: bool(signals)) as service:
        if not signals:
            receiver, health = settings.receiver, settings.health
            log.info("%s listens on %s port %d", receiver.ae_title, receiver.address, service.receiver.port)
            log.info("health and metrics on %s port %d", health.address, service.health.port)
        while not signals:
            time.sleep(SIGNAL_POLL_SECONDS)
        log.info("stopping")
    log.info("stopped")


def _log_thread_failure(args: threading.ExceptHookArgs) -> None:
    """Log the type of an error that ended a thread. The text is left out: it may quote values of an object."""
    log.error("thread %s failed: %s", args.thread.name if args.thread else "?", args.exc_type.__name__)
