"""The processes that examine objects, one at a time each, and the threads that watch over them.

Whatever an object does to its process (crash, hang, memory) ends that process alone, and is counted against the
object. The end of the whole service is counted against none.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import multiprocessing
import os
import shutil
import signal
import sqlite3
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

from deepmtdr.errors import ClinicError, DeepMTDRError, describe_error_location
from deepmtdr.service.queue import Job, Queue
from deepmtdr.service.settings import WorkerSettings

Examiner = Callable[[Path, Path], object]
"""Reads one DICOM file and writes every file of its results into a folder; a DeepMTDRError says why it cannot."""
ExaminerFactory = Callable[[], Examiner]
"""Called once in each worker process, where it loads the network; it is pickled on its way there."""

IDLE_WAIT_SECONDS, DISK_FULL_WAIT_SECONDS = 1.0, 10.0
"""Waits, s."""

log = logging.getLogger(__name__)


class WorkerReply(NamedTuple):
    """How an examination ended."""

    kind: str
    """`ready` (loaded), `done`, `refused` (by the object's fault), `failed` (a bug), `crashed`, `full`, `stopped`."""
    reason: str = ""


class Worker:
    """One process and the thread that gives it jobs."""

    def __init__(
        self,
        settings: WorkerSettings,
        queue: Queue,
        make_examiner: ExaminerFactory,
        deliveries: Callable[[Iterable[str]], Iterable[tuple[str, str]]],
    ) -> None:
        """Nothing runs yet.

        Args:
            settings: limits of time, memory and crashes.
            queue: gives jobs and takes what became of them.
            make_examiner: makes the process able to examine.
            deliveries: file name and destination of each delivery of some result files.
        """
        self.settings, self.queue, self.make_examiner, self.deliveries = settings, queue, make_examiner, deliveries
        self.load_error = ""
        """Why the network could not be loaded last time; "" if it could."""
        self.loaded = threading.Event()
        """Whether a first loading has ended, well or not."""
        self._process: BaseProcess | None = None
        self._connection: Connection | None = None
        self._stop, self._kill = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="worker", daemon=True)

    def start(self) -> None:
        """Begin to load, then to work."""
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether jobs are taken, or will be as soon as the network is loaded again."""
        return self._thread.is_alive() and not self.load_error

    def stop(self) -> None:
        """Take no more jobs."""
        self._stop.set()
        self.queue.notify()

    def join(self, seconds: float) -> None:
        """Wait for the job under way, then end it: it is the first one of the next service."""
        self._thread.join(seconds)
        self._kill.set()
        self._thread.join()

    def _run(self) -> None:
        wait = 1.0
        while not self._stop.is_set():
            try:
                if self._process is None and not self._load():
                    self._stop.wait(wait)
                    wait = min(2 * wait, 60.0)
                elif job := self.queue.claim():
                    self._work_on(job)
                else:
                    wait = 1.0
                    self.queue.wait(IDLE_WAIT_SECONDS)
            except (OSError, sqlite3.Error) as error:
                log.error("a worker waits: %s", type(error).__name__)
                self._stop.wait(DISK_FULL_WAIT_SECONDS)
        self._end_process()

    def _load(self) -> bool:
        """Start a process and wait until it can examine."""
        context = multiprocessing.get_context("spawn")
        self._connection, its_end = context.Pipe()
        process = self._process = context.Process(target=_work, args=(its_end, self.make_examiner), daemon=True)
        process.start()
        its_end.close()
        answer = self._answer(self.settings.load_seconds)
        if answer.kind != "ready":
            self._end_process()
            self.load_error = answer.reason or answer.kind
            log.error("a worker could not be loaded (%s)", answer.kind)
        else:
            self.load_error = ""
        self.loaded.set()
        return answer.kind == "ready"

    def _end_process(self) -> None:
        if self._process is not None and self._connection is not None:
            self._process.kill()
            self._process.join()
            self._connection.close()
        self._process = self._connection = None

    def _work_on(self, job: Job) -> None:
        begun, part, answer = time.perf_counter(), None, WorkerReply("full")
        try:
            part = self.queue.spool.create_staging_folder()
            answer = self._ask(job, part)
            if answer.kind == "done":
                files = [path.name for path in part.iterdir()]
                self.queue.complete(job, part, time.perf_counter() - begun, self.deliveries(files))
                log.info("job %d: done in %.1f s", job.id, time.perf_counter() - begun)
        except ClinicError as error:
            answer = WorkerReply("refused", str(error))
        except (OSError, sqlite3.Error) as error:
            answer = WorkerReply("full", type(error).__name__)
        finally:
            if part is not None:
                shutil.rmtree(part, ignore_errors=True)
        self._settle(job, answer)

    def _ask(self, job: Job, part: Path) -> WorkerReply:
        assert self._connection is not None
        with contextlib.suppress(OSError):  # it has died while it was idle: seen in the answer
            self._connection.send((str(job.source), str(part)))
        answer = self._answer(self.settings.seconds)
        if answer.kind in ("crashed", "stopped"):
            self._end_process()
        return answer

    def _answer(self, seconds: float) -> WorkerReply:
        """What the process says, or why it says nothing."""
        assert self._connection is not None and self._process is not None
        until, most = time.monotonic() + seconds, self.settings.memory_mb * 2**20
        while time.monotonic() < until:
            try:
                if self._connection.poll(0.1):
                    return WorkerReply(*self._connection.recv())
            except (EOFError, OSError):
                self._process.join()
                return WorkerReply("crashed", f"ended its process (exit code {self._process.exitcode})")
            if self._kill.is_set():
                return WorkerReply("stopped")
            if _memory(self._process.pid) > most:
                return WorkerReply("crashed", f"took more than {self.settings.memory_mb:g} MiB of memory")
        return WorkerReply("crashed", f"took more than {seconds:g} s")

    def _settle(self, job: Job, answer: WorkerReply) -> None:
        """Write down what became of a job, however long the disk is full."""
        while True:
            try:
                return self._write_down(job, answer)
            except sqlite3.Error as error:
                log.error("job %d: its state cannot be written (%s)", job.id, type(error).__name__)
                if self._stop.wait(DISK_FULL_WAIT_SECONDS):
                    return None  # the next service finds it as working, which is received

    def _write_down(self, job: Job, answer: WorkerReply) -> None:
        """Logs get the kind of trouble alone: reasons may quote what stands in the object."""
        if answer.kind == "refused":
            self.queue.mark_dead(job, answer.reason)
            log.warning("job %d: dead letter, it cannot be answered", job.id)
        elif answer.kind in ("crashed", "failed"):
            dead = self.queue.record_crash(job, answer.reason, self.settings.crashes)
            log.error("job %d: %s%s", job.id, answer.kind, ", dead letter" if dead else "")
        elif answer.kind in ("full", "stopped"):
            self.queue.requeue(job)
            log.warning("job %d: put back (%s)", job.id, answer.reason or answer.kind)
            self._stop.wait(DISK_FULL_WAIT_SECONDS if answer.kind == "full" else 0)


def _memory(pid: int | None) -> int:
    """Resident bytes of a process; 0 where the system does not say."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def _work(connection: Connection, make_examiner: ExaminerFactory) -> None:
    """The process: load, then answer until the service is gone."""
    os.umask(0o077)
    for stop in (signal.SIGINT, signal.SIGTERM):  # of the whole group: the service decides when to end this one
        signal.signal(stop, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with contextlib.suppress(OSError):  # where memory is short, this process goes before the one that receives
        Path("/proc/self/oom_score_adj").write_text("500")
    warnings.simplefilter("ignore")  # they quote what stands in the object
    try:
        examine = make_examiner()
    except Exception as error:
        connection.send(("failed", _said(error)))
        return
    connection.send(("ready", ""))
    _silence()
    with contextlib.suppress(EOFError, OSError):
        while True:
            source, folder = connection.recv()
            connection.send(_examined(examine, Path(source), Path(folder)))


def _examined(examine: Examiner, source: Path, folder: Path) -> tuple[str, str]:
    try:
        examine(source, folder)
        return "done", ""
    except DeepMTDRError as error:
        return "refused", str(error).removeprefix(f"{source}: ")
    except OSError as error:
        return ("full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "failed"), _said(error)
    except Exception as error:  # a bug, or a decoder at the end of its wits
        return "failed", _said(error)


def _said(error: Exception) -> str:
    """What went wrong and where."""
    return str(error) if isinstance(error, DeepMTDRError) else describe_error_location(error)


def _silence() -> None:
    """Decoders written in C print what they find in an object."""
    sys.stdout.flush()
    sys.stderr.flush()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait_for([parent.sentinel])
        os._exit(1)
