"""Destinations of results: a PACS by C-STORE, an archive by DICOMweb (STOW-RS), a hospital system by FHIR."""

from __future__ import annotations

import secrets
import ssl
import time
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import httpx
from pydicom import Dataset
from pydicom.filereader import read_file_meta_info
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import A_ASSOCIATE
from pynetdicom.status import code_to_category

from deepmtdr.service.sender import DeliveryResult, Destination, DestinationUnreachable
from deepmtdr.service.settings import DicomNodeSettings, ServiceSettings, WebServerSettings
from deepmtdr.service.settings_file import read_secret
from deepmtdr.service.states import DeliveryState
from deepmtdr.service.tls import client_tls_context

DICOM_SUFFIX, FHIR_FILE, FHIR_REJECTION_FILE = ".dcm", "fhir.json", "fhir-rejection.json"
SENT = DeliveryResult(DeliveryState.SENT)
MISSING_FILE = DeliveryResult(DeliveryState.DEAD, "the file is missing or damaged")
DUPLICATE_SOP_INSTANCE = 0x0111
"""The destination already has the object: status of C-STORE, failure reason of STOW-RS."""
FAILED_SOP_SEQUENCE, FAILURE_REASON = "00081198", "00081197"
"""Tags in the DICOM JSON of a STOW-RS response."""
RETRYABLE_STATUSES = frozenset({0x0110, 0x0124, 0x0210, 0x0213, *range(0xA700, 0xA800)})
"""Status codes of failures that the object did not cause: processing failure, not authorised, out of resources ..."""
RETRYABLE_HTTP_ERRORS = frozenset({408, 423, 425, 429, 503})
"""HTTP statuses of a file that cannot be sent now, but may be accepted later; other files may be accepted now."""
PERMANENT_HTTP_ERRORS = frozenset({400, 406, 409, 410, 411, 413, 415, 422})
"""HTTP statuses of a file that the server refuses. Other statuses are caused by the server or its settings."""
MAX_RESPONSE_BYTES = 1 << 20
"""Largest HTTP response that is read, bytes. Servers answer a file with a few kB."""
MAX_RESPONSE_LENGTH = 300
"""Characters of an HTTP response that are kept as the reason."""


def create_destinations(settings: ServiceSettings) -> dict[str, Destination]:
    """Create all configured destinations, by name.

    Raises:
        ServiceError: if a certificate or key cannot be used.
    """
    title = settings.receiver.ae_title
    found: dict[str, Destination] = {name: CStoreDestination(node, title) for name, node in settings.dicom.items()}
    found |= {name: StowDestination(server) for name, server in settings.dicomweb.items()}
    return found | {name: FhirDestination(server) for name, server in settings.fhir.items()}


class _ObjectKind(NamedTuple):
    """The SOP class and transfer syntax for which an association must be requested."""

    sop_class: str
    transfer_syntax: str


class CStoreDestination:
    """Sends DICOM objects by C-STORE, unchanged, in the transfer syntax of the file."""

    def __init__(self, settings: DicomNodeSettings, calling: str) -> None:
        """Load the certificates, without connecting.

        Args:
            settings: the PACS.
            calling: AE title with which this service calls.
        """
        self.settings, self.calling = settings, calling
        self._tls = (client_tls_context(settings.tls), settings.host) if settings.encrypted else None

    def accepts(self, file: str) -> bool:
        """Whether the file is a DICOM object."""
        return file.endswith(DICOM_SUFFIX)

    def deliver(self, paths: Sequence[Path]) -> Generator[DeliveryResult, None, None]:
        """Send files in one association; see `Destination.deliver`."""
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
        for kind in sorted({kind for path in paths if (kind := _object_kind(path)) is not None}):
            entity.add_requested_context(kind.sop_class, kind.transfer_syntax)
        node = self.settings
        association = entity.associate(node.host, node.port, ae_title=node.ae_title, tls_args=self._tls)
        if not association.is_established:
            raise DestinationUnreachable(_association_failure(association))
        return association

    def _send(self, association: Association, path: Path, message_id: int) -> DeliveryResult:
        kind = _object_kind(path)
        if kind is None:
            return MISSING_FILE
        try:
            response = association.send_c_store(path, msg_id=message_id)
        except ValueError:  # raised by pynetdicom if the peer has not accepted the presentation context
            reason = f"does not accept SOP class {kind.sop_class} in transfer syntax {kind.transfer_syntax}"
            return DeliveryResult(DeliveryState.DEAD, reason)
        except RuntimeError:  # raised by pynetdicom if the association has ended
            response = Dataset()
        if "Status" not in response:
            raise DestinationUnreachable("did not answer a C-STORE request, or ended the association")
        return _judge_status(response.Status, str(response.get("ErrorComment", "")))


