"""Decode photographs of unknown origin in a separate process, with limits of memory and time.

The process serves one file after another, so that a photograph costs only the transfer of its pixels. It ends after a
damaged file: what a decoder left behind never reaches the next photograph.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from deepmtdr.errors import PhotographError
from deepmtdr.photographs.decode import Photograph
from deepmtdr.photographs.limits import MAX_PIXELS

DECODER_MEMORY = 3 << 30
"""Most address space of the decoder process, bytes: enough for 16-bit RGB of `MAX_PIXELS`."""
DECODER_SECONDS = 90.0
"""Longest time for one file, s."""
_MAX_HEAD_BYTES = 1 << 14
_LATERALITIES = ("L", "R", None)


class _DecoderLostError(Exception):
    """The process ended, or replied nonsense; the message says which."""


class DecoderProcess:
    """A process that decodes photographs; it is started by the first one, and again after it has ended.

    Several threads may use it; they wait for each other.
    """

    def __init__(
        self,
        *,
        memory: int = DECODER_MEMORY,
        seconds: float = DECODER_SECONDS,
        program: Sequence[str] = ("-m", "deepmtdr.photographs.decoder_child"),
    ) -> None:
        """Create the object without starting the process.

        Args:
            memory: most address space of the process, bytes. Not every operating system enforces it.
            seconds: longest time for one file, s; then the process and those that it has started are killed.
            program: arguments of the Python interpreter.
        """
        self._memory, self._seconds, self._program = memory, seconds, program
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._kill = weakref.finalize(self, int)  # replaced when a process is started
        self._owner = 0
        self._files = 0

    def read(self, path: Path | str) -> Photograph:
        """Decode one photograph, as `read_photograph`.

        Raises:
            PhotographError: if the photograph cannot be decoded, or decoding it takes too much memory or time.
        """
        path = Path(path)
        with self._lock:
            used = self._is_running() and self._files > 0
            try:
                return self._decode(path)
            except _DecoderLostError as error:
                if not used:
                    raise PhotographError(f"{path}: {error}") from None
            try:  # an earlier file may have damaged the process: once more in a fresh one
                return self._decode(path)
            except _DecoderLostError as error:
                raise PhotographError(f"{path}: {error}") from None

    def close(self) -> None:
        """End the process; the next photograph starts another one."""
        if self._owner == os.getpid():
            self._kill()
        self._process = None

    def _is_running(self) -> bool:
        return self._process is not None and self._owner == os.getpid()

    def _decode(self, path: Path) -> Photograph:
        try:
            if not self._is_running():  # a forked process must not share the pipes of its parent
                self._start()
            return self._exchange(path)
        except PhotographError:
            raise
        except BaseException:  # also Ctrl-C: the rest of the reply would be taken for the next one
            self.close()
            raise

    def _start(self) -> None:
        command = [sys.executable, "-P", "-W", "ignore", *self._program, str(self._memory), str(self._seconds + 5)]
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **threads},
            pipesize=1 << 20,  # fewer changes of process while pixels are transferred
            start_new_session=True,  # Ctrl-C does not reach it, and the whole group can be killed
        )
        self._owner, self._files = os.getpid(), 0
        self._kill = weakref.finalize(self, _kill_group, self._process, self._owner)

    def _exchange(self, path: Path) -> Photograph:
        """Send a request and receive the reply."""
        assert self._process is not None and self._process.stdin is not None and self._process.stdout is not None
        expired = threading.Event()
        timer = threading.Timer(self._seconds, _stop_group, (self._process, expired))
        timer.start()
        try:
            token = secrets.token_hex(8)
            self._process.stdin.write(
                json.dumps({"id": token, "path": os.fspath(path.absolute())}, allow_nan=False).encode() + b"\n"
            )
            self._process.stdin.flush()
            return self._receive(self._process.stdout, token, path)
        except (OSError, ValueError, TypeError, KeyError, EOFError, RecursionError):
            raise self._lost(path, expired) from None
        finally:
            timer.cancel()
            self._files += 1

    def _receive(self, stream: IO[bytes], token: str, path: Path) -> Photograph:
        """Read a reply. The process may have been taken over by a malicious file: nothing in the reply is trusted."""
        head: dict[str, Any] = json.loads(stream.readline(_MAX_HEAD_BYTES))
        if head["id"] != token:
            raise ValueError("the reply belongs to another photograph")
        if "error" in head:
            if head["damaged"]:
                self.close()
            raise PhotographError(f"{path}: {head['error']}")
        height, width, channels = (int(side) for side in head["shape"])
        if (
            channels != 3
            or min(height, width) < 1
            or height * width > MAX_PIXELS
            or head["laterality"] not in _LATERALITIES
        ):
            raise ValueError(f"a reply of {head['shape']} values")
        pixels = np.empty((height, width, 3), np.uint8)
        if stream.readinto(pixels.data.cast("B")) != pixels.size:  # pyright: ignore[reportAttributeAccessIssue]
            raise EOFError
        return Photograph(pixels, path, str(head["sha256"]), head["laterality"])

    def _lost(self, path: Path, expired: threading.Event) -> Exception:
        """Describe why there is no reply."""
        process = self._process
        self.close()
        if expired.is_set():
            return PhotographError(
                f"{path}: decoding took longer than {self._seconds:g} s; the file is probably damaged"
            )
        code = process.returncode if process is not None else None
        return _DecoderLostError(
            f"the decoder ended (exit code {code}): the file is damaged, or decoding it needs more than "
            f"{self._memory >> 20} MiB of memory"
        )


def _stop_group(process: subprocess.Popen[bytes], expired: threading.Event) -> None:
    """Kill a process that takes too long, and those that it has started."""
    expired.set()
    _send_kill(process)


def _kill_group(process: subprocess.Popen[bytes], owner: int) -> None:
    """Kill a process and those that it has started, and wait for its end; does nothing in a forked process."""
    if os.getpid() != owner:
        return
    _send_kill(process)
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):  # what is not yet written cannot be written any more
                stream.close()


def _send_kill(process: subprocess.Popen[bytes]) -> None:
    if process.returncode is None:  # not waited for: its number is not in use by another process
        with contextlib.suppress(OSError):
            if sys.platform != "win32":
                os.killpg(process.pid, signal.SIGKILL)
        process.kill()


_shared_decoder = DecoderProcess()


def read_untrusted(path: Path | str) -> Photograph:
    """Decode a photograph of unknown origin in the decoder process that the whole program shares.

    Args:
        path: see `read_photograph`.

    Returns:
        The same photograph as `read_photograph`.

    Raises:
        PhotographError: if the photograph cannot be decoded, or decoding it takes too much memory or time.
    """
    return _shared_decoder.read(path)
