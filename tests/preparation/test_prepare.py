"""Preparation: images and masks, the manifest, errors, repeated and interrupted runs."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from deepmtdr.datasets.catalogue import read_datasets
from deepmtdr.datasets.frames import memmap_tiff, read_masks
from deepmtdr.datasets.prepared import MANIFEST, PreparedSet, read_prepared
from deepmtdr.datasets.sample import Sample
from deepmtdr.errors import DataError
from deepmtdr.labels import DIABETIC_RETINOPATHY
from deepmtdr.photographs.decode import read_photograph
from deepmtdr.preparation import photograph as preparing
from deepmtdr.preparation.prepare import JOURNAL_NAME, prepare
from deepmtdr.terms import Grade, Lesion
from drawings import draw_idrid
from image_files import write_mask, write_photograph

SIZE = 64


def plain(path: Path, name: str = "x", **known: Any) -> Sample:
    return Sample(photograph=path, name=name, patient=f"p{name}", dataset="d", **known)


@pytest.fixture
def sample(tmp_path: Path) -> Sample:
    """MA present, HE annotated but absent, EX and SE not annotated."""
    masks = {Lesion.MA: write_mask(tmp_path / "x_MA.png"), Lesion.HE: None}
    return plain(write_photograph(tmp_path / "x.png"), lesion_masks=masks, grade=Grade.MILD, laterality="L")


def prepared(tmp_path: Path, *samples: Sample, **settings: Any) -> PreparedSet:
    return prepare(samples, tmp_path, tmp_path / "out", **{"size": SIZE, "workers": 1, **settings})


def bytes_of(folder: Path) -> Mapping[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


# Images and masks


def test_field_of_view_fills_the_frame(tmp_path: Path, sample: Sample) -> None:
    (frame,) = prepared(tmp_path, sample).frames()
    assert frame.scale == 1 and frame.pixels.shape == (SIZE, SIZE, 3)
    lit = frame.pixels[..., 0] > 90
    assert lit.mean() == pytest.approx(np.pi / 4, abs=0.03)  # a circle in its square
    assert not lit[[0, 0, -1, -1], [0, -1, 0, -1]].any()


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_lr_is_pillows_bicubic_of_hr(tmp_path: Path, sample: Sample, scale: int) -> None:
    folder = prepared(tmp_path, sample, scale=scale).folder
    hr, lr = (Image.open(folder / kind / "x.tif") for kind in ("hr", "lr"))
    assert lr.size == (SIZE // scale,) * 2
    theirs = np.asarray(hr.resize(lr.size, Image.Resampling.BICUBIC), int)
    assert abs(theirs - np.asarray(lr)).max() <= 1


def test_masks_have_the_position_and_area_of_the_lesion(tmp_path: Path, sample: Sample) -> None:
    done = prepared(tmp_path, sample)
    masks = done.frames()[0].lesion_masks
    assert masks is not None and masks.shape == (4, SIZE, SIZE)
    area = (masks[0] / 255).sum()
    assert area == pytest.approx((20 * SIZE / 80) ** 2, rel=0.1)
    rows, columns = np.nonzero(masks[0])
    assert (rows.mean(), columns.mean()) == pytest.approx((SIZE / 2 - 0.5, SIZE / 2 - 0.5), abs=1)
    assert not masks[1:].any()
    assert done.rows[0].areas == {"MA": pytest.approx(area), "HE": 0.0}
    assert done.samples()[0].annotated(DIABETIC_RETINOPATHY) == (True, True, False, False)


@pytest.mark.parametrize(("side", "scale"), [(160, 1), (80, 1), (50, 2), (40, 2)], ids=str)
def test_low_resolution_photograph_has_no_hr_file(tmp_path: Path, side: int, scale: int) -> None:
    done = prepared(tmp_path, plain(write_photograph(tmp_path / "x.png", side)))
    assert done.frames()[0].scale == done.rows[0].scale == scale
    assert done.frames()[0].pixels.shape[0] == SIZE // scale
    assert (done.folder / "hr/x.tif").exists() == (scale == 1)


def test_masks_of_a_low_resolution_photograph_are_in_the_hr_frame(tmp_path: Path) -> None:
    known = {Lesion.SE: write_mask(tmp_path / "m.png", (48, 68), 9)}
    (frame,) = prepared(tmp_path, plain(write_photograph(tmp_path / "x.png", 48), lesion_masks=known)).frames()
    assert frame.scale == 2 and frame.lesion_masks is not None
    assert frame.lesion_masks.shape == (4, SIZE, SIZE) and frame.lesion_masks[3].any()


def test_jpeg_decoded_at_reduced_size_gives_nearly_the_same_pixels(tmp_path: Path) -> None:
    root = draw_idrid(tmp_path / "idrid", 512)
    path = next(root.rglob("IDRiD_04.jpg"))
    done = prepared(tmp_path, plain(path), size=128)
    with Image.open(path) as image:
        image.save(tmp_path / "whole.png")
    prepare([plain(tmp_path / "whole.png")], tmp_path, tmp_path / "whole", size=128, workers=1)
    whole = read_prepared(tmp_path / "whole")
    assert (done.rows[0].width, done.rows[0].height) == (whole.rows[0].width, whole.rows[0].height)
    fov, expected = done.rows[0].fov, whole.rows[0].fov
    assert fov is not None and expected is not None
    assert np.abs(np.subtract(dataclasses.astuple(fov), dataclasses.astuple(expected))).max() <= 4
    different = done.frames()[0].pixels.astype(float) - whole.frames()[0].pixels
    assert 10 * np.log10(255**2 / (different**2).mean()) > 30


# The manifest


def test_manifest_has_labels_sources_and_measurements(tmp_path: Path, sample: Sample) -> None:
    done = prepared(tmp_path, sample, splits={"x": "test"})
    (row,) = done.rows
    assert (row.source, row.file, row.split, row.status) == ("x.png", "x", "test", "ok")
    assert row.sha256 == hashlib.sha256((tmp_path / "x.png").read_bytes()).hexdigest()
    assert (row.grade, row.laterality, row.patient) == (1, "L", "px")
    assert (row.width, row.height) == (120, 100)
    assert row.fov is not None and row.fov.side == pytest.approx(80, abs=2) and row.fov.x == pytest.approx(20, abs=2)
    assert len(row.perceptual_hash) == 64


def test_manifest_is_read_as_written(tmp_path: Path, sample: Sample) -> None:
    known = {"dr_present": True, "official_split": "train", "lesion_masks": dict.fromkeys(Lesion)}
    (tmp_path / "broken.png").write_bytes(b'no\nphotograph, "quoted"')
    others = (
        plain(write_photograph(tmp_path / "y.png"), "y", **known),
        plain(tmp_path / "broken.png", "z", ungradable=True),
    )
    done = prepared(tmp_path, sample, *others)
    again = read_prepared(done.folder)
    assert again.rows == [dataclasses.replace(row, overlap=again.rows[n].overlap) for n, row in enumerate(done.rows)]
    assert again.samples() == done.samples()


def test_damaged_manifest_is_an_error_with_file_and_row(tmp_path: Path, sample: Sample) -> None:
    path = prepared(tmp_path, sample).folder / MANIFEST
    text = path.read_text(encoding="utf-8")
    for old, new in ((",ok,", ",fine,"), (",120,100,", ",wide,100,")):
        path.write_text(text.replace(old, new), encoding="utf-8")
        with pytest.raises(DataError, match=r"manifest\.csv, row 2"):
            read_prepared(path.parent)


def test_prepared_set_is_read_as_a_data_set_with_masks(tmp_path: Path, sample: Sample) -> None:
    done = prepared(tmp_path, sample)
    (read,) = read_datasets({"folder": done.folder})
    assert read == done.samples()[0] and (read.grade, read.laterality) == (1, "L")
    masks = read_masks(read, read_photograph(read.photograph).pixels.shape[:2]).lesions
    assert masks[Lesion.MA].sum() == pytest.approx(done.rows[0].areas["MA"], rel=0.15)
    assert not masks[Lesion.HE].any() and len(masks) == 2


# Errors


def test_photograph_that_cannot_be_used_has_a_row_with_the_reason(tmp_path: Path, sample: Sample) -> None:
    Image.new("RGB", (100, 100)).save(tmp_path / "black.png")
    (tmp_path / "text.png").write_bytes(b"no picture")
    bad = {
        "wrong": write_mask(tmp_path / "wrong.png", (90, 120)),
        "damaged": tmp_path / "text.png",
        "absent": tmp_path / "no",
    }
    samples = [
        *(plain(tmp_path / f"{name}.png", name) for name in ("black", "text", "missing")),
        *(plain(sample.photograph, name, lesion_masks={Lesion.MA: path}) for name, path in bad.items()),
    ]
    done = prepared(tmp_path, sample, *samples)
    found = {row.name: (row.status, row.problem) for row in done.rows}
    assert {name: status for name, (status, _) in found.items()} == {
        **{"x": "ok", "black": "no_fov", "text": "unreadable", "missing": "unreadable"},
        **dict.fromkeys(bad, "bad_mask"),
    }
    assert "mask of (90, 120) px, expected (100, 120)" in found["wrong"][1]
    assert [name for name in ("black", "text", "missing") if f"{name}.png" not in found[name][1]] == ["black"]
    assert [frame.sample.name for frame in done.frames()] == ["x"]
    assert {path.stem for path in (done.folder / "lr").iterdir()} == {"x"}


@pytest.mark.parametrize("name", ["sub__a", "å glass", "a.1", "網膜" * 90, "x" * 300, "a/b", ".hidden", "con:aux"])
def test_any_name_has_files(tmp_path: Path, name: str) -> None:
    done = prepared(tmp_path, plain(write_photograph(tmp_path / "p.png"), name))
    assert read_prepared(done.folder).rows[0].name == name
    assert done.frames()[0].pixels.shape == (SIZE, SIZE, 3)


def test_different_names_get_different_file_names(tmp_path: Path) -> None:
    names = ("a/b", "a:b", "a_b", "x" * 300, "x" * 301)
    done = prepared(tmp_path, *(plain(write_photograph(tmp_path / "p.png"), name) for name in names))
    assert len({row.file for row in done.rows}) == len(names)


def test_two_photographs_of_one_name_are_an_error(tmp_path: Path, sample: Sample) -> None:
    with pytest.raises(DataError, match="x: two photographs of one name"):
        prepared(tmp_path, sample, sample)


def test_folder_prepared_with_other_settings_is_an_error(tmp_path: Path, sample: Sample) -> None:
    prepared(tmp_path, sample)
    with pytest.raises(DataError, match="prepared at size 64 and scale 4, not at size 64 and scale 2"):
        prepared(tmp_path, sample, scale=2)
    with pytest.raises(DataError, match="size 60"):
        prepared(tmp_path, sample, size=60)


def test_full_disk_is_an_error_and_finished_photographs_are_kept(
    tmp_path: Path, sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, other = preparing.write_tiff, plain(write_photograph(tmp_path / "y.png"), "y")

    def full(path: Path, pixels: np.ndarray) -> None:
        if path.stem == "y":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        write(path, pixels)

    monkeypatch.setattr(preparing, "write_tiff", full)
    with pytest.raises(DataError, match=r"y\.tif: cannot be written \(No space left.*run again to continue"):
        prepared(tmp_path, sample, other)
    assert not (tmp_path / "out" / MANIFEST).exists()
    monkeypatch.setattr(preparing, "write_tiff", write)
    monkeypatch.setattr(preparing, "find_fov", counted := Counted(preparing.find_fov))
    assert [row.status for row in prepared(tmp_path, sample, other).rows] == ["ok", "ok"]
    assert counted.calls == 1


def test_folder_that_cannot_be_made_is_named(tmp_path: Path, sample: Sample) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(DataError, match="out: found a file, expected a folder"):
        prepared(tmp_path, sample)


# Repeated and interrupted runs


class Counted:
    """A function that counts its calls."""

    def __init__(self, function: Any) -> None:
        self.function, self.calls = function, 0

    def __call__(self, *args: Any, **settings: Any) -> Any:
        self.calls += 1
        return self.function(*args, **settings)


def test_second_run_decodes_nothing_and_changes_no_byte(
    tmp_path: Path, sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = prepared(tmp_path, sample).folder
    before = bytes_of(folder)
    monkeypatch.setattr(preparing, "read_photograph", lambda *_, **__: pytest.fail("decoded again"))
    assert prepared(tmp_path, sample).rows == read_prepared(folder).rows
    assert bytes_of(folder) == before and JOURNAL_NAME not in before


def test_two_workers_write_the_same_bytes_as_one(tmp_path: Path) -> None:
    samples = [plain(write_photograph(tmp_path / f"{n}.png", tint=9 * n), str(n)) for n in range(5)]
    one, two = (prepare(samples, tmp_path, tmp_path / f"w{n}", size=SIZE, workers=n).folder for n in (1, 2))
    assert bytes_of(one) == bytes_of(two) and len(bytes_of(one)) == 13


def test_small_set_is_prepared_in_this_process(tmp_path: Path, sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deepmtdr.preparation.prepare.ProcessPoolExecutor", lambda *_: pytest.fail("another process"))
    assert [row.status for row in prepared(tmp_path, sample, workers=None).rows] == ["ok"]


@pytest.mark.parametrize("change", ["photograph", "mask", "annotation", "lost file"])
def test_changed_photograph_is_prepared_again(
    tmp_path: Path, sample: Sample, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = plain(write_photograph(tmp_path / "y.png", tint=90), "y")
    prepared(tmp_path, sample, other)
    ma = sample.lesion_masks[Lesion.MA]
    assert ma is not None
    if change == "photograph":
        write_photograph(sample.photograph, tint=60)
    elif change == "mask":
        write_mask(ma, value=0)
    elif change == "annotation":
        sample = dataclasses.replace(sample, lesion_masks={Lesion.SE: ma})
    else:
        (tmp_path / "out/MA/x.tif").unlink()
    monkeypatch.setattr(preparing, "find_fov", counted := Counted(preparing.find_fov))
    done = prepared(tmp_path, sample, other)
    assert counted.calls == 1
    masks = done.frames()[0].lesion_masks
    shown = None if masks is None else [bool(mask_.any()) for mask_ in masks]
    assert shown == [change in ("photograph", "lost file"), False, False, change == "annotation"]


def test_changed_grade_needs_no_decoding(tmp_path: Path, sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared(tmp_path, sample)
    monkeypatch.setattr(preparing, "read_photograph", lambda *_, **__: pytest.fail("decoded again"))
    (row,) = prepared(tmp_path, dataclasses.replace(sample, grade=Grade.SEVERE), splits={"x": "train"}).rows
    assert (row.grade, row.split) == (3, "train")


def test_incomplete_last_line_of_the_journal_is_prepared_again(tmp_path: Path, sample: Sample) -> None:
    other = plain(write_photograph(tmp_path / "y.png"), "y")
    folder = prepared(tmp_path, sample, other).folder
    whole = (folder / MANIFEST).read_bytes()
    (folder / MANIFEST).unlink()
    (folder / JOURNAL_NAME).write_bytes(whole[:-20])
    (folder / "lr/.4711.part").write_bytes(b"half")
    prepared(tmp_path, sample, other)
    assert (folder / MANIFEST).read_bytes() == whole
    assert not (folder / "lr/.4711.part").exists()


SCRIPT = """
import sys
from pathlib import Path
from deepmtdr.datasets.idrid import read_idrid
from deepmtdr.preparation.prepare import prepare
if __name__ == "__main__":
    root, out = map(Path, sys.argv[1:3])
    prepare(read_idrid(root), root, out, size=128, workers=int(sys.argv[3]))
