"""A bounded pool of TCP connections with deadlines, for the DICOM receiver and for the HTTP server.

A connection *waits* until its peer has sent a whole request. Connections that wait make room for new ones, so peers
that send nothing, or a byte now and then, keep nobody out. A connection is closed when its deadline is over, whatever
its threads are doing: shutting down a socket ends every read and write that blocks on it.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from enum import Enum, auto
from typing import NamedTuple, Protocol, runtime_checkable

BUSY_SECONDS, IDLE_SECONDS, PLACE_SECONDS = 10.0, 5.0, 30.0
"""While all places are in use, how long a peer keeps its place: with one object; without sending anything; without an
object, even if it sends something, s.
"""


class Phase(Enum):
    """Phase of a connection."""

    WAITING = auto()
    """The peer has not sent its whole request yet."""
    SERVED = auto()
    """The connection has a place: an association, or a request that is being answered."""
    ENDED = auto()
    """The connection was shut down, or its request was rejected; its threads are about to end."""


@runtime_checkable
class ConnectionUser(Protocol):
    """What uses a connection after its request was read; it may still run after the connection has ended."""

    def has_ended(self) -> bool:
        """Whether it will never use the connection again."""
        ...

    def close(self) -> None:
        """Release everything it holds; called once, after it has ended."""
        ...


class Connection:
    """A TCP connection that was accepted."""

    def __init__(self, connection: socket.socket, address: str, seconds: float) -> None:
        """Begin to wait for a request.

        Args:
            connection: its socket.
            address: IP address of the peer.
            seconds: longest time until the whole request was read, s.
        """
        self.socket, self.address = connection, address
        self.phase = Phase.WAITING
        self.user: ConnectionUser | None = None
        self.since = self.last_active = time.monotonic()
        self.deadline: float | None = self.since + seconds
        """When the connection is closed, monotonic s; None: not while it is idle."""
        self.object_deadline: float | None = None
        """When the connection is closed unless the object that is arriving is complete, monotonic s."""
        self.object_since: float | None = None
        """When the object that is arriving began, monotonic s; None if there is none."""

    def begin(self, seconds: float) -> None:
        """Set the deadline of the next step; an ended connection keeps its deadline."""
        self.last_active = time.monotonic()
        if self.phase != Phase.ENDED:
            self.deadline = self.last_active + seconds

    def end_step(self) -> None:
        """Remove the deadline: the step is complete."""
        self.last_active = time.monotonic()
        if self.phase != Phase.ENDED:
            self.deadline = None

    def begin_object(self, seconds: float) -> None:
        """Set the deadline of an object whose first byte has arrived."""
        self.object_since = time.monotonic()
        self.object_deadline = self.object_since + seconds

    def end_object(self) -> None:
        """Remove the deadline of an object: it is complete."""
        self.object_since = self.object_deadline = None

    def is_overdue(self, now: float) -> bool:
        """Whether a deadline is over."""
        return any(deadline is not None and deadline < now for deadline in (self.deadline, self.object_deadline))

    def may_lose_its_place(self, now: float) -> bool:
        """Whether another peer may get the place, because this one has not used it well."""
        if self.object_since is not None:
            return now - self.object_since > BUSY_SECONDS
        return now - self.last_active > IDLE_SECONDS or now - self.since > PLACE_SECONDS

    def end_within(self, seconds: float) -> None:
        """Give up the place; the peer has some seconds to read the last answer."""
        self.phase, self.deadline, self.object_deadline = Phase.ENDED, time.monotonic() + seconds, None

    def shut_down(self) -> None:
        """End the connection: reads and writes of other threads return at once. The socket stays open."""
        self.phase, self.deadline, self.object_deadline = Phase.ENDED, None, None
        with contextlib.suppress(OSError):  # the method of the base class leaves the TLS state to its thread
            socket.socket.shutdown(self.socket, socket.SHUT_RDWR)

    def close(self) -> None:
        """End the connection and close its socket."""
        self.shut_down()
        with contextlib.suppress(OSError):
            self.socket.close()


class PoolLimits(NamedTuple):
    """Limits of a pool of connections."""

    connections: int
    """Most connections, waiting or served."""
    served: int
    """Most served connections."""
    per_address: int
    """Most connections of one IP address."""
    request_seconds: float
    """Longest time from the acceptance of a connection to the end of its request, s."""


class ConnectionPool:
    """The connections of one server; can be used from many threads."""

    def __init__(self, limits: PoolLimits, on_made_room: Callable[[str], None] = lambda _: None) -> None:
        """Create an empty pool.

        Args:
            limits: limits of number and time.
            on_made_room: called with the address of a connection that was ended to make room for another one.
        """
        self.limits, self._on_made_room = limits, on_made_room
        self._lock = threading.Lock()
        self._connections: list[Connection] = []

    def __len__(self) -> int:
        """Number of connections."""
        return len(self._connections)

    def served(self) -> int:
        """Return the number of served connections."""
        with self._lock:
            return len(self._in_phase(Phase.SERVED))

    def admit(self, connection: socket.socket, address: str) -> Connection | None:
        """Take a new connection into the pool.

        If its address or the pool has too many, the longest waiting connection of the address with the most connections
        is ended.

        Returns:
            The connection; None if there are too many connections, and none of them waits.
        """
        with self._lock:
            alive = [each for each in self._connections if each.phase != Phase.ENDED]
            same = [each for each in alive if each.address == address]
            if len(self._connections) >= 2 * self.limits.connections:  # too many ended ones are not closed yet
                return None
            if len(same) >= self.limits.per_address or len(alive) >= self.limits.connections:
                crowd = same if len(same) >= self.limits.per_address else alive
                victim = _oldest(_most_of_one_address([each for each in crowd if each.phase == Phase.WAITING]))
                if victim is None:
                    return None
                self._make_room(victim)
            admitted = Connection(connection, address, self.limits.request_seconds)
            self._connections.append(admitted)
            return admitted

    def serve(self, connection: Connection) -> bool:
        """Give a place to a connection whose request was read.

        If there is none, a connection that is idle or slow loses its place, of the address that has the most.

        Returns:
            Whether the connection has a place. It has none if it was ended before, or all places are in use.
        """
        with self._lock:
            if connection.phase != Phase.WAITING:
                return False
            served = self._in_phase(Phase.SERVED)
            if len(served) >= self.limits.served:
                victim = self._lowest_priority(served, connection.address)
                if victim is None:
                    return False
                self._make_room(victim)
            connection.phase, connection.deadline = Phase.SERVED, None
            return True

    def close_overdue(self) -> list[Connection]:
        """End all connections whose deadline is over, and forget those whose user has ended.

        Returns:
            The connections that were too slow, without those that had ended before.
        """
        now = time.monotonic()
        with self._lock:
            overdue = [each for each in self._connections if each.is_overdue(now)]
            finished = [each for each in self._connections if each.user is not None and each.user.has_ended()]
            slow = [each for each in overdue if each.phase != Phase.ENDED]
        for connection in overdue:
            connection.shut_down()
        for connection in finished:
            self.remove(connection)
        return slow

    def remove(self, connection: Connection) -> None:
        """Close a connection and forget it."""
        with self._lock:
            if connection not in self._connections:
                return
            self._connections.remove(connection)
        connection.close()
        if connection.user is not None:
            connection.user.close()

    def shut_down(self) -> None:
        """End all connections."""
        for connection in list(self._connections):
            connection.shut_down()

    def _in_phase(self, phase: Phase) -> list[Connection]:
        served = [each for each in self._connections if each.phase == phase]
        return [each for each in served if each.user is None or not each.user.has_ended()]

    def _lowest_priority(self, served: list[Connection], newcomer: str) -> Connection | None:
        now = time.monotonic()
        own = sum(each.address == newcomer for each in served)
        number = Counter(each.address for each in served)
        weak = [each for each in served if each.may_lose_its_place(now) and number[each.address] > own]
        idle_first = sorted(weak, key=lambda each: (each.object_since is not None, each.last_active))
        return next(iter(_most_of_one_address(idle_first)), None)

    def _make_room(self, victim: Connection) -> None:
        victim.shut_down()
        self._on_made_room(victim.address)


def _oldest(connections: list[Connection]) -> Connection | None:
    return min(connections, key=lambda each: each.since, default=None)


def _most_of_one_address(connections: list[Connection]) -> list[Connection]:
    """Return the connections of the address that has the most of them."""
    number = Counter(each.address for each in connections)
    return [each for each in connections if number[each.address] == max(number.values())]
