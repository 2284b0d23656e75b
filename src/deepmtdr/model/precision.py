"""Number format of the convolutions: bfloat16 where the device computes with it, else float32.

Without such instructions bfloat16 is emulated: a training step of 0.75 s took 83 s on a processor without them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch

from deepmtdr.terms import PRECISIONS

Precision = Literal["bf16", "fp32"]

CPU_FLAGS = frozenset({"amx_bf16", "avx512_bf16", "bf16", "sve_bf16"})
"""Instruction sets for bfloat16 of x86 and Arm, by the names of PyTorch, which are nearly those of Linux."""
CPU_INFO = Path("/proc/cpuinfo")
"""Where Linux lists the instruction sets, for versions of PyTorch that do not."""


def resolve_precision(name: str, device: torch.device | str = "cpu") -> Precision:
    """Return the number format that a setting means on a device.

    Args:
        name: `auto` (bf16 where the device supports it), `bf16` or `fp32`.
        device: the device of the network.

    Raises:
        ValueError: if the name is unknown.
    """
    if name not in PRECISIONS:
        raise ValueError(f"found precision {name!r}, expected one of {', '.join(PRECISIONS)}")
    if name == "auto":
        return "bf16" if supports_bf16(device) else "fp32"
    return "bf16" if name == "bf16" else "fp32"


def supports_bf16(device: torch.device | str = "cpu") -> bool:
    """Whether the device has instructions for bfloat16; without them fp32 is faster."""
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return kind == "cpu" and not CPU_FLAGS.isdisjoint(_cpu_flags())


def _cpu_flags() -> set[str]:
    """Return the instruction sets of the processor; empty if they are unknown."""
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()  # PyTorch 2.6 does not have it yet
    if capabilities:
        return {name for name, has in capabilities.items() if has is True}
    try:
        lines = CPU_INFO.read_text().splitlines()
    except OSError:  # not Linux
        return set()
    return {flag for line in lines if line.startswith(("flags", "Features")) for flag in line.split()}


def expected_device(accelerator: str) -> torch.device:
    """Return the kind of device that Lightning Fabric will choose, before it is started.

    Args:
        accelerator: `auto`, or a kind of device: `cpu`, `cuda`, `gpu`, `mps`, ...
    """
    if accelerator in ("auto", "gpu"):
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    return torch.device(accelerator if accelerator in ("cuda", "mps") else "cpu")
