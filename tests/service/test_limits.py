"""Slow, silent, flooding and broken peers keep nobody out, use no memory, and end."""

from __future__ import annotations

import socket
import struct
import time
import tracemalloc
from contextlib import ExitStack, suppress
from io import BytesIO
from typing import Any

import pytest
from pydicom import uid
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.dimse_messages import C_ECHO_RQ, C_STORE_RQ, N_EVENT_REPORT_RQ
from pynetdicom.dimse_primitives import C_ECHO, C_STORE, N_EVENT_REPORT
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from deepmtdr.dicom.sop_classes import PHOTOGRAPH_SOP_CLASSES
from deepmtdr.service import connections
from deepmtdr.service.receiver import StoreStatus
from deepmtdr.service.states import ReceiverEvent
from fake_camera import Start, echo, no_more_associations, stored
from fake_service import make_photograph, send, wait_until

ASSOCIATION_REQUEST_HEAD = b"\x01\x00\x00\x00\x10\x00"
"""The first bytes of an association request of 4 KiB."""


def connect(port: int, address: str = "127.0.0.1") -> socket.socket:
    """A TCP connection from an address of this machine."""
    return socket.create_connection(("127.0.0.1", port), timeout=30, source_address=(address, 0))


def test_connections_that_send_no_request_keep_nobody_out(start: Start) -> None:
    server = start(associations=2, connections_per_address=4)
    with ExitStack() as stack:
        for number in range(40):
            hostile = stack.enter_context(connect(server.port, f"127.0.0.{2 + number % 4}"))
            hostile.sendall(ASSOCIATION_REQUEST_HEAD)
        assert [echo(server.port) for _ in range(3)] == [0, 0, 0]
        assert server._server is not None and len(server._server.pool) <= 20
    assert server.counts[ReceiverEvent.CONNECTION_MADE_ROOM] > 0


def test_a_request_that_arrives_byte_by_byte_is_ended_after_its_time(start: Start) -> None:
    server = start(request_seconds=0.5)
    with connect(server.port) as hostile, suppress(ConnectionError):
        for number in range(6000):
            hostile.sendall(ASSOCIATION_REQUEST_HEAD[number : number + 1] or b"\0")
            hostile.settimeout(0.01)
            with suppress(TimeoutError):
                if hostile.recv(1) == b"":
                    break
        else:
            pytest.fail("the connection was not ended")
    assert server.counts[ReceiverEvent.CONNECTION_TOO_SLOW] == 1


def established(port: int, address: str = "127.0.0.1") -> tuple[Association, socket.socket]:
    """An association for photographs, and its TCP connection."""
    entity = AE("CAMERA")
    entity.add_requested_context(PHOTOGRAPH_SOP_CLASSES[0], uid.ExplicitVRLittleEndian)
    association = entity.associate("127.0.0.1", port, ae_title="DEEPMTDR", bind_address=(address, 0))
    assert association.is_established and association.dul.socket is not None
    connection = association.dul.socket.socket
    assert connection is not None
    return association, connection


def fragment_pdu(header: int, content: bytes) -> bytes:
    """A P-DATA-TF PDU with one fragment."""
    value = bytes([1, header]) + content
    return struct.pack(">BBII", 4, 0, len(value) + 4, len(value)) + value


def store_command(instance: str) -> bytes:
    """The command set of a C-STORE request."""
    request = C_STORE()
    request.MessageID, request.Priority = 1, 2
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = PHOTOGRAPH_SOP_CLASSES[0], instance
    request.DataSet = BytesIO(b"any")
    message = C_STORE_RQ()
    message.primitive_to_message(request)
    return next(message.encode_msg(1, 1 << 16)).presentation_data_value_list[0][1][1:]


@pytest.mark.parametrize("step", ["pdu_seconds", "object_seconds"])
def test_a_pdu_or_an_object_that_arrives_too_slowly_is_ended(start: Start, step: str) -> None:
    server = start(**{step: 0.5})
    association, connection = established(server.port)
    connection.sendall(fragment_pdu(3, store_command("1.2.3")))
    part = fragment_pdu(0, b"x") if step == "object_seconds" else b"\0"
    if step == "pdu_seconds":
        connection.sendall(b"\x04\x00\x00\x01\x00\x00")
    with suppress(OSError):
        while not association.is_aborted:
            connection.sendall(part)
            time.sleep(0.02)
    wait_until(lambda: no_more_associations(server) and stored(server) == [])
    assert server.counts[ReceiverEvent.CONNECTION_TOO_SLOW] == 1


