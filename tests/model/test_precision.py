"""Number format of the convolutions: it follows the instructions of the device."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from deepmtdr.model import precision
from deepmtdr.model.precision import expected_device, resolve_precision, supports_bf16


@pytest.fixture
def cpu_without_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    set_cpu(monkeypatch, avx2=True, avx512_f=True, amx_int8=True)


def set_cpu(monkeypatch: pytest.MonkeyPatch, **capabilities: object) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)


@pytest.mark.parametrize("flag", ["amx_bf16", "avx512_bf16", "bf16", "sve_bf16"])
def test_auto_is_bf16_on_a_processor_with_instructions_for_it(flag: str, monkeypatch: pytest.MonkeyPatch) -> None:
    set_cpu(monkeypatch, avx2=True, **{flag: True})
    assert supports_bf16() and resolve_precision("auto") == "bf16"
    set_cpu(monkeypatch, avx2=True, **{flag: False})
    assert not supports_bf16() and resolve_precision("auto") == "fp32"


@pytest.mark.usefixtures("cpu_without_bf16")
def test_a_named_precision_is_used_on_any_device() -> None:
    assert resolve_precision("auto") == "fp32"
    assert [resolve_precision(name) for name in ("bf16", "fp32")] == ["bf16", "fp32"]
    with pytest.raises(ValueError, match="found precision 'half', expected one of auto, fp32, bf16"):
        resolve_precision("half")


@pytest.mark.usefixtures("cpu_without_bf16")
def test_auto_on_cuda_asks_for_native_bf16_and_not_for_its_emulation(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def is_supported(including_emulation: bool = True) -> bool:
        asked.append(including_emulation)
        return True

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_supported)
    assert resolve_precision("auto", torch.device("cuda")) == "bf16"
    assert asked == [False]
    assert resolve_precision("auto", "mps") == "fp32"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("flags\t: fpu avx512_bf16 avx2\n", True), ("Features\t: asimd bf16\n", True), ("model name\t: bf16\n", False)],
)
def test_old_pytorch_reads_the_instruction_sets_from_linux(
    text: str, expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_cpu(monkeypatch)
    monkeypatch.setattr(precision, "CPU_INFO", tmp_path / "cpuinfo")
    assert not supports_bf16(), "no such file on other systems"
    (tmp_path / "cpuinfo").write_text(text)
    assert supports_bf16() is expected


@pytest.mark.parametrize(
    ("cuda", "mps", "accelerator", "expected"),
    [
        (True, False, "auto", "cuda"),
        (False, True, "auto", "mps"),
        (False, False, "auto", "cpu"),
        (True, False, "gpu", "cuda"),
        (True, False, "cpu", "cpu"),
        (False, False, "cuda", "cuda"),
    ],
)
def test_device_is_the_one_that_fabric_chooses(
    cuda: bool, mps: bool, accelerator: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert expected_device(accelerator).type == expected
