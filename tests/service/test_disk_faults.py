"""No call to the disk or to SQLite that fails, and no kill at one, loses what was answered with success."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import fault_scenario
from fake_service import SOURCES
from fault_scenario import Fault

MEMORY = Path("/dev/shm")
"""A folder in memory, where the scenario need not wait for the disk."""


@pytest.mark.parametrize("step", [9, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("fault", list(Fault))
def test_nothing_that_was_answered_with_success_is_lost_whichever_call_fails(fault: Fault, step: int) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        program = (sys.executable, fault_scenario.__file__, fault, str(step), folder)
        result = subprocess.run(program, env={"PYTHONPATH": SOURCES}, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    calls, problems = json.loads(result.stdout)
    assert calls > 90, "the faults reach all steps"
    assert problems == []
