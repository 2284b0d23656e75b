"""What stands before the decoder of a message: who may connect, and how much memory a connection may take."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import socket
import socketserver
import ssl
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

from pynetdicom import AE, evt
from pynetdicom.pdu import P_DATA_TF
from pynetdicom.transport import AssociationSocket, RequestHandler, ThreadedAssociationServer

from deepmtdr.service.settings import ReceiverSettings

MAX_PDU_BYTES, MAX_COMMAND_BYTES = 1 << 20, 1 << 16
"""Bytes: of any PDU that is read at all, and of a message's command set."""

log = logging.getLogger(__name__)


class MessageSizeCounter:
    """Counts the bytes of each message of one association while they come; empties fragments that are too many."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes, self.data, self.command = max_bytes, 0, 0
        self.too_large: deque[bool] = deque()
        """Of each whole message that waits to be answered."""

    def count_pdu(self, event: evt.Event) -> None:
        """Look at a PDU before it is put to its message."""
        if not isinstance(event.pdu, P_DATA_TF):
            return
        for item in event.pdu.presentation_data_value_items:
            fragment = item.presentation_data_value or b"\x03"
            if fragment[0] & 1:
                self.command = 0 if fragment[0] & 2 else self.command + len(fragment)
                if self.command > MAX_COMMAND_BYTES:
                    event.assoc.abort()
                continue
            self.data += len(fragment) - 1
            if self.data > self.max_bytes or self.too_large:  # the latter: it does not wait for an answer
                item.presentation_data_value = fragment[:1]
            if fragment[0] & 2:
                self.too_large.append(self.data > self.max_bytes or bool(self.too_large))
                self.data = 0


class BoundedSocket(AssociationSocket):
    """Refuses to read a PDU that says it is huge, as rubbish on the port does."""

    def recv(self, nr_bytes: int) -> bytearray:
        """So many bytes, or an error that ends the connection."""
        if nr_bytes > MAX_PDU_BYTES:
            raise OSError(f"PDU of {nr_bytes} bytes, expected at most {MAX_PDU_BYTES}")
        return super().recv(nr_bytes)

    def _shutdown_socket(self) -> None:
        """Close it even where the peer was first: pynetdicom leaves that to the garbage collector."""
        connection = self.socket
        super()._shutdown_socket()
        if connection is not None:
            connection.close()


class _Handler(RequestHandler):
    server: LimitedServer  # pyright: ignore[reportIncompatibleVariableOverride]

    def _create_association(self) -> Any:
        association: Any = super()._create_association()
        association.dul.socket.__class__ = BoundedSocket  # a second one would greet the state machine twice
        association.size_counter = MessageSizeCounter(int(self.server.settings.largest_mb * 2**20))
        association.bind(evt.EVT_PDU_RECV, association.size_counter.count_pdu)
        return association


class LimitedServer(ThreadedAssociationServer):
    """Cuts off who is not on the list; a slow or broken TLS greeting holds up nobody else."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(
        self,
        entity: AE,
        address: tuple[str, int],
        tls: ssl.SSLContext | None,
        settings: ReceiverSettings,
        counts: Counter[str],
        store: Callable[[evt.Event], int],
    ) -> None:
        """Bind.

        Args:
            entity: with its titles, contexts and timeouts.
            address: host and port.
            tls: None for a plain connection.
            settings: the networks that may connect, and how much.
            counts: gets "associations" and "connections" that were refused.
            store: answers a C-STORE request with its status.

        Raises:
            OSError: if the port cannot be had.
        """
        self.settings, self.counts = settings, counts
        self.networks = [ipaddress.ip_network(network, strict=False) for network in settings.networks]
        handlers: Any = [(evt.EVT_C_STORE, store), (evt.EVT_REJECTED, self._rejected)]
        super().__init__(entity, address, entity.ae_title, entity.supported_contexts, tls, handlers, _Handler)

    def close(self) -> None:
        """Listen no more, and abort what is open."""
        socketserver.BaseServer.shutdown(self)
        self.server_close()
        for association in self.active_associations:
            association.abort()

    def _rejected(self, event: evt.Event) -> None:
        self.counts["associations"] += 1
        log.warning("an association from %s was rejected", event.assoc.requestor.address)

    def get_request(self) -> tuple[socket.socket, Any]:
        """The next connection; nothing of it is read here."""
        connection, address = self.socket.accept()  # pyright: ignore[reportOptionalMemberAccess]
        connection.settimeout(self.settings.idle_seconds)
        return connection, address

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Whether it may go on: its address is on the list, and there are not too many."""
        address = ipaddress.ip_address(client_address[0].partition("%")[0])
        address = getattr(address, "ipv4_mapped", None) or address
        known = any(address in network for network in self.networks)
        few = len(self.active_associations) < 2 * self.settings.associations
        if not (known and few):
            self.counts["connections"] += 1
            log.warning("a connection from %s was cut off: %s", address, "too many" if known else "not on the list")
        return known and few

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Begin the association, in this connection's own thread."""
        if self.ssl_context is not None:
            request = self.ssl_context.wrap_socket(request, server_side=True)
        super().finish_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A line instead of a traceback."""
        self.counts["connections"] += 1
        log.warning("a connection from %s failed", client_address[0])
        with contextlib.suppress(OSError):
            request.close()
