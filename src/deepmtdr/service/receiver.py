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

from deepmtdr.dicom.sop_classes import PHOTOGRAPH_SOP_CLASSES, TRANSFER_SYNTAXES
from deepmtdr.errors import ClinicError
from deepmtdr.service.limits import LimitedServer, MessageSizeCounter
from deepmtdr.service.queue import Queue
from deepmtdr.service.settings import ReceiverSettings
from deepmtdr.service.spool import object_digest
from deepmtdr.service.tls import server_tls_context

SUCCESS, OUT_OF_RESOURCES, DATA_SET_MISMATCH, TOO_LARGE, PROCESSING_FAILURE = 0x0000, 0xA700, 0xA900, 0xC001, 0x0110
ADVERTISED_PDU_BYTES = 1 << 17
"""Bytes of the PDUs that peers are told to send."""

log = logging.getLogger(__name__)


class StoreServer:
    """Listens from `start` to `stop`."""

    def __init__(self, settings: ReceiverSettings, queue: Queue, min_free_bytes: int) -> None:
        """Nothing is bound yet.

        Args:
            settings: who may call, and how.
            queue: takes what comes.
            min_free_bytes: bytes of disk below which nothing is taken.

        Raises:
            ClinicError: if the certificate or key cannot be used.
        """
        self.settings, self.queue, self.min_free_bytes = settings, queue, min_free_bytes
        self.counts: Counter[str] = Counter()
        """Since the start: objects "stored", "again", "refused"; "associations" and "connections" refused."""
        self._ssl = server_tls_context(settings.tls) if settings.tls.certificate else None
        self._server: LimitedServer | None = None
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
        configure_dicom_libraries()
        entity = AE(self.settings.ae_title)
        entity.require_called_aet = True
        entity.require_calling_aet = list(self.settings.calling)
        entity.maximum_associations = self.settings.associations
        entity.maximum_pdu_size = ADVERTISED_PDU_BYTES
        entity.network_timeout = entity.dimse_timeout = self.settings.idle_seconds
        entity.acse_timeout = min(self.settings.idle_seconds, 30.0)
        entity.add_supported_context(Verification)
        for sop_class in PHOTOGRAPH_SOP_CLASSES:
            entity.add_supported_context(sop_class, list(TRANSFER_SYNTAXES))
        address = (self.settings.address, self.settings.port)
        try:
            self._server = LimitedServer(entity, address, self._ssl, self.settings, self.counts, self.store)
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
            status = OUT_OF_RESOURCES if error.errno in (errno.ENOSPC, errno.EDQUOT) else PROCESSING_FAILURE
            log.error("an object was refused: %s", errno.errorcode.get(error.errno or 0, "OSError"))
        except sqlite3.Error as error:
            status = OUT_OF_RESOURCES if "full" in str(error) else PROCESSING_FAILURE
            log.error("an object was refused: the queue failed (%s)", type(error).__name__)
        except Exception as error:  # a peer gets a status, never silence or a traceback
            status = PROCESSING_FAILURE
            log.error("an object was refused: %s", type(error).__name__)
        if status != SUCCESS:
            self.counts["refused"] += 1
        return status

    def _store(self, event: Any) -> int:
        request, syntax = event.request, event.context.transfer_syntax
        size_counter: MessageSizeCounter = event.assoc.size_counter
        if request.DataSet is not None and size_counter.too_large.popleft():
            log.warning("an object was refused: larger than %g MiB", self.settings.largest_mb)
            return TOO_LARGE
        if self.queue.spool.free_bytes() < self.min_free_bytes:
            log.error("an object was refused: less than %d MiB of disk left", self.min_free_bytes >> 20)
            return OUT_OF_RESOURCES
        uid, sop_class = str(request.AffectedSOPInstanceUID), str(request.AffectedSOPClassUID)
        if sop_class != event.context.abstract_syntax or _contradicts(request.DataSet, syntax, uid, sop_class):
            log.warning("an object was refused: its UIDs are not those of the request")
            return DATA_SET_MISMATCH
        digest = object_digest(uid, sop_class, syntax, request.DataSet.getbuffer() if request.DataSet else b"")
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


def configure_dicom_libraries() -> None:
    """The libraries' own logs hold UIDs, names and tracebacks: ours say what a log may."""
    _config.LOG_HANDLER_LEVEL = "none"
    _config.STORE_SEND_CHUNKED_DATASET = True  # results go out as they lie there, never decoded
    for name in ("pynetdicom", "pydicom", "httpx", "httpcore"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
