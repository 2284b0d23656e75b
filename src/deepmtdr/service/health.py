"""HTTP server for monitoring: /health for a watchdog, /metrics for Prometheus. No patient data is in either."""

from __future__ import annotations

import json
import logging
import math
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple, Protocol, cast, runtime_checkable

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, SummaryMetricFamily

from deepmtdr.errors import ServiceError
from deepmtdr.service.background_thread import BackgroundThread
from deepmtdr.service.connections import Connection, ConnectionPool, PoolLimits
from deepmtdr.service.settings import HealthSettings
from deepmtdr.service.states import DeliveryState, JobState, QueueCounts, ReceiverEvent, StorageStatus

MAX_HTTP_CONNECTIONS, MAX_HTTP_CONNECTIONS_PER_ADDRESS = 32, 8
"""Most HTTP connections at the same time, of all addresses and of one. Beyond it the oldest one is ended."""
REQUEST_SECONDS = 10.0
"""Longest time of a connection, from its beginning to the end of the answer, s."""
WARNING_SECONDS = 60.0
"""How long a warning remains after its event, s."""
POLL_SECONDS = 0.2
"""How often the server checks whether it must stop, s."""

log = logging.getLogger(__name__)


@runtime_checkable
class MonitoredService(Protocol):
    """The methods of the service that the server calls."""

    def problems(self) -> list[str]:
        """List what keeps the service from working; empty if it is healthy."""
        ...

    def warnings(self) -> list[str]:
        """List what makes the service work worse than it should; empty if nothing does."""
        ...

    def counts(self) -> QueueCounts:
        """Count jobs and deliveries by state."""
        ...

    def receiver_counts(self) -> Mapping[ReceiverEvent, int]:
        """Count the events of the receiver since the start."""
        ...

    def free_bytes(self) -> int:
        """Return the free disk space, bytes."""
        ...

    def storage(self) -> StorageStatus:
        """Return the size of the files on the disk."""
        ...

    def clock_jumps(self) -> int:
        """Count how often the clock of the computer was set since the start."""
        ...


class HealthServer(BackgroundThread):
    """Answers /health and /metrics."""

    def __init__(self, settings: HealthSettings, service: MonitoredService) -> None:
        """Bind the port.

        Raises:
            ServiceError: if the port cannot be bound.
        """
        super().__init__("health")
        try:
            self._server = _HttpServer(settings, service)
        except OSError as error:
            raise ServiceError(
                f"health: cannot listen on {settings.address} port {settings.port} ({error.strerror});"
                " set health.address to an address of this machine and health.port to a free port"
            ) from error
        self.port: int = self._server.server_address[1]
        self.connections = self._server.pool

    def warnings(self) -> list[str]:
        """List what keeps, or kept in the last minute, some clients from an answer."""
        crowded = time.monotonic() - self._server.crowded_at < WARNING_SECONDS
        return ["HTTP connections were ended to make room for others in the last minute"] if crowded else []

    def run(self) -> None:
        """Answer requests until `stop`."""
        self._server.serve_forever(POLL_SECONDS)

    def stop(self) -> None:
        """Stop answering and close the port."""
        super().stop()
        if self.alive:
            self._server.shutdown()
        self._server.server_close()


class _HttpServer(ThreadingHTTPServer):
    """Answers one request of each connection, in a separate thread."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, settings: HealthSettings, service: MonitoredService) -> None:
        super().__init__((settings.address, settings.port), _Handler)
        limits = PoolLimits(MAX_HTTP_CONNECTIONS, 0, MAX_HTTP_CONNECTIONS_PER_ADDRESS, REQUEST_SECONDS)
        self.pool = ConnectionPool(limits, self._note_crowd)
        self.crowded_at = -math.inf
        """When a connection was last ended to make room for another one, monotonic s."""
        self.service = service
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(_Metrics(service))

    def _note_crowd(self, _: str) -> None:
        self.crowded_at = time.monotonic()

    def process_request(self, request: socket.socket, client_address: tuple[str, int]) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Answer a connection in a new thread, unless there are too many."""
        connection = self.pool.admit(request, client_address[0])
        if connection is None:
            return self.shutdown_request(request)
        try:
            threading.Thread(target=self._answer, args=(connection, client_address), daemon=True).start()
        except RuntimeError:
            self.pool.remove(connection)
        return None

    def _answer(self, connection: Connection, client_address: tuple[str, int]) -> None:
        try:
            self.finish_request(connection.socket, client_address)
        except Exception as error:  # the client has gone, or was too slow
            log.debug("health: %s", type(error).__name__)
        self.pool.remove(connection)

    def service_actions(self) -> None:
        """End connections that are too slow; `serve_forever` calls this several times in a second."""
        self.pool.close_overdue()


