"""Limits that apply before a message is decoded: allowed addresses, and memory of a connection."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import socket
import socketserver
import ssl
from collections import deque
from collections.abc import Callable

from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.pdu import P_DATA_TF
from pynetdicom.transport import RequestHandler, ThreadedAssociationServer

from deepmtdr.service.pynetdicom_adapter import PduEvent, StoreEvent, bound_socket
from deepmtdr.service.settings import ReceiverSettings
from deepmtdr.service.states import ReceiverEvent

MAX_COMMAND_BYTES = 1 << 16
"""Largest command set of a message, bytes."""
NO_DATA = b"\x03"
"""Message control header of an empty last fragment of a command (PS3.8 Annex E)."""

Address = tuple[str, int] | tuple[str, int, int, int]
"""Host and port, for IPv6 with flow info and scope."""

log = logging.getLogger(__name__)


class MessageSizeCounter:
    """Counts the bytes of each message of one association as they arrive, and empties fragments beyond the limit."""

    def __init__(self, max_bytes: int) -> None:
        """Start at zero.

        Args:
            max_bytes: largest data set, bytes.
        """
        self.max_bytes, self.data, self.command = max_bytes, 0, 0
        self.too_large: deque[bool] = deque()
        """For each complete message without an answer so far: whether its data set was too large."""

    def count_pdu(self, event: PduEvent) -> None:
        """Count a PDU before pynetdicom appends it to its message."""
        if not isinstance(event.pdu, P_DATA_TF):
            return
        for item in event.pdu.presentation_data_value_items:
            fragment = item.presentation_data_value or NO_DATA
            is_command, is_last = bool(fragment[0] & 1), bool(fragment[0] & 2)
            if is_command:
                self.command = 0 if is_last else self.command + len(fragment)
                if self.command > MAX_COMMAND_BYTES:
                    event.assoc.abort()
                continue
            self.data += len(fragment) - 1
            if self.data > self.max_bytes or self.too_large:  # the second: the sender did not wait for an answer
                item.presentation_data_value = fragment[:1]
            if is_last:
                self.too_large.append(self.data > self.max_bytes or bool(self.too_large))
                self.data = 0


StoreHandler = Callable[[StoreEvent, MessageSizeCounter], int]
"""Answers a C-STORE request with its status."""


class _Handler(RequestHandler):
    server: LimitedServer  # pyright: ignore[reportIncompatibleVariableOverride]

    def _create_association(self) -> Association:
        association = super()._create_association()
        bound_socket(association)
        counter = MessageSizeCounter(int(self.server.settings.largest_mb * 2**20))
        association.bind(evt.EVT_PDU_RECV, counter.count_pdu)
        association.bind(evt.EVT_C_STORE, self.server.store, [counter])
        return association


class LimitedServer(ThreadedAssociationServer):
    """Accepts connections from allowed networks only; a slow or broken TLS handshake delays no other connection.

    The types in the base classes also allow UDP sockets. Here a request is always a TCP socket, and an address is IPv4
    or IPv6.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(
        self,
        entity: AE,
        address: tuple[str, int],
        tls: ssl.SSLContext | None,
        settings: ReceiverSettings,
        count: Callable[[ReceiverEvent], None],
        store: StoreHandler,
    ) -> None:
        """Bind the port.

        Args:
            entity: application entity with its titles, contexts and timeouts.
            address: host and port.
            tls: None for a connection without TLS.
            settings: allowed networks, and limits.
            count: called for each rejected association and refused connection.
            store: called to answer C-STORE requests.

        Raises:
            OSError: if the port cannot be bound.
        """
        self.settings, self.count, self.store = settings, count, store
        self.networks = [ipaddress.ip_network(network, strict=False) for network in settings.networks]
        handlers: list[evt.EventHandlerType] = [(evt.EVT_REJECTED, self._count_rejected)]
        super().__init__(entity, address, entity.ae_title, entity.supported_contexts, tls, handlers, _Handler)

    def close(self) -> None:
        """Stop listening and abort the open associations."""
        socketserver.BaseServer.shutdown(self)
        self.server_close()
        for association in self.active_associations:
            association.abort()

    def _count_rejected(self, event: evt.Event) -> None:
        self.count(ReceiverEvent.ASSOCIATION_REJECTED)
        log.warning("an association from %s was rejected", event.assoc.requestor.address)

    def get_request(self) -> tuple[socket.socket, Address]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Accept the next connection without reading from it."""
        connection, address = self.socket.accept()  # pyright: ignore[reportOptionalMemberAccess]
        connection.settimeout(self.settings.idle_seconds)
        return connection, address

    def verify_request(self, request: socket.socket, client_address: Address) -> bool:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Whether a connection may go on: its address is allowed, and there are not too many associations."""
        address = ipaddress.ip_address(client_address[0].partition("%")[0])
        if isinstance(address, ipaddress.IPv6Address):
            address = address.ipv4_mapped or address
        allowed = any(address in network for network in self.networks)
        few = len(self.active_associations) < 2 * self.settings.associations
        if not (allowed and few):
            self.count(ReceiverEvent.CONNECTION_REFUSED)
            reason = "too many connections" if allowed else "not in receiver.networks"
            log.warning("a connection from %s was refused: %s", address, reason)
        return allowed and few

    def finish_request(self, request: socket.socket, client_address: Address) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Do the TLS handshake and begin the association, in the thread of this connection."""
        if self.ssl_context is not None:
            request = self.ssl_context.wrap_socket(request, server_side=True)
        super().finish_request(request, client_address)

    def handle_error(self, request: socket.socket, client_address: Address) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Log one line instead of a traceback."""
        self.count(ReceiverEvent.CONNECTION_REFUSED)
        log.warning("a connection from %s failed", client_address[0])
        with contextlib.suppress(OSError):
            request.close()
