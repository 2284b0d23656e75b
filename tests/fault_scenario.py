"""A short life of a queue in which one call to the disk or to SQLite fails, or the process ends there.

`python fault_scenario.py FAULT STEP FOLDER` repeats the scenario for call 1, 1 + STEP, ... until no call is left, each
time in a separate process, and checks after each one that the next service finds everything that was answered with
success. `python fault_scenario.py --once FOLDER` runs it once, without faults from this file:
`benchmarks/disk_faults.py` makes the system calls of that process fail.
"""

from __future__ import annotations

import errno
import json
import mmap
import os
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

from deepmtdr.errors import DeepMTDRError
from deepmtdr.service import queue_database, spool
from deepmtdr.service.queue import Queue
from deepmtdr.service.queue_database import QueueDatabase
from deepmtdr.service.spool import object_digest
from deepmtdr.service.states import DeliveryState, JobState, OutboxItem, PlannedDelivery

OBJECTS = 2
DESTINATIONS = ("archive", "pacs")
RESULT_FILES = ("a.dcm", "b.dcm")
KILLED = 77
"""Exit code of a process that ended at a call."""


class Fault(StrEnum):
    """What happens at a call."""

    FULL = "ENOSPC"
    """The disk is full; nothing is done."""
    BROKEN = "EIO"
    """An input or output error is reported; nothing is done."""
    BROKEN_LATE = "EIO, but done"
    """An input or output error is reported, although the call did its work."""
    KILL = "kill before"
    KILL_LATE = "kill after"


class Confirmations:
    """What was answered with success, one byte each, in a file that is read after the process has ended."""

    SIZE = 4096

    def __init__(self, path: Path) -> None:
        with path.open("a+b") as file:
            file.truncate(self.SIZE)
            self._memory = mmap.mmap(file.fileno(), self.SIZE)

    def add(self, number: int) -> None:
        self._memory[number] = 1

    def numbers(self, first: int, last: int) -> set[int]:
        return {number - first for number in range(first, last) if self._memory[number]}


RECEIVED, DONE, SENT, RECORDED, CLEARED = 0, 100, 200, 1000, 2000
"""First number of each kind of confirmation: object, job, delivery that the destination has, delivery, all clearing."""


def content_of(number: int) -> bytes:
    return f"photograph {number}".encode() * 1000


def digest_of(number: int) -> str:
    return object_digest(f"1.2.{number}", "class", "syntax", content_of(number))


@contextmanager
def failing() -> Iterator[None]:
    """The service answers a failure, and goes on."""
    with suppress(OSError, sqlite3.Error, DeepMTDRError):
        yield


def run_scenario(folder: Path, confirmed: Confirmations) -> None:
    """Receive, examine, send and remove, as a service does."""
    queue: Queue | None = None
    with failing():
        queue = Queue(folder)
        queue.recover()
    if queue is None:
        return
    for number in range(OBJECTS):
        with failing():
            staged = queue.spool.stage_original(content_of(number)[:4000])
            staged.write(content_of(number)[4000:])
            queue.receive(staged, f"1.2.{number}", digest_of(number))
            confirmed.add(RECEIVED + number)
    for _ in range(OBJECTS - 1):  # the last object waits
        with failing():
            examine(queue, confirmed)
    for destination in DESTINATIONS:
        with failing():
            deliver(queue, destination, confirmed)
    with failing():
        queue.stored_files.clear_older_than(0.0)
        confirmed.add(CLEARED)
    queue.close()


def examine(queue: Queue, confirmed: Confirmations) -> None:
    """Examine the next object."""
    job = queue.claim()
    if job is None:
        return
    part = queue.spool.create_staging_folder()
    try:
        for name in RESULT_FILES:
            (part / name).write_bytes(job.source.read_bytes())
        planned = [PlannedDelivery(name, where) for name in RESULT_FILES for where in DESTINATIONS]
        queue.complete(job, part, 1.0, planned)
        confirmed.add(DONE + job.id)
    except (OSError, sqlite3.Error):
        shutil.rmtree(part, ignore_errors=True)
        queue.requeue(job)


def deliver(queue: Queue, destination: str, confirmed: Confirmations) -> None:
    """Send all that is due to a destination that accepts everything."""
    unrecorded: list[OutboxItem] = []
    for item in queue.due_deliveries(destination, 10):
        assert item.path.is_file(), "a delivery without its file"
        confirmed.add(SENT + item.id)
        unrecorded.append(item)
    for item in unrecorded:
        queue.record_delivery(item, DeliveryState.SENT)
        confirmed.add(RECORDED + item.id)


def check(folder: Path, confirmed: Confirmations) -> list[str]:
    """Start the next service, and list what it has lost."""
    with closing(Queue(folder)) as queue:
        queue.recover()
        read = queue._database.read
        problems = [] if read("PRAGMA integrity_check") == [("ok",)] else ["the database is damaged"]
        jobs = {digest: (job, JobState(state), cleared) for job, digest, state, cleared in read(JOBS)}
        sent = {item for (item,) in read("SELECT id FROM outbox WHERE state = 'sent'")}
        problems += [f"object {n} is lost" for n in confirmed.numbers(RECEIVED, DONE) if not _is_stored(queue, jobs, n)]
        for job in confirmed.numbers(DONE, SENT):
            problems += _missing_results(queue, job)
        problems += [f"delivery {n} is sent again" for n in confirmed.numbers(RECORDED, CLEARED) - sent]
        problems += [f"delivery {n} was never sent" for n in sent - confirmed.numbers(SENT, RECORDED)]
        problems += [f"{path.name} is left" for path in folder.glob("*/.*.part")]
        problems += [f"{path.name} has no row" for path in queue.spool.originals.iterdir() if path.stem not in jobs]
        return problems + _finish(queue)