class _Metrics:
    """Reads all figures from the queue at each request, so that they continue after a restart of the service."""

    def __init__(self, service: MonitoredService) -> None:
        self.service = service

    def collect(self) -> Iterator[Metric]:
        """Return all metrics. Do not change their names and labels: dashboards of users depend on them."""
        counts = self.service.counts()
        jobs = GaugeMetricFamily("deepmtdr_jobs", "Received objects, by state of their job.", labels=["state"])
        for state, number in counts.jobs.items():
            jobs.add_metric([state], number)
        yield jobs
        outbox = GaugeMetricFamily(
            "deepmtdr_results",
            "Result files to deliver, by destination and state of the delivery.",
            labels=["destination", "state"],
        )
        for (destination, state), number in counts.outbox.items():
            outbox.add_metric([destination, state], number)
        yield outbox
        # "door" is the receiver: the name is older than this text.
        door = CounterMetricFamily(
            "deepmtdr_door",
            "Events of the DICOM receiver since the start of the service: objects stored, received again (again) or"
            " refused, refused because another photograph has the UID (changed), stored in place of another photograph"
            " (superseded), associations rejected (associations), connections refused (connections), refused because"
            " there were too many (crowded), ended because they were too slow (slow) or to make room (displaced).",
            labels=["what"],
        )
        for event, number in self.service.receiver_counts().items():
            door.add_metric([event], number)
        yield door
        received = sum(counts.jobs.values())
        yield CounterMetricFamily("deepmtdr_received", "Objects that were ever queued.", value=received)
        yield SummaryMetricFamily(
            "deepmtdr_examination_seconds",
            "Number of finished examinations, and their duration in seconds.",
            counts.examined,
            counts.seconds,
        )
        yield GaugeMetricFamily(
            "deepmtdr_oldest_waiting_seconds",
            "Age of the oldest unfinished job or delivery, in seconds.",
            value=counts.oldest_waiting_seconds,
        )
        free = self.service.free_bytes()
        yield GaugeMetricFamily("deepmtdr_disk_free_bytes", "Free disk space for the service, in bytes.", value=free)
        yield from _storage_metrics(self.service.storage())
        yield CounterMetricFamily(
            "deepmtdr_clock_jumps",
            "How often the clock of the computer was set since the start of the service.",
            value=self.service.clock_jumps(),
        )
        warnings = len(self.service.warnings())
        yield GaugeMetricFamily("deepmtdr_warnings", "Number of warnings in /health.", value=warnings)
        healthy = not self.service.problems()
        yield GaugeMetricFamily("deepmtdr_up", "1 if /health answers 200, otherwise 0.", value=healthy)


def _storage_metrics(storage: StorageStatus) -> Iterator[Metric]:
    stored = GaugeMetricFamily("deepmtdr_stored_bytes", "Size of the files on the disk, in bytes.", labels=["what"])
    stored.add_metric(["originals"], storage.originals)
    stored.add_metric(["results"], storage.results)
    yield stored
    yield GaugeMetricFamily(
        "deepmtdr_backlog_bytes",
        "Estimated size of the results of all unfinished jobs, which is kept free on the disk, in bytes.",
        value=storage.backlog,
    )
    yield CounterMetricFamily(
        "deepmtdr_cleared_jobs", "Jobs whose files were removed by the retention rules.", value=storage.cleared_jobs
    )


class _Response(NamedTuple):
    status: HTTPStatus
    content_type: str
    body: bytes


class _Handler(BaseHTTPRequestHandler):
    timeout = REQUEST_SECONDS
    server_version, sys_version = "deepmtdr", ""

    def do_GET(self) -> None:
        """Answer /health, /metrics, or 404."""
        try:
            response = self._response(self.path.partition("?")[0])
        except Exception as error:  # log one line, not a traceback
            log.error("health: %s", type(error).__name__)
            response = _Response(HTTPStatus.SERVICE_UNAVAILABLE, "text/plain", b"the queue cannot be read\n")
        self.send_response(response.status)
        self.send_header("Content-Type", response.content_type)
        self.send_header("Content-Length", str(len(response.body)))
        self.end_headers()
        self.wfile.write(response.body)

    def _response(self, path: str) -> _Response:
        server = cast("_HttpServer", self.server)
        if path == "/metrics":
            text = generate_latest(server.registry)
            return _Response(HTTPStatus.OK, "text/plain; version=0.0.4; charset=utf-8", text)
        if path == "/health":
            return _health(server.service)
        return _Response(HTTPStatus.NOT_FOUND, "text/plain", b"not found; there are /health and /metrics\n")

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: a watchdog sends a request every few seconds."""


def _health(service: MonitoredService) -> _Response:
    problems, warnings, counts = service.problems(), service.warnings(), service.counts()
    text = {
        "status": "failing" if problems else "degraded" if warnings else "ok",
        "problems": problems,
        "warnings": warnings,
        "jobs": dict(counts.jobs),
        "results_waiting": counts.deliveries(DeliveryState.WAITING),
        "dead_letters": counts.jobs[JobState.DEAD] + counts.deliveries(DeliveryState.DEAD),
    }
    status = HTTPStatus.SERVICE_UNAVAILABLE if problems else HTTPStatus.OK
    return _Response(status, "application/json", (json.dumps(text, indent=2, allow_nan=False) + "\n").encode())