def _judge_status(status: int, comment: str) -> DeliveryResult:
    """Decide from the status of a C-STORE response how the delivery ended."""
    reason = f"status 0x{status:04X} {comment}".strip()
    match code_to_category(status):
        case "Success":
            return SENT
        case "Warning":
            return DeliveryResult(DeliveryState.SENT, reason)
    if status == DUPLICATE_SOP_INSTANCE:
        return DeliveryResult(DeliveryState.SENT, reason)
    return DeliveryResult(DeliveryState.WAITING if status in RETRYABLE_STATUSES else DeliveryState.DEAD, reason)


def _object_kind(path: Path) -> _ObjectKind | None:
    """Read the SOP class and transfer syntax of a file; None if the file cannot be read."""
    try:
        meta = read_file_meta_info(path)
        return _ObjectKind(str(meta.MediaStorageSOPClassUID), str(meta.TransferSyntaxUID))
    except Exception:  # a file that is missing or damaged must not keep the others from being sent
        return None


def _association_failure(association: Association) -> str:
    if association.is_rejected:
        answer = association.acceptor.primitive
        reason = answer.reason_str if isinstance(answer, A_ASSOCIATE) else "no reason given"
        return f"rejected the association: {reason}"
    return "aborted the association" if association.is_aborted else "does not answer"


class _HttpDestination(ABC):
    """Base class of both HTTP destinations: certificates, secrets, one client for a batch."""

    def __init__(self, settings: WebServerSettings) -> None:
        """Load the certificates, without connecting."""
        self.settings = settings
        encrypted = settings.url.startswith("https:")
        self._tls: ssl.SSLContext | bool = client_tls_context(settings.tls) if encrypted else False

    def deliver(self, paths: Sequence[Path]) -> Generator[DeliveryResult, None, None]:
        """Send files over one connection, one request for each; see `Destination.deliver`."""
        with self._client() as client:
            for path in paths:
                if not path.is_file():
                    yield MISSING_FILE
                    continue
                try:
                    yield self._judge(self._send(client, path))
                except httpx.HTTPError as error:
                    raise DestinationUnreachable(f"does not answer ({type(error).__name__}: {error})") from error

    def _client(self) -> httpx.Client:
        """Create a client. The secrets are read each time, because they may be renewed while the service runs."""
        settings = self.settings
        headers = {"Accept-Encoding": "identity"}  # a small compressed response could fill the memory
        if settings.token:
            headers["Authorization"] = f"Bearer {read_secret(settings.token)}"
        auth = httpx.BasicAuth(settings.user, read_secret(settings.password)) if settings.password else None
        return httpx.Client(verify=self._tls, headers=headers, auth=auth, timeout=settings.seconds, trust_env=False)

    @abstractmethod
    def _request(self, client: httpx.Client, path: Path) -> httpx.Request:
        """Build the request that sends one file."""

    def _send(self, client: httpx.Client, path: Path) -> httpx.Response:
        """Send one file, and read the response within limits of size and time.

        Raises:
            DestinationUnreachable: if the response is too long or too slow. It is not cut off: it may list failures.
        """
        response = client.send(self._request(client, path), stream=True)
        with closing(response):
            deadline, content = time.monotonic() + self.settings.seconds, bytearray()
            for chunk in response.iter_raw():
                content += chunk
                if len(content) > MAX_RESPONSE_BYTES:
                    raise DestinationUnreachable(f"answered with more than {MAX_RESPONSE_BYTES} bytes")
                if time.monotonic() > deadline:
                    raise DestinationUnreachable(f"took more than {self.settings.seconds:g} s to answer")
        if "content-encoding" in response.headers:
            raise DestinationUnreachable("answered with a compressed response, which was not asked for")
        return httpx.Response(response.status_code, content=bytes(content))

    def _judge(self, response: httpx.Response) -> DeliveryResult:
        """Decide from a response how the delivery ended.

        Raises:
            DestinationUnreachable: for statuses such as 401, 404 and 500, with which no other file would succeed.
        """
        if response.is_success:
            return SENT
        reason = f"HTTP {response.status_code} {response.text[:MAX_RESPONSE_LENGTH]}"
        if response.status_code in PERMANENT_HTTP_ERRORS:
            return DeliveryResult(DeliveryState.DEAD, reason)
        if response.status_code in RETRYABLE_HTTP_ERRORS:
            return DeliveryResult(DeliveryState.WAITING, reason)
        raise DestinationUnreachable(reason)


