"""All changes to internals of pynetdicom 3, and types for its untyped objects.

No other module of the service uses a private name of pynetdicom or replaces a part of it.
"""

from __future__ import annotations

import logging
import time
from io import BytesIO
from typing import Protocol, runtime_checkable

from pydicom.uid import UID
from pynetdicom import _config, dul
from pynetdicom.association import Association
from pynetdicom.dsutils import create_file_meta, encode_file_meta
from pynetdicom.dul import DULServiceProvider
from pynetdicom.presentation import PresentationContextTuple
from pynetdicom.timer import Timer
from pynetdicom.transport import AssociationSocket

from deepmtdr.service.connections import Connection

MAX_PDU_BYTES = 1 << 20
"""Largest PDU that is read, bytes."""


@runtime_checkable
class StoreRequest(Protocol):
    """A C-STORE request (`pynetdicom.dimse_primitives.C_STORE`)."""

    MessageID: int | None
    AffectedSOPInstanceUID: str | None
    AffectedSOPClassUID: str | None
    DataSet: BytesIO | None
    """The encoded data set; None if the sender left it out."""


@runtime_checkable
class PduEvent(Protocol):
    """The event that pynetdicom passes for each received PDU (its `Event` gets these attributes at run time)."""

    assoc: Association
    pdu: object
    """The PDU, an instance of a class of `pynetdicom.pdu`."""


@runtime_checkable
class StoreEvent(Protocol):
    """The event that pynetdicom passes to the handler of C-STORE (its `Event` gets these attributes at run time)."""

    request: StoreRequest
    context: PresentationContextTuple

    def encoded_dataset(self) -> bytes:
        """Return the object as the bytes of a DICOM file; not for a receiver, which keeps no objects in memory."""
        ...


class MonotonicTimer(Timer):
    """A timer of pynetdicom that does not depend on the clock of the computer, which can be set.

    With the timer of pynetdicom, an association ends when the clock is set forward, and never when it is set back.
    """

    @property
    def remaining(self) -> float:
        """Return the seconds that are left; 1 if the timer has no timeout."""
        if self.timeout is None:
            return 1
        if self._start_time is None:
            return self.timeout
        end = time.monotonic() if self._end_time is None else self._end_time
        return self.timeout - (end - self._start_time)

    def start(self) -> None:
        """Start, or start again."""
        self._start_time, self._end_time = time.monotonic(), None

    def stop(self) -> None:
        """Stop."""
        self._end_time = time.monotonic()


_shut_down = AssociationSocket._shutdown_socket


def shut_down_and_close(self: AssociationSocket) -> None:
    """Replacement for `AssociationSocket._shutdown_socket` that always closes the socket.

    If the peer has closed the connection first, pynetdicom leaves the socket to the garbage collector. Then a server
    under load can run out of file descriptors, and Python warns of an unclosed socket.
    """
    opened = self.socket
    _shut_down(self)
    if opened is not None:
        opened.close()


class BoundedSocket(AssociationSocket):
    """A socket of an association with limits of time and size; its first bytes were read before.

    It refuses to read a huge PDU: pynetdicom allocates the length that the sender claims.
    """

    connection: Connection
    seconds: float
    early: bytearray

    @property
    def ready(self) -> bool:
        """Whether there is something to read."""
        return bool(self.early) or super().ready

    def recv(self, nr_bytes: int) -> bytearray:
        """Read bytes, or raise an OSError, which ends the connection."""
        if nr_bytes > MAX_PDU_BYTES:
            raise OSError(f"found a PDU of {nr_bytes} bytes, expected at most {MAX_PDU_BYTES}")
        first, self.early = self.early[:nr_bytes], self.early[nr_bytes:]
        return first + super().recv(nr_bytes - len(first)) if len(first) < nr_bytes else first

    def send(self, bytestream: bytes) -> None:
        """Send bytes within the time limit."""
        self.connection.begin(self.seconds)
        super().send(bytestream)
        self.connection.end_step()

    _shutdown_socket = shut_down_and_close


class BoundedUpperLayer(DULServiceProvider):
    """The part of an association that reads PDUs; each must arrive within the time limit."""

    def _read_pdu_data(self) -> None:
        bounded = self.socket
        assert isinstance(bounded, BoundedSocket)
        bounded.connection.begin(bounded.seconds)
        super()._read_pdu_data()
        bounded.connection.end_step()


def bound_association(association: Association, connection: Connection, seconds: float, early: bytes) -> None:
    """Set limits of time and size for a new association.

    The classes are exchanged in place, because a new `AssociationSocket` would send "connected" to the state machine of
    the association for the second time.

    Args:
        association: an association that has not been started.
        connection: its connection, which gets the deadlines.
        seconds: longest time to read or write one PDU, s.
        early: bytes that were read from the connection before.
    """
    bounded = association.dul.socket
    assert bounded is not None
    bounded.__class__ = BoundedSocket
    assert isinstance(bounded, BoundedSocket)
    bounded.connection, bounded.seconds, bounded.early = connection, seconds, bytearray(early)
    association.dul.__class__ = BoundedUpperLayer


def file_head(sop_class: str, uid: str, transfer_syntax: str) -> bytes:
    """Encode what precedes the data set in a DICOM file: preamble, prefix and file meta information."""
    meta = create_file_meta(
        sop_class_uid=UID(sop_class), sop_instance_uid=UID(uid), transfer_syntax=UID(transfer_syntax)
    )
    return bytes(128) + b"DICM" + encode_file_meta(meta)


def configure_dicom_libraries() -> None:
    """Silence the logs of the DICOM and HTTP libraries, which hold UIDs and names of patients; send files unchanged."""
    _config.LOG_HANDLER_LEVEL = "none"
    dul.Timer = MonotonicTimer  # pyright: ignore[reportPrivateImportUsage]
    _config.STORE_SEND_CHUNKED_DATASET = True  # C-STORE sends a file as it is, without decoding it
    for name in ("pynetdicom", "pydicom", "httpx", "httpcore"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
