"""The pool of connections, without a server."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from deepmtdr.service.connections import (
    BUSY_SECONDS,
    IDLE_SECONDS,
    PLACE_SECONDS,
    Connection,
    ConnectionPool,
    Phase,
    PoolLimits,
)

LIMITS = PoolLimits(connections=4, served=2, per_address=2, request_seconds=60.0)


class Sockets:
    """Makes connected sockets, and closes both ends at the end of the test."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.peers: list[socket.socket] = []

    def __call__(self) -> socket.socket:
        here, there = socket.socketpair()
        for one in (here, there):
            self._stack.callback(one.close)
        self.peers.append(there)
        return here


@pytest.fixture
def sockets() -> Iterator[Sockets]:
    with ExitStack() as stack:
        yield Sockets(stack)


def admit(pool: ConnectionPool, sockets: Sockets, address: str) -> Connection:
    connection = pool.admit(sockets(), address)
    assert connection is not None
    return connection


def serve(pool: ConnectionPool, sockets: Sockets, address: str) -> Connection:
    connection = admit(pool, sockets, address)
    assert pool.serve(connection)
    return connection


def test_an_address_with_too_many_connections_loses_its_oldest_waiting_one(sockets: Sockets) -> None:
    displaced: list[str] = []
    pool = ConnectionPool(LIMITS, displaced.append)
    first, second = admit(pool, sockets, "10.0.0.1"), admit(pool, sockets, "10.0.0.1")
    third = admit(pool, sockets, "10.0.0.1")
    assert [each.phase for each in (first, second, third)] == [Phase.ENDED, Phase.WAITING, Phase.WAITING]
    assert sockets.peers[0].recv(1) == b"", "its peer sees the end of the connection"
    assert displaced == ["10.0.0.1"]


def test_served_connections_of_an_address_are_kept_and_a_new_one_is_refused(sockets: Sockets) -> None:
    pool = ConnectionPool(LIMITS)
    served = [serve(pool, sockets, "10.0.0.1") for _ in range(2)]
    assert pool.admit(sockets(), "10.0.0.1") is None
    assert [each.phase for each in served] == [Phase.SERVED] * 2
    assert pool.admit(sockets(), "10.0.0.2") is not None


def test_a_full_pool_makes_room_at_the_address_that_has_the_most(sockets: Sockets) -> None:
    pool = ConnectionPool(LIMITS)
    honest = admit(pool, sockets, "10.0.0.1")
    hostile = [admit(pool, sockets, "10.0.0.2") for _ in range(2)]
    admit(pool, sockets, "10.0.0.3")
    admit(pool, sockets, "10.0.0.4")
    assert honest.phase == Phase.WAITING and hostile[0].phase == Phase.ENDED


def test_connections_that_were_ended_and_do_not_close_are_bounded_too(sockets: Sockets) -> None:
    pool = ConnectionPool(LIMITS)
    admitted = [pool.admit(sockets(), "10.0.0.1") for _ in range(20)]
    assert sum(each is not None for each in admitted) == len(pool) == 2 * LIMITS.connections


def test_a_place_is_given_to_a_new_peer_if_another_address_is_idle_or_slow(
    sockets: Sockets, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = ConnectionPool(LIMITS)
    idle, sending = serve(pool, sockets, "10.0.0.1"), serve(pool, sockets, "10.0.0.1")
    sending.begin_object(3600.0)
    assert not pool.serve(admit(pool, sockets, "10.0.0.2")), "all places are in use"
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + IDLE_SECONDS + 1)
    assert pool.serve(admit(pool, sockets, "10.0.0.2"))
    assert (idle.phase, sending.phase) == (Phase.ENDED, Phase.SERVED)
    monkeypatch.setattr(time, "monotonic", lambda: now + BUSY_SECONDS + 1)
    assert not pool.serve(admit(pool, sockets, "10.0.0.2")), "it has as many places as the slow peer"
    assert pool.serve(admit(pool, sockets, "10.0.0.3")) and sending.phase == Phase.ENDED


def test_a_peer_that_only_keeps_its_association_alive_loses_its_place(
    sockets: Sockets, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = ConnectionPool(LIMITS)
    hostile = [serve(pool, sockets, "10.0.0.1") for _ in range(2)]
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + PLACE_SECONDS + 1)
    for connection in hostile:
        connection.end_step()
    assert pool.serve(admit(pool, sockets, "10.0.0.2")) and hostile[0].phase == Phase.ENDED


def test_a_connection_is_ended_when_a_deadline_is_over(sockets: Sockets, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = ConnectionPool(LIMITS)
    waiting, reading, sending, quiet = (
        admit(pool, sockets, "10.0.0.1"),
        serve(pool, sockets, "10.0.0.2"),
        serve(pool, sockets, "10.0.0.3"),
        admit(pool, sockets, "10.0.0.4"),
    )
    reading.begin(30.0)
    sending.begin_object(50.0)
    sending.end_step()
    quiet.end_step()
    now = time.monotonic()
    assert pool.close_overdue() == []
    for seconds, connection in ((31, reading), (51, sending), (61, waiting)):
        monkeypatch.setattr(time, "monotonic", lambda later=now + seconds: later)
        assert pool.close_overdue() == [connection]
    monkeypatch.setattr(time, "monotonic", lambda: now + 1e9)
    assert pool.close_overdue() == []
