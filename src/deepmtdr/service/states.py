"""States of jobs and deliveries, events of the receiver, and the records that the queue returns.

The values of the enumerations are stored in the database of the queue and are labels of the metrics: they must not
change.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple


class JobState(StrEnum):
    """State of a job: the examination of one received object."""

    RECEIVED = "received"
    """Waiting for a worker."""
    WORKING = "working"
    """A worker is examining the object."""
    DONE = "done"
    """The results are on the disk."""
    DEAD = "dead"
    """A dead letter: not tried again until a person retries it, or the object is received again."""
    SUPERSEDED = "superseded"
    """A corrected object of the same SOP Instance UID was received; the results, if there were any, are rejected."""


class ChangedObjectPolicy(StrEnum):
    """What happens to an object with the SOP Instance UID of another photograph (`receiver.on_changed_object`)."""

    REFUSE = "refuse"
    """It is answered with a failure; the earlier photograph and its results stay."""
    SUPERSEDE = "supersede"
    """It is examined; the results of the earlier photograph are rejected."""


class DeliveryState(StrEnum):
    """State of a delivery: one result file on its way to one destination."""

    WAITING = "waiting"
    """Not sent yet, or to be sent again."""
    SENT = "sent"
    DEAD = "dead"
    """A dead letter: refused by the destination, or older than `retry.give_up_hours`. It is not sent again."""


class ReceiverEvent(StrEnum):
    """Events that the receiver counts."""

    STORED = "stored"
    """A new object was stored and queued."""
    STORED_BEFORE = "again"
    """The same object was received before; no new job was made."""
    OBJECT_REFUSED = "refused"
    """A C-STORE request was answered with a failure."""
    OBJECT_CHANGED = "changed"
    """An object was refused because its SOP Instance UID is that of another photograph; also counted as `refused`."""
    OBJECT_SUPERSEDED = "superseded"
    """An object has superseded another one of the same SOP Instance UID; also counted as `stored`."""
    ASSOCIATION_REJECTED = "associations"
    """An association was rejected."""
    CONNECTION_REFUSED = "connections"
    """A connection was closed: its address is not allowed, or it sent no association request."""
    CONNECTION_CROWDED = "crowded"
    """A connection or an association was refused: there were too many."""
    CONNECTION_TOO_SLOW = "slow"
    """A connection was ended: a request, a PDU or an object took too long."""
    CONNECTION_MADE_ROOM = "displaced"
    """A connection was ended because all places were in use, and it was idle, slow, or had sent no request yet."""


class Receipt(NamedTuple):
    """The result of adding an object to the queue: its job, and whether the job is new."""

    job: int
    is_new: bool
    """False if the queue had the same object before."""
    supersedes: int | None = None
    """Job of the object that it corrects; None if there is none."""


class Job(NamedTuple):
    """An object to be examined."""

    id: int
    source: Path
    """The DICOM file."""
    crashes: int
    """Number of worker processes that crashed while they examined the object."""
    uid: str
    """SOP Instance UID that the sender announced."""


class PlannedDelivery(NamedTuple):
    """A result file and its destination."""

    file: str
    """Name of the file in the folder of the job's results."""
    destination: str


class OutboxItem(NamedTuple):
    """A delivery that is due."""

    id: int
    job: int
    path: Path
    attempts: int
    """Number of attempts so far."""
    age: float
    """How long the delivery has been in the outbox while a service ran, s."""


class DeadLetter(NamedTuple):
    """A job or a delivery that was given up, and why."""

    job: int
    subject: str
    """ "examination", or "FILE to DESTINATION"."""
    since: float
    """When the job was received or the delivery was put into the outbox, s since 1970."""
    reason: str


class StorageStatus(NamedTuple):
    """Size of the files of a service."""

    originals: int
    """Size of all received objects on the disk, bytes."""
    results: int
    """Size of all results on the disk, bytes."""
    backlog: int
    """Estimated size of the results of all unfinished jobs, bytes."""
    cleared_jobs: int
    """Number of jobs whose files were removed."""


class QueueCounts(NamedTuple):
    """Number of jobs and deliveries in each state."""

    jobs: Mapping[JobState, int]
    """Number of jobs in each state, zeros included."""
    outbox: Mapping[tuple[str, DeliveryState], int]
    """Number of deliveries by destination and state, without zeros."""
    examined: int
    """Number of jobs that were ever done."""
    seconds: float
    """Duration of all these examinations together, s."""
    oldest_waiting_seconds: float
    """Age of the oldest job or delivery that is not finished, without times when no service ran, s; 0 if there is
    none.
    """

    def deliveries(self, state: DeliveryState) -> int:
        """Count the deliveries in a state, to all destinations."""
        return sum(number for (_, each), number in self.outbox.items() if each == state)
