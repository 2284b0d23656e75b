"""What a site says about its service: who may send, where results go, how long to wait; TOML in, checked on the way."""

from __future__ import annotations

import ipaddress
import os
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from deepmtdr.dicom.codes import Namespaces
from deepmtdr.errors import ClinicError, RecipeError
from deepmtdr.toml_config import from_dict

SECRET_PATTERN = re.compile(r"env:\w+|file:.+")
NAME_PATTERN = re.compile(r"[A-Za-z0-9_.-]{1,64}")


@dataclass(frozen=True, kw_only=True)
class TlsSettings:
    """Certificates of one side of a TLS connection (PEM files)."""

    certificate: Path | None = None
    """This side's certificate with its chain; None: no TLS for the receiver, none shown by a sender."""
    key: Path | None = None
    """The certificate's key; None: it stands in the same file."""
    ca: Path | None = None
    """Who must have signed the other side's. None: a receiver asks for none, a sender trusts the system's list."""


@dataclass(frozen=True, kw_only=True)
class ReceiverSettings:
    """The C-STORE and C-ECHO door."""

    ae_title: str = "DEEPMTDR"
    """Own AE title; an association that calls another one is rejected."""
    address: str = "127.0.0.1"
    """Address that is listened on; "0.0.0.0" for all of this machine's."""
    port: int = 11112
    """0 takes any that is free."""
    calling: tuple[str, ...] = ()
    """AE titles that may call; empty: any."""
    networks: tuple[str, ...] = ("127.0.0.0/8", "::1/128")
    """Addresses and networks that may connect; others are cut off before a byte is read."""
    associations: int = 20
    """Most at once."""
    idle_seconds: float = 60.0
    """Silence after which an association is ended, s."""
    largest_mb: float = 256.0
    """Largest object, MiB; a larger one is refused and its bytes are not kept in memory."""
    tls: TlsSettings = field(default_factory=TlsSettings)


@dataclass(frozen=True, kw_only=True)
class WorkerSettings:
    """The processes that examine photographs."""

    count: int = 1
    """Each loads the network: about 1 GiB."""
    seconds: float = 120.0
    """Most for one object, s; then the process is ended, and that counts as a crash."""
    crashes: int = 3
    """After so many on one object it is a dead letter."""
    memory_mb: float = 6144.0
    """Most resident memory of a worker, MiB; beyond it the process is ended, and that counts as a crash."""
    load_seconds: float = 300.0
    """Most for loading the network, s."""
    weights: Path | None = None
    """Checkpoint (.safetensors); None: the shipped one."""
    codes: Path | None = None
    """TOML file with the site's own codes over the shipped ones."""


@dataclass(frozen=True, kw_only=True)
class DicomNodeSettings:
    """A PACS that takes results by C-STORE."""

    ae_title: str = ""
    host: str = ""
    port: int = 104
    encrypted: bool = False
    """Whether the connection is TLS."""
    tls: TlsSettings = field(default_factory=TlsSettings)
    seconds: float = 60.0
    """Longest wait for an answer, s."""


@dataclass(frozen=True, kw_only=True)
class WebServerSettings:
    """A DICOMweb (STOW-RS) or FHIR (R4 transaction) server."""

    url: str = ""
    """Base, to which `/studies` is added for DICOMweb, nothing for FHIR."""
    token: str = ""
    """Bearer token, never itself: "env:NAME" or "file:PATH" says where it is."""
    user: str = ""
    password: str = ""
    """Like `token`, for basic authentication with `user`."""
    tls: TlsSettings = field(default_factory=TlsSettings)
    seconds: float = 60.0
    """Longest wait for an answer, s."""


@dataclass(frozen=True, kw_only=True)
class RetrySettings:
    """How often a result is sent again to a destination that is down or busy."""

    first_wait: float = 5.0
    """After the first failure, s; each wait is drawn from half to the whole of its length."""
    factor: float = 2.0
    """From each wait to the next."""
    longest_wait: float = 900.0
    """s."""
    give_up_hours: float = 168.0
    """Age at which a result that still cannot be sent becomes a dead letter, h."""


@dataclass(frozen=True, kw_only=True)
class HealthSettings:
    """The HTTP door for monitoring: /health and /metrics."""

    address: str = "127.0.0.1"
    port: int = 9112
    """0 takes any that is free."""


@dataclass(frozen=True, kw_only=True)
class ServiceSettings:
    """All that `deepmtdr serve` needs to know."""

    folder: Path = Path()
    """Of the service: queue, originals, results. On one local disk; only its owner can read it."""
    least_free_mb: float = 1024.0
    """Free disk below which objects are refused with "out of resources" and /health says 503, MiB."""
    stop_seconds: float = 20.0
    """On SIGTERM, how long an object under way may take to be finished, s."""
    receiver: ReceiverSettings = field(default_factory=ReceiverSettings)
    workers: WorkerSettings = field(default_factory=WorkerSettings)
    retry: RetrySettings = field(default_factory=RetrySettings)
    health: HealthSettings = field(default_factory=HealthSettings)
    namespaces: Namespaces = field(default_factory=Namespaces)
    dicom: dict[str, DicomNodeSettings] = field(default_factory=dict)
    """Destinations by name."""
    dicomweb: dict[str, WebServerSettings] = field(default_factory=dict)
    fhir: dict[str, WebServerSettings] = field(default_factory=dict)


