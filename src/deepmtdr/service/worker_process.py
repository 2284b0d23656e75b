"""Control a worker process from the service: start it, pass it an object, enforce its limits, kill it."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

from deepmtdr.service.states import Job
from deepmtdr.service.worker_child import ExaminerFactory, ReplyKind, WorkerReply, run_worker_process

POLL_SECONDS = 0.1
"""How often memory and time are checked while the process works, s."""


class WorkerProcess:
    """A worker process, which can be started again after it has ended."""

    def __init__(self, make_examiner: ExaminerFactory, memory_mb: float) -> None:
        """Create the object without starting the process.

        Args:
            make_examiner: loads the network in the process.
            memory_mb: resident memory beyond which the process is killed, MiB.
        """
        self.make_examiner, self.memory_mb = make_examiner, memory_mb
        self._process: BaseProcess | None = None
        self._connection: Connection | None = None

    @property
    def running(self) -> bool:
        """Whether the network is loaded and the process can examine."""
        return self._process is not None

    def start(self, seconds: float, cancel: threading.Event) -> WorkerReply:
        """Start the process and wait until the network is loaded.

        Args:
            seconds: longest wait, s.
            cancel: ends the wait when it is set.

        Returns:
            A reply of the kind `READY`; any other kind means that the process has been killed.
        """
        context = multiprocessing.get_context("spawn")
        self._connection, child_end = context.Pipe()
        arguments = (child_end, self.make_examiner)
        self._process = context.Process(target=run_worker_process, args=arguments, daemon=True)
        self._process.start()
        child_end.close()
        reply = self._reply(seconds, cancel)
        if reply.kind != ReplyKind.READY:
            self.kill()
        return reply

    def examine(self, job: Job, folder: Path, seconds: float, cancel: threading.Event) -> WorkerReply:
        """Examine one object.

        Args:
            job: its DICOM file, and the SOP Instance UID that the sender announced.
            folder: an empty folder for the results.
            seconds: longest time, s; then the process is killed.
            cancel: the process is killed when it is set.
        """
        assert self._connection is not None
        with contextlib.suppress(OSError):  # the process ended while it was idle: `_reply` reports that
            self._connection.send((job.source, folder, job.uid))
        reply = self._reply(seconds, cancel)
        if reply.kind in (ReplyKind.CRASHED, ReplyKind.STOPPED):
            self.kill()
        return reply

    def _reply(self, seconds: float, cancel: threading.Event) -> WorkerReply:
        """Wait for a reply of the process. If there is none, return the reason as a reply."""
        assert self._connection is not None and self._process is not None
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                if self._connection.poll(POLL_SECONDS):
                    return self._connection.recv()
            except (EOFError, OSError):
                self._process.join()
                return WorkerReply(ReplyKind.CRASHED, f"the worker process ended (exit code {self._process.exitcode})")
            if cancel.is_set():
                return WorkerReply(ReplyKind.STOPPED)
            if _resident_bytes(self._process.pid) > self.memory_mb * 2**20:
                return WorkerReply(
                    ReplyKind.CRASHED, f"the worker process used more than {self.memory_mb:g} MiB of memory"
                )
        return WorkerReply(ReplyKind.CRASHED, f"the worker process took more than {seconds:g} s")

    def kill(self) -> None:
        """Kill the process and the processes that it has started; does nothing if it is not running."""
        if self._process is None or self._connection is None:
            return
        if self._process.pid is not None:
            with contextlib.suppress(
                ProcessLookupError
            ):  # the process has not made its group yet, or all processes of the group have ended
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()
        self._process.join()
        self._connection.close()
        self._process = self._connection = None


def _resident_bytes(pid: int | None) -> int:
    """Return the resident memory of a process, bytes; 0 if the operating system has no /proc."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0
