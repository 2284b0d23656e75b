"""Objects that have the SOP Instance UID of another object: which one is valid, and the withdrawal of earlier results.

A job is *current* if its object is queued or examined, and no corrected object has superseded it. Each SOP Instance UID
has at most one current job.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import NamedTuple

from deepmtdr.service.queue_database import QueueDatabase
from deepmtdr.service.running_clock import RunningClock
from deepmtdr.service.states import PlannedDelivery

CURRENT = "state NOT IN ('dead', 'superseded') AND superseded_by IS NULL"
"""Condition for current jobs."""
MISSING_REJECTION_FILE = "rejection"
"""Name in the outbox for a rejection that could not be written."""


class OtherObjectError(Exception):
    """The queue has another object of the same SOP Instance UID. Nothing was changed."""

    def __init__(self, job: int, *, is_newer: bool) -> None:
        """Name the other object.

        Args:
            job: the current job of the SOP Instance UID.
            is_newer: whether it superseded the received object, or was received later.
        """
        super().__init__(f"job {job} has the same SOP Instance UID")
        self.job, self.is_newer = job, is_newer


class SupersededJob(NamedTuple):
    """A job whose results must be withdrawn."""

    id: int
    successor: int
    """Job of the corrected object."""


class Supersession:
    """Reads and writes the rows of one queue."""

    def __init__(self, database: QueueDatabase, clock: RunningClock) -> None:
        """Read nothing yet.

        Args:
            database: rows of the jobs.
            clock: running seconds.
        """
        self._database, self._clock = database, clock

    def is_current(self, digest: str) -> bool:
        """Whether the job of an object is current."""
        return bool(self._database.read(f"SELECT 1 FROM jobs WHERE digest = ? AND {CURRENT}", digest))

    def check(self, uid: str, digest: str, supersedes: int | None) -> None:
        """Check that no other object of a SOP Instance UID is current.

        Args:
            uid: SOP Instance UID of the object that is received.
            digest: name of this object in the spool.
            supersedes: a job that is allowed to be current.

        Raises:
            OtherObjectError: if another one is, or if this object was superseded.
        """
        known = self._database.read("SELECT id, superseded_by FROM jobs WHERE digest = ?", digest)
        current = self._database.read(f"SELECT id FROM jobs WHERE uid = ? AND digest <> ? AND {CURRENT}", uid, digest)
        if current and current[0][0] != supersedes:
            job = current[0][0]
            raise OtherObjectError(job, is_newer=bool(known) and job > known[0][0])
        if known and known[0][1] is not None:
            raise OtherObjectError(known[0][1], is_newer=True)

    def supersede(self, job: int, successor: int) -> None:
        """Replace a current job by that of a corrected object; call it within a transaction.

        If it is not examined yet, it never will be. If it has results, `pending` returns it until they are withdrawn.
        """
        unfinished = (
            "UPDATE jobs SET state = 'superseded', reason = ? WHERE id = ? AND state IN ('received', 'working')"
        )
        self._database.execute("UPDATE jobs SET superseded_by = ? WHERE id = ?", successor, job)
        self._database.execute(unfinished, _reason(successor), job)

    def pending(self) -> list[SupersededJob]:
        """List the jobs whose results must be withdrawn, oldest first."""
        choose = "SELECT id, superseded_by FROM jobs WHERE state = 'done' AND superseded_by IS NOT NULL ORDER BY id"
        return [SupersededJob(*row) for row in self._database.read(choose)]

    def withdraw(self, job: SupersededJob, rejections: Iterable[PlannedDelivery], failure: str = "") -> None:
        """Replace the deliveries of a superseded job that were not sent by those of its rejection.

        The rejection goes to every destination for which the job had results, also if none is known to be sent: a
        result may have arrived just before the service was ended.

        Args:
            job: a job of `pending`.
            rejections: the written files with their destinations.
            failure: why no rejection could be written; it becomes a dead letter for each destination.
        """
        with self._database.transaction():
            destinations = {
                name for (name,) in self._database.read("SELECT destination FROM outbox WHERE job = ?", job.id)
            }
            self._database.execute("DELETE FROM outbox WHERE job = ? AND state <> 'sent'", job.id)
            for delivery in rejections:
                if delivery.destination in destinations:
                    self._add(job, delivery, "waiting", "")
            for name in destinations if failure else ():
                self._add(job, PlannedDelivery(MISSING_REJECTION_FILE, name), "dead", failure)
            update = "UPDATE jobs SET state = 'superseded', reason = ? WHERE id = ?"
            self._database.execute(update, _reason(job.successor), job.id)

    def _add(self, job: SupersededJob, delivery: PlannedDelivery, state: str, reason: str) -> None:
        add = (
            "INSERT INTO outbox (job, file, destination, state, reason, due, since, born)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
        )
        now = self._clock.now()
        self._database.execute(add, job.id, delivery.file, delivery.destination, state, reason, now, time.time(), now)

    def identity(self, job: int) -> str:
        """Return the identity of the photograph of an examined job (`dicom.identity`); empty if it was not stored."""
        found = self._database.read("SELECT identity FROM jobs WHERE id = ?", job)
        return found[0][0] if found else ""


def _reason(successor: int) -> str:
    return f"superseded by job {successor}"
