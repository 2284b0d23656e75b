"""What the tests of the clinic share."""

from __future__ import annotations

import pytest
from pynetdicom.transport import AssociationSocket


@pytest.fixture(autouse=True)
def closed_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller whose peer was first leaves its socket to the garbage collector, which warns: close it at once."""
    shut_down = AssociationSocket._shutdown_socket

    def close(self: AssociationSocket) -> None:
        connection = self.socket
        shut_down(self)
        if connection is not None:
            connection.close()

    monkeypatch.setattr(AssociationSocket, "_shutdown_socket", close)
