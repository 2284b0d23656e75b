"""Write objects to the disk while they arrive, so that no object is ever in memory as a whole.

pynetdicom would collect each object in memory. Here its fragments are taken out of each PDU before pynetdicom sees
them: they go to a file of the spool, and pynetdicom gets empty fragments.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping
from io import BytesIO
from typing import NamedTuple

from pydicom import Dataset
from pynetdicom.association import Association
from pynetdicom.dsutils import decode
from pynetdicom.pdu import P_DATA_TF

from deepmtdr.service.connections import Connection
from deepmtdr.service.pynetdicom_adapter import PduEvent, StoreRequest, file_head
from deepmtdr.service.settings import ReceiverSettings
from deepmtdr.service.spool import Spool, StagedOriginal, begin_digest

MAX_COMMAND_BYTES = 1 << 16
"""Largest command set of a message, bytes."""
MAX_UNANSWERED = 4
"""Most messages that a peer may send before it waits for an answer. No more than one is allowed by the negotiation."""
HEAD_BYTES = 1 << 12
"""Bytes at the beginning of each data set that are kept in memory, for the comparison with the request."""
NO_DATA = b"\x03"
"""Message control header of an empty last fragment of a command (PS3.8 Annex E)."""
C_STORE_REQUEST, C_ECHO_REQUEST = 0x0001, 0x0030
"""Command Field (PS3.7 Annex E); a peer needs no other command."""
NO_DATA_SET = 0x0101
"""Command Data Set Type of a message without a data set."""

log = logging.getLogger(__name__)


class UnexpectedMessage(Exception):
    """A peer sent what no DICOM sender sends; its association is aborted."""


class IncomingObject:
    """One object: the part of it that has arrived."""

    def __init__(self, command: Dataset, transfer_syntax: str) -> None:
        """Note what the request announces, without creating a file.

        Args:
            command: command set of the C-STORE request.
            transfer_syntax: UID of the transfer syntax of its presentation context.
        """
        self.message_id = command.get("MessageID")
        self.uid = str(command.get("AffectedSOPInstanceUID", ""))
        self.sop_class, self.transfer_syntax = str(command.get("AffectedSOPClassUID", "")), transfer_syntax
        self.digest = begin_digest(self.uid, self.sop_class, transfer_syntax)
        self.data_bytes = 0
        """Length of the data set so far, bytes."""
        self.head = bytearray()
        """The first `HEAD_BYTES` of the data set."""
        self.is_too_large = False
        self.error: OSError | None = None
        """Why the object could not be written; None if it could."""
        self.staged: StagedOriginal | None = None
        """Its file; None if it is too large, or if it could not be written."""

    def create_file(self, spool: Spool) -> None:
        """Create its file, with what precedes the data set."""
        try:
            self.staged = spool.stage_original(file_head(self.sop_class, self.uid, self.transfer_syntax))
        except OSError as error:
            self.error = error

    def write(self, content: memoryview, max_bytes: int) -> None:
        """Append to the data set. From the first error on, and beyond the limit, nothing more is written."""
        self.data_bytes += len(content)
        self.head += content[: HEAD_BYTES - len(self.head)]
        self.is_too_large = self.data_bytes > max_bytes
        if self.is_too_large:
            self.discard()
        if self.staged is None:
            return
        try:
            self.staged.write(content)
            self.digest.update(content)
        except OSError as error:
            self.error = error
            self.discard()

    def discard(self) -> None:
        """Remove its file; does nothing if the queue has it."""
        if self.staged is not None:
            self.staged.discard()
            self.staged = None


class ReceiveLimits(NamedTuple):
    """Limits of each object."""

    max_bytes: int
    """Largest data set, bytes."""
    seconds: float
    """Longest time from the first to the last byte, s."""

    @classmethod
    def of(cls, settings: ReceiverSettings) -> ReceiveLimits:
        """Read the limits from the settings."""
        return cls(int(settings.largest_mb * 2**20), settings.object_seconds)


class IncomingObjects:
    """The objects of one association; implements `ConnectionUser`."""

    def __init__(self, association: Association, connection: Connection, spool: Spool, limits: ReceiveLimits) -> None:
        """Wait for the first message.

        Args:
            association: its association.
            connection: gets the deadline of each object.
            spool: where the objects are written.
            limits: limits of each object.
        """
        self.association, self.connection, self.spool, self.limits = association, connection, spool, limits
        self._command = bytearray()
        self._arriving: IncomingObject | None = None
        self._complete: deque[IncomingObject] = deque()
        self._is_closed = False

    def take_pdu(self, event: PduEvent) -> None:
        """Take the fragments out of a PDU; pynetdicom calls this before it reads the PDU."""
        if not isinstance(event.pdu, P_DATA_TF):
            return
        try:
            for item in event.pdu.presentation_data_value_items:
                fragment = item.presentation_data_value or NO_DATA
                is_last = bool(fragment[0] & 2)
                if fragment[0] & 1:
                    self._take_command(fragment[1:], item.presentation_context_id or 0, is_last=is_last)
                else:
                    item.presentation_data_value = fragment[:1]
                    self._take_data(memoryview(fragment)[1:], is_last=is_last)
        except Exception as error:  # the command set of a peer can make pydicom raise almost anything
            event.pdu.presentation_data_value_items = []
            log.warning("an association was aborted: %s", type(error).__name__)
            event.assoc.abort()

    def _take_command(self, content: bytes, context_id: int, *, is_last: bool) -> None:
        self._command += content
        if len(self._command) > MAX_COMMAND_BYTES or self._arriving is not None or self._is_closed:
            raise UnexpectedMessage
        if self.association.dimse.msg_queue.qsize() + len(self._complete) > MAX_UNANSWERED:
            raise UnexpectedMessage
        if not is_last:
            return
        command = decode(BytesIO(self._command), True, True)
        self._command = bytearray()
        has_data = command.CommandDataSetType != NO_DATA_SET
        if command.CommandField not in (C_STORE_REQUEST, C_ECHO_REQUEST):
            raise UnexpectedMessage
        if has_data and command.CommandField == C_ECHO_REQUEST:
            raise UnexpectedMessage
        if has_data:
            self._begin(command, context_id)

    def _begin(self, command: Dataset, context_id: int) -> None:
        syntaxes = _accepted_syntaxes(self.association)
        if context_id not in syntaxes:
            raise UnexpectedMessage
        self.connection.begin_object(self.limits.seconds)
        self._arriving = IncomingObject(command, syntaxes[context_id])
        self._arriving.create_file(self.spool)

    def _take_data(self, content: memoryview, *, is_last: bool) -> None:
        if self._arriving is None or self._is_closed:
            raise UnexpectedMessage
        self._arriving.write(content, self.limits.max_bytes)
        if is_last:
            self._complete.append(self._arriving)
            self._arriving = None
            self.connection.end_object()

    def pop(self, request: StoreRequest) -> IncomingObject | None:
        """Return the object of a request; None if the request has none."""
        if self._complete and self._complete[0].message_id == request.MessageID:
            return self._complete.popleft()
        return None

    def has_ended(self) -> bool:
        """Whether the association has ended."""
        return self.association.ident is not None and not self.association.is_alive()

    def close(self) -> None:
        """Remove the files of objects that no handler has taken."""
        self._is_closed = True
        for one in (self._arriving, *self._complete):
            if one is not None:
                one.discard()
        self._complete.clear()


def _accepted_syntaxes(association: Association) -> Mapping[int, str]:
    """Transfer syntax of each accepted presentation context, by its number."""
    return {context.context_id or 0: str(context.transfer_syntax[0]) for context in association.accepted_contexts}
