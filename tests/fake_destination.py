"""A destination with prepared outcomes, results to send to it, and a sender that runs in a test."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from pathlib import Path

from deepmtdr.service.queue import Queue
from deepmtdr.service.sender import DeliveryResult, Destination, Sender
from deepmtdr.service.settings import RetrySettings
from deepmtdr.service.states import DeliveryState, PlannedDelivery
from fake_service import make_photograph, to_bytes

FAST = RetrySettings(first_wait=0.02, longest_wait=0.05)


def add_results(queue: Queue, destination: str, number: int = 3) -> None:
    """Add finished jobs, each with one result for the destination."""
    for n in range(number):
        queue.receive(queue.spool.stage_original(b"eye"), f"{destination}.{n}", f"{destination}{n}")
        job = queue.claim()
        assert job is not None
        part = queue.spool.create_staging_folder()
        (part / "a.dcm").write_bytes(to_bytes(make_photograph()))
        queue.complete(job, part, 0.1, [PlannedDelivery("a.dcm", destination)])


class FakeDestination:
    """A destination with prepared outcomes, one for each file; afterwards it accepts everything."""

    def __init__(self, *outcomes: DeliveryState | Exception) -> None:
        self.outcomes = list(outcomes)
        self.calls = 0
        self.sent: list[Path] = []

    def accepts(self, file: str) -> bool:
        return True

    def deliver(self, paths: Sequence[Path]) -> Generator[DeliveryResult, None, None]:
        self.calls += 1
        for path in paths:
            outcome = self.outcomes.pop(0) if self.outcomes else DeliveryState.SENT
            if isinstance(outcome, Exception):
                raise outcome
            self.sent += [path] if outcome == DeliveryState.SENT else []
            yield DeliveryResult(outcome, f"answered {outcome}")


def run_sender(queue: Queue, name: str, destination: Destination, retry: RetrySettings = FAST) -> Callable[[], None]:
    """Start a sender; returns a function that stops it."""
    sender = Sender(name, destination, queue, retry)
    sender.start()

    def stop() -> None:
        sender.stop()
        sender.join(5.0)
        assert not sender.alive

    return stop


def states(queue: Queue, name: str) -> dict[DeliveryState, int]:
    return {state: number for (where, state), number in queue.counts().outbox.items() if where == name}
