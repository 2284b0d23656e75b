"""Settings of a service: allowed senders, destinations, waiting times. `settings_file.py` reads them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from deepmtdr.dicom.codes import Namespaces
from deepmtdr.service.states import ChangedObjectPolicy


@dataclass(frozen=True, kw_only=True)
class TlsSettings:
    """Certificates for one end of a TLS connection (PEM files)."""

    certificate: Path | None = None
    """Certificate of this service with its chain; None: the receiver does not use TLS, a sender shows no
    certificate.
    """
    key: Path | None = None
    """Key of the certificate; None: the key is in the file of the certificate."""
    ca: Path | None = None
    """Certificate authority that must have signed the certificate of the other end.

    None: a receiver requires no certificate of the caller, a sender trusts the list of the operating system.
    """


@dataclass(frozen=True, kw_only=True)
class ReceiverSettings:
    """The DICOM receiver (C-STORE and C-ECHO)."""

    ae_title: str = "DEEPMTDR"
    """AE title of this service; an association that calls another AE title is rejected."""
    address: str = "127.0.0.1"
    """Address to listen on; "0.0.0.0": all addresses of this machine."""
    port: int = 11112
    """Port to listen on; 0: any free port."""
    calling: tuple[str, ...] = ()
    """AE titles that may call; empty: any."""
    networks: tuple[str, ...] = ("127.0.0.0/8", "::1/128")
    """Addresses and networks that may connect; other connections are closed before a byte is read."""
    associations: int = 20
    """Largest number of associations at the same time."""
    idle_seconds: float = 60.0
    """Silence after which an association is ended, s."""
    connections_per_address: int = 10
    """Largest number of connections of one IP address at the same time, associations included."""
    request_seconds: float = 10.0
    """Longest time from the beginning of a connection to the end of its association request, TLS included, s."""
    pdu_seconds: float = 30.0
    """Longest time for one PDU (about 128 KiB) to arrive or to be sent, s."""
    object_seconds: float = 600.0
    """Longest time for one object to arrive, s."""
    largest_mb: float = 256.0
    """Largest object, MiB. A larger object is refused, and its bytes are not stored."""
    on_changed_object: str = ChangedObjectPolicy.REFUSE.value
    """What happens to an object with the SOP Instance UID of a photograph of another patient, study or eye, or of one
    with other pixels: "refuse" answers a failure; "supersede" examines it and rejects the earlier results.
    """
    tls: TlsSettings = field(default_factory=TlsSettings)


@dataclass(frozen=True, kw_only=True)
class WorkerSettings:
    """The processes that examine photographs."""

    count: int = 1
    """Number of processes. Each of them loads the network and needs about 1 GiB."""
    seconds: float = 120.0
    """Longest examination, s; after that the process is killed, which counts as a crash."""
    crashes: int = 3
    """Crashes on one object after which it is a dead letter."""
    memory_mb: float = 6144.0
    """Largest resident memory of a process, MiB; above it the process is killed, which counts as a crash."""
    load_seconds: float = 300.0
    """Longest time to load the network, s."""
    weights: Path | None = None
    """Checkpoint (.safetensors); None: the shipped one."""
    codes: Path | None = None
    """TOML file of codes that differ from the shipped ones."""
    tta: bool = False
    """Whether results are averaged over the eight turns of each photograph, which takes eight times as long."""
    check_mirror: bool = False
    """Whether a photograph whose mirror image gets another grade is marked for review; it takes twice as long."""


@dataclass(frozen=True, kw_only=True)
class DicomNodeSettings:
    """A PACS that receives results by C-STORE."""

    ae_title: str = ""
    host: str = ""
    port: int = 104
    encrypted: bool = False
    """Whether the connection uses TLS."""
    tls: TlsSettings = field(default_factory=TlsSettings)
    seconds: float = 60.0
    """Longest wait for an answer, s."""


@dataclass(frozen=True, kw_only=True)
class WebServerSettings:
    """A DICOMweb (STOW-RS) or FHIR (R4 transaction) server."""

    url: str = ""
    """Base URL; `/studies` is added for DICOMweb, nothing for FHIR."""
    token: str = ""
    """Where the bearer token is: "env:NAME" or "file:PATH", never the token itself."""
    user: str = ""
    """User name for basic authentication."""
    password: str = ""
    """Where the password of `user` is: "env:NAME" or "file:PATH", never the password itself."""
    tls: TlsSettings = field(default_factory=TlsSettings)
    seconds: float = 60.0
    """Longest wait for an answer, s."""


@dataclass(frozen=True, kw_only=True)
class RetrySettings:
    """When a result is sent again to a destination that is down or busy."""

    first_wait: float = 5.0
    """Wait after the first failure, s. Each wait is a random time from half to the whole of its length."""
    factor: float = 2.0
    """Ratio of each wait to the wait before."""
    longest_wait: float = 900.0
    """Longest wait, s."""
    give_up_hours: float = 168.0
    """Age at which a result that cannot be sent becomes a dead letter, h."""


@dataclass(frozen=True, kw_only=True)
class RetentionSettings:
    """When originals and results are removed from the disk. By default they are kept.

    Only files of finished jobs are removed, and only if every destination has confirmed all results of the job.
    """

    days: float = 0.0
    """Age at which the files of a job are removed, days after its examination while the service ran; 0: no limit."""
    largest_gb: float = 0.0
    """Size of all files above which those of the oldest jobs are removed, GB (10^9 bytes); 0: no limit."""


@dataclass(frozen=True, kw_only=True)
class HealthSettings:
    """The HTTP server for monitoring: /health and /metrics."""

    address: str = "127.0.0.1"
    port: int = 9112
    """Port to listen on; 0: any free port."""


@dataclass(frozen=True, kw_only=True)
class ServiceSettings:
    """All settings of `deepmtdr serve`."""

    folder: Path = Path()
    """Folder of queue, originals and results: on one local disk, readable by its owner only."""
    least_free_mb: float = 1024.0
    """Free disk space that the service never uses, MiB.

    Objects are refused if there is less than this and the space for the results of the unfinished jobs. Below it no
    object is examined, and /health answers 503.
    """
    stop_seconds: float = 20.0
    """After SIGTERM, longest wait for the examination that is running, s."""
    receiver: ReceiverSettings = field(default_factory=ReceiverSettings)
    workers: WorkerSettings = field(default_factory=WorkerSettings)
    retry: RetrySettings = field(default_factory=RetrySettings)
    retention: RetentionSettings = field(default_factory=RetentionSettings)
    health: HealthSettings = field(default_factory=HealthSettings)
    namespaces: Namespaces = field(default_factory=Namespaces)
    dicom: dict[str, DicomNodeSettings] = field(default_factory=dict)
    """PACS by name."""
    dicomweb: dict[str, WebServerSettings] = field(default_factory=dict)
    """DICOMweb archives by name."""
    fhir: dict[str, WebServerSettings] = field(default_factory=dict)
    """FHIR servers by name."""
