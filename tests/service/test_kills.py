"""kill -9 at random moments while four senders send at once: the harness of benchmarks/service.py with the stand-in."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from benchmarks.service import LoadTestResult, run_load_test

import deepmtdr
import fake_service

SOURCES = str(Path(deepmtdr.__file__ or "").parents[1])


def run(folder: Path, monkeypatch: pytest.MonkeyPatch, photographs: int, kills: int) -> LoadTestResult:
    monkeypatch.setenv("PYTHONPATH", SOURCES)
    objects = [fake_service.make_photograph() for _ in range(photographs)]
    return run_load_test(folder, objects, kills=kills, program=(sys.executable, fake_service.__file__))


def check(done: LoadTestResult, photographs: int) -> None:
    """As many results as photographs, none twice, none lost, nothing left behind."""
    assert done.dead == [] and done.left == []
    assert done.counts.jobs == {"received": 0, "working": 0, "done": photographs, "dead": 0}
    assert done.counts.outbox == {("pacs", "sent"): photographs}
    assert done.folders == photographs
    assert len(done.stored) == photographs, "a result that is sent again after a kill is the same object"
    assert sum(done.stored.values()) <= photographs + 50 * done.kills


def test_two_kills_lose_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check(run(tmp_path, monkeypatch, photographs=24, kills=2), 24)


@pytest.mark.slow
def test_500_photographs_and_ten_kills_are_500_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = run(tmp_path, monkeypatch, photographs=500, kills=10)
    print(done.as_json())
    check(done, 500)
