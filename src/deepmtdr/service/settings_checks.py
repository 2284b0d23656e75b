"""Checks of the settings of a service beyond their types: ranges, names, addresses, TLS and secrets."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from urllib.parse import urlsplit

from deepmtdr.service.settings import (
    DicomNodeSettings,
    ReceiverSettings,
    ServiceSettings,
    TlsSettings,
    WebServerSettings,
)
from deepmtdr.service.states import ChangedObjectPolicy

SECRET_PATTERN = re.compile(r"env:\w+|file:.+")
DESTINATION_PATTERN = re.compile(r"[A-Za-z0-9_.-]{1,64}")
MAX_PORT = 65535
MAX_SECONDS, MAX_DAYS = 31_536_000.0, 36_500.0
"""Longest waits: a year, s; a century, d. Timers of the operating system cannot take every number."""
MAX_MB = 1e9
"""Largest size of files and memory, MiB; of all files, GB."""
MAX_ASSOCIATIONS = 80
"""pynetdicom can use the first 1024 open files of a process only, and each association has several."""
MAX_WORKERS, MAX_CRASHES, MAX_FACTOR = 256, 1000, 1000.0
NO_TLS = TlsSettings()


def find_problems(settings: ServiceSettings) -> Iterator[str]:
    """Describe each wrong value: its key, what was found, what was expected."""
    yield from _receiver_problems(settings.receiver)
    if not 0 <= settings.health.port <= MAX_PORT:
        yield f"health.port = {settings.health.port}, expected 0 to {MAX_PORT}"
    yield from _path_problems(settings)
    yield from _range_problems(settings)
    yield from _name_problems(settings)
    for name, node in settings.dicom.items():
        yield from _dicom_problems(f"dicom.{name}", node)
    for name, server in settings.dicomweb.items():
        yield from _web_problems(f"dicomweb.{name}", server)
    for name, server in settings.fhir.items():
        yield from _web_problems(f"fhir.{name}", server)


def _receiver_problems(receiver: ReceiverSettings) -> Iterator[str]:
    yield from _ae_title_problems("receiver.ae_title", receiver.ae_title)
    for title in receiver.calling:
        yield from _ae_title_problems("receiver.calling", title)
    for network in receiver.networks:
        try:
            ipaddress.ip_network(network, strict=False)
        except ValueError:
            yield f"receiver.networks: {network!r}, expected addresses such as 10.0.0.7 or networks such as 10.0.0.0/24"
    if receiver.on_changed_object not in list(ChangedObjectPolicy):
        expected = " or ".join(f'"{policy}"' for policy in ChangedObjectPolicy)
        yield f"receiver.on_changed_object = {receiver.on_changed_object!r}, expected {expected}"
    if not 0 <= receiver.port <= MAX_PORT:
        yield f"receiver.port = {receiver.port}, expected 0 to {MAX_PORT}"
    if receiver.tls != NO_TLS and receiver.tls.certificate is None:
        yield (
            "receiver.tls has no certificate, so the receiver would listen without TLS;"
            " add the certificate of this machine, or remove receiver.tls"
        )


def _range_problems(settings: ServiceSettings) -> Iterator[str]:
    receiver, workers, retry = settings.receiver, settings.workers, settings.retry
    seconds = {
        "receiver.idle_seconds": receiver.idle_seconds,
        "receiver.request_seconds": receiver.request_seconds,
        "receiver.pdu_seconds": receiver.pdu_seconds,
        "receiver.object_seconds": receiver.object_seconds,
        "workers.seconds": workers.seconds,
        "workers.load_seconds": workers.load_seconds,
        "retry.first_wait": retry.first_wait,
        "retry.longest_wait": retry.longest_wait,
    }
    seconds |= {f"dicom.{name}.seconds": node.seconds for name, node in settings.dicom.items()}
    seconds |= {f"dicomweb.{name}.seconds": server.seconds for name, server in settings.dicomweb.items()}
    seconds |= {f"fhir.{name}.seconds": server.seconds for name, server in settings.fhir.items()}
    for key, value in seconds.items():
        yield from _positive(key, value, MAX_SECONDS)
    yield from _positive("receiver.largest_mb", receiver.largest_mb, MAX_MB)
    yield from _positive("workers.memory_mb", workers.memory_mb, MAX_MB)
    yield from _positive("retry.give_up_hours", retry.give_up_hours, MAX_SECONDS)
    yield from _between("receiver.associations", receiver.associations, 1, MAX_ASSOCIATIONS)
    yield from _between("receiver.connections_per_address", receiver.connections_per_address, 1, MAX_ASSOCIATIONS)
    yield from _between("workers.count", workers.count, 1, MAX_WORKERS)
    yield from _between("workers.crashes", workers.crashes, 1, MAX_CRASHES)
    yield from _between("retry.factor", retry.factor, 1, MAX_FACTOR)
    yield from _between("stop_seconds", settings.stop_seconds, 0, MAX_SECONDS)
    yield from _between("least_free_mb", settings.least_free_mb, 0, MAX_MB)
    yield from _between("retention.days", settings.retention.days, 0, MAX_DAYS)
    yield from _between("retention.largest_gb", settings.retention.largest_gb, 0, MAX_MB)
    if retry.longest_wait < retry.first_wait:
        yield f"retry.longest_wait = {retry.longest_wait:g}, expected at least first_wait, {retry.first_wait:g}"


def _positive(key: str, value: float, highest: float) -> Iterator[str]:
    if not 0 < value <= highest:
        yield f"{key} = {value:g}, expected more than 0 and at most {highest:g}"


def _between(key: str, value: float | int, lowest: float | int, highest: float | int) -> Iterator[str]:
    if not lowest <= value <= highest:
        yield f"{key} = {value:g}, expected {lowest:g} to {highest:g}"


def _path_problems(settings: object, key: str = "") -> Iterator[str]:
    """Find paths that no file system can have, in all nested settings."""
    if isinstance(settings, Path) and "\0" in str(settings):
        yield f"{key} contains a null character, expected a path"
    elif isinstance(settings, Mapping):
        for name, value in settings.items():
            yield from _path_problems(value, f"{key}.{name}")
    elif is_dataclass(settings):
        for field in fields(settings):
            yield from _path_problems(getattr(settings, field.name), f"{key}.{field.name}".removeprefix("."))


def _name_problems(settings: ServiceSettings) -> Iterator[str]:
    names = [*settings.dicom, *settings.dicomweb, *settings.fhir]
    for name in names:
        if not DESTINATION_PATTERN.fullmatch(name):
            yield f"destination {name!r}, expected a name of 1 to 64 letters, digits, dots, - and _"
        if names.count(name) > 1:
            yield f"destination {name!r} occurs {names.count(name)} times, expected one name for each"


def _dicom_problems(key: str, node: DicomNodeSettings) -> Iterator[str]:
    yield from _ae_title_problems(f"{key}.ae_title", node.ae_title)
    if not node.host:
        yield f"{key}.host is empty, expected a host name or an address"
    if not 0 < node.port <= MAX_PORT:
        yield f"{key}.port = {node.port}, expected 1 to {MAX_PORT}"
    if node.tls != NO_TLS and not node.encrypted:
        yield (
            f"{key}.tls is set, but {key}.encrypted is false, so results would be sent without TLS;"
            " set encrypted = true, or remove tls"
        )
    yield from _key_problems(key, node.tls)


def _web_problems(key: str, server: WebServerSettings) -> Iterator[str]:
    url = urlsplit(server.url)
    if url.scheme not in ("http", "https") or not url.hostname or url.username or url.query:
        yield f"{key}.url = {server.url!r}, expected https://HOST/PATH without user, password and query"
    for name, secret in (("token", server.token), ("password", server.password)):
        if secret and not SECRET_PATTERN.fullmatch(secret):  # the message must not repeat it
            yield f'{key}.{name} is not "env:NAME" or "file:PATH"; keep the secret itself out of this file'
    if server.tls != NO_TLS and url.scheme == "http":
        yield (
            f"{key}.tls is set, but {key}.url begins with http:, so results would be sent without TLS;"
            " use an https: URL, or remove tls"
        )
    yield from _key_problems(key, server.tls)


def _key_problems(key: str, tls: TlsSettings) -> Iterator[str]:
    if tls.key is not None and tls.certificate is None:
        yield f"{key}.tls has a key, but no certificate; add the certificate of the key, or remove the key"


def _ae_title_problems(key: str, title: str) -> Iterator[str]:
    if not 1 <= len(title.strip()) <= 16 or not title.isascii() or not title.isprintable() or "\\" in title:
        yield f"{key} = {title!r}, expected 1 to 16 printable ASCII characters without a backslash"
