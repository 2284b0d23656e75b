"""Decide what happens to an object whose SOP Instance UID another object has.

If it is the same photograph, for example in another transfer syntax, it was received again. Otherwise somebody has
corrected it, or two objects have the same UID by mistake: `receiver.on_changed_object` decides.
"""

from __future__ import annotations

import logging
from pathlib import Path

from deepmtdr.dicom.identity import find_differences, identity_from_text, read_identity
from deepmtdr.errors import DicomError
from deepmtdr.service.queue import Queue
from deepmtdr.service.spool import StagedOriginal
from deepmtdr.service.states import ChangedObjectPolicy, Receipt
from deepmtdr.service.supersession import OtherObjectError

UNKNOWN_DIFFERENCE = "content"
"""The difference of two objects of which one cannot be read."""

log = logging.getLogger(__name__)


class ChangedObjectError(Exception):
    """An object is refused, because its SOP Instance UID is that of another photograph."""

    def __init__(self, job: int, differences: tuple[str, ...]) -> None:
        """Name the other photograph.

        Args:
            job: its job.
            differences: what differs: `patient`, `study`, `eye`, `pixels`, or `content` if that cannot be compared.
        """
        super().__init__(f"job {job} has the same SOP Instance UID with other {', '.join(differences)}")
        self.job, self.differences = job, differences


def receive_object(queue: Queue, policy: ChangedObjectPolicy, staged: StagedOriginal, uid: str, digest: str) -> Receipt:
    """Store an object and queue it, or find out that it was received before.

    Args:
        queue: gets the object.
        policy: what happens to an object with the SOP Instance UID of another photograph.
        staged: the whole file. Its temporary name is removed, whatever happens.
        uid: SOP Instance UID of the object.
        digest: name of the object in the spool.

    Raises:
        ChangedObjectError: if it is refused. A photograph that cannot be decoded, or was superseded before, never
            supersedes another one.
        OSError, sqlite3.Error: if the object could not be stored; then no part of it is left.
    """
    try:
        try:
            return queue.receive(staged, uid, digest)
        except OtherObjectError as other:
            differences = _differences(queue, other.job, staged.path)
            if not differences:
                return Receipt(other.job, is_new=False)
            refused = policy == ChangedObjectPolicy.REFUSE or other.is_newer or UNKNOWN_DIFFERENCE in differences
            if refused:
                raise ChangedObjectError(other.job, differences) from None
            log.warning("job %d: superseded, an object of the same UID has other %s", other.job, ", ".join(differences))
            return queue.receive(staged, uid, digest, supersedes=other.job)
    finally:
        staged.discard()


def _differences(queue: Queue, job: int, received: Path) -> tuple[str, ...]:
    """Name the parts in which a received photograph differs from that of a job."""
    try:
        stored = queue.supersession.identity(job)
        known = identity_from_text(stored) if stored else read_identity(queue.original_of(job))
        return find_differences(known, received)
    except (DicomError, OSError):  # damaged, or removed from the disk
        return (UNKNOWN_DIFFERENCE,)