def test_an_object_is_on_the_disk_while_it_arrives_and_never_in_memory(start: Start) -> None:
    server = start(largest_mb=64.0)
    association, connection = established(server.port)
    connection.sendall(fragment_pdu(3, store_command("1.2.3")))
    tracemalloc.start()
    part = fragment_pdu(0, bytes(100_000))
    for _ in range(200):
        connection.sendall(part)
    arrived = server.queue.spool.originals
    wait_until(lambda: sum(path.stat().st_size for path in arrived.iterdir()) > 19_000_000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    connection.shutdown(socket.SHUT_RDWR)
    wait_until(lambda: stored(server) == [])
    association.abort()
    assert peak < 10_000_000


def test_the_reserve_of_the_disk_holds_while_an_object_arrives(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    server, data = start(min_free_bytes=100), make_photograph(side=1000)
    left = iter([200, 200, 50])
    monkeypatch.setattr(server.queue.spool, "free_bytes", lambda: next(left))
    assert send(server.port, [data]) == [StoreStatus.OUT_OF_RESOURCES]
    assert stored(server) == []


@pytest.mark.parametrize("flood", ["echoes", "N-EVENT-REPORT"])
def test_a_peer_that_floods_is_aborted(start: Start, flood: str) -> None:
    server = start()
    association, connection = established(server.port)
    request = C_ECHO() if flood == "echoes" else N_EVENT_REPORT()
    request.MessageID = 1
    request.AffectedSOPClassUID = PHOTOGRAPH_SOP_CLASSES[0]
    if isinstance(request, N_EVENT_REPORT):
        request.AffectedSOPInstanceUID, request.EventTypeID = "1.2.3", 1
    message = C_ECHO_RQ() if flood == "echoes" else N_EVENT_REPORT_RQ()
    message.primitive_to_message(request)
    command = next(message.encode_msg(1, 1 << 16)).presentation_data_value_list[0][1][1:]
    with suppress(OSError):
        connection.sendall(fragment_pdu(3, command) * 500)
    wait_until(lambda: no_more_associations(server))
    association.abort()
    assert echo(server.port) == 0


def test_an_idle_association_of_another_address_makes_room_when_all_are_in_use(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start(associations=1)
    idle, _ = established(server.port, "127.0.0.2")
    assert echo(server.port) == "rejected"
    monkeypatch.setattr(connections, "IDLE_SECONDS", 0.0)
    assert echo(server.port) == 0
    wait_until(lambda: not idle.is_established)


def test_setting_the_clock_ends_no_association(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    server = start()
    association, _ = established(server.port)
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 8 * 24 * 3600)
    assert association.send_c_store(make_photograph()).Status == 0
    association.release()


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x01\x00\xff\xff\xff\xff" + bytes(100),
        b"\x04\x00\x00\x00\x00\x0a" + bytes(10),
        b"\x01\x00\x00\x00\x00\x40" + b"\x41" * 64,
        b"\x01",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
def test_invalid_bytes_are_survived_and_nothing_is_stored(start: Start, sent: bytes) -> None:
    server = start(idle_seconds=0.2)
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        connection.sendall(sent)
        answer = connection.recv(1000)
    assert b"Traceback" not in answer
    wait_until(lambda: no_more_associations(server))
    assert stored(server) == [] and echo(server.port) == 0


def test_an_association_that_breaks_off_is_ended_and_nothing_is_stored(start: Start) -> None:
    server, entity = start(idle_seconds=1.0), AE("CAMERA")
    entity.add_requested_context(PHOTOGRAPH_SOP_CLASSES[0], uid.ExplicitVRLittleEndian)
    association = entity.associate("127.0.0.1", server.port, ae_title="DEEPMTDR")
    request = struct.pack(">BBI", 4, 0, 500) + bytes(100)  # a PDU that is cut off
    connection: Any = association.dul.socket
    connection.socket.sendall(request)
    connection.socket.shutdown(socket.SHUT_RDWR)
    wait_until(lambda: no_more_associations(server))
    association.abort()
    assert stored(server) == [] and send(server.port, [make_photograph()]) == [0]


def test_a_silent_association_is_ended(start: Start) -> None:
    server, entity = start(idle_seconds=0.5), AE("CAMERA")
    entity.add_requested_context(Verification)
    association = entity.associate("127.0.0.1", server.port, ae_title="DEEPMTDR")
    wait_until(lambda: no_more_associations(server))
    wait_until(lambda: not association.is_established)


def test_too_many_associations_are_rejected_for_now(start: Start) -> None:
    server, entity = start(associations=1), AE("CAMERA")
    entity.add_requested_context(Verification)
    first = entity.associate("127.0.0.1", server.port, ae_title="DEEPMTDR")
    assert echo(server.port) == "rejected"
    first.release()
    wait_until(lambda: no_more_associations(server))
    assert echo(server.port) == 0
