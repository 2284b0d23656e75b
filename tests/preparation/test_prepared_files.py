"""Names of prepared files, files that a power failure cut off, and findings about masks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deepmtdr.datasets.prepared import read_prepared
from deepmtdr.datasets.sample import Sample
from deepmtdr.files import same_name_key
from deepmtdr.preparation import photograph
from deepmtdr.preparation.audit import audit
from deepmtdr.preparation.prepare import prepare
from image_files import write_mask, write_photograph


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


def test_masks_that_were_read_by_other_rules_are_prepared_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = replace(
        plain(write_photograph(tmp_path / "x.png"), "x"), lesion_masks={"MA": write_mask(tmp_path / "m.png")}
    )
    monkeypatch.setattr(photograph, "MASK_RULES", b"1")
    prepare([sample], tmp_path, tmp_path / "out", size=64, workers=1)
    monkeypatch.undo()
    (tmp_path / "out/MA/x.tif").write_bytes((tmp_path / "out/lr/x.tif").read_bytes())
    done = prepare([sample], tmp_path, tmp_path / "out", size=64, workers=1)
    found = done.frames()[0].lesion_masks
    assert found is not None and found[0].sum(dtype=int) / 255 == pytest.approx(done.rows[0].areas["MA"])


def test_masks_that_are_large_not_exact_or_of_several_colours_are_findings(tmp_path: Path) -> None:
    levels = np.zeros((100, 120), np.uint8)
    levels[40:60, 50:70] = 255
    Image.fromarray(levels).save(tmp_path / "ex.jpg")
    levels[0, :2] = 9, 90
    Image.fromarray(levels).save(tmp_path / "he.png")
    Image.fromarray(255 - levels).save(tmp_path / "se.png")
    masks = {"MA": write_mask(tmp_path / "ma.png"), "HE": tmp_path / "he.png", "EX": tmp_path / "ex.jpg"}
    masks["SE"] = tmp_path / "se.png"
    sample = replace(plain(write_photograph(tmp_path / "x.png"), "x"), lesion_masks=masks)
    done = prepare([sample], tmp_path, tmp_path / "out", size=64, workers=1)
    found = {finding.kind: finding.detail for finding in audit(done.rows) if finding.kind.endswith(("mask", "colours"))}
    assert found == {"large_mask": "SE", "mask_colours": "HE, SE", "jpeg_mask": "EX"}
    assert done.rows[0].areas["HE"] == pytest.approx(done.rows[0].areas["MA"])
    assert read_prepared(tmp_path / "out").rows[0].mask_problems == done.rows[0].mask_problems
    again = prepare([sample], tmp_path, tmp_path / "out", size=64, workers=1)
    assert again.rows[0].mask_problems == done.rows[0].mask_problems
