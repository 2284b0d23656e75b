"""Packed data sets: restored sets have the same labels and masks, nearly the same photographs; training from one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from release.pack_data import pack, unpack

from deepmtdr.datasets.prepared import PreparedSet
from deepmtdr.preparation.prepare import prepare
from deepmtdr.synthetic.drawings import write_drawings

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> PreparedSet:
    """Three drawings that fill a frame of 128 px."""
    root = tmp_path_factory.mktemp("drawings")
    samples = write_drawings(root, [0, 2, 4], size=140)
    return prepare(samples, root, root / "data" / "drawings", size=128, workers=1)


def test_restored_set_has_the_same_labels_and_masks_and_nearly_the_same_photographs(
    prepared: PreparedSet, tmp_path: Path
) -> None:
    parts = pack(prepared.folder.parent, tmp_path / "pack", part_bytes=5000)
    assert len(parts) > 1 and max(part.stat().st_size for part in parts) == 5000
    (folder,) = unpack(tmp_path / "pack", tmp_path / "restored")
    files = {path.relative_to(prepared.folder) for path in prepared.folder.rglob("*.tif")}
    assert {path.relative_to(folder) for path in folder.rglob("*.tif")} == files
    assert {file.parts[0] for file in files} > {"hr", "lr", "MA"}
    assert (folder / "manifest.csv").read_bytes() == (prepared.folder / "manifest.csv").read_bytes()
    for file in files:
        was, now = (read_pixels(root / file) for root in (prepared.folder, folder))
        assert was.shape == now.shape
        largest = 6 if file.parts[0] in ("hr", "lr") else 0
        assert np.abs(was.astype(int) - now).mean() <= largest, file


def read_pixels(path: Path) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.open(path))


def test_earlier_parts_are_removed_and_only_the_named_sets_are_packed(prepared: PreparedSet, tmp_path: Path) -> None:
    (tmp_path / "pack.tar.009").touch()
    assert [part.name for part in pack(prepared.folder.parent, tmp_path, ["drawings"])] == ["pack.tar.000"]
    assert [path.name for path in tmp_path.iterdir()] == ["pack.tar.000"]


def test_folder_without_prepared_sets_or_pack_is_an_error(prepared: PreparedSet, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="found no prepared data set"):
        pack(tmp_path, tmp_path)
    with pytest.raises(SystemExit, match="idrid: found no prepared data set"):
        pack(prepared.folder.parent, tmp_path, ["idrid"])
    with pytest.raises(SystemExit, match="found no pack"):
        unpack(tmp_path, tmp_path)


@pytest.mark.slow
def test_training_from_a_pack_returns_the_weights(prepared: PreparedSet, tmp_path: Path) -> None:
    pack(prepared.folder.parent, tmp_path / "pack")
    settings = ('data.datasets=["drawings"]', "data.frame=128", "restoration.crop=64", "data.held_out=0")
    options = [part for setting in settings for part in ("--set", setting)]
    command = [CHECKOUT / "release" / "train_packed.sh", tmp_path / "pack", tmp_path / "out", "smoke", *options]
    done = subprocess.run(
        list(map(str, command)),
        env={**os.environ, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "weights.safetensors").exists() and (tmp_path / "out" / "run.json").exists()
