"""What the hostile peers of `hostile_peers.py` do."""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from pydicom.uid import ExplicitVRLittleEndian, OphthalmicPhotography8BitImageStorage, generate_uid

CONNECTIONS = 20
"""Connections that each hostile peer tries to hold at the same time."""
OVERSIZE_BYTES = 300 << 20
REQUEST_HEAD = b"\x01\x00\x00\x00\x10\x00"
"""The first bytes of an association request of 4 KiB."""


class Target(NamedTuple):
    """The service under attack."""

    port: int
    health_port: int
    stop: threading.Event


def connect(target: Target, address: str, port: int = 0) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port or target.port), timeout=5, source_address=(address, 0))


def drip(target: Target, address: str) -> None:
    """Send an association request byte by byte."""
    with connect(target, address) as peer:
        peer.sendall(REQUEST_HEAD)
        while not target.stop.wait(2):
            peer.sendall(b"\0")


def say_nothing(target: Target, address: str) -> None:
    """Connect, and wait."""
    with connect(target, address) as peer:
        peer.settimeout(60)
        peer.recv(1)


def connect_and_close(target: Target, address: str) -> None:
    """Flood the service with connections."""
    for _ in range(50):
        connect(target, address).close()
        if target.stop.wait(0.01):
            return


def send_garbage(target: Target, address: str) -> None:
    """Send random bytes."""
    with connect(target, address) as peer:
        peer.sendall(random.randbytes(10_000))
        peer.recv(1)
    target.stop.wait(0.1)


def claim_a_huge_pdu(target: Target, address: str) -> None:
    """Announce a PDU of 4 GiB."""
    with connect(target, address) as peer:
        peer.sendall(b"\x01\x00\xff\xff\xff\xff" + bytes(100_000))
        peer.recv(1)
    target.stop.wait(0.1)


def item(kind: int, content: bytes) -> bytes:
    """An item or sub-item of an association request (PS3.8 Sec. 9.3)."""
    return struct.pack(">BBH", kind, 0, len(content)) + content


def association_request() -> bytes:
    """An A-ASSOCIATE-RQ PDU for photographs."""
    syntaxes = item(0x30, OphthalmicPhotography8BitImageStorage.encode()) + item(0x40, ExplicitVRLittleEndian.encode())
    content = struct.pack(">HH", 1, 0) + b"DEEPMTDR".ljust(16) + b"HOSTILE".ljust(16) + bytes(32)
    content += item(0x10, b"1.2.840.10008.3.1.1.1") + item(0x20, bytes([1, 0, 0, 0]) + syntaxes)
    content += item(0x50, item(0x51, struct.pack(">I", 1 << 14)) + item(0x52, b"1.2.3"))
    return struct.pack(">BBI", 1, 0, len(content)) + content


@contextlib.contextmanager
def associated(target: Target, address: str) -> Iterator[socket.socket]:
    """A connection with an association.

    Raises:
        OSError: if there is none.
    """
    with connect(target, address) as peer:
        peer.settimeout(20)
        peer.sendall(association_request())
        if peer.recv(1) != b"\2":
            target.stop.wait(0.2)
            raise OSError("no association")
        yield peer


def pdu(header: int, content: bytes) -> bytes:
    """A P-DATA-TF PDU with one fragment; `header` is its message control header."""
    value = bytes([1, header]) + content
    return struct.pack(">BBII", 4, 0, len(value) + 4, len(value)) + value


def element(number: int, content: bytes) -> bytes:
    """An element of a command set (group 0000)."""
    content += b"\0" * (len(content) % 2)
    return struct.pack("<HHI", 0, number, len(content)) + content


def command(field: int, *, data: bool) -> bytes:
    """A command set: C-STORE (1) or C-ECHO (0x30)."""
    content = element(0x0002, OphthalmicPhotography8BitImageStorage.encode())
    content += element(0x0100, struct.pack("<H", field)) + element(0x0110, struct.pack("<H", 1))
    if field == 1:
        content += element(0x0700, struct.pack("<H", 2))
    content += element(0x0800, struct.pack("<H", 1 if data else 0x0101))
    if field == 1:
        content += element(0x1000, generate_uid().encode())
    return element(0x0000, struct.pack("<I", len(content))) + content


def drip_an_object(target: Target, address: str) -> None:
    """Begin an object, and send its data byte by byte, each in a PDU."""
    with associated(target, address) as peer:
        peer.sendall(pdu(3, command(1, data=True)))
        while not target.stop.wait(2):
            peer.sendall(pdu(0, b"\0"))


def send_too_much(target: Target, address: str) -> None:
    """Send an object that is larger than any photograph."""
    with associated(target, address) as peer:
        peer.sendall(pdu(3, command(1, data=True)))
        part = pdu(0, bytes(100_000))
        for _ in range(OVERSIZE_BYTES // 100_000):
            if target.stop.wait(0.01):
                break
            peer.sendall(part)


def flood_with_echoes(target: Target, address: str) -> None:
    """Send C-ECHO requests without reading an answer."""
    with associated(target, address) as peer:
        echo = pdu(3, command(0x30, data=False))
        while not target.stop.wait(0.05):
            peer.sendall(echo * 100)


def drip_http(target: Target, address: str) -> None:
    """Send an HTTP request byte by byte."""
    with connect(target, address, target.health_port) as peer:
        while not target.stop.wait(1):
            peer.sendall(b"x")


HOSTILE: Sequence[Callable[[Target, str], None]] = (
    drip,
    say_nothing,
    connect_and_close,
    send_garbage,
    claim_a_huge_pdu,
    drip_an_object,
    drip_an_object,
    send_too_much,
    flood_with_echoes,
    drip_http,
)
"""Ten peers; two drip objects, because one address may not hold all places."""


def be_hostile(attack: Callable[[Target, str], None], target: Target, address: str, attempts: Counter[str]) -> None:
    """Repeat an attack until the end."""
    while not target.stop.is_set():
        attempts[attack.__name__] += 1
        with contextlib.suppress(OSError, ValueError):
            attack(target, address)
        target.stop.wait(0.05)


def attack(port: int, health_port: int, seconds: float) -> Counter[str]:
    """Run the hostile peers, and count how often each kind connected."""
    target = Target(port, health_port, threading.Event())
    attempts: Counter[str] = Counter()
    threads = [
        threading.Thread(target=be_hostile, args=(kind, target, f"127.0.1.{1 + number}", attempts), daemon=True)
        for number, kind in enumerate(HOSTILE)
        for _ in range(CONNECTIONS)
    ]
    for thread in threads:
        thread.start()
    time.sleep(seconds)
    target.stop.set()
    return Counter(attempts)


if __name__ == "__main__":  # python -m benchmarks._hostile_attacks PORT PORT_OF_HEALTH SECONDS
    print(json.dumps(attack(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))), flush=True)
    os._exit(0)  # the hostile threads do not end