def load_settings(path: Path) -> ServiceSettings:
    """Read a site's settings; relative paths in it count from its own folder.

    Args:
        path: a TOML file as `example_settings` shows one.

    Raises:
        ClinicError: if it is no TOML, a key is unknown, or a value cannot be right; says which were expected.
        OSError: if it cannot be read.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
        settings: ServiceSettings = _from_folder(from_dict(ServiceSettings, values, str(path)), path.resolve().parent)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ClinicError(f"{path}: no valid TOML: {error}") from error
    except RecipeError as error:
        raise ClinicError(str(error)) from error
    if "folder" not in values:
        raise ClinicError(f"{path}: no folder, expected folder = ... where the service keeps its queue")
    for wrong in _wrong(settings):
        raise ClinicError(f"{path}: {wrong}")
    return settings


def example_settings() -> str:
    """The shipped example: every table, with comments."""
    return files("deepmtdr.service").joinpath("serve.toml").read_text(encoding="utf-8")


def read_secret(where: str) -> str:
    """What stands in the variable or file that a setting names, without the line's end.

    Raises:
        ClinicError: if there is no such variable.
        OSError: if the file cannot be read.
    """
    kind, _, name = where.partition(":")
    if kind == "file":
        return Path(name).read_text(encoding="utf-8").strip()
    if name not in os.environ:
        raise ClinicError(f"environment variable {name} is not set, expected a secret in it")
    return os.environ[name]


def _from_folder(settings: Any, folder: Path) -> Any:
    """The same with every relative path made absolute."""
    changed = {}
    for one in fields(settings):
        value = getattr(settings, one.name)
        if isinstance(value, Path):
            changed[one.name] = folder / value
        elif is_dataclass(value):
            changed[one.name] = _from_folder(value, folder)
        elif isinstance(value, dict):
            changed[one.name] = {name: _from_folder(inner, folder) for name, inner in value.items()}
        elif isinstance(value, str) and value.startswith("file:"):
            changed[one.name] = f"file:{folder / value.removeprefix('file:')}"
    return replace(settings, **changed)


def _wrong(settings: ServiceSettings) -> Iterator[str]:
    """What is wrong with values whose types are right."""
    receiver, workers, retry = settings.receiver, settings.workers, settings.retry
    yield from _wrong_ae("receiver.ae_title", receiver.ae_title)
    for title in receiver.calling:
        yield from _wrong_ae("receiver.calling", title)
    for network in receiver.networks:
        try:
            ipaddress.ip_network(network, strict=False)
        except ValueError:
            yield f"receiver.networks: {network!r}, expected addresses such as 10.0.0.7 or networks such as 10.0.0.0/24"
    for key, port in (("receiver", receiver.port), ("health", settings.health.port)):
        if not 0 <= port <= 65535:
            yield f"{key}.port = {port}, expected 0 to 65535"
    if min(receiver.associations, workers.count, workers.crashes) < 1:
        yield "receiver.associations, workers.count and workers.crashes, expected at least 1"
    times = (receiver.idle_seconds, receiver.largest_mb, workers.seconds, workers.load_seconds, workers.memory_mb)
    if min(*times, retry.first_wait, retry.give_up_hours) <= 0 or settings.stop_seconds < 0:
        yield "a time or size of zero or less, expected more"
    if retry.factor < 1 or retry.longest_wait < retry.first_wait:
        yield f"retry: factor {retry.factor}, longest_wait {retry.longest_wait}, expected from 1 and from first_wait on"
    yield from _wrong_destinations(settings)


def _wrong_destinations(settings: ServiceSettings) -> Iterator[str]:
    names = [*settings.dicom, *settings.dicomweb, *settings.fhir]
    for name in names:
        if not NAME_PATTERN.fullmatch(name) or names.count(name) > 1:
            yield f"destination {name!r}, expected one name for each, of letters, digits, dots, - and _"
    for name, node in settings.dicom.items():
        yield from _wrong_ae(f"dicom.{name}.ae_title", node.ae_title)
        if not node.host or not 0 < node.port <= 65535:
            yield f"dicom.{name}: host {node.host!r}, port {node.port}, expected both"
    for name, server in {**settings.dicomweb, **settings.fhir}.items():
        url = urlsplit(server.url)
        if url.scheme not in ("http", "https") or not url.hostname or url.username or url.query:
            yield f"{name}.url = {server.url!r}, expected https://host/path without a password in it"
        for key in ("token", "password"):
            if (text := getattr(server, key)) and not SECRET_PATTERN.fullmatch(text):
                yield f'{name}.{key} holds a text, expected "env:NAME" or "file:PATH": no secret stands here'


def _wrong_ae(key: str, title: str) -> Iterator[str]:
    if not 1 <= len(title.strip()) <= 16 or not title.isascii() or not title.isprintable() or "\\" in title:
        yield f"{key} = {title!r}, expected 1 to 16 letters of ASCII without a backslash"
