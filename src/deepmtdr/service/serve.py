"""`deepmtdr serve`: the receiver, the workers, the senders and the health door, wired; from start to SIGTERM."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterable

from deepmtdr.errors import ClinicError
from deepmtdr.service.destinations import create_destinations
from deepmtdr.service.health import HealthServer
from deepmtdr.service.queue import Queue, QueueCounts
from deepmtdr.service.receiver import StoreServer
from deepmtdr.service.sender import Sender
from deepmtdr.service.settings import ServiceSettings
from deepmtdr.service.worker import ExaminerFactory, Worker

log = logging.getLogger(__name__)


class Service:
    """Everything that runs in one folder; a context: it runs inside of it."""

    def __init__(self, settings: ServiceSettings, make_examiner: ExaminerFactory) -> None:
        """Nothing runs, and nothing is made on the disk.

        Args:
            settings: of the site.
            make_examiner: called in each worker process; must be picklable.
        """
        self.settings, self.make_examiner = settings, make_examiner
        self._open = contextlib.ExitStack()

    def __enter__(self) -> Service:
        """Start: take up what an earlier service left, load the network, then listen.

        Raises:
            ClinicError: if another service works here, a port, certificate or checkpoint cannot be used.
            OSError: if the folder cannot be used.
        """
        settings = self.settings
        with self._open as opened:
            self.queue = Queue(settings.folder)
            opened.callback(self.queue.close)
            opened.enter_context(self.queue.spool.lock())
            self.queue.recover()
            min_free_bytes = int(settings.least_free_mb * 2**20)
            self.receiver = StoreServer(settings.receiver, self.queue, min_free_bytes)
            self.health = HealthServer(settings.health, self)
            opened.callback(self.health.stop)
            found = create_destinations(settings)
            self._accepts = {name: destination.accepts for name, destination in found.items()}
            self.senders = [Sender(name, each, self.queue, settings.retry) for name, each in found.items()]
            self.workers = [self._worker() for _ in range(settings.workers.count)]
            opened.callback(self._stop)
            self._start()
            self._open = opened.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop listening, let the object under way be finished, let go of the folder."""
        self._open.close()

    def _worker(self) -> Worker:
        return Worker(self.settings.workers, self.queue, self.make_examiner, self._deliveries)

    def _deliveries(self, files: Iterable[str]) -> list[tuple[str, str]]:
        return [(file, name) for file in sorted(files) for name, accepts in self._accepts.items() if accepts(file)]

    def _start(self) -> None:
        for worker in self.workers:
            worker.start()
        for worker in self.workers:
            while not worker.loaded.wait(0.5):
                pass
            if worker.load_error:
                raise ClinicError(f"the network cannot be loaded: {worker.load_error}")
        for sender in self.senders:
            sender.start()
        self.receiver.start()
        self.health.start()

    def _stop(self) -> None:
        until = time.monotonic() + self.settings.stop_seconds
        self.receiver.stop()
        threads = [*self.workers, *self.senders]
        for thread in threads:
            thread.stop()
        for thread in threads:
            thread.join(max(until - time.monotonic(), 0))

    def problems(self) -> list[str]:
        """What keeps it from its work; none if it is well. Dead letters and a PACS that is down are no such thing."""
        found = [] if self.receiver.alive else ["the receiver does not listen"]
        found += ["a worker does not work" for worker in self.workers if not worker.alive]
        found += [f"nothing is sent to {sender.name}" for sender in self.senders if not sender.alive]
        if self.free_bytes() < self.settings.least_free_mb * 2**20:
            found.append("the disk is full")
        return found

    def counts(self) -> QueueCounts:
        """How the queue stands."""
        return self.queue.counts()

    def receiver_counts(self) -> dict[str, int]:
        """What came to the door since the start."""
        kinds = ("stored", "again", "refused", "associations", "connections")
        return {kind: self.receiver.counts[kind] for kind in kinds}

    def free_bytes(self) -> int:
        """Bytes of disk left."""
        return self.queue.spool.free_bytes()


def serve(settings: ServiceSettings, make_examiner: ExaminerFactory) -> None:
    """Run until SIGTERM or SIGINT; logs go to stderr and hold no patient data.

    Raises:
        ClinicError, OSError: as `Service.__enter__`.
    """
    os.umask(0o077)
    warnings.simplefilter("ignore")  # pydicom's quote what stands in an object
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    threading.excepthook = _say_kind
    told = threading.Event()
    for stop in (signal.SIGTERM, signal.SIGINT):
        signal.signal(stop, lambda *_: told.set())
    with Service(settings, make_examiner) as service:
        receiver, health = settings.receiver, settings.health
        log.info("%s listens on %s port %d", receiver.ae_title, receiver.address, service.receiver.port)
        log.info("health and metrics on %s port %d", health.address, service.health.port)
        while not told.wait(1.0):
            pass
        log.info("told to stop")
    log.info("stopped")


def _say_kind(args: threading.ExceptHookArgs) -> None:
    """A thread that failed: the kind of error, not its text, which may quote what stands in an object."""
    log.error("thread %s failed: %s", args.thread.name if args.thread else "?", args.exc_type.__name__)
