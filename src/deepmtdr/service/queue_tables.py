"""What `deepmtdr queue` shows: how many are in which state, and the dead letters with their reasons."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from typing import NamedTuple

from deepmtdr.errors import ClinicError
from deepmtdr.service.queue import Queue
from deepmtdr.service.settings import ServiceSettings


class QueueTable(NamedTuple):
    """A table of cells that are ready."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


def queue_tables(settings: ServiceSettings, *, retry: bool = False) -> tuple[list[QueueTable], int]:
    """Read the queue of a service, whether it runs or not.

    Args:
        settings: of the service.
        retry: put its dead letters back first; a service that runs takes them up within a second.

    Returns:
        The tables, and how many dead letters there are.

    Raises:
        ClinicError: if there is no queue in the folder.
    """
    if not (settings.folder / "queue.sqlite").is_file():
        raise ClinicError(f"{settings.folder}: no queue, expected the folder of a service that has run")
    with closing(Queue(settings.folder)) as queue:
        if retry:
            queue.retry_dead_letters()
        counts, dead = queue.counts(), queue.dead_letters()
    rows = [("jobs", state, str(number)) for state, number in counts.jobs.items()]
    rows += [(f"results to {name}", state, str(number)) for (name, state), number in sorted(counts.outbox.items())]
    tables = [QueueTable("Queue", ("what", "state", "how many"), rows)]
    if dead:
        letters = [(str(one.job), one.subject, _when(one.since), one.reason) for one in dead]
        tables.append(QueueTable("Dead letters", ("job", "what", "since", "reason"), letters))
    return tables, len(dead)


def _when(since: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(since))
