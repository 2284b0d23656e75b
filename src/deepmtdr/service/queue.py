"""The durable queue: jobs (received, working, done, dead) and the outbox (waiting, sent, dead).

Each method is one transaction that is on the disk when the method returns. An object is in `originals` before its row
is written, and results are in `results` before the job is done. So after a power failure at any moment each row has its
file, and a file without a row is queued at the next start.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from deepmtdr.service.queue_database import QueueDatabase
from deepmtdr.service.running_clock import RunningClock
from deepmtdr.service.spool import Spool, StagedOriginal
from deepmtdr.service.states import (
    DeadLetter,
    DeliveryState,
    Job,
    JobState,
    OutboxItem,
    PlannedDelivery,
    QueueCounts,
    Receipt,
)
from deepmtdr.service.stored_files import StoredFiles
from deepmtdr.service.supersession import CURRENT, OtherObjectError, Supersession

DATABASE_FILE = "queue.sqlite"
MAX_REASON_LENGTH = 500
"""Largest number of characters of a reason that are stored."""
JOBS_FOR_ESTIMATE, UNKNOWN_RESULT_BYTES = 50, 32 << 20
"""Number of recent jobs whose largest results are the estimate for a job, and the estimate if there are none, bytes."""
IDLE_WAIT_SECONDS = 1.0
"""How often workers and senders read the queue although nothing was reported, s: another process may change it."""
NO_OTHER_JOB_FOR_UID = (
    "NOT EXISTS (SELECT 1 FROM jobs AS other"
    " WHERE other.uid = jobs.uid AND (other.id > jobs.id"
    " OR other.state NOT IN ('dead', 'superseded') AND other.superseded_by IS NULL))"
)
"""Condition for retrying a dead job: no other job of its SOP Instance UID is queued, done, or was received later."""

log = logging.getLogger(__name__)


class Queue:
    """The jobs and the outbox of one folder; can be used from many threads and processes."""

    def __init__(self, folder: Path) -> None:
        """Open the queue, or create it.

        Raises:
            ServiceError: if the database is not a queue, or was written by a later version.
            OSError: if the folder cannot be used.
        """
        self.spool = Spool(folder)
        self._changed = threading.Condition()
        self._database = QueueDatabase(folder / DATABASE_FILE)
        ((earlier,),) = self._database.read("SELECT running_seconds FROM clock")
        self.clock = RunningClock(earlier)

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[QueueDatabase]:
        """Context manager for one transaction; afterwards the threads in `wait` continue."""
        with self._database.transaction():
            yield self._database
            self._database.execute("UPDATE clock SET running_seconds = MAX(running_seconds, ?)", self.clock.now())
        self.notify()

    def store_clock(self) -> None:
        """Store the running seconds; call it at times, because an idle queue has no other transaction."""
        with self._transaction():
            pass

    def notify(self) -> None:
        """End the waits of all threads in `wait`."""
        with self._changed:
            self._changed.notify_all()

    def wait(self) -> None:
        """Wait until this process changes something, at most `IDLE_WAIT_SECONDS`."""
        with self._changed:
            self._changed.wait(IDLE_WAIT_SECONDS)

    def receive(self, staged: StagedOriginal, uid: str, digest: str, supersedes: int | None = None) -> Receipt:
        """Store an object and queue it; both are on the disk when this returns.

        Args:
            staged: the whole file. Its temporary name is removed, unless another object has the same UID.
            uid: SOP Instance UID of the object.
            digest: name of the object in the spool (`spool.object_digest`).
            supersedes: job of the object of the same UID that this one corrects.

        Returns:
            The job: a new one, or the former one if the same object was received before.

        Raises:
            OtherObjectError: if another object of the same UID is queued or done, and is not `supersedes`. Then
                nothing is changed, and `staged` can be read.
            OSError, sqlite3.Error: if the object could not be stored; then no part of it is left.
        """
        try:
            if not self.supersession.is_current(digest):
                staged.finish()
            with self._database.lock:
                self.supersession.check(uid, digest, supersedes)
                receipt = self._receive(staged, uid, digest, supersedes)
            self.update_reserve()
        except OtherObjectError:
            raise
        except BaseException:
            staged.discard()
            raise
        staged.discard()
        return receipt

    def _receive(self, staged: StagedOriginal, uid: str, digest: str, supersedes: int | None) -> Receipt:
        """Queue an object whose UID no other current job has."""
        known = self._stored_job(digest)
        if known is None:
            return self._commit(staged, uid, digest, supersedes)
        self._retry_if_dead(known, supersedes)
        return Receipt(known, is_new=False, supersedes=supersedes)

    def _commit(self, staged: StagedOriginal, uid: str, digest: str, supersedes: int | None) -> Receipt:
        """Give an object its final name and add its row; remove the object if that fails."""
        try:
            self.spool.commit_original(staged, digest)
            return Receipt(self._insert(uid, digest, supersedes), is_new=True, supersedes=supersedes)
        except sqlite3.IntegrityError:  # the object has a row, but its file had been removed from the disk
            return Receipt(self._jobs_of(digest)[0], is_new=False)
        except BaseException:
            with contextlib.suppress(OSError, sqlite3.Error):
                if not self._jobs_of(digest):
                    self.spool.original_path(digest).unlink()
            raise

    def _jobs_of(self, digest: str) -> list[int]:
        """Find the job of an object; an empty list if there is none."""
        return [job for (job,) in self._database.read("SELECT id FROM jobs WHERE digest = ?", digest)]

    def _stored_job(self, digest: str) -> int | None:
        """Find the job of an object that is in the queue, and whose file is on the disk or was cleared."""
        known = self._database.read("SELECT id, cleared FROM jobs WHERE digest = ?", digest)
        return known[0][0] if known and (known[0][1] or self.spool.original_path(digest).is_file()) else None

    def _retry_if_dead(self, job: int, supersedes: int | None) -> None:
        """Queue a dead job again: its object was received again, so the cause of the failure may have been fixed."""
        if self._database.read("SELECT 1 FROM jobs WHERE id = ? AND state = 'dead'", job):
            with self._transaction() as database:
                if supersedes is not None:
                    self.supersession.supersede(supersedes, job)
                retry = "UPDATE jobs SET state = 'received', crashes = 0, since = ?, born = ? WHERE id = ?"
                database.execute(f"{retry} AND {NO_OTHER_JOB_FOR_UID}", time.time(), self.clock.now(), job)

    def _insert(self, uid: str, digest: str, supersedes: int | None = None) -> int:
        """Add a job for an object in `originals`. It is dead if another object of the same UID is queued or done."""
        with self._transaction() as database:
            choose = f"SELECT id FROM jobs WHERE uid = ? AND {CURRENT} AND id IS NOT ? ORDER BY id LIMIT 1"
            other = database.read(choose, uid, supersedes)
            reason = f"its SOP Instance UID is that of job {other[0][0]}, but its content differs" if other else ""
            state = JobState.DEAD if other else JobState.RECEIVED
            add = (
                "INSERT INTO jobs (uid, digest, state, reason, since, born, original_bytes)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)"
            )
            values = (state, reason, time.time(), self.clock.now(), self.spool.original_bytes(digest))
            job = database.execute(add, uid, digest, *values).lastrowid or 0
            if supersedes is not None:
                self.supersession.supersede(supersedes, job)
        if other:
            log.warning("job %d: dead letter, %s", job, reason)
        return job

    def recover(self) -> None:
        """Queue again what an earlier service left unfinished: jobs in work, and objects on the disk without a job.

        Call it while this process holds the lock of the spool, before anything else runs.
        """
        self.spool.remove_unfinished()
        with self._transaction() as database:
            database.execute("UPDATE jobs SET state = 'received' WHERE state = 'working'")
        self.stored_files.finish_clearing()
        self.stored_files.measure_unmeasured()
        known = {digest for (digest,) in self._database.read("SELECT digest FROM jobs")}
        for path in sorted(self.spool.originals.glob("*.dcm")):
            if path.stem not in known:
                job = self._insert(_uid_of(path), path.stem)
                log.info("job %d: queued, its object was on the disk without a row in the queue", job)

    def claim(self) -> Job | None:
        """Take the next job: the oldest of those with the fewest crashes; None if there is none, or the disk is low."""
        choose = "SELECT id FROM jobs WHERE state = 'received' ORDER BY crashes, id LIMIT 1"
        if self.spool.is_low():  # the free space that is left is for the other programs of this machine
            return None
        if not self._database.read(choose):  # an idle worker must not write, nor end the waits of other workers
            return None
        with self._transaction() as database:
            claim = f"UPDATE jobs SET state = 'working' WHERE id = ({choose}) RETURNING id, digest, crashes, uid"
            row = database.execute(claim).fetchone()
        return Job(row[0], self.spool.original_path(row[1]), row[2], row[3]) if row else None

    def complete(
        self, job: Job, part: Path, seconds: float, deliveries: Iterable[PlannedDelivery], identity: str = ""
    ) -> None:
        """Store the results of a job and put their deliveries into the outbox; discard them if it was superseded.

        Args:
            job: a claimed job.
            part: the staging folder with the results; it is moved.
            seconds: duration of the examination, s.
            deliveries: which file goes to which destination.
            identity: identity of the photograph (`dicom.identity`); empty: not known.
        """
        self.spool.commit_results(part, job.id)
        now, since = self.clock.now(), time.time()
        with self._transaction() as database:
            done = (
                "UPDATE jobs SET state = 'done', reason = '', seconds = ?, finished = ?, result_bytes = ?, identity = ?"
                " WHERE id = ? AND state = 'working'"
            )
            size = self.spool.result_bytes(job.id)
            if database.execute(done, seconds, now, size, identity, job.id).rowcount == 0:
                shutil.rmtree(self.spool.results_folder(job.id), ignore_errors=True)
                return
            add = (
                "INSERT INTO outbox (job, file, destination, due, since, born) VALUES (?, ?, ?, ?, ?, ?)"
                " ON CONFLICT DO NOTHING"
            )
            for delivery in deliveries:
                database.execute(add, job.id, delivery.file, delivery.destination, now, since, now)
        self.update_reserve()

    def requeue(self, job: Job) -> None:
        """Queue a job again that failed for a reason which is not in its object; no crash is counted."""
        self._set_job(job, JobState.RECEIVED, job.crashes, "")

    def mark_dead(self, job: Job, reason: str, crashes: int | None = None) -> None:
        """Make a job a dead letter."""
        self._set_job(job, JobState.DEAD, job.crashes if crashes is None else crashes, reason)

    def record_crash(self, job: Job, reason: str, limit: int) -> bool:
        """Count a crash of a worker on a job.

        Returns:
            Whether this was crash number `limit`: then the job is a dead letter, otherwise it is queued again.
        """
        crashes = job.crashes + 1
        if crashes >= limit:
            self.mark_dead(job, f"{reason}; {crashes} times", crashes)
        else:
            self._set_job(job, JobState.RECEIVED, crashes, reason)
        return crashes >= limit

    def _set_job(self, job: Job, state: JobState, crashes: int, reason: str) -> None:
        with self._transaction() as database:
            update = "UPDATE jobs SET state = ?, crashes = ?, reason = ? WHERE id = ? AND state = 'working'"
            database.execute(update, state, crashes, _shorten(reason), job.id)

    def backlog_bytes(self) -> int:
        """Estimate the disk space that the results of all unfinished jobs will need, bytes."""
        recent = f"SELECT result_bytes FROM jobs WHERE state = 'done' ORDER BY id DESC LIMIT {JOBS_FOR_ESTIMATE}"
        ((largest,),) = self._database.read(f"SELECT MAX(result_bytes) FROM ({recent})")
        ((unfinished,),) = self._database.read("SELECT COUNT(*) FROM jobs WHERE state IN ('received', 'working')")
        return unfinished * (largest or UNKNOWN_RESULT_BYTES)

    def update_reserve(self) -> None:
        """Keep disk space free for the results of all unfinished jobs, so that the workers can store them.

        The former estimate remains if the database cannot be read.
        """
        with contextlib.suppress(sqlite3.Error):
            self.spool.backlog_bytes = self.backlog_bytes()

    def due_deliveries(self, destination: str, most: int) -> list[OutboxItem]:
        """Find at most `most` deliveries to a destination that are due, oldest first."""
        choose = "SELECT id, job, file, attempts, born FROM outbox WHERE destination = ? AND state = 'waiting'"
        now = self.clock.now()
        rows = self._database.read(f"{choose} AND due <= ? ORDER BY id LIMIT ?", destination, now, most)
        return [
            OutboxItem(item, job, self.spool.results_folder(job) / file, attempts, max(now - born, 0.0))
            for item, job, file, attempts, born in rows
        ]

    def record_delivery(self, item: OutboxItem, state: DeliveryState, reason: str = "", wait: float = 0.0) -> None:
        """Store how an attempt to deliver ended; a waiting delivery is due again after `wait` seconds."""
        with self._transaction() as database:
            update = "UPDATE outbox SET state = ?, attempts = attempts + 1, reason = ?, due = ? WHERE id = ?"
            database.execute(update, state, _shorten(reason), self.clock.now() + wait, item.id)

    @property
    def supersession(self) -> Supersession:
        """Objects of the same SOP Instance UID: which one is valid."""
        return Supersession(self._database, self.clock)

    def original_of(self, job: int) -> Path:
        """Return the path of the object of a job."""
        ((digest,),) = self._database.read("SELECT digest FROM jobs WHERE id = ?", job)
        return self.spool.original_path(digest)

    @property
    def stored_files(self) -> StoredFiles:
        """The originals and results on the disk: their size, and their removal."""
        return StoredFiles(self._database, self.spool, self.clock)

    def counts(self) -> QueueCounts:
        """Count jobs and deliveries by state."""
        read = self._database.read
        jobs = dict.fromkeys(JobState, 0)
        jobs |= {JobState(state): number for state, number in read("SELECT state, COUNT(*) FROM jobs GROUP BY state")}
        rows = read("SELECT destination, state, COUNT(*) FROM outbox GROUP BY destination, state")
        outbox = {(destination, DeliveryState(state)): number for destination, state, number in rows}
        ((examined, seconds),) = read("SELECT COUNT(seconds), TOTAL(seconds) FROM jobs")
        oldest = (
            "SELECT MIN(born) FROM (SELECT MIN(born) AS born FROM jobs WHERE state IN ('received', 'working')"
            " UNION ALL SELECT MIN(born) FROM outbox WHERE state = 'waiting')"
        )
        ((born,),) = read(oldest)
        waiting = 0.0 if born is None else max(self.clock.now() - born, 0.0)
        return QueueCounts(jobs, outbox, examined, seconds, waiting)

    def dead_letters(self) -> list[DeadLetter]:
        """List all dead letters, sorted by job."""
        read = self._database.read
        jobs = read("SELECT id, 'examination', since, reason FROM jobs WHERE state = 'dead'")
        deliveries = read(
            "SELECT job, file || ' to ' || destination, since, reason FROM outbox WHERE state = 'dead'",
        )
        return sorted(DeadLetter(*row) for row in jobs + deliveries)

    def retry_dead_letters(self) -> int:
        """Queue all dead letters again, except objects whose UID belongs to another queued or finished object.

        Returns:
            How many were queued again.
        """
        since, born = time.time(), self.clock.now()
        with self._transaction() as database:
            jobs = "UPDATE jobs SET state = 'received', crashes = 0, since = ?, born = ? WHERE state = 'dead'"
            jobs += f" AND {NO_OTHER_JOB_FOR_UID}"
            deliveries = (
                "UPDATE outbox SET state = 'waiting', attempts = 0, due = 0, since = ?, born = ? WHERE state = 'dead'"
            )
            return database.execute(jobs, since, born).rowcount + database.execute(deliveries, since, born).rowcount


def _uid_of(path: Path) -> str:
    """The SOP Instance UID from the header of a stored object, or the name of its file if the header cannot be read."""
    from pydicom.filereader import read_file_meta_info

    try:
        return str(read_file_meta_info(path).MediaStorageSOPInstanceUID)
    except Exception:  # a part of the file was lost on the disk: the worker will report that
        return path.stem


def _shorten(reason: str) -> str:
    return " ".join(reason.split())[:MAX_REASON_LENGTH]
