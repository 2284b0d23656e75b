"""Manifests with wrong cells."""

from __future__ import annotations

from pathlib import Path

import pytest

from deepmtdr.datasets.manifest import ManifestRow, format_manifest, read_manifest
from deepmtdr.errors import DataError

ROW = ManifestRow(
    name="a",
    dataset="idrid",
    status="ok",
    source="a.png",
    patient="p",
    laterality="L",
    side="train",
    areas={"MA": 7.5},
    unions={"EX+SE": 8.5},
    ignored=9.5,
)


def test_a_manifest_is_read_as_it_was_written(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text(format_manifest([ROW]))
    assert list(read_manifest(tmp_path / "m.csv")) == [ROW]


@pytest.mark.parametrize(
    ("cell", "wrong"),
    [
        (",L,", ",X,"),
        (",train,", ",training,"),
        (",7.5,", ",inf,"),
        ("=8.5", "=nan"),
        (",9.5,", ",1e999,"),
        (",9.5,", ",wide,"),
    ],
)
def test_a_wrong_cell_is_an_error(tmp_path: Path, cell: str, wrong: str) -> None:
    text = format_manifest([ROW])
    assert text.count(cell) == 1
    (tmp_path / "m.csv").write_text(text.replace(cell, wrong))
    with pytest.raises(DataError, match="row 2: not a row of a manifest"):
        list(read_manifest(tmp_path / "m.csv"))
