"""The scored photographs of one training run in a file, small enough to be kept for every run of a study."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deepmtdr.evaluation.photograph_result import LesionResult, PhotographResult
from deepmtdr.files import write_atomically
from deepmtdr.metrics import PooledCurve

PHOTOGRAPHS_FILE = "photographs.npz"
KEPT = ("dataset", "name", "patient", "failure", "grade", "probs", "decided_grade", "image")
"""The fields of `PhotographResult` that are kept, beside the pixel counts of the lesions."""
NAN = float("nan")


def write_photographs(path: Path, results: Sequence[PhotographResult]) -> None:
    """Write labels, grades, image scores and the coarse pixel counts of the lesions of each photograph.

    Args:
        path: the file, `PHOTOGRAPHS_FILE` in the folder of a run.
        results: results of `evaluate`.

    Raises:
        OSError: if the file cannot be written.
    """
    rows = [{field: getattr(m, field) for field in KEPT} | {"lesions": list(m.lesions)} for m in results]
    arrays: dict[str, np.ndarray] = {"photographs": np.array(json.dumps(rows, default=dict))}
    for number, m in enumerate(results):
        for code, lesion in m.lesions.items():
            counts = lesion.counts
            arrays[f"{number}/{code}"] = np.stack([counts.values.astype(float), counts.positives, counts.negatives])
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    write_atomically(path, buffer.getvalue())


def read_photographs(path: Path) -> list[PhotographResult]:
    """Read the file of `write_photographs`. Scores of lesions other than the pixel counts are nan.

    Raises:
        OSError: if the file cannot be read.
    """
    with np.load(path) as file:
        rows: list[dict[str, Any]] = json.loads(str(file["photographs"]))
        return [_result(row, number, file) for number, row in enumerate(rows)]


def _result(row: dict[str, Any], number: int, arrays: Mapping[str, np.ndarray]) -> PhotographResult:
    lesions = {code: _lesion(arrays[f"{number}/{code}"]) for code in row.pop("lesions")}
    return PhotographResult(**{**row, "probs": tuple(row["probs"]), "lesions": lesions})


def _lesion(counts: np.ndarray) -> LesionResult:
    curve = PooledCurve()
    curve.values = counts[0].astype(np.float32)
    curve.positives, curve.negatives = counts[1:].astype(np.int64)
    return LesionResult(NAN, NAN, NAN, NAN, NAN, curve)
