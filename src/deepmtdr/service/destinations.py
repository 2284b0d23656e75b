"""Where results go: a PACS by C-STORE, an archive by DICOMweb (STOW-RS), a hospital's records by FHIR."""

from __future__ import annotations

import secrets
import ssl
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
from pydicom.filereader import read_file_meta_info
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.status import code_to_category

from deepmtdr.service.sender import DeliveryResult, Destination, DestinationUnreachable
from deepmtdr.service.settings import DicomNodeSettings, ServiceSettings, WebServerSettings, read_secret
from deepmtdr.service.tls import client_tls_context

SENT = DeliveryResult("sent")
DUPLICATE_SOP_INSTANCE = 0x0111
RETRYABLE_STATUSES = frozenset({0x0110, 0x0124, 0x0210, 0x0213, *range(0xA700, 0xA800)})
"""C-STORE failures that say nothing of the object: busy, full, not allowed (yet)."""
PERMANENT_HTTP_ERRORS = frozenset({400, 406, 409, 410, 411, 413, 415, 422})
"""HTTP answers that speak of what was sent; the others, of the server or its settings."""


def create_destinations(settings: ServiceSettings) -> dict[str, Destination]:
    """Every configured destination by name.

    Raises:
        ClinicError: if a certificate or key cannot be used.
    """
    title = settings.receiver.ae_title
    found: dict[str, Destination] = {name: CStoreDestination(node, title) for name, node in settings.dicom.items()}
    found |= {name: StowDestination(server) for name, server in settings.dicomweb.items()}
    return found | {name: FhirDestination(server) for name, server in settings.fhir.items()}


class CStoreDestination:
    """C-STORE: each object as it lies on the disk, in its own transfer syntax."""

    def __init__(self, settings: DicomNodeSettings, calling: str) -> None:
        """Connects to nothing yet; `calling` is the own AE title."""
        self.settings, self.calling = settings, calling
        self._tls = (client_tls_context(settings.tls), settings.host) if settings.encrypted else None

    def accepts(self, file: str) -> bool:
        """DICOM objects."""
        return file.endswith(".dcm")

    def deliver(self, paths: Sequence[Path]) -> Generator[DeliveryResult, None, None]:
        """Send them in one association."""
        association = self._associate(paths)
        try:
            for number, path in enumerate(paths):
                yield self._send(association, path, number % 65535 + 1)
        finally:
            if association.is_established:
                association.release()

    def _associate(self, paths: Sequence[Path]) -> Association:
        entity = AE(self.calling)
        entity.connection_timeout = entity.acse_timeout = self.settings.seconds
        entity.dimse_timeout = entity.network_timeout = self.settings.seconds
        for sop_class, syntax in sorted({kind for path in paths if (kind := _kind(path)) is not None}):
            entity.add_requested_context(sop_class, syntax)
        node = self.settings
        association = entity.associate(node.host, node.port, ae_title=node.ae_title, tls_args=self._tls)
        if not association.is_established:
            raise DestinationUnreachable(_why_not(association))
        return association

    def _send(self, association: Association, path: Path, number: int) -> DeliveryResult:
        kind = _kind(path)
        if kind is None:
            return DeliveryResult("dead", "its file is gone or damaged")
        try:
            answer = association.send_c_store(path, msg_id=number)
        except ValueError:  # pynetdicom's word for: its presentation context was not accepted
            return DeliveryResult("dead", "takes no SOP class {} in transfer syntax {}".format(*kind))
        except RuntimeError:
            answer = None
        status = getattr(answer, "Status", None)
        if status is None:
            raise DestinationUnreachable("gave no answer to a C-STORE, or ended the association")
        category, said = (
            code_to_category(status),
            f"status 0x{status:04X} {getattr(answer, 'ErrorComment', '')}".strip(),
        )
        if category in ("Success", "Warning") or status == DUPLICATE_SOP_INSTANCE:
            return SENT if category == "Success" else DeliveryResult("sent", said)
        return DeliveryResult("waiting" if status in RETRYABLE_STATUSES else "dead", said)


def _kind(path: Path) -> tuple[str, str] | None:
    """SOP class and transfer syntax of a file; None if there is none."""
    try:
        meta = read_file_meta_info(path)
        return str(meta.MediaStorageSOPClassUID), str(meta.TransferSyntaxUID)
    except Exception:  # a disk that lost it, or a part of it: the other files still go
        return None


