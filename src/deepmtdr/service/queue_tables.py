"""Tables that `deepmtdr queue` prints: jobs and deliveries by state, and the dead letters with their reasons."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from typing import NamedTuple

from deepmtdr.errors import ServiceError
from deepmtdr.service.queue import DATABASE_FILE, Queue
from deepmtdr.service.settings import ServiceSettings
from deepmtdr.service.states import DeadLetter, QueueCounts
from deepmtdr.service.stored_files import StoredBytes


class QueueTable(NamedTuple):
    """A table of formatted cells."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


class QueueReport(NamedTuple):
    """The output of `deepmtdr queue`, and the dead letters, which decide its exit code."""

    tables: list[QueueTable]
    dead_letters: int


def queue_tables(
    settings: ServiceSettings, *, retry: bool = False, clear_older_than: float | None = None
) -> QueueReport:
    """Read the queue of a service, which may be running or not.

    Args:
        settings: settings of the service.
        retry: first queue its dead letters again; a running service starts on them within a second.
        clear_older_than: first remove the originals and results of all jobs that every destination has confirmed and
            whose objects were received more than so many days ago; None: remove nothing.

    Raises:
        ServiceError: if there is no queue in the folder.
    """
    if not (settings.folder / DATABASE_FILE).is_file():
        raise ServiceError(
            f"{settings.folder}: found no {DATABASE_FILE}, expected the folder of a service that has run;"
            " check `folder`, or start `deepmtdr serve` once"
        )
    with closing(Queue(settings.folder)) as queue:
        if retry:
            queue.retry_dead_letters()
        if clear_older_than is not None:
            queue.stored_files.clear_older_than(clear_older_than)
        counts, dead, files = queue.counts(), queue.dead_letters(), queue.stored_files
        tables = [_states_table(counts), _files_table(files.size(), files.cleared_jobs())]
    if dead:
        tables.append(_dead_letters_table(dead))
    return QueueReport(tables, len(dead))


def _states_table(counts: QueueCounts) -> QueueTable:
    rows = [("jobs", state, str(number)) for state, number in counts.jobs.items()]
    rows += [(f"results to {name}", state, str(number)) for (name, state), number in sorted(counts.outbox.items())]
    return QueueTable("Queue", ("what", "state", "how many"), rows)


def _files_table(size: StoredBytes, cleared_jobs: int) -> QueueTable:
    rows = [
        ("originals", _megabytes(size.originals)),
        ("results", _megabytes(size.results)),
        ("jobs whose files were removed", str(cleared_jobs)),
    ]
    return QueueTable("Files", ("what", "size or number"), rows)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"


def _dead_letters_table(dead: Sequence[DeadLetter]) -> QueueTable:
    rows = [(str(letter.job), letter.subject, _local_time(letter.since), letter.reason) for letter in dead]
    return QueueTable("Dead letters", ("job", "what", "since", "reason"), rows)


def _local_time(since: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(since))
