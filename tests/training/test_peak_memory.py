"""Peak memory of a stage does not include what earlier stages needed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from deepmtdr.training import peak_memory
from deepmtdr.training.peak_memory import read_peak_memory, reset_peak_memory

CPU = torch.device("cpu")
MIB = 1 << 20


def test_reset_forgets_an_earlier_peak() -> None:
    if not peak_memory.CLEAR_REFS.exists():
        pytest.skip("this system cannot reset the peak of a process")
    large = np.ones(300 * MIB, np.uint8)
    before = read_peak_memory(CPU)
    del large
    reset_peak_memory(CPU)
    assert read_peak_memory(CPU) < before - 200


def test_peak_grows_with_what_is_allocated() -> None:
    reset_peak_memory(CPU)
    before = read_peak_memory(CPU)
    large = np.ones(300 * MIB, np.uint8)
    assert read_peak_memory(CPU) > before + 200 and large[0] == 1


def test_system_that_cannot_reset_keeps_the_former_peak(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peak_memory, "CLEAR_REFS", tmp_path / "gone" / "clear_refs")
    before = read_peak_memory(CPU)
    reset_peak_memory(CPU)
    assert read_peak_memory(CPU) >= before
