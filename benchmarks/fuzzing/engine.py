"""Run one target in this process: mutate, read, and record every fault once.

With atheris installed (`pip install atheris`), libFuzzer keeps the files that reach new Python code and changes them
further. Without it, sound files are changed at random. A file that ends or blocks the process is recorded by the parent
(`benchmarks/fuzz.py`), which finds it in the folder `current`.
"""

from __future__ import annotations

import hashlib
import random
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from unittest import mock

from benchmarks.fuzzing.byte_mutations import change_bytes

if TYPE_CHECKING:
    from benchmarks.fuzzing.targets import Target

CPU_SECONDS = 10.0
"""CPU time above which reading one file counts as a hang."""
KILL_SECONDS = 30.0
"""CPU time after which the process is killed."""
INSTRUMENTED = ["deepmtdr", "PIL", "pydicom", "tifffile", "openjpeg", "rle"]
"""Packages whose Python code is instrumented for coverage."""


class Fault(NamedTuple):
    """A file that broke a rule."""

    kind: str
    """What happened, and where in the code: the same for all files of one fault."""
    detail: str


def examine(target: Target, content: bytes, path: Path) -> Fault | None:
    """Read a file with limits of time and memory; return the fault that it shows, if any."""
    before, begun = _reset_peak(), time.process_time()
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, KILL_SECONDS)  # SIGPROF ends the process
    fault = read(target, content, path)
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, 0)
    if fault is None and (seconds := time.process_time() - begun) > CPU_SECONDS:
        fault = Fault("hang", f"{seconds:.1f} s of CPU time")
    if fault is None and (used := _peak() - before) > target.memory:
        fault = Fault("memory", f"{used >> 20} MiB")
    return fault


def read(target: Target, content: bytes, path: Path) -> Fault | None:
    """Read a file without limits; return the fault that it shows, if any."""
    path.write_bytes(content)
    try:
        target.check(path)
    except target.errors as error:
        if not str(error).isprintable():
            return Fault(f"message is not one printable line, {_place(error)}", str(error)[:2000])
    except Exception as error:
        return Fault(f"{type(error).__name__}, {_place(error)}", traceback.format_exc()[-4000:])
    return None


def _place(error: Exception) -> str:
    """Where an error was raised: the last line of deepmtdr, and the last line of all."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "deepmtdr" in Path(frame.filename).parts] or frames
    return " < ".join(dict.fromkeys(f"{Path(at.filename).name}:{at.lineno}" for at in (frames[-1], own[-1])))


def _reset_peak() -> int:
    """Resident memory now, bytes; the peak is counted from here on. 0 where it cannot be measured."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return 0
    return _status("VmRSS")


def _peak() -> int:
    return _status("VmHWM")


def _status(key: str) -> int:
    try:
        text = Path("/proc/self/status").read_text()
    except OSError:
        return 0
    return int(text.partition(f"{key}:")[2].split()[0]) << 10


def mutate(target: Target, content: bytes, chance: random.Random) -> bytes:
    """Change a file one to four times."""
    for _ in range(chance.choice((1, 1, 2, 4))):
        try:
            content = target.change(content, chance)[: target.largest]
        except Exception:  # the mutation is for another kind of file
            content = change_bytes(content, chance)
    return content


def record(folder: Path, fault: Fault, content: bytes) -> None:
    """Keep the smallest file of each fault, and what happened."""
    name = hashlib.sha256(fault.kind.encode()).hexdigest()[:12]
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / name
    if not kept.exists() or len(content) < kept.stat().st_size:
        kept.write_bytes(content)
        kept.with_suffix(".txt").write_text(f"{fault.kind}\n{fault.detail}\n", errors="backslashreplace")


def main(name: str, folder: Path, current: Path, seconds: float, seed: int) -> None:
    """Fuzz one target for some seconds; corpus and faults are kept in `folder`, the file that is read in `current`."""
    try:
        import atheris
    except ImportError:
        _fuzz_at_random(name, folder, current, seconds, seed)
        return
    with atheris.instrument_imports(include=INSTRUMENTED):
        target, path = _prepare(name, folder, current)

    def test_one(content: bytes) -> None:
        if fault := examine(target, content, path):
            record(folder / "faults", fault, content)

    def change(content: bytes, most: int, seed: int) -> bytes:
        chance = random.Random(seed)
        if chance.random() < 0.2:
            return atheris.Mutate(content, most)
        return mutate(target, content, chance)[:most]

    options = [f"-max_total_time={seconds:.0f}", f"-max_len={target.largest}", f"-seed={seed}", "-rss_limit_mb=8000",
               "-timeout=600", "-print_final_stats=1", f"-artifact_prefix={folder}/", "-len_control=0"]  # fmt: skip
    atheris.Setup([sys.argv[0], *options, str(folder / "corpus")], test_one, custom_mutator=change)
    atheris.Fuzz()


def _prepare(name: str, folder: Path, current: Path) -> tuple[Target, Path]:
    """Write the sound files, and read them all once so that every module is imported."""
    from benchmarks.fuzzing.targets import TARGETS

    target = TARGETS[name]
    (folder / "corpus").mkdir(parents=True, exist_ok=True)
    path = current / target.file
    for number, content in enumerate(target.seeds()):
        (folder / "corpus" / f"seed-{number:02}").write_bytes(content)
        if fault := examine(target, content, path):
            record(folder / "faults", fault, content)
    if name == "dicom":  # a new process for each file is slow, and is not covered
        from deepmtdr.photographs import decode_dicom

        mock.patch.object(decode_dicom, "_decode_in_process", side_effect=decode_dicom.DecodeError("left out")).start()
    return target, path


def _fuzz_at_random(name: str, folder: Path, current: Path, seconds: float, seed: int) -> None:
    target, path = _prepare(name, folder, current)
    seeds, chance, files = list(target.seeds()), random.Random(seed), 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        content = mutate(target, chance.choice(seeds), chance)
        files += 1
        if files % 20 == 0:
            print(f"#{files}", file=sys.stderr, flush=True)  # as libFuzzer does
        if fault := examine(target, content, path):
            record(folder / "faults", fault, content)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5]))