"""


def test_killed_run_continues_to_the_same_bytes_and_leaves_no_worker(tmp_path: Path) -> None:
    root = draw_idrid(tmp_path / "idrid", 300)
    (tmp_path / "run.py").write_text(SCRIPT)
    command = [sys.executable, str(tmp_path / "run.py"), str(root)]
    subprocess.run([*command, str(tmp_path / "whole"), "1"], check=True, capture_output=True)
    out = tmp_path / "killed"
    run = subprocess.Popen([*command, str(out), "2"], stdout=subprocess.DEVNULL, start_new_session=True)
    while not list(out.rglob("lr/*.tif")):
        assert run.poll() is None
        time.sleep(0.005)
    run.send_signal(signal.SIGKILL)
    run.wait()
    deadline = time.monotonic() + 20
    while _members(run.pid):
        assert time.monotonic() < deadline, "a worker outlived its parent"
        time.sleep(0.1)
    subprocess.run([*command, str(out), "1"], check=True, capture_output=True)
    assert bytes_of(out) == bytes_of(tmp_path / "whole")


def test_two_runs_that_share_a_folder_wait_for_each_other(tmp_path: Path) -> None:
    root = draw_idrid(tmp_path / "idrid")
    (tmp_path / "run.py").write_text(SCRIPT)
    command = [sys.executable, str(tmp_path / "run.py"), str(root), str(tmp_path / "out"), "1"]
    runs = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    errors = [run.communicate()[1] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], errors
    assert len(read_prepared(tmp_path / "out").rows) == 9


def _members(session: int) -> list[int]:
    """Living processes of a session."""
    living = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, own = stat.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        living += [int(stat.parent.name)] if int(own) == session and state != "Z" else []
    return living


def test_columns_of_the_manifest_stay_as_they_are(tmp_path: Path, sample: Sample) -> None:
    header = (prepared(tmp_path, sample).folder / MANIFEST).read_text(encoding="utf-8").splitlines()[0]
    assert header == (
        "name,dataset,status,problem,source,sha256,masks_sha256,patient,laterality,grade,dr_present,ungradable,side,split,"
        "ma,he,ex,se,overlap,width,height,fov_x,fov_y,fov_side,scale,file,perceptual_hash,unions,ignored,mask_problems"
    )


@pytest.mark.data
def test_drive_is_prepared_as_low_resolution_photographs(real_data: Path, tmp_path: Path) -> None:
    from deepmtdr.datasets.drive import read_drive

    root = real_data / "drive"
    done = prepare(read_drive(root)[:3], root, tmp_path / "drive")
    assert [(row.status, row.scale) for row in done.rows] == [("ok", 2)] * 3
    assert memmap_tiff(done.frames()[0].sample.photograph).shape == (512, 512, 3)
