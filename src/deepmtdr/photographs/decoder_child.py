"""The program of a decoder process: it decodes one file after another with limits of memory and time.

Each line of stdin is a request in JSON. The reply on stdout is a line of JSON, and the pixels if there are any.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from deepmtdr.photographs.decode import decode_photograph
from deepmtdr.photographs.limits import DecodeError

MAX_ERROR_LENGTH = 2000
"""Longest message of a reply."""


def main() -> None:
    """Decode files until stdin is closed. Arguments: most bytes of address space, most seconds for a file."""
    memory, seconds = int(sys.argv[1]), float(sys.argv[2])
    replies = _take_stdout()
    if sys.platform != "win32":
        _limit_memory(memory)
        threading.Thread(target=_end_with_parent, daemon=True).start()
    for line in sys.stdin.buffer:
        request = json.loads(line)
        with _kill_after(seconds):
            head, pixels = _decode(Path(request["path"]))
        replies.write(json.dumps({"id": request["id"], **head}, allow_nan=False).encode() + b"\n")
        replies.write(pixels)
        replies.flush()


def _decode(path: Path) -> tuple[dict[str, Any], memoryview]:
    try:
        photograph = decode_photograph(path)
    except DecodeError as error:
        return {"error": str(error)[:MAX_ERROR_LENGTH], "damaged": error.__cause__ is not None}, memoryview(b"")
    head = {"shape": photograph.pixels.shape, "sha256": photograph.sha256, "laterality": photograph.laterality}
    return head, photograph.pixels.data.cast("B")


def _take_stdout() -> BinaryIO:
    """Return stdout for the replies, and discard whatever decoders written in C print."""
    replies = os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    return replies


def _limit_memory(size: int) -> None:
    """Limit the address space: a decoder that needs more gets an error. Not every operating system enforces it."""
    import resource

    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (size, size))
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


@contextlib.contextmanager
def _kill_after(seconds: float) -> Iterator[None]:
    """End this process if the block takes longer, even if the parent has ended and a decoder is stuck in C."""
    if sys.platform != "win32":
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        if sys.platform != "win32":
            signal.setitimer(signal.ITIMER_REAL, 0)


def _end_with_parent() -> None:
    """Kill this process and those that it has started as soon as the other end of stdin is closed."""
    import select

    poll = select.poll()
    poll.register(0, 0)  # hang-up and error are always reported
    poll.poll()
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
