"""Receive objects by C-STORE and answer C-ECHO; "success" is sent after the object is on the disk and in the queue.

Objects are stored as they were sent and not decoded here: the worker finds damaged pixel data. A peer that is not
allowed never reaches the decoder of messages, and an object goes to the disk while it arrives (`incoming.py`). An
answer contains only a status, and the log only job numbers, so neither contains patient data.
"""

from __future__ import annotations

import errno
import logging
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Mapping
from enum import IntEnum
from io import BytesIO

from pydicom import Dataset
from pynetdicom import AE
from pynetdicom.sop_class import Verification  # pyright: ignore[reportAttributeAccessIssue]

from deepmtdr.dicom.sop_classes import PHOTOGRAPH_SOP_CLASSES, TRANSFER_SYNTAXES
from deepmtdr.errors import ServiceError
from deepmtdr.service.background_thread import BackgroundThread
from deepmtdr.service.changed_objects import ChangedObjectError, receive_object
from deepmtdr.service.data_set_check import contradicts_request
from deepmtdr.service.health import WARNING_SECONDS
from deepmtdr.service.incoming import IncomingObject, IncomingObjects
from deepmtdr.service.limits import REJECT_SECONDS, LimitedServer, pool_limits
from deepmtdr.service.pynetdicom_adapter import StoreEvent, configure_dicom_libraries
from deepmtdr.service.queue import Queue
from deepmtdr.service.settings import ReceiverSettings
from deepmtdr.service.states import ChangedObjectPolicy, ReceiverEvent
from deepmtdr.service.tls import server_tls_context

ADVERTISED_PDU_BYTES = 1 << 17
"""Maximum PDU length that is offered to peers, bytes."""
EVENT_WARNINGS = {
    ReceiverEvent.CONNECTION_CROWDED: "connections were refused because there were too many",
    ReceiverEvent.CONNECTION_TOO_SLOW: "connections were ended because their peers were too slow",
    ReceiverEvent.CONNECTION_MADE_ROOM: "idle or slow connections were ended to make room for others",
    ReceiverEvent.OBJECT_REFUSED: "objects were refused",
    ReceiverEvent.OBJECT_CHANGED: "objects were refused because another photograph has the same SOP Instance UID",
}

log = logging.getLogger(__name__)


class StoreStatus(IntEnum):
    """Status of a C-STORE response (PS3.4 Sec. B.2.3, PS3.7 Annex C)."""

    SUCCESS = 0x0000
    PROCESSING_FAILURE = 0x0110
    OUT_OF_RESOURCES = 0xA700
    DATA_SET_MISMATCH = 0xA900
    TOO_LARGE = 0xC001
    """The object is larger than `receiver.largest_mb`; one of the codes whose meaning PS3.4 leaves to the receiver."""
    CHANGED_OBJECT = 0xC002
    """The SOP Instance UID is that of another photograph. 0x0111 (duplicate SOP instance) would be wrong: senders take
    it for a success, because the receiver has the object.
    """


ERROR_COMMENTS = {
    StoreStatus.PROCESSING_FAILURE: "the object could not be stored; see the log of the service",
    StoreStatus.OUT_OF_RESOURCES: "not enough disk space; send the object again later",
    StoreStatus.DATA_SET_MISMATCH: "the UIDs are not those of the request, or no data set",
    StoreStatus.TOO_LARGE: "the object is larger than receiver.largest_mb",
}
"""Error Comment (0000,0902) of each failure, for the log of the sender: at most 64 characters, no patient data."""


