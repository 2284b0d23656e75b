"""The HTTP door for monitoring: /health for a watchdog, /metrics for Prometheus. No number in it is a patient's."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol, runtime_checkable

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, SummaryMetricFamily

from deepmtdr.errors import ClinicError
from deepmtdr.service import settings
from deepmtdr.service.queue import QueueCounts

log = logging.getLogger(__name__)


@runtime_checkable
class MonitoredService(Protocol):
    """What is asked of the service."""

    def problems(self) -> list[str]:
        """What keeps it from its work; none if it is well."""
        ...

    def counts(self) -> QueueCounts:
        """How the queue stands."""
        ...

    def receiver_counts(self) -> dict[str, int]:
        """Since the start: objects "stored", "again", "refused"; "associations" and "connections" refused."""
        ...

    def free_bytes(self) -> int:
        """Bytes of disk left."""
        ...


class HealthServer:
    """Answers from `start` to `stop`."""

    def __init__(self, where: settings.HealthSettings, service: MonitoredService) -> None:
        """Bind.

        Raises:
            ClinicError: if the port cannot be had.
        """
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Metrics(service))
        handler = type("Handler", (_Handler,), {"service": service, "registry": registry})
        try:
            self._server = ThreadingHTTPServer((where.address, where.port), handler)
        except OSError as error:
            raise ClinicError(f"health: {where.address} port {where.port} cannot be had ({error.strerror})") from error
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.2,), name="health", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Answer no more."""
        if self._thread.is_alive():
            self._server.shutdown()
        self._server.server_close()


class _Metrics:
    """Reads the queue whenever it is asked, so that the figures outlive a restart."""

    def __init__(self, service: MonitoredService) -> None:
        self.service = service

    def collect(self) -> Iterator[Metric]:
        counts = self.service.counts()
        jobs = GaugeMetricFamily("deepmtdr_jobs", "Objects in each state.", labels=["state"])
        for state, number in counts.jobs.items():
            jobs.add_metric([state], number)
        outbox = GaugeMetricFamily("deepmtdr_results", "Deliveries in each state.", labels=["destination", "state"])
        for (destination, state), number in counts.outbox.items():
            outbox.add_metric([destination, state], number)
        door = CounterMetricFamily("deepmtdr_door", "What came to the door since the start.", labels=["what"])
        for what, number in self.service.receiver_counts().items():
            door.add_metric([what], number)
        yield from (jobs, outbox, door)
        yield CounterMetricFamily("deepmtdr_received", "Objects ever queued.", value=sum(counts.jobs.values()))
        yield SummaryMetricFamily(
            "deepmtdr_examination_seconds", "Time of an examination.", counts.examined, counts.seconds
        )
        yield GaugeMetricFamily(
            "deepmtdr_oldest_waiting_seconds", "Age of what waits longest.", value=counts.oldest_waiting_seconds
        )
        yield GaugeMetricFamily(
            "deepmtdr_disk_free_bytes", "Disk left for the service.", value=self.service.free_bytes()
        )
        yield GaugeMetricFamily("deepmtdr_up", "1 if /health says so.", value=not self.service.problems())


class _Handler(BaseHTTPRequestHandler):
    service: MonitoredService
    registry: CollectorRegistry
    timeout = 10
    server_version, sys_version = "deepmtdr", ""

    def do_GET(self) -> None:
        """Health, metrics, or 404."""
        try:
            status, kind, text = self._answer(self.path.partition("?")[0])
        except Exception as error:  # a line, no traceback
            log.error("health: %s", type(error).__name__)
            status, kind, text = HTTPStatus.SERVICE_UNAVAILABLE, "text/plain", b"the queue cannot be read\n"
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def _answer(self, path: str) -> tuple[HTTPStatus, str, bytes]:
        if path == "/metrics":
            return HTTPStatus.OK, "text/plain; version=0.0.4; charset=utf-8", generate_latest(self.registry)
        if path != "/health":
            return HTTPStatus.NOT_FOUND, "text/plain", b"there are /health and /metrics\n"
        problems, counts = self.service.problems(), self.service.counts()
        waiting = sum(number for (_, state), number in counts.outbox.items() if state == "waiting")
        dead = counts.jobs["dead"] + sum(number for (_, state), number in counts.outbox.items() if state == "dead")
        said = {"status": "failing" if problems else "ok", "problems": problems, "jobs": dict(counts.jobs)}
        text = json.dumps({**said, "results_waiting": waiting, "dead_letters": dead}, indent=2) + "\n"
        return HTTPStatus.SERVICE_UNAVAILABLE if problems else HTTPStatus.OK, "application/json", text.encode()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: a watchdog asks every few seconds."""
