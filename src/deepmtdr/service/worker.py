"""The threads that take jobs from the queue and have a process examine them.

If an object makes its process crash, hang or use too much memory, only that process ends, and a crash of the object is
counted. If the whole service ends, no crash is counted.
"""

from __future__ import annotations

import logging
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable

from deepmtdr.errors import ServiceError
from deepmtdr.service.background_thread import BackgroundThread
from deepmtdr.service.queue import Queue
from deepmtdr.service.settings import WorkerSettings
from deepmtdr.service.states import Job, PlannedDelivery
from deepmtdr.service.worker_child import ExaminerFactory, ReplyKind, WorkerReply
from deepmtdr.service.worker_process import WorkerProcess

DISK_FULL_WAIT_SECONDS = 10.0
"""Wait while the disk is full, s."""
FIRST_RELOAD_WAIT_SECONDS, LONGEST_RELOAD_WAIT_SECONDS = 1.0, 60.0
"""First and longest wait before the network is loaded again after a failure, s; each wait is twice the wait before."""

log = logging.getLogger(__name__)


class Worker(BackgroundThread):
    """One process and the thread that gives it jobs."""

    def __init__(
        self,
        settings: WorkerSettings,
        queue: Queue,
        make_examiner: ExaminerFactory,
        deliveries: Callable[[Iterable[str]], Iterable[PlannedDelivery]],
    ) -> None:
        """Create the worker without starting it.

        Args:
            settings: limits of time, memory and crashes.
            queue: queue of the jobs, which also stores their results.
            make_examiner: loads the network in the process.
            deliveries: function that decides to which destinations result files are sent.
        """
        super().__init__("worker")
        self.settings, self.queue, self.deliveries = settings, queue, deliveries
        self.load_error = ""
        """Why the network could not be loaded the last time; empty if it could."""
        self.loaded = threading.Event()
        """Set after the first attempt to load the network, successful or not."""
        self._process = WorkerProcess(make_examiner, settings.memory_mb)
        self._kill_requested = threading.Event()

    @property
    def alive(self) -> bool:
        """Whether the worker takes jobs; False while the network cannot be loaded."""
        return super().alive and not self.load_error

    def stop(self) -> None:
        """Request the worker to end after the job it is working on."""
        super().stop()
        self.queue.notify()

    def join(self, seconds: float | None = None) -> None:
        """Wait for the present job; kill its process if it takes longer. The next service then begins with that job."""
        super().join(seconds)
        self._kill_requested.set()
        super().join()

    def run(self) -> None:
        """Load the network and work on jobs until `stop`."""
        wait = FIRST_RELOAD_WAIT_SECONDS
        while not self.stop_requested.is_set():
            try:
                if not self._process.running and not self._load():
                    self.stop_requested.wait(wait)
                    wait = min(2 * wait, LONGEST_RELOAD_WAIT_SECONDS)
                elif job := self.queue.claim():
                    self._work_on(job)
                else:
                    wait = FIRST_RELOAD_WAIT_SECONDS
                    self.queue.wait()
            except (OSError, sqlite3.Error) as error:
                log.error("a worker waits %g s: %s", DISK_FULL_WAIT_SECONDS, type(error).__name__)
                self.stop_requested.wait(DISK_FULL_WAIT_SECONDS)
        self._process.kill()

    def _load(self) -> bool:
        """Start a process. Returns whether its network could be loaded."""
        reply = self._process.start(self.settings.load_seconds, cancel=self.stop_requested)
        loaded = reply.kind == ReplyKind.READY
        if not loaded:
            log.error("a worker could not be loaded (%s)", reply.kind)
        self.load_error = "" if loaded else reply.reason or reply.kind
        self.loaded.set()
        return loaded

    def _work_on(self, job: Job) -> None:
        begun, part = time.perf_counter(), None
        try:
            part = self.queue.spool.create_staging_folder()
            reply = self._process.examine(job, part, self.settings.seconds, cancel=self._kill_requested)
            if reply.kind == ReplyKind.DONE:
                files = [path.name for path in part.iterdir()]
                seconds = time.perf_counter() - begun
                self.queue.complete(job, part, seconds, self.deliveries(files), reply.identity)
                log.info("job %d: done in %.1f s", job.id, time.perf_counter() - begun)
        except ServiceError as error:
            reply = WorkerReply(ReplyKind.REFUSED, str(error))
        except (OSError, sqlite3.Error) as error:
            reply = WorkerReply(ReplyKind.DISK_FULL, type(error).__name__)
        finally:
            if part is not None:
                shutil.rmtree(part, ignore_errors=True)
        self._settle(job, reply)

    def _settle(self, job: Job, reply: WorkerReply) -> None:
        """Store how a job ended; try again while the disk is full."""
        while True:
            try:
                return self._record(job, reply)
            except sqlite3.Error as error:
                log.error("job %d: its state cannot be stored (%s)", job.id, type(error).__name__)
                if self.stop_requested.wait(DISK_FULL_WAIT_SECONDS):
                    return None  # the job stays "working"; the next service changes that into "received"

    def _record(self, job: Job, reply: WorkerReply) -> None:
        """Store how a job ended. The log gets only the kind of the reply: a reason may quote values of the object."""
        match reply.kind:
            case ReplyKind.REFUSED:
                self.queue.mark_dead(job, reply.reason)
                log.warning("job %d: dead letter, the object cannot be examined", job.id)
            case ReplyKind.CRASHED | ReplyKind.FAILED:
                dead = self.queue.record_crash(job, reply.reason, self.settings.crashes)
                log.error("job %d: %s%s", job.id, reply.kind, ", dead letter" if dead else "")
            case ReplyKind.DISK_FULL | ReplyKind.STOPPED:
                self.queue.requeue(job)
                log.warning("job %d: queued again (%s)", job.id, reply.reason or reply.kind)
                if reply.kind == ReplyKind.DISK_FULL:
                    self.stop_requested.wait(DISK_FULL_WAIT_SECONDS)
