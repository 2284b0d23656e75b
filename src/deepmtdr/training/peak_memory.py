"""Peak memory of a stage, of the process (CPU) or of the GPU."""

from __future__ import annotations

import contextlib
import resource
from pathlib import Path

import torch

CLEAR_REFS = Path("/proc/self/clear_refs")
"""Linux: writing 5 resets the peak of the process's resident memory."""


def reset_peak_memory(device: torch.device) -> None:
    """Start counting anew. Where the system cannot do this for a process, the peak since its start is kept."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with contextlib.suppress(OSError):
        CLEAR_REFS.write_text("5")


def read_peak_memory(device: torch.device) -> int:
    """Peak since `reset_peak_memory`, MiB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) >> 20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024  # KiB on Linux
