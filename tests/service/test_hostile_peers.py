"""Ten hostile peers beside four honest cameras: `benchmarks/hostile_peers.py` with the fake service."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from benchmarks.hostile_peers import run_hostile_peers

import fake_service
from fake_service import SOURCES, make_photograph


@pytest.mark.slow
def test_every_honest_photograph_is_answered_beside_hostile_peers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", SOURCES)
    program = (sys.executable, fake_service.__file__)
    result = run_hostile_peers(tmp_path, lambda: make_photograph(side=600), seconds=60.0, program=program)
    print(result)
    assert result.sent == result.answered == result.finished > 0
    assert result.rss_mib[1] < result.rss_mib[0] + 300
    assert result.health["degraded"] > 0 and result.health_after == "ok"
