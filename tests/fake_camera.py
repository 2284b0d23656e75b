"""What tests of the receiver need: starting it, looking at what it has stored, and a C-ECHO."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pynetdicom import AE
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from deepmtdr.service.receiver import StoreServer

Start = Callable[..., StoreServer]
"""Starts a receiver with settings by keyword."""


def stored(server: StoreServer) -> list[bytes]:
    """The content of every file in `originals`, also of unfinished ones."""
    return [path.read_bytes() for path in sorted(server.queue.spool.originals.iterdir())]


def no_more_associations(server: StoreServer) -> bool:
    assert server._server is not None
    return not server._server.active_associations


def echo(port: int, calling: str = "CAMERA", called: str = "DEEPMTDR", **more: Any) -> int | str:
    """The status of a C-ECHO, or "rejected" or "aborted" if there was no association."""
    entity = AE(calling)
    entity.acse_timeout = entity.connection_timeout = 5
    entity.add_requested_context(Verification)
    association = entity.associate("127.0.0.1", port, ae_title=called, **more)
    if not association.is_established:
        return "rejected" if association.is_rejected else "aborted"
    status = association.send_c_echo().Status
    association.release()
    return status