JOBS = "SELECT id, digest, state, cleared FROM jobs"


def _is_stored(queue: Queue, jobs: dict[str, tuple[int, JobState, int]], number: int) -> bool:
    job, state, cleared = jobs.get(digest_of(number), (0, JobState.DEAD, 0))
    if not job or state == JobState.DEAD:
        return False
    return bool(cleared) or queue.spool.original_path(digest_of(number)).read_bytes() == content_of(number)


def _missing_results(queue: Queue, job: int) -> list[str]:
    """The results of a job that is done, unless every destination has them and they were removed."""
    read = queue._database.read
    ((state, cleared),) = read("SELECT state, cleared FROM jobs WHERE id = ?", job)
    outbox = read("SELECT state FROM outbox WHERE job = ?", job)
    if len(outbox) != len(RESULT_FILES) * len(DESTINATIONS) or state != JobState.DONE:
        return [f"job {job} is {state} and has {len(outbox)} deliveries"]
    if cleared:
        return [] if set(outbox) == {("sent",)} else [f"job {job} was removed before all destinations had its results"]
    files = {path.name for path in queue.spool.results_folder(job).iterdir()}
    return [] if files == set(RESULT_FILES) else [f"job {job} has {len(files)} results"]


def _finish(queue: Queue) -> list[str]:
    """Do the rest of the work; a queue that cannot go on has a problem."""
    nothing = Confirmations(queue.spool.folder / "rest")
    for _ in range(OBJECTS):
        with failing():
            examine(queue, nothing)
    for destination in DESTINATIONS:
        deliver(queue, destination, nothing)
    counts = queue.counts()
    unfinished = sum(counts.jobs.values()) - counts.jobs[JobState.DONE] + counts.deliveries(DeliveryState.WAITING)
    return [f"{unfinished} jobs or deliveries cannot be finished"] if unfinished else []


class Injector:
    """Counts the calls that write, and makes one of them fail."""

    def __init__(self, fault: Fault, number: int) -> None:
        self.fault, self.number, self.calls = fault, number, 0

    def wrap(self, call: Callable[..., Any], error: Callable[[int], Exception]) -> Callable[..., Any]:
        def wrapped(*values: Any, **named: Any) -> Any:
            self.calls += 1
            if self.calls != self.number:
                return call(*values, **named)
            if self.fault == Fault.KILL:
                os._exit(KILLED)
            if self.fault in (Fault.BROKEN_LATE, Fault.KILL_LATE):
                call(*values, **named)
            if self.fault == Fault.KILL_LATE:
                os._exit(KILLED)
            raise error(errno.ENOSPC if self.fault == Fault.FULL else errno.EIO)

        return wrapped

    def install(self) -> None:
        """Replace the calls of this process, which ends soon."""
        for place, names in (
            (os, ("open", "fsync", "fdopen")),
            (Path, ("replace", "rename", "mkdir", "unlink", "chmod", "write_bytes")),
            (spool.StagedOriginal, ("write", "finish")),
            (shutil, ("rmtree",)),
        ):
            for name in names:
                setattr(place, name, self.wrap(getattr(place, name), _os_error))
        execute = QueueDatabase.execute
        queue_database.QueueDatabase.execute = self.wrap(execute, _sqlite_error)


def _os_error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def _sqlite_error(number: int) -> sqlite3.Error:
    return sqlite3.OperationalError("database or disk is full" if number == errno.ENOSPC else "disk I/O error")


class Outcome(NamedTuple):
    """Result of all numbers of one fault."""

    calls: int
    """Number of the last call that was made to fail."""
    problems: list[str]


def try_calls(fault: Fault, step: int, folder: Path) -> Outcome:
    """Repeat the scenario with a fault at call 1, 1 + step, ... until there are fewer calls."""
    problems: list[str] = []
    number = 1
    while True:
        place = folder / f"{fault.name}-{number}"
        place.mkdir()
        confirmed = Confirmations(place / "confirmed")
        if not _run_child(fault, number, place / "service", confirmed):
            shutil.rmtree(place)
            return Outcome(number - step, problems)
        found = check(place / "service", confirmed)
        problems += [f"{fault} at call {number}: {problem}" for problem in found]
        shutil.rmtree(place)
        number += step


def _run_child(fault: Fault, number: int, folder: Path, confirmed: Confirmations) -> bool:
    """Run the scenario in a child process. Returns whether it had so many calls."""
    child = os.fork()
    if child == 0:
        injector = Injector(fault, number)
        code = 1
        try:
            injector.install()
            run_scenario(folder, confirmed)
            code = 0 if injector.calls >= number else 2
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code not in (0, 2, KILLED):
        raise AssertionError(f"{fault} at call {number}: the scenario ended with exit code {code}")
    return code != 2


if __name__ == "__main__":
    where = Path(sys.argv[-1])
    if "--once" in sys.argv:
        run_scenario(where / "service", Confirmations(where / "confirmed"))
    elif "--check" in sys.argv:
        print(json.dumps(check(where / "service", Confirmations(where / "confirmed"))))
    else:
        print(json.dumps(try_calls(Fault(sys.argv[1]), int(sys.argv[2]), where)))
