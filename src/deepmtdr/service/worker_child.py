"""The code of a worker process: it loads the network once, then grades one DICOM object after another."""

from __future__ import annotations

import contextlib
import errno
import multiprocessing
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from enum import StrEnum
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for
from pathlib import Path
from typing import NamedTuple

from deepmtdr.errors import DeepMTDRError, describe_error_location

Examiner = Callable[[Path, Path, str], str]
"""Function that grades one DICOM file and writes all result files into a folder.

It gets the file, the folder and the SOP Instance UID that the sender announced, and returns the identity of the
photograph (`dicom.identity`); empty if it is not known. A DeepMTDRError means that the object cannot be examined; its
message becomes the reason of the dead letter.
"""
ExaminerFactory = Callable[[], Examiner]
"""Function that loads the network; it is pickled, and called once in each worker process."""


class ReplyKind(StrEnum):
    """How an examination, or loading the network, ended."""

    READY = "ready"
    """The network is loaded."""
    DONE = "done"
    """The results are written."""
    REFUSED = "refused"
    """The object cannot be examined."""
    FAILED = "failed"
    """An unexpected error, or a network that cannot be loaded."""
    CRASHED = "crashed"
    """The process ended, or was killed because it took too long or too much memory."""
    DISK_FULL = "full"
    """The results could not be written or stored."""
    STOPPED = "stopped"
    """The service ended before the process replied."""


class WorkerReply(NamedTuple):
    """Reply of a worker process, or the reason why there is no reply."""

    kind: ReplyKind
    reason: str = ""
    identity: str = ""
    """Identity of the examined photograph; empty if there is none."""


def run_worker_process(connection: Connection, make_examiner: ExaminerFactory) -> None:
    """Load the network, then grade each object that is received over the connection, until the connection is closed."""
    os.setsid()  # a new process group, so that decoders which this process started end with it
    os.umask(0o077)
    for stop in (signal.SIGINT, signal.SIGTERM):  # the service decides when this process ends
        signal.signal(stop, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with contextlib.suppress(OSError):  # if memory is short, the kernel ends this process before the receiver
        Path("/proc/self/oom_score_adj").write_text("500")
    warnings.simplefilter("ignore")  # warnings of pydicom quote values of the object
    try:
        examine = make_examiner()
    except Exception as error:
        connection.send(WorkerReply(ReplyKind.FAILED, _describe(error)))
        return
    connection.send(WorkerReply(ReplyKind.READY))
    _silence_output()
    with contextlib.suppress(EOFError, OSError):
        while True:
            source, folder, uid = connection.recv()
            connection.send(_examine(examine, source, folder, uid))


def _examine(examine: Examiner, source: Path, folder: Path, uid: str) -> WorkerReply:
    try:
        return WorkerReply(ReplyKind.DONE, identity=examine(source, folder, uid))
    except DeepMTDRError as error:
        return WorkerReply(ReplyKind.REFUSED, str(error).removeprefix(f"{source}: "))
    except OSError as error:
        if not source.exists():
            return WorkerReply(ReplyKind.REFUSED, "its file was removed from the folder of originals")
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        return WorkerReply(ReplyKind.DISK_FULL if full else ReplyKind.FAILED, _describe(error))
    except Exception as error:  # a bug, or a decoder that failed in an unexpected way
        return WorkerReply(ReplyKind.FAILED, _describe(error))


def _describe(error: Exception) -> str:
    """Describe an error and where it was raised, without the text of an unexpected error: it may quote patient data."""
    return str(error) if isinstance(error, DeepMTDRError) else describe_error_location(error)


def _silence_output() -> None:
    """Discard stdout and stderr: decoders written in C print values of the object to them."""
    sys.stdout.flush()
    sys.stderr.flush()
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)


def _end_with_parent() -> None:
    """Kill this process and the processes that it has started as soon as the service has ended."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait_for([parent.sentinel])
        os.killpg(0, signal.SIGKILL)
