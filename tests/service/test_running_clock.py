"""Setting the clock of the computer neither delays nor ends deliveries."""

from __future__ import annotations

import time
from contextlib import closing

import pytest

from deepmtdr.service.queue import Queue
from deepmtdr.service.running_clock import ClockJumpDetector, RunningClock
from deepmtdr.service.sender import DestinationUnreachable
from deepmtdr.service.settings import RetrySettings
from deepmtdr.service.states import DeliveryState
from fake_destination import FakeDestination, add_results, run_sender, states
from fake_service import wait_until

EIGHT_DAYS = 8 * 24 * 3600.0


@pytest.mark.parametrize("jump", [-EIGHT_DAYS, EIGHT_DAYS])
def test_a_result_is_sent_after_its_wait_although_the_clock_was_set(
    queue: Queue, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    add_results(queue, "pacs", 1)
    true_time = time.time
    monkeypatch.setattr(time, "time", lambda: true_time() + jump)
    down = FakeDestination(DestinationUnreachable("is down"), DeliveryState.WAITING)
    stop = run_sender(queue, "pacs", down, RetrySettings(first_wait=0.02, longest_wait=0.05, give_up_hours=168.0))
    wait_until(lambda: states(queue, "pacs").get(DeliveryState.WAITING) is None, seconds=20)
    stop()
    assert states(queue, "pacs") == {DeliveryState.SENT: 1}


def test_the_age_of_the_oldest_delivery_does_not_change_with_the_clock(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_results(queue, "pacs", 1)
    true_time = time.time
    monkeypatch.setattr(time, "time", lambda: true_time() + EIGHT_DAYS)
    assert 0 < queue.counts().oldest_waiting_seconds < 60


def test_running_seconds_continue_after_a_restart(queue: Queue) -> None:
    queue.clock = RunningClock(1000.0)
    queue.store_clock()
    with closing(Queue(queue.spool.folder)) as later:
        assert 1000.0 <= later.clock.now() < 1060.0


def test_a_jump_of_the_clock_is_found_once_and_a_small_correction_is_none() -> None:
    wall, monotonic = 5000.0, 10.0
    detector = ClockJumpDetector(lambda: wall, lambda: monotonic)
    wall, monotonic = wall + 1 + EIGHT_DAYS, monotonic + 1
    assert detector.jump() == EIGHT_DAYS
    wall, monotonic = wall + 3, monotonic + 1
    assert detector.jump() == 0.0
    wall -= 3600
    assert detector.jump() == -3600.0 and detector.jump() == 0.0
