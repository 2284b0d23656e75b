"""The C-STORE and C-ECHO door: an object is in the queue and on the disk before "success" is answered.

What is sent is kept as it was sent and never decoded here: damaged pixels are the worker's trouble. Nobody who is not
on the lists reaches the decoder of a message, no message takes more memory than an object may, and nothing that a
peer does is answered with more than a status or written down with more than a job's number.
"""

from __future__ import annotations

import errno
import logging
import sqlite3
import threading
from collections import Counter
from typing import Any

from pydicom import uid as uids
from pydicom.filereader import read_dataset
from pynetdicom import AE, _config
from pynetdicom.sop_class import Verification  # pyright: ignore[reportAttributeAccessIssue]

from deepmtdr.clinic.classes import PHOTOGRAPHS, TRANSFER_SYNTAXES
from deepmtdr.clinic.guard import GuardedServer, Intake
from deepmtdr.clinic.queue import Queue
from deepmtdr.clinic.settings import Receiver
from deepmtdr.clinic.spool import digest_of
from deepmtdr.clinic.tls import server_tls
from deepmtdr.errors import ClinicError

SUCCESS, OUT_OF_RESOURCES, OTHER_OBJECT, TOO_LARGE, FAILED = 0x0000, 0xA700, 0xA900, 0xC001, 0x0110
OWN_PDU = 1 << 17
"""Bytes of the PDUs that peers are told to send."""

log = logging.getLogger(__name__)


class StoreServer:
    """Listens from `start` to `stop`."""

    def __init__(self, settings: Receiver, queue: Queue, least_free: int) -> None:
        """Nothing is bound yet.

        Args:
            settings: who may call, and how.
            queue: takes what comes.
            least_free: bytes of disk below which nothing is taken.

        Raises:
            ClinicError: if the certificate or key cannot be used.
        """
        self.settings, self.queue, self.least_free = settings, queue, least_free
        self.counts: Counter[str] = Counter()
        """Since the start: objects "stored", "again", "refused"; "associations" and "connections" refused."""
        self._ssl = server_tls(settings.tls) if settings.tls.certificate else None
        self._server: GuardedServer | None = None
        self._thread = threading.Thread(target=self._serve, name="receiver", daemon=True)

    @property
    def port(self) -> int:
        """That is listened on."""
        return self._server.server_address[1] if self._server else 0

    @property
    def alive(self) -> bool:
        """Whether it listens."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Bind and listen.

        Raises:
            ClinicError: if the port cannot be had.
        """
        quiet_libraries()
        entity = AE(self.settings.ae_title)
        entity.require_called_aet = True
        entity.require_calling_aet = list(self.settings.calling)
        entity.maximum_associations = self.settings.associations
        entity.maximum_pdu_size = OWN_PDU
        entity.network_timeout = entity.dimse_timeout = self.settings.idle_seconds
        entity.acse_timeout = min(self.settings.idle_seconds, 30.0)
        entity.add_supported_context(Verification)
        for sop_class in PHOTOGRAPHS:
            entity.add_supported_context(sop_class, list(TRANSFER_SYNTAXES))
        address = (self.settings.address, self.settings.port)
        try:
            self._server = GuardedServer(entity, address, self._ssl, self.settings, self.counts, self.store)
        except OSError as error:
            raise ClinicError(f"receiver: {address[0]} port {address[1]} cannot be had ({error.strerror})") from error
        self._thread.start()

    def _serve(self) -> None:
        assert self._server is not None
        self._server.serve_forever(poll_interval=0.05)

    def stop(self) -> None:
        """Take no more. Associations that are open are aborted: what was not answered is its sender's to send again."""
        if self._server is not None:
            self._server.close()
            self._thread.join()

    def store(self, event: Any) -> int:
        """Answer one C-STORE request: the status."""
        try:
            status = self._store(event)
        except OSError as error:
            status = OUT_OF_RESOURCES if error.errno in (errno.ENOSPC, errno.EDQUOT) else FAILED
            log.error("an object was refused: %s", errno.errorcode.get(error.errno or 0, "OSError"))
        except sqlite3.Error as error:
            status = OUT_OF_RESOURCES if "full" in str(error) else FAILED
            log.error("an object was refused: the queue failed (%s)", type(error).__name__)
        except Exception as error:  # a peer gets a status, never silence or a traceback
            status = FAILED
            log.error("an object was refused: %s", type(error).__name__)
        if status != SUCCESS:
            self.counts["refused"] += 1
        return status

    def _store(self, event: Any) -> int:
        request, syntax = event.request, event.context.transfer_syntax
        intake: Intake = event.assoc.intake
        if request.DataSet is not None and intake.too_large.popleft():
            log.warning("an object was refused: larger than %g MiB", self.settings.largest_mb)
            return TOO_LARGE
        if self.queue.spool.free() < self.least_free:
            log.error("an object was refused: less than %d MiB of disk left", self.least_free >> 20)
            return OUT_OF_RESOURCES
        uid, sop_class = str(request.AffectedSOPInstanceUID), str(request.AffectedSOPClassUID)
        if sop_class != event.context.abstract_syntax or _contradicts(request.DataSet, syntax, uid, sop_class):
            log.warning("an object was refused: its UIDs are not those of the request")
            return OTHER_OBJECT
        digest = digest_of(uid, sop_class, syntax, request.DataSet.getbuffer() if request.DataSet else b"")
        job, new = self.queue.receive(event.encoded_dataset(), uid, digest)
        self.counts["stored" if new else "again"] += 1
        log.info("job %d: %s", job, "received" if new else "received again")
        return SUCCESS


def _contradicts(data_set: Any, syntax: str, uid: str, sop_class: str) -> bool:
    """Whether a data set says plainly that it is another object; of a damaged one the worker will judge."""
    if data_set is None:
        return True
    data_set.seek(0)
    try:
        implicit, little = syntax == uids.ImplicitVRLittleEndian, syntax != uids.ExplicitVRBigEndian
        head = read_dataset(data_set, implicit, little, stop_when=lambda tag, *_: tag > 0x00080018)
        found = (head.get("SOPInstanceUID"), head.get("SOPClassUID"))
    except Exception:  # a damaged data set makes pydicom raise almost anything
        return False
    return any(said and str(said) != asked for said, asked in zip(found, (uid, sop_class), strict=True))


def quiet_libraries() -> None:
    """The libraries' own logs hold UIDs, names and tracebacks: ours say what a log may."""
    _config.LOG_HANDLER_LEVEL = "none"
    _config.STORE_SEND_CHUNKED_DATASET = True  # results go out as they lie there, never decoded
    for name in ("pynetdicom", "pydicom", "httpx", "httpcore"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
