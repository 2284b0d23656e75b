"""Fuzz the readers of files from unknown sources. Install atheris first: `pip install atheris`.

`python -m benchmarks.fuzz --minutes 5 --folder out/fuzz tables masks` fuzzes two targets for five minutes of CPU time
each; without names it fuzzes all targets. The same command with the same folder continues the work. A file that caused
a fault is kept in FOLDER/TARGET/faults, and a text file beside it describes the fault. To repeat a fault:
`python -m benchmarks.fuzz --read FILE TARGET`. To reduce the file to the bytes that cause it: `--minimise FILE TARGET`.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.fuzzing.engine import Fault, examine, record

_MEMORY = Path("/dev/shm")
RESTARTS = 50
"""Most processes of one target that a file may end."""


def measure(quick: bool = False) -> dict[str, object]:
    """Fuzz every target; without faults, `faults` is empty."""
    from benchmarks.fuzzing.targets import TARGETS

    with tempfile.TemporaryDirectory() as folder:
        return {name: fuzz(name, Path(folder) / name, 20 if quick else 120) for name in TARGETS}


def fuzz(name: str, folder: Path, seconds: float) -> dict[str, object]:
    """Fuzz a target in separate processes, one after another, until they have used these seconds of CPU time."""
    (folder / "faults").mkdir(parents=True, exist_ok=True)
    # In memory where possible, since every file is written.
    with tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None) as current:
        return _fuzz(name, folder, Path(current), seconds)


def _fuzz(name: str, folder: Path, current: Path, seconds: float) -> dict[str, object]:
    used, files, coverage = 0.0, 0, 0
    for _ in range(RESTARTS):
        if used >= seconds - 1:
            break
        before, log = _cpu(), folder / "log.txt"
        with log.open("ab") as stream:
            start = stream.tell()
            code = _run((name, str(folder), str(current)), seconds - used, stream.fileno())
        used += _cpu() - before
        text = log.read_bytes()[start:].decode(errors="replace")
        files += max(map(int, re.findall(r"^(?:#|stat::number_of_executed_units: )(\d+)", text, re.M)), default=0)
        coverage = max(map(int, re.findall(r"cov: (\d+)", text)), default=coverage)
        if code:
            _record_end(name, folder, current, code)
    faults = [path.read_text(errors="replace").partition("\n")[0] for path in sorted((folder / "faults").glob("*.txt"))]
    return {"files": files, "CPU seconds": round(used), "coverage": coverage, "faults": faults}


def _run(where: tuple[str, str, str], seconds: float, log: int) -> int:
    """Run a process until it has used its CPU time: on a busy machine, that takes longer than on the clock."""
    command = [sys.executable, "-m", "benchmarks.fuzzing.engine", *where, "1000000", str(time.time_ns() % 2**31)]
    process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"})
    before = _cpu()
    while process.poll() is None:
        time.sleep(0.5)
        if _cpu_of(process.pid) + _cpu() - before >= seconds:
            process.terminate()
            process.wait()
            return 0
    return process.returncode


def _cpu() -> float:
    """CPU time of all processes that have ended, s."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _cpu_of(pid: int) -> float:
    """CPU time of a process and those that it has waited for, s."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def _record_end(name: str, folder: Path, current: Path, code: int) -> None:
    """Record the file that ended a process."""
    from benchmarks.fuzzing.targets import TARGETS

    file = current / TARGETS[name].file
    if file.exists():
        lines = [
            line for line in (folder / "log.txt").read_text(errors="replace").splitlines()[-60:] if "ERROR" in line
        ]
        record(folder / "faults", Fault(f"the process ended with {code}", "\n".join(lines)), file.read_bytes())


def minimise(name: str, file: Path) -> bytes:
    """Remove parts of a file as long as it shows the same fault."""
    from benchmarks.fuzzing.targets import TARGETS

    target, content = TARGETS[name], file.read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / target.file
        kind = (examine(target, content, path) or Fault("", "")).kind
        length = len(content)
        while kind and length > 1:
            length = (length + 1) // 2
            at = 0
            while at < len(content):
                shorter = content[:at] + content[at + length :]
                same = (found := examine(target, shorter, path)) is not None and found.kind == kind
                content, at = (shorter, at) if same else (content, at + length)
    return content


def main() -> None:
    """The command."""
    from benchmarks.fuzzing.targets import TARGETS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"{', '.join(TARGETS)}; default: all")
    parser.add_argument("--minutes", type=float, default=1.0, help="CPU time for each target")
    parser.add_argument("--folder", type=Path, default=Path("out/fuzz"), help="where corpus, log and faults are kept")
    parser.add_argument("--read", type=Path, help="read this file and print the fault that it shows")
    parser.add_argument("--minimise", type=Path, help="make this file smaller; the result is FILE.small")
    options = parser.parse_args()
    if unknown := set(options.targets) - set(TARGETS):
        parser.error(f"no target {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    for name in options.targets or TARGETS:
        if options.read is not None:
            with tempfile.TemporaryDirectory() as folder:
                fault = examine(TARGETS[name], options.read.read_bytes(), Path(folder) / TARGETS[name].file)
            print("no fault" if fault is None else f"{fault.kind}\n{fault.detail}")
        elif options.minimise is not None:
            options.minimise.with_suffix(".small").write_bytes(minimise(name, options.minimise))
        else:
            print(name, fuzz(name, options.folder / name, 60 * options.minutes), flush=True)


if __name__ == "__main__":
    main()