def _why_not(association: Association) -> str:
    if association.is_rejected:
        answer: Any = association.acceptor.primitive
        return f"rejected the association: {getattr(answer, 'reason_str', 'no reason given')}"
    return "aborted the association" if association.is_aborted else "does not answer"


class _HttpDestination(ABC):
    """What both HTTP destinations share: certificates, secrets, one client for a batch."""

    def __init__(self, settings: WebServerSettings) -> None:
        """Connects to nothing yet."""
        self.settings = settings
        encrypted = settings.url.startswith("https:")
        self._tls: ssl.SSLContext | bool = client_tls_context(settings.tls) if encrypted else False

    def deliver(self, paths: Sequence[Path]) -> Generator[DeliveryResult, None, None]:
        """Send them over one connection, one request each."""
        with self._client() as client:
            for path in paths:
                try:
                    yield self._judge(self._post(client, path))
                except httpx.HTTPError as error:
                    raise DestinationUnreachable(f"does not answer ({type(error).__name__}: {error})") from error

    def _client(self) -> httpx.Client:
        """With the secrets as they are now: a token may be renewed while the service runs."""
        settings = self.settings
        headers = {"Authorization": f"Bearer {read_secret(settings.token)}"} if settings.token else {}
        auth = httpx.BasicAuth(settings.user, read_secret(settings.password)) if settings.password else None
        return httpx.Client(verify=self._tls, headers=headers, auth=auth, timeout=settings.seconds, trust_env=False)

    @abstractmethod
    def _post(self, client: httpx.Client, path: Path) -> httpx.Response:
        """Send one file."""

    def _judge(self, response: httpx.Response) -> DeliveryResult:
        if response.is_success:
            return SENT
        said = f"HTTP {response.status_code} {response.text[:300]}"
        if response.status_code in PERMANENT_HTTP_ERRORS:
            return DeliveryResult("dead", said)
        if response.status_code in (408, 423, 425, 429, 503):
            return DeliveryResult("waiting", said)
        raise DestinationUnreachable(said)  # 401, 404, 500: nothing else will fare better there


class StowDestination(_HttpDestination):
    """STOW-RS, PS3.18 Sec. 10.5: each object in a request of its own, so that each is answered for itself."""

    def accepts(self, file: str) -> bool:
        """DICOM objects."""
        return file.endswith(".dcm")

    def _post(self, client: httpx.Client, path: Path) -> httpx.Response:
        boundary = secrets.token_hex(16)
        head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        tail = f"\r\n--{boundary}--\r\n".encode()
        headers = {
            "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
            "Content-Length": str(len(head) + path.stat().st_size + len(tail)),
            "Accept": "application/dicom+json",
        }
        url = f"{self.settings.url.rstrip('/')}/studies"
        return client.post(url, content=_chunks(head, path, tail), headers=headers)

    def _judge(self, response: httpx.Response) -> DeliveryResult:
        """200 and 202 may still name objects that were not stored (Failed SOP Sequence, Failure Reason)."""
        failures = _failures(response)
        if not failures or DUPLICATE_SOP_INSTANCE in failures:
            return SENT if failures else super()._judge(response)
        said = f"HTTP {response.status_code}, failure reason 0x{failures[0]:04X}"
        return DeliveryResult("waiting" if failures[0] in RETRYABLE_STATUSES else "dead", said)


def _chunks(head: bytes, path: Path, tail: bytes) -> Iterator[bytes]:
    yield head
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            yield chunk
    yield tail


def _failures(response: httpx.Response) -> list[int]:
    """Failure reasons of a STOW answer; none if it names none or is no DICOM JSON."""
    try:
        answer = response.json()
        answer = answer[0] if isinstance(answer, list) else answer
        failed = answer.get("00081198", {}).get("Value", [])
        return [int(item["00081197"]["Value"][0]) for item in failed]
    except (ValueError, LookupError, AttributeError, TypeError):
        return []


class FhirDestination(_HttpDestination):
    """The bundle of a job as one transaction."""

    def accepts(self, file: str) -> bool:
        """The FHIR bundle."""
        return file == "fhir.json"

    def _post(self, client: httpx.Client, path: Path) -> httpx.Response:
        json_type = "application/fhir+json"
        return client.post(
            self.settings.url, content=path.read_bytes(), headers={"Content-Type": json_type, "Accept": json_type}
        )