class StowDestination(_HttpDestination):
    """Sends DICOM objects by STOW-RS (PS3.18 Sec. 10.5), one in each request, so that each has its own response."""

    def accepts(self, file: str) -> bool:
        """Whether the file is a DICOM object."""
        return file.endswith(DICOM_SUFFIX)

    def _request(self, client: httpx.Client, path: Path) -> httpx.Request:
        boundary = secrets.token_hex(16)
        head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        tail = f"\r\n--{boundary}--\r\n".encode()
        headers = {
            "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
            "Content-Length": str(len(head) + path.stat().st_size + len(tail)),
            "Accept": "application/dicom+json",
        }
        url = f"{self.settings.url.rstrip('/')}/studies"
        return client.build_request("POST", url, content=_chunks(head, path, tail), headers=headers)

    def _judge(self, response: httpx.Response) -> DeliveryResult:
        """Decide from a response how the delivery ended: 200 and 202 may list objects that were not stored."""
        failures = _failure_reasons(response)
        if not failures:
            return super()._judge(response)
        if DUPLICATE_SOP_INSTANCE in failures:
            return SENT
        reason = f"HTTP {response.status_code}, failure reason 0x{failures[0]:04X}"
        state = DeliveryState.WAITING if failures[0] in RETRYABLE_STATUSES else DeliveryState.DEAD
        return DeliveryResult(state, reason)


def _chunks(head: bytes, path: Path, tail: bytes) -> Iterator[bytes]:
    yield head
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            yield chunk
    yield tail


def _failure_reasons(response: httpx.Response) -> list[int]:
    """Parse the failure reasons in a STOW-RS response; empty if there are none, or it is not DICOM JSON."""
    try:
        answer = response.json()
        answer = answer[0] if isinstance(answer, list) else answer
        failed = answer.get(FAILED_SOP_SEQUENCE, {}).get("Value", [])
        return [int(item[FAILURE_REASON]["Value"][0]) for item in failed]
    except (ValueError, LookupError, AttributeError, TypeError):
        return []


class FhirDestination(_HttpDestination):
    """Sends the FHIR bundle of a job as one transaction."""

    def accepts(self, file: str) -> bool:
        """Whether the file is the FHIR bundle, or its rejection."""
        return file in (FHIR_FILE, FHIR_REJECTION_FILE)

    def _request(self, client: httpx.Client, path: Path) -> httpx.Request:
        json_type = "application/fhir+json"
        headers = {"Content-Type": json_type, "Accept": json_type}
        return client.build_request("POST", self.settings.url, content=path.read_bytes(), headers=headers)
