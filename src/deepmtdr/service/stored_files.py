"""The originals and results on the disk: how large they are, and which of them may be removed.

Only files of a finished job are ever removed, and only if every destination has confirmed all of its results. The row
of the job stays in the queue, so that the same object is not examined again.
"""

from __future__ import annotations

import logging
import time
from itertools import accumulate
from typing import NamedTuple

from deepmtdr.service.queue_database import QueueDatabase
from deepmtdr.service.running_clock import RunningClock
from deepmtdr.service.settings import RetentionSettings
from deepmtdr.service.spool import Spool

SECONDS_PER_DAY = 86400.0
BYTES_PER_GB = 10**9
CONFIRMED = (
    "(state = 'superseded' OR state = 'done' AND superseded_by IS NULL"
    " AND EXISTS (SELECT 1 FROM outbox WHERE job = jobs.id))"
    " AND cleared = 0 AND NOT EXISTS (SELECT 1 FROM outbox WHERE job = jobs.id AND state <> 'sent')"
)
"""Condition for jobs with results that every destination has confirmed. A job without a destination is not one, unless
it was superseded."""

log = logging.getLogger(__name__)


class StoredBytes(NamedTuple):
    """Size of the files on the disk."""

    originals: int
    """Size of all received objects, bytes."""
    results: int
    """Size of all results, bytes."""


class Cleared(NamedTuple):
    """What was removed."""

    jobs: int
    bytes: int


class _Candidate(NamedTuple):
    job: int
    digest: str
    bytes: int


class StoredFiles:
    """The files of one queue."""

    def __init__(self, database: QueueDatabase, spool: Spool, clock: RunningClock) -> None:
        """Read nothing yet.

        Args:
            database: rows of the jobs.
            spool: their files.
            clock: running seconds.
        """
        self._database, self._spool, self._clock = database, spool, clock

    def size(self) -> StoredBytes:
        """Return the size of the files on the disk, as it was when they were stored."""
        totals = "SELECT TOTAL(original_bytes), TOTAL(result_bytes) FROM jobs WHERE cleared = 0"
        ((originals, results),) = self._database.read(totals)
        return StoredBytes(int(originals), int(results))

    def cleared_jobs(self) -> int:
        """Count the jobs whose files were removed."""
        ((number,),) = self._database.read("SELECT COUNT(*) FROM jobs WHERE cleared = 1")
        return number

    def apply(self, rules: RetentionSettings) -> Cleared:
        """Remove the files that the rules do not keep.

        The age is counted from the end of the examination, while a service ran, so a jump of the clock removes nothing.
        """
        by_age, by_size = Cleared(0, 0), Cleared(0, 0)
        if rules.days > 0:
            before = self._clock.now() - rules.days * SECONDS_PER_DAY
            by_age = self._clear(self._candidates(f"{CONFIRMED} AND finished <= ?", before))
        if rules.largest_gb > 0:
            too_much = sum(self.size()) - rules.largest_gb * BYTES_PER_GB
            by_size = self._clear(_oldest_of_size(self._candidates(CONFIRMED), too_much))
        return Cleared(by_age.jobs + by_size.jobs, by_age.bytes + by_size.bytes)

    def clear_older_than(self, days: float) -> Cleared:
        """Remove the files of all confirmed jobs whose objects were received more than `days` days ago."""
        return self._clear(self._candidates(f"{CONFIRMED} AND since <= ?", time.time() - days * SECONDS_PER_DAY))

    def finish_clearing(self) -> None:
        """Remove files that an earlier service had begun to remove when it ended."""
        on_disk = {path.stem for path in self._spool.originals.glob("*.dcm")}
        on_disk |= {path.name for path in self._spool.results.iterdir()}
        for job, digest in self._database.read("SELECT id, digest FROM jobs WHERE cleared = 1"):
            if digest in on_disk or str(job) in on_disk:
                self._spool.remove(job, digest)

    def measure_unmeasured(self) -> None:
        """Store the size of files of earlier releases, which did not store it."""
        unmeasured = self._database.read("SELECT id, digest FROM jobs WHERE original_bytes = 0 AND cleared = 0")
        sizes = [(self._spool.original_bytes(digest), self._spool.result_bytes(job), job) for job, digest in unmeasured]
        with self._database.transaction():
            for size in sizes:
                self._database.execute("UPDATE jobs SET original_bytes = ?, result_bytes = ? WHERE id = ?", *size)

    def _candidates(self, condition: str, *values: object) -> list[_Candidate]:
        """Find jobs, the one that finished first first."""
        choose = f"SELECT id, digest, original_bytes + result_bytes FROM jobs WHERE {condition} ORDER BY finished, id"
        return [_Candidate(*row) for row in self._database.read(choose, *values)]

    def _clear(self, candidates: list[_Candidate]) -> Cleared:
        """Remove files. The row is changed first, so that no row names a file that was removed."""
        cleared = Cleared(0, 0)
        for job, digest, size in candidates:
            with self._database.transaction():
                update = f"UPDATE jobs SET cleared = 1 WHERE id = ? AND {CONFIRMED}"
                if self._database.execute(update, job).rowcount == 0:
                    continue
            self._spool.remove(job, digest)
            cleared = Cleared(cleared.jobs + 1, cleared.bytes + size)
        if cleared.jobs:
            log.info("the files of %d jobs were removed, %d MiB", cleared.jobs, cleared.bytes >> 20)
        return cleared


def _oldest_of_size(candidates: list[_Candidate], size: float) -> list[_Candidate]:
    """Return the first candidates that have at least `size` bytes together; all of them if they have less."""
    before = [0, *accumulate(candidate.bytes for candidate in candidates)]
    return [candidate for candidate, bytes_before in zip(candidates, before, strict=False) if bytes_before < size]
