"""Make every system call that writes fail, or kill the process there, and check that a queue loses nothing.

`strace` injects the fault into call 1, 2, ... of each kind, while `tests/fault_scenario.py` receives, examines, sends
and removes objects. So the writes inside SQLite are reached too. Needs strace, and the right to trace own processes.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import deepmtdr

SCENARIO = str(Path(__file__).parents[1] / "tests" / "fault_scenario.py")
CALLS = ("pwrite64", "write", "fsync", "fdatasync", "ftruncate", "rename", "unlink", "mkdir", "rmdir")
FAULTS = ("error=ENOSPC", "error=EIO", "signal=SIGKILL")
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": str(Path(deepmtdr.__file__ or "").parents[1]),
    "PYTHONDONTWRITEBYTECODE": "1",
}


def scenario(option: str, folder: Path, *prefix: str) -> subprocess.CompletedProcess[str]:
    """Run the scenario, or its check, after a command such as strace."""
    command = [*prefix, sys.executable, SCENARIO, option, str(folder)]
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)


def count_calls() -> dict[str, int]:
    """Count the system calls of the scenario without a fault."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "calls"
        scenario("--once", Path(folder), "strace", "-f", "-qq", "-o", str(log), "-e", f"trace={','.join(CALLS)}")
        found = re.findall(r"^\d+ +(\w+)\(", log.read_text(), re.MULTILINE)
    return {call: found.count(call) for call in CALLS}


def try_fault(call: str, fault: str, number: int) -> list[str]:
    """Run the scenario with a fault at one call, and return what the next service has lost."""
    with tempfile.TemporaryDirectory() as folder:
        inject = f"inject={call}:{fault}:when={number}"
        scenario("--once", Path(folder), "strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", inject)
        checked = scenario("--check", Path(folder))
    if checked.returncode:
        return [f"the check failed: {checked.stderr.strip().splitlines()[-1]}"]
    return json.loads(checked.stdout)


def measure(step: int = 1, quick: bool = False) -> dict[str, object]:
    """Try every `step`-th call of each kind with each fault."""
    step = 10 if quick else step
    counts, problems, tried = count_calls(), [], 0
    for call, calls in counts.items():
        for fault in FAULTS:
            for number in range(1, calls + 1, step):
                tried += 1
                problems += [f"{call} {number} {fault}: {found}" for found in try_fault(call, fault, number)]
    return {"system calls": counts, "faults": tried, "problems": problems}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--step", type=int, default=1, help="Try every n-th call only.")
    result = measure(parser.parse_args().step)
    print(json.dumps(result, indent=2))
    if result["problems"]:
        sys.exit("something was lost")


if __name__ == "__main__":
    main()
