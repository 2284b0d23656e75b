"""Fixtures that the tests of the service share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pynetdicom.transport import AssociationSocket

from deepmtdr.service import queue as queue_module
from deepmtdr.service.pynetdicom_adapter import shut_down_and_close
from deepmtdr.service.queue import Queue
from deepmtdr.service.receiver import StoreServer
from deepmtdr.service.settings import ReceiverSettings
from fake_camera import Start


@pytest.fixture(autouse=True)
def closed_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Close the sockets of the senders in these tests too, as `BoundedSocket` does for the receiver."""
    monkeypatch.setattr(AssociationSocket, "_shutdown_socket", shut_down_and_close)


@pytest.fixture(autouse=True)
def short_idle_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers and senders of this process read the queue often, so that a test need not wait for them."""
    monkeypatch.setattr(queue_module, "IDLE_WAIT_SECONDS", 0.02)


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[Queue]:
    """An empty queue in the folder `service`."""
    opened = Queue(tmp_path / "service")
    yield opened
    opened.close()


@pytest.fixture
def start(queue: Queue) -> Iterator[Start]:
    """Starts a receiver without workers."""
    started: list[StoreServer] = []

    def begin(min_free_bytes: int = 0, **settings: Any) -> StoreServer:
        server = StoreServer(ReceiverSettings(**{"port": 0, "idle_seconds": 5.0, **settings}), queue, min_free_bytes)
        server.start()
        started.append(server)
        return server

    yield begin
    for server in started:
        server.stop()
