"""The durable queue: jobs (received, working, done, dead) and the outbox (waiting, sent, dead), in SQLite.

Every method is one transaction that is on the disk when it returns. An object is in `originals` before its row is
written, results are in `results` before the job is done: whatever moment the power fails at, a file without a row is
taken up again at the next start, and a row never names a file that is not there.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from deepmtdr.errors import ClinicError
from deepmtdr.service.spool import PRIVATE_FILE_MODE, Spool

SCHEMA_VERSION = 1
MAX_REASON_LENGTH = 500
"""Letters of a reason that are kept."""
SCHEMA = """
CREATE TABLE jobs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    uid TEXT NOT NULL,
    digest TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL CHECK (state IN ('received', 'working', 'done', 'dead')),
    crashes INTEGER NOT NULL DEFAULT 0,
    reason TEXT NOT NULL DEFAULT '',
    since REAL NOT NULL,
    seconds REAL
);
CREATE INDEX jobs_by_state ON jobs (state, crashes, id);
CREATE INDEX jobs_by_uid ON jobs (uid);
CREATE TABLE outbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    job INTEGER NOT NULL REFERENCES jobs (id),
    file TEXT NOT NULL,
    destination TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'sent', 'dead')),
    attempts INTEGER NOT NULL DEFAULT 0,
    due REAL NOT NULL,
    reason TEXT NOT NULL DEFAULT '',
    since REAL NOT NULL,
    UNIQUE (job, file, destination)
);
CREATE INDEX outbox_by_state ON outbox (destination, state, due);
"""
NO_OTHER_JOB_FOR_UID = (
    "NOT EXISTS (SELECT 1 FROM jobs AS other"
    " WHERE other.uid = jobs.uid AND (other.state <> 'dead' OR other.id > jobs.id))"
)
"""A dead job that may be tried again: no other of its SOP Instance UID is answered, or came later."""

log = logging.getLogger(__name__)


class Job(NamedTuple):
    """An object to be examined."""

    id: int
    source: Path
    crashes: int
    """Worker processes that it has ended so far."""


class OutboxItem(NamedTuple):
    """A result file on its way to a destination."""

    id: int
    job: int
    path: Path
    attempts: int
    """So far."""
    since: float
    """When it was put into the outbox, s since 1970."""


class DeadLetter(NamedTuple):
    """What was given up, and why."""

    job: int
    subject: str
    """ "examination", or file and destination."""
    since: float
    reason: str


class QueueCounts(NamedTuple):
    """How much is in which state."""

    jobs: Mapping[str, int]
    outbox: Mapping[tuple[str, str], int]
    """By destination and state."""
    examined: int
    """Jobs that were ever done."""
    seconds: float
    """That they took together, s."""
    oldest_waiting_seconds: float
    """Age of the oldest job or result that waits, s; 0 if none does."""


class Queue:
    """Jobs and outbox of one folder; safe to use from many threads and processes."""

    def __init__(self, folder: Path) -> None:
        """Open the queue, or begin one.

        Raises:
            ClinicError: if the file is no queue, or one of a later version.
            OSError: if the folder cannot be used.
        """
        self.spool = Spool(folder)
        self._path = folder / "queue.sqlite"
        self._news = threading.Condition()
        self._lock = threading.RLock()
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, PRIVATE_FILE_MODE))  # its -wal and -shm get the same mode
        self._db = sqlite3.connect(self._path, timeout=30, isolation_level=None, check_same_thread=False)
        try:
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            with self._written():
                self._set_up()
        except sqlite3.DatabaseError as error:
            self._db.close()
            raise ClinicError(f"{self._path}: no queue of this service ({error})") from error

    def _set_up(self) -> None:
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            raise ClinicError(f"{self._path}: written by a later version ({version}), expected {SCHEMA_VERSION}")
        if version == 0:
            for statement in SCHEMA.split(";\n"):
                self._db.execute(statement)
            self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._db.close()

    @contextlib.contextmanager
    def _written(self) -> Iterator[None]:
        """One transaction, all or nothing; whoever waits for news is told."""
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
                raise
        self.notify()

    def _read(self, statement: str, *values: object) -> list[tuple]:
        with self._lock:
            return self._db.execute(statement, values).fetchall()

    def notify(self) -> None:
        """Wake whoever waits for news."""
        with self._news:
            self._news.notify_all()

    def wait(self, seconds: float) -> None:
        """Until something has changed, at most so long; another process's changes wake nobody."""
        with self._news:
            self._news.wait(seconds)

    def receive(self, content: bytes, uid: str, digest: str) -> tuple[int, bool]:
        """Keep an object and queue it; when this returns, both are on the disk.

        Args:
            content: the whole file.
            uid: its SOP Instance UID.
            digest: its name (`spool.object_digest`).

        Returns:
            The job, and whether it is a new one; the same object again is the job that it was.

        Raises:
            OSError, sqlite3.Error: if it could not be kept; then nothing of it is.
        """
        if (known := self._whole(digest)) is not None:
            self._revive(known)
            return known, False
        with self.spool.stage_original(content) as part, self._lock:
            if (known := self._whole(digest)) is not None:
                return known, False
            self.spool.commit_original(part, digest)
            try:
                return self._insert(uid, digest), True
            except sqlite3.IntegrityError:  # the row of an object that has been removed from the disk since
                return self._read("SELECT id FROM jobs WHERE digest = ?", digest)[0][0], False
            except BaseException:
                with contextlib.suppress(OSError, sqlite3.Error):
                    if not self._read("SELECT id FROM jobs WHERE digest = ?", digest):
                        self.spool.original_path(digest).unlink()
                raise

    def _whole(self, digest: str) -> int | None:
        """The job of an object that is in the queue and on the disk."""
        known = self._read("SELECT id FROM jobs WHERE digest = ?", digest)
        return known[0][0] if known and self.spool.original_path(digest).is_file() else None

    def _revive(self, job: int) -> None:
        """An object that comes again may be answered by now: its dead letter is tried once more."""
        dead = f"SELECT id FROM jobs WHERE id = ? AND state = 'dead' AND {NO_OTHER_JOB_FOR_UID}"
        if self._read(dead, job):
            with self._written():
                revive = f"UPDATE jobs SET state = 'received', crashes = 0, since = ? WHERE id = ({dead})"
                self._db.execute(revive, (time.time(), job))

    def _insert(self, uid: str, digest: str) -> int:
        """A row for an object that lies in `originals`: dead at once if its UID is that of another one."""
        with self._written():
            other = self._read("SELECT id FROM jobs WHERE uid = ? AND state <> 'dead' ORDER BY id LIMIT 1", uid)
            reason = f"has the SOP Instance UID of job {other[0][0]} and other content" if other else ""
            values = (uid, digest, "dead" if other else "received", reason, time.time())
            add = "INSERT INTO jobs (uid, digest, state, reason, since) VALUES (?, ?, ?, ?, ?)"
            job = self._db.execute(add, values).lastrowid or 0
        if other:
            log.warning("job %d: dead letter, %s", job, reason)
        return job

    def recover(self) -> None:
        """Take up what an earlier service left; only for who holds the folder, before anything works in it."""
        self.spool.remove_unfinished()
        with self._written():
            self._db.execute("UPDATE jobs SET state = 'received' WHERE state = 'working'")
        known = {digest for (digest,) in self._read("SELECT digest FROM jobs")}
        for path in sorted(self.spool.originals.glob("*.dcm")):
            if path.stem not in known:
                log.info("job %d: taken up, its object was kept and not queued", self._insert(_uid_of(path), path.stem))

    def claim(self) -> Job | None:
        """The next job, which is then being worked on: oldest first, after all that have ended no process yet."""
        choose = "SELECT id FROM jobs WHERE state = 'received' ORDER BY crashes, id LIMIT 1"
        if not self._read(choose):  # no transaction, no news, while there is nothing to do
            return None
        with self._written():
            update = f"UPDATE jobs SET state = 'working' WHERE id = ({choose}) RETURNING id, digest, crashes"
            row = self._db.execute(update).fetchone()
        return row and Job(row[0], self.spool.original_path(row[1]), row[2])

    def complete(self, job: Job, part: Path, seconds: float, deliveries: Iterable[tuple[str, str]]) -> None:
        """Keep a job's results and put them into the outbox.

        Args:
            job: that was claimed.
            part: the folder into which its results were written; it is moved.
            seconds: that it took.
            deliveries: file name and destination of each delivery.
        """
        self.spool.commit_results(part, job.id)
        now = time.time()
        rows = [(job.id, file, destination, now, now) for file, destination in deliveries]
        with self._written():
            done = "UPDATE jobs SET state = 'done', reason = '', seconds = ? WHERE id = ?"
            self._db.execute(done, (seconds, job.id))
            add = "INSERT INTO outbox (job, file, destination, due, since) VALUES (?, ?, ?, ?, ?)"
            self._db.executemany(f"{add} ON CONFLICT DO NOTHING", rows)

    def requeue(self, job: Job) -> None:
        """It was not the object's fault: once more, not counted."""
        self._set_job(job, "received", job.crashes, "")

    def mark_dead(self, job: Job, reason: str, crashes: int | None = None) -> None:
        """Make it a dead letter."""
        self._set_job(job, "dead", job.crashes if crashes is None else crashes, reason)

    def record_crash(self, job: Job, reason: str, limit: int) -> bool:
        """Count the end of a process on it; whether it is a dead letter now, since it was the `limit`-th."""
        crashes = job.crashes + 1
        if crashes >= limit:
            self.mark_dead(job, f"{reason}; {crashes} times", crashes)
        else:
            self._set_job(job, "received", crashes, reason)
        return crashes >= limit

    def _set_job(self, job: Job, state: str, crashes: int, reason: str) -> None:
        with self._written():
            update = "UPDATE jobs SET state = ?, crashes = ?, reason = ? WHERE id = ?"
            self._db.execute(update, (state, crashes, _short(reason), job.id))

    def due_deliveries(self, destination: str, most: int) -> list[OutboxItem]:
        """What is due for a destination, oldest first."""
        choose = "SELECT id, job, file, attempts, since FROM outbox WHERE destination = ? AND state = 'waiting'"
        rows = self._read(f"{choose} AND due <= ? ORDER BY id LIMIT ?", destination, time.time(), most)
        return [OutboxItem(row[0], row[1], self.spool.results_folder(row[1]) / row[2], *row[3:]) for row in rows]

    def record_delivery(self, item: OutboxItem, state: str, reason: str = "", wait: float = 0.0) -> None:
        """Say how a delivery ended: `sent`, `dead`, or `waiting` to be tried again after so many seconds."""
        with self._written():
            update = "UPDATE outbox SET state = ?, attempts = attempts + 1, reason = ?, due = ? WHERE id = ?"
            self._db.execute(update, (state, _short(reason), time.time() + wait, item.id))

    def counts(self) -> QueueCounts:
        """How things stand."""
        states = dict.fromkeys(("received", "working", "done", "dead"), 0)
        jobs = dict(self._read("SELECT state, COUNT(*) FROM jobs GROUP BY state"))
        rows = self._read("SELECT destination, state, COUNT(*) FROM outbox GROUP BY destination, state")
        examined, seconds = self._read("SELECT COUNT(seconds), TOTAL(seconds) FROM jobs")[0]
        oldest = (
            "SELECT MIN(since) FROM (SELECT MIN(since) AS since FROM jobs WHERE state IN ('received', 'working')"
            " UNION ALL SELECT MIN(since) FROM outbox WHERE state = 'waiting')"
        )
        ((since,),) = self._read(oldest)
        outbox = {(destination, state): number for destination, state, number in rows}
        return QueueCounts({**states, **jobs}, outbox, examined, seconds, max(time.time() - since, 0) if since else 0.0)

    def dead_letters(self) -> list[DeadLetter]:
        """Everything that was given up, by job."""
        jobs = self._read("SELECT id, 'examination', since, reason FROM jobs WHERE state = 'dead'")
        choose = "SELECT job, file || ' to ' || destination, since, reason FROM outbox WHERE state = 'dead'"
        return sorted(DeadLetter(*row) for row in jobs + self._read(choose))

    def retry_dead_letters(self) -> int:
        """Put the dead letters back, but for an object whose UID is that of one that was answered; how many."""
        now = time.time()
        with self._written():
            jobs = f"UPDATE jobs SET state = 'received', crashes = 0, since = ? WHERE state = 'dead' AND {NO_OTHER_JOB_FOR_UID}"
            deliveries = "UPDATE outbox SET state = 'waiting', attempts = 0, due = ?, since = ? WHERE state = 'dead'"
            requeue = self._db.execute(jobs, (now,)).rowcount
            return requeue + self._db.execute(deliveries, (now, now)).rowcount


def _uid_of(path: Path) -> str:
    """The SOP Instance UID that this service wrote at the head of a file; its own name if there is none."""
    from pydicom.filereader import read_file_meta_info

    try:
        return str(read_file_meta_info(path).MediaStorageSOPInstanceUID)
    except Exception:  # a disk that lost a part of it: the worker will say so
        return path.stem


def _short(reason: str) -> str:
    return " ".join(reason.split())[:MAX_REASON_LENGTH]
