"""All changes to internals of pynetdicom 3, and types for its untyped objects.

No other module of the service uses a private name of pynetdicom or replaces a part of it.
"""

from __future__ import annotations

import logging
from io import BytesIO
from typing import Protocol, runtime_checkable

from pynetdicom import _config
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContextTuple
from pynetdicom.transport import AssociationSocket

MAX_PDU_BYTES = 1 << 20
"""Largest PDU that is read, bytes."""


@runtime_checkable
class StoreRequest(Protocol):
    """A C-STORE request (`pynetdicom.dimse_primitives.C_STORE`)."""

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
        """Return the object as the bytes of a DICOM file."""
        ...


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
    """A socket that refuses to read a huge PDU: pynetdicom allocates the length that the sender claims."""

    def recv(self, nr_bytes: int) -> bytearray:
        """Read bytes, or raise an OSError, which ends the connection."""
        if nr_bytes > MAX_PDU_BYTES:
            raise OSError(f"found a PDU of {nr_bytes} bytes, expected at most {MAX_PDU_BYTES}")
        return super().recv(nr_bytes)

    _shutdown_socket = shut_down_and_close


def bound_socket(association: Association) -> None:
    """Make the socket of a new association a `BoundedSocket`.

    The class is exchanged in place, because a new `AssociationSocket` would send "connected" to the state machine of
    the association for the second time.
    """
    assert association.dul.socket is not None
    association.dul.socket.__class__ = BoundedSocket


def configure_dicom_libraries() -> None:
    """Silence the logs of the DICOM and HTTP libraries, which hold UIDs and names of patients; send files unchanged."""
    _config.LOG_HANDLER_LEVEL = "none"
    _config.STORE_SEND_CHUNKED_DATASET = True  # C-STORE sends a file as it is, without decoding it
    for name in ("pynetdicom", "pydicom", "httpx", "httpcore"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
