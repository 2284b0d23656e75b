"""Accept connections from allowed addresses, with limits of number and time, before pynetdicom sees them."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import logging
import socket
import socketserver
import ssl
import threading
import time
from collections.abc import Callable

from pydicom import Dataset
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.pdu import A_ASSOCIATE_RJ, A_ASSOCIATE_RQ
from pynetdicom.transport import RequestHandler, ThreadedAssociationServer

from deepmtdr.service.connections import Connection, ConnectionPool, PoolLimits
from deepmtdr.service.incoming import IncomingObjects, ReceiveLimits
from deepmtdr.service.pynetdicom_adapter import MAX_PDU_BYTES, StoreEvent, bound_association
from deepmtdr.service.settings import ReceiverSettings
from deepmtdr.service.spool import Spool
from deepmtdr.service.states import ReceiverEvent

ASSOCIATE_REQUEST = 1
"""PDU type of an association request."""
PDU_HEAD_BYTES = 6
MIN_WAITING_CONNECTIONS = 8
"""Connections beyond the associations that can wait for their request, at least."""
REJECT_SECONDS = 5.0
"""Time in which a rejected peer can read the answer, s."""
ACCEPT_WAIT_SECONDS = 0.1
"""Wait when no connection can be accepted, because the system lacks file descriptors or memory, s."""

Address = tuple[str, int] | tuple[str, int, int, int]
"""Host and port, for IPv6 with flow info and scope."""
StoreHandler = Callable[[StoreEvent, IncomingObjects], Dataset]
"""Answers a C-STORE request with its status and, after a failure, an Error Comment."""

log = logging.getLogger(__name__)


def pool_limits(settings: ReceiverSettings) -> PoolLimits:
    """Derive the limits of the pool of connections from the settings."""
    waiting = max(settings.associations, MIN_WAITING_CONNECTIONS)
    return PoolLimits(
        connections=settings.associations + waiting,
        served=settings.associations,
        per_address=settings.connections_per_address,
        request_seconds=settings.request_seconds,
    )


class _Handler(RequestHandler):
    """Creates and starts the association of a connection whose request was read."""

    server: LimitedServer  # pyright: ignore[reportIncompatibleVariableOverride]

    def __init__(self, connection: Connection, request: bytes, client_address: Address, server: LimitedServer) -> None:
        self._connection, self._request = connection, request
        super().__init__(connection.socket, client_address, server)

    def _create_association(self) -> Association:
        association = super()._create_association()
        server, connection = self.server, self._connection
        bound_association(association, connection, server.settings.pdu_seconds, self._request)
        limits = ReceiveLimits.of(server.settings)
        incoming = IncomingObjects(association, connection, server.spool, limits)
        association.bind(evt.EVT_PDU_RECV, incoming.take_pdu)
        association.bind(evt.EVT_C_STORE, server.store, [incoming])
        association.bind(evt.EVT_REJECTED, lambda _: connection.end_within(REJECT_SECONDS))
        connection.user = incoming
        return association


class LimitedServer(ThreadedAssociationServer):
    """Accepts connections from allowed networks only; a slow peer or TLS handshake delays no other connection.

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
        spool: Spool,
        count: Callable[[ReceiverEvent], None],
        store: StoreHandler,
    ) -> None:
        """Bind the port.

        Args:
            entity: application entity with its titles, contexts and timeouts.
            address: host and port.
            tls: None for a connection without TLS.
            settings: allowed networks, and limits.
            spool: where objects are written while they arrive.
            count: called for each rejected association, and each connection that was refused or ended.
            store: called to answer C-STORE requests.

        Raises:
            OSError: if the port cannot be bound.
        """
        self.settings, self.spool, self.count, self.store = settings, spool, count, store
        self.networks = [ipaddress.ip_network(network, strict=False) for network in settings.networks]
        self.pool = ConnectionPool(pool_limits(settings), self._count_made_room)
        handlers: list[evt.EventHandlerType] = [(evt.EVT_REJECTED, self._count_rejected)]
        super().__init__(entity, address, entity.ae_title, entity.supported_contexts, tls, handlers, _Handler)

    def close(self) -> None:
        """Stop listening and abort the open associations."""
        socketserver.BaseServer.shutdown(self)
        self.server_close()
        for association in self.active_associations:
            association.abort()
        self.pool.shut_down()
        self.pool.close_overdue()

    def service_actions(self) -> None:
        """End connections that are too slow; `serve_forever` calls this several times in a second."""
        super().service_actions()
        for connection in self.pool.close_overdue():
            self.count(ReceiverEvent.CONNECTION_TOO_SLOW)
            log.warning("a connection from %s was ended: too slow", connection.address)

    def _count_rejected(self, event: evt.Event) -> None:
        self.count(ReceiverEvent.ASSOCIATION_REJECTED)
        log.warning("an association from %s was rejected", event.assoc.requestor.address)

    def _count_made_room(self, address: str) -> None:
        self.count(ReceiverEvent.CONNECTION_MADE_ROOM)
        log.warning("a connection from %s was ended: it was idle or slow, and another one needed its place", address)

    def get_request(self) -> tuple[socket.socket, Address]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Accept the next connection without reading from it."""
        try:
            connection, address = self.socket.accept()  # pyright: ignore[reportOptionalMemberAccess]
        except OSError as error:  # wait, or `serve_forever` would call this again at once
            self.count(ReceiverEvent.CONNECTION_REFUSED)
            log.error("no connection can be accepted: %s", errno.errorcode.get(error.errno or 0, "OSError"))
            time.sleep(ACCEPT_WAIT_SECONDS)
            raise
        connection.settimeout(self.settings.idle_seconds)
        return connection, address

    def verify_request(self, request: socket.socket, client_address: Address) -> bool:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Whether the address of a connection is allowed."""
        address = _ip_address(client_address)
        allowed = any(address in network for network in self.networks)
        if not allowed:
            self.count(ReceiverEvent.CONNECTION_REFUSED)
            log.warning("a connection from %s was refused: not in receiver.networks", address)
        return allowed

    def process_request(self, request: socket.socket, client_address: Address) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Take a connection into the pool, and read its request in a separate thread."""
        address = str(_ip_address(client_address))
        connection = self.pool.admit(request, address)
        if connection is None:
            self.count(ReceiverEvent.CONNECTION_CROWDED)
            log.warning("a connection from %s was refused: too many connections", address)
            self.shutdown_request(request)
            return
        try:
            threading.Thread(target=self._begin, args=(connection, client_address), daemon=True).start()
        except RuntimeError:
            self.pool.remove(connection)
            raise

    def _begin(self, connection: Connection, client_address: Address) -> None:
        """Do the TLS handshake, read the request, and start the association."""
        try:
            self._shake_hands(connection)
            request = _read_request(connection.socket)
            pdu = A_ASSOCIATE_RQ()
            pdu.decode(request)
            pdu.to_primitive()  # raises an error if it is damaged
            if self.pool.serve(connection):
                _Handler(connection, request, client_address, self)
                return
            self._reject(connection)
        except Exception:  # a peer that ends the connection, or sends what is not an association request
            self.count(ReceiverEvent.CONNECTION_REFUSED)
            log.warning("a connection from %s failed", connection.address)
        self.pool.remove(connection)

    def _shake_hands(self, connection: Connection) -> None:
        if self.ssl_context is not None:
            connection.socket = self.ssl_context.wrap_socket(
                connection.socket, server_side=True, do_handshake_on_connect=False
            )
            connection.socket.do_handshake()

    def _reject(self, connection: Connection) -> None:
        """Answer that all associations are in use, so that the peer tries again later."""
        self.count(ReceiverEvent.CONNECTION_CROWDED)
        log.warning("an association from %s was rejected: too many associations", connection.address)
        connection.end_within(REJECT_SECONDS)
        answer = A_ASSOCIATE_RJ()
        answer.result, answer.source, answer.reason_diagnostic = 0x02, 0x03, 0x02  # for now; local limit exceeded
        connection.socket.sendall(answer.encode())
        socket.socket.shutdown(connection.socket, socket.SHUT_WR)
        while connection.socket.recv(1 << 12):  # until the peer has closed the connection, or its time is over
            pass

    def handle_error(self, request: socket.socket, client_address: Address) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Log one line instead of a traceback."""
        self.count(ReceiverEvent.CONNECTION_REFUSED)
        log.warning("a connection from %s failed", client_address[0])
        with contextlib.suppress(OSError):
            request.close()


def _ip_address(client_address: Address) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    address = ipaddress.ip_address(client_address[0].partition("%")[0])
    return address.ipv4_mapped or address if isinstance(address, ipaddress.IPv6Address) else address


def _read_request(connection: socket.socket) -> bytes:
    """Read an association request.

    Raises:
        OSError: if the connection has ended, or the first PDU is not an association request, or is too large.
    """
    head = _read_exactly(connection, PDU_HEAD_BYTES)
    length = int.from_bytes(head[2:], "big")
    if head[0] != ASSOCIATE_REQUEST or length > MAX_PDU_BYTES:
        raise OSError(f"found a PDU of type {head[0]} and {length} bytes, expected an association request")
    return head + _read_exactly(connection, length)


def _read_exactly(connection: socket.socket, number: int) -> bytes:
    content = bytearray()
    while len(content) < number:
        received = connection.recv(min(number - len(content), 1 << 16))
        if not received:
            raise OSError(f"found {len(content)} bytes, expected {number}")
        content += received
    return bytes(content)
