"""Decoding in a separate process: the same photographs, limits of memory and time, nothing left of a bad file."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deepmtdr.errors import PhotographError
from deepmtdr.photographs.decode import read_photograph
from deepmtdr.photographs.decoder_process import DecoderProcess
from fundus import draw_fundus

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="process groups and limits of POSIX systems")

PIXELS = draw_fundus(60, 80, (40, 30), 28)
WAIT = 20.0
"""Longest wait for a process to end, s; a test does not measure time."""


@pytest.fixture(scope="module")
def shared() -> Iterator[DecoderProcess]:
    decoder = DecoderProcess()
    yield decoder
    decoder.close()


@pytest.fixture
def eye(tmp_path: Path) -> Path:
    Image.fromarray(PIXELS).save(tmp_path / "eye.png")
    return tmp_path / "eye.png"


def pid_of(decoder: DecoderProcess) -> int:
    assert decoder._process is not None
    return decoder._process.pid


def fails(decoder: DecoderProcess, path: Path) -> str:
    with pytest.raises(PhotographError) as caught:
        decoder.read(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    return message


@pytest.mark.parametrize("name", ["eye.png", "eye.jpg", "eye.tif", "eye.webp", "eye.avif", "eye.jp2", "\udcff eye.png"])
def test_a_photograph_is_the_same_as_without_the_process(shared: DecoderProcess, tmp_path: Path, name: str) -> None:
    Image.fromarray(PIXELS).save(tmp_path / name)
    found, expected = shared.read(tmp_path / name), read_photograph(tmp_path / name)
    assert np.array_equal(found.pixels, expected.pixels)
    assert found[1:] == expected[1:]


def test_the_path_is_that_of_the_caller_whose_folder_may_change(
    shared: DecoderProcess, eye: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared.read(eye)
    monkeypatch.chdir(eye.parent)
    assert shared.read("eye.png").path == Path("eye.png")
    assert "eye2.png: cannot be read: No such file or directory" in fails(shared, Path("eye2.png"))


def test_one_process_serves_many_files_and_refused_ones(shared: DecoderProcess, eye: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("This is no photograph.")
    shared.read(eye)
    first = pid_of(shared)
    assert "found no photograph" in fails(shared, tmp_path / "a.txt")
    shared.read(eye)
    assert pid_of(shared) == first


def test_a_damaged_file_ends_the_process_so_that_nothing_of_it_reaches_the_next(
    shared: DecoderProcess, eye: Path, tmp_path: Path
) -> None:
    (tmp_path / "half.png").write_bytes(eye.read_bytes()[:1000])
    shared.read(eye)
    first = pid_of(shared)
    assert "cannot be decoded" in fails(shared, tmp_path / "half.png")
    assert np.array_equal(shared.read(eye).pixels, PIXELS)
    assert pid_of(shared) != first


def test_threads_wait_for_each_other(shared: DecoderProcess, tmp_path: Path) -> None:
    wrong: list[int] = []

    def read(number: int) -> None:
        for _ in range(5):
            if (shared.read(tmp_path / f"{number}.png").pixels != number).any():
                wrong.append(number)

    for number in range(4):
        Image.fromarray(np.full((50, 60, 3), number, np.uint8)).save(tmp_path / f"{number}.png")
    threads = [threading.Thread(target=read, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_forked_process_starts_its_own_decoder(shared: DecoderProcess, eye: Path) -> None:
    shared.read(eye)
    first = pid_of(shared)
    child = os.fork()
    if child == 0:  # the child of this test must not run pytest's ends
        same = pid_of(shared) if np.array_equal(shared.read(eye).pixels, PIXELS) else first
        shared.close()
        os._exit(same == first)
    assert os.waitpid(child, 0)[1] == 0
    assert np.array_equal(shared.read(eye).pixels, PIXELS)
    assert pid_of(shared) == first


def test_more_memory_than_the_limit_is_an_error_of_that_file(tmp_path: Path, eye: Path) -> None:
    with (tmp_path / "large.ppm").open("wb") as file:
        file.write(b"P6 8000 9000 255\n")
        file.truncate(17 + 3 * 8000 * 9000)  # sparse: needs no disk space
    decoder = DecoderProcess(memory=420 << 20)
    message = fails(decoder, tmp_path / "large.ppm")
    assert "more memory than is available" in message or "more than 420 MiB of memory" in message
    assert np.array_equal(decoder.read(eye).pixels, PIXELS)
    decoder.close()


HANG = """
import subprocess, sys, pathlib
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
pathlib.Path({path!r}).write_text(f"{{child.pid}}")
child.wait()
"""


def ended(pid: int) -> bool:
    """Whether a process is gone, or waits only for its parent to notice."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc")
def test_a_decoder_that_hangs_is_killed_with_all_processes_that_it_has_started(tmp_path: Path, eye: Path) -> None:
    program = HANG.format(path=str(tmp_path / "pid"))
    for seconds in (2.0, 4.0, 8.0, 16.0):  # until the limit is long enough for the program to start its own process
        assert f"decoding took longer than {seconds:g} s" in fails(
            DecoderProcess(seconds=seconds, program=("-c", program)), eye
        )
        if (tmp_path / "pid").exists():
            break
    deadline = time.monotonic() + WAIT
    pid = int((tmp_path / "pid").read_text())
    while not ended(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert ended(pid)


@pytest.mark.parametrize(
    "program",
    [
        "import os; os.abort()",
        "import sys; sys.stdin.readline(); print('nonsense')",
        'import sys; sys.stdin.readline(); print(\'{"id": "0", "error": "", "damaged": false}\')',
        "import sys, json; r = json.loads(sys.stdin.readline());"
        "print(json.dumps({'id': r['id'], 'shape': [9**9, 9**9, 3], 'sha256': '', 'laterality': None}))",
        "import sys, json; r = json.loads(sys.stdin.readline());"
        "print(json.dumps({'id': r['id'], 'shape': [40, 40, 3], 'sha256': '', 'laterality': None}), flush=True)",
        "import sys; sys.stdin.readline(); sys.stdout.write('[' * 100_000)",
    ],
)
def test_a_crash_and_a_false_reply_are_errors_of_that_file(eye: Path, program: str) -> None:
    assert "the decoder ended" in fails(DecoderProcess(program=("-c", program)), eye)


def test_a_process_killed_between_two_files_costs_no_photograph(shared: DecoderProcess, eye: Path) -> None:
    shared.read(eye)
    os.kill(pid_of(shared), signal.SIGKILL)
    assert np.array_equal(shared.read(eye).pixels, PIXELS)


def _read_and_wait(path: Path, pipe: multiprocessing.connection.Connection) -> None:
    decoder = DecoderProcess()
    decoder.read(path)
    pipe.send(pid_of(decoder))
    time.sleep(1000)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc")
def test_the_process_ends_when_the_program_is_killed(eye: Path) -> None:
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    program = context.Process(target=_read_and_wait, args=(eye, there))
    program.start()
    pid = here.recv()
    assert not ended(pid)
    program.kill()
    program.join()
    deadline = time.monotonic() + WAIT
    while not ended(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert ended(pid)


def test_the_engine_decodes_in_the_process(eye: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from deepmtdr.photographs import decode
    from deepmtdr.screening.engine import ScreeningEngine
    from fake_predictor import FakePredictor

    def refuse(*_: object) -> bytes:
        raise AssertionError("decoded in the process of the network")

    monkeypatch.setattr(decode, "_read_bytes", refuse)
    report = ScreeningEngine(FakePredictor()).predict(eye)
    assert (report.width, report.height) == (80, 60)
