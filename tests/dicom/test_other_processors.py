"""Results of the same photograph with another number of threads and other instructions of the processor."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydicom import dcmread

import deepmtdr
from tiny_model import save_tiny_weights

EXAMPLE = Path(__file__).parents[2] / "examples" / "dicom" / "drawing_2.dcm"
PROGRAM = """
import sys
from pathlib import Path
from deepmtdr.dicom.results import write_results
from deepmtdr.screening.engine import ScreeningEngine
weights, example, out, threads = sys.argv[1:]
write_results(ScreeningEngine.load(Path(weights), threads=int(threads)), Path(example), Path(out))
"""
COMPUTERS = {"1 thread": ("1", {}), "2 threads": ("2", {}), "no AVX2": ("1", {"ATEN_CPU_CAPABILITY": "default"})}


@pytest.mark.slow
def test_the_same_sop_instance_uid_always_means_the_same_bytes(tmp_path: Path) -> None:
    weights = save_tiny_weights(tmp_path / "tiny.safetensors")
    for name, (threads, variables) in COMPUTERS.items():
        command = [sys.executable, "-W", "ignore", "-c", PROGRAM, weights, EXAMPLE, tmp_path / name, threads]
        source = str(Path(deepmtdr.__file__ or "").parents[1])
        subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": source, **variables})
    objects = [path for name in COMPUTERS for path in (tmp_path / name).glob("*.dcm")]
    uids = {path: dcmread(path, stop_before_pixels=True).SOPInstanceUID for path in objects}
    contents = {path: path.read_bytes() for path in objects}
    assert len(set(contents.values())) > len(objects) / len(COMPUTERS), "the computers differ in some results"
    assert len(set(uids.values())) == len(set(contents.values()))
    assert all(len({contents[path] for path in objects if uids[path] == uid}) == 1 for uid in uids.values())
