"""HTTP server for monitoring: /health for a watchdog, /metrics for Prometheus. No patient data is in either."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple, Protocol, cast, runtime_checkable

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, SummaryMetricFamily

from deepmtdr.errors import ServiceError
from deepmtdr.service.background_thread import BackgroundThread
from deepmtdr.service.settings import HealthSettings
from deepmtdr.service.states import DeliveryState, JobState, QueueCounts, ReceiverEvent

REQUEST_TIMEOUT_SECONDS = 10
POLL_SECONDS = 0.2
"""How often the server checks whether it must stop, s."""

log = logging.getLogger(__name__)


@runtime_checkable
class MonitoredService(Protocol):
    """The methods of the service that the server calls."""

    def problems(self) -> list[str]:
        """List what keeps the service from working; empty if it is healthy."""
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
    daemon_threads = True

    def __init__(self, settings: HealthSettings, service: MonitoredService) -> None:
        super().__init__((settings.address, settings.port), _Handler)
        self.service = service
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(_Metrics(service))


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
            " refused, associations rejected (associations), connections refused (connections).",
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
        healthy = not self.service.problems()
        yield GaugeMetricFamily("deepmtdr_up", "1 if /health answers 200, otherwise 0.", value=healthy)


class _Response(NamedTuple):
    status: HTTPStatus
    content_type: str
    body: bytes


class _Handler(BaseHTTPRequestHandler):
    timeout = REQUEST_TIMEOUT_SECONDS
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
    problems, counts = service.problems(), service.counts()
    text = {
        "status": "failing" if problems else "ok",
        "problems": problems,
        "jobs": dict(counts.jobs),
        "results_waiting": counts.deliveries(DeliveryState.WAITING),
        "dead_letters": counts.jobs[JobState.DEAD] + counts.deliveries(DeliveryState.DEAD),
    }
    status = HTTPStatus.SERVICE_UNAVAILABLE if problems else HTTPStatus.OK
    return _Response(status, "application/json", (json.dumps(text, indent=2) + "\n").encode())
