"""kill -9 at random moments while four senders send at the same time: `benchmarks/service.py` with the fake service."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from benchmarks.service import LoadTestResult, run_load_test

import fake_service
from deepmtdr.service.states import DeliveryState, JobState
from fake_service import SOURCES, make_photograph


def run(folder: Path, monkeypatch: pytest.MonkeyPatch, photographs: int, kills: int) -> LoadTestResult:
    monkeypatch.setenv("PYTHONPATH", SOURCES)
    objects = [make_photograph() for _ in range(photographs)]
    return run_load_test(folder, objects, kills=kills, program=(sys.executable, fake_service.__file__))


def check(result: LoadTestResult, photographs: int) -> None:
    """As many results as photographs, none twice, none lost, nothing unfinished."""
    assert result.dead == [] and result.left == []
    assert result.counts.jobs == dict.fromkeys(JobState, 0) | {JobState.DONE: photographs}
    assert result.counts.outbox == {("pacs", DeliveryState.SENT): photographs}
    assert result.folders == photographs
    assert len(result.stored) == photographs, "a result that is sent again after a kill has the same UID"
    assert sum(result.stored.values()) <= photographs + 50 * result.kills


def test_two_kills_lose_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check(run(tmp_path, monkeypatch, photographs=12, kills=2), 12)


@pytest.mark.slow
def test_ten_kills_among_500_photographs_lose_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = run(tmp_path, monkeypatch, photographs=500, kills=10)
    print(result.as_json())
    check(result, 500)
