"""Damaged settings of a prepared data set."""

from __future__ import annotations

from pathlib import Path

import pytest

from deepmtdr.datasets.prepared import read_prepared_settings
from deepmtdr.errors import DataError

DAMAGED = {
    "deep": "[" * 100_000,
    "list": "[]",
    "infinite": '{"form": 3, "size": 1e999, "scale": 4}',
    "labels as a list": '{"form": 3, "size": 64, "scale": 4, "labels": []}',
    "labels as text": '{"form": 3, "size": 64, "scale": 4, "labels": "a"}',
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_damaged_settings_are_an_error(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "prepared.json"
    path.write_text(DAMAGED[kind])
    with pytest.raises(DataError, match="expected the settings of a prepared set"):
        read_prepared_settings(path)
