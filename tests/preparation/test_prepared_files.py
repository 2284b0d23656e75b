"""Names of prepared files, and files that a power failure cut off."""

from __future__ import annotations

from pathlib import Path

import pytest

from deepmtdr.datasets.sample import Sample
from deepmtdr.files import same_name_key
from deepmtdr.preparation.prepare import prepare
from image_files import write_photograph


def plain(path: Path, name: str) -> Sample:
    return Sample(photograph=path, name=name, patient=name, dataset="d")


@pytest.mark.parametrize("kept", [0, 300])
def test_file_that_a_power_failure_cut_off_is_prepared_again(tmp_path: Path, kept: int) -> None:
    sample, out = plain(write_photograph(tmp_path / "x.png"), "x"), tmp_path / "out"
    prepare([sample], tmp_path, out, size=64, workers=1)
    whole = (out / "hr/x.tif").read_bytes()
    (out / "hr/x.tif").write_bytes(whole[:kept])
    prepare([sample], tmp_path, out, size=64, workers=1)
    assert (out / "hr/x.tif").read_bytes() == whole


def test_names_that_a_file_system_may_confuse_have_different_files(tmp_path: Path) -> None:
    path, names = write_photograph(tmp_path / "x.png"), ["Eye", "eye", "caf\u00e9", "cafe\u0301", "other"]
    done = prepare([plain(path, name) for name in names], tmp_path, tmp_path / "out", size=64, workers=1)
    files = {row.name: row.file for row in done.rows}
    assert len({same_name_key(file) for file in files.values()}) == len(names) and files["other"] == "other"
