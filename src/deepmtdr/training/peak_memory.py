"""Measure the peak memory of a stage, of the process (CPU) or of the GPU."""

from __future__ import annotations

import contextlib
import resource
from pathlib import Path

import torch

CLEAR_REFS = Path("/proc/self/clear_refs")
"""File of Linux: writing 5 resets the peak of the process's resident memory."""


def reset_peak_memory(device: torch.device) -> None:
    """Reset the peak. If the operating system cannot do this, the peak since the start of the process is kept."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with contextlib.suppress(OSError):
        CLEAR_REFS.write_text("5")


def read_peak_memory(device: torch.device) -> int:
    """Return the peak since `reset_peak_memory`, MiB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) >> 20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024  # KiB on Linux