class StoreServer(BackgroundThread):
    """The DICOM receiver."""

    def __init__(self, settings: ReceiverSettings, queue: Queue, min_free_bytes: int) -> None:
        """Create the receiver; the port is bound by `start`.

        Args:
            settings: port, allowed peers, limits.
            queue: the queue that stores the objects.
            min_free_bytes: free disk space below which objects are refused, bytes.

        Raises:
            ServiceError: if the certificate or key cannot be used.
        """
        super().__init__("receiver")
        self.settings, self.queue = settings, queue
        queue.spool.min_free_bytes = min_free_bytes
        self._counts: Counter[ReceiverEvent] = Counter()
        self._last: dict[ReceiverEvent, float] = {}
        self._counts_lock = threading.Lock()
        self._tls = server_tls_context(settings.tls) if settings.tls.certificate else None
        self._server: LimitedServer | None = None

    @property
    def port(self) -> int:
        """The bound port; 0 before `start`."""
        return self._server.server_address[1] if self._server else 0

    @property
    def counts(self) -> Mapping[ReceiverEvent, int]:
        """Return how often each event has happened since the start, zeros included."""
        with self._counts_lock:
            return {event: self._counts[event] for event in ReceiverEvent}

    def count(self, event: ReceiverEvent) -> None:
        """Count an event; each association calls this from its own thread."""
        with self._counts_lock:
            self._counts[event] += 1
            self._last[event] = time.monotonic()

    def warnings(self) -> list[str]:
        """List what keeps, or kept in the last minute, some senders from delivering."""
        with self._counts_lock:
            recent = {event for event, last in self._last.items() if time.monotonic() - last < WARNING_SECONDS}
        found = [f"{text} in the last minute" for event, text in EVENT_WARNINGS.items() if event in recent]
        if self._server is not None and self._server.pool.served() >= self.settings.associations:
            found.append(f"all {self.settings.associations} associations are in use")
        return found

    def start(self) -> None:
        """Bind the port and listen.

        Raises:
            ServiceError: if the port cannot be bound.
        """
        configure_dicom_libraries()
        address = (self.settings.address, self.settings.port)
        try:
            self._server = LimitedServer(
                self._entity(), address, self._tls, self.settings, self.queue.spool, self.count, self.store
            )
        except OSError as error:
            raise ServiceError(
                f"receiver: cannot listen on {address[0]} port {address[1]} ({error.strerror});"
                " set receiver.address to an address of this machine and receiver.port to a free port"
            ) from error
        super().start()

    def _entity(self) -> AE:
        settings = self.settings
        entity = AE(settings.ae_title)
        entity.require_called_aet = True
        entity.require_calling_aet = list(settings.calling)
        entity.maximum_associations = 2 * pool_limits(settings).connections  # the pool has the real limit
        entity.maximum_pdu_size = ADVERTISED_PDU_BYTES
        entity.network_timeout = entity.dimse_timeout = settings.idle_seconds
        entity.acse_timeout = min(settings.idle_seconds, REJECT_SECONDS)  # the request was read before
        entity.add_supported_context(Verification)
        for sop_class in PHOTOGRAPH_SOP_CLASSES:
            entity.add_supported_context(sop_class, list(TRANSFER_SYNTAXES))
        return entity

    def run(self) -> None:
        """Accept connections until `stop`."""
        assert self._server is not None
        self._server.serve_forever(poll_interval=0.05)

    def stop(self) -> None:
        """Stop listening and abort the open associations; a sender must send an object again if it got no answer."""
        super().stop()
        if self._server is not None:
            self._server.close()
            self.join()

    def store(self, event: StoreEvent, incoming: IncomingObjects) -> Dataset:
        """Answer one C-STORE request.

        Returns:
            Status and Error Comment, whatever happens: an exception here would end the association without an answer.
        """
        received, comment = incoming.pop(event.request), ""
        try:
            status = self._store(event, received)
        except ChangedObjectError as error:
            status, comment = StoreStatus.CHANGED_OBJECT, f"SOP Instance UID is known with other {_listed(error)}"
            self.count(ReceiverEvent.OBJECT_CHANGED)
            log.warning("an object was refused: job %d has the same UID with other %s", error.job, _listed(error))
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            status = StoreStatus.OUT_OF_RESOURCES if full else StoreStatus.PROCESSING_FAILURE
            log.error("an object was refused: %s", errno.errorcode.get(error.errno or 0, "OSError"))
        except sqlite3.Error as error:
            status = StoreStatus.OUT_OF_RESOURCES if "full" in str(error) else StoreStatus.PROCESSING_FAILURE
            log.error("an object was refused: the queue failed (%s)", type(error).__name__)
        except Exception as error:
            status = StoreStatus.PROCESSING_FAILURE
            log.error("an object was refused: %s", type(error).__name__)
        finally:
            if received is not None:
                received.discard()
        answer = Dataset()
        answer.Status = int(status)
        if status != StoreStatus.SUCCESS:
            self.count(ReceiverEvent.OBJECT_REFUSED)
            answer.ErrorComment = comment or ERROR_COMMENTS[status]
        return answer

    def _store(self, event: StoreEvent, received: IncomingObject | None) -> StoreStatus:
        if received is None:
            log.warning("an object was refused: the request has no data set")
            return StoreStatus.DATA_SET_MISMATCH
        if received.is_too_large:
            log.warning("an object was refused: larger than %g MiB", self.settings.largest_mb)
            return StoreStatus.TOO_LARGE
        if received.error is not None:
            raise received.error
        if received.staged is None:
            raise RuntimeError("the file of the object is missing")
        uid, sop_class, syntax = received.uid, received.sop_class, received.transfer_syntax
        head = BytesIO(received.head)
        if sop_class != event.context.abstract_syntax or contradicts_request(head, syntax, uid, sop_class):
            log.warning("an object was refused: its UIDs differ from those of the request")
            return StoreStatus.DATA_SET_MISMATCH
        policy = ChangedObjectPolicy(self.settings.on_changed_object)
        receipt = receive_object(self.queue, policy, received.staged, uid, received.digest.hexdigest())
        self.count(ReceiverEvent.STORED if receipt.is_new else ReceiverEvent.STORED_BEFORE)
        if receipt.supersedes is not None:
            self.count(ReceiverEvent.OBJECT_SUPERSEDED)
        log.info("job %d: %s", receipt.job, "received" if receipt.is_new else "received again")
        return StoreStatus.SUCCESS


def _listed(error: ChangedObjectError) -> str:
    return ", ".join(error.differences)
