"""Union labels and ignored pixels in a prepared set (interpretation R32), and sets of format 1, which have none."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deepmtdr.datasets.frames import MaskChannels, mask_channels, read_masks
from deepmtdr.datasets.layout import LabelCounts, count_labels
from deepmtdr.datasets.prepared import MANIFEST, SETTINGS, PreparedSet, read_prepared
from deepmtdr.datasets.sample import Sample
from deepmtdr.errors import DataError
from deepmtdr.photographs.decode import read_photograph
from deepmtdr.preparation import photograph as preparing
from deepmtdr.preparation.audit import audit
from deepmtdr.preparation.prepare import JOURNAL_NAME, prepare
from deepmtdr.preparation.report import summary_tables
from image_files import write_mask, write_photograph

SIZE = 64
CHANNELS = MaskChannels(("EX+SE",), ignored=True)


def write_square(path: Path, left: int) -> Path:
    """A mask with a square of 10 px that begins at this column and at row 45."""
    pixels = np.zeros((100, 120), np.uint8)
    pixels[45:55, left : left + 10] = 255
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def sample(tmp_path: Path) -> Sample:
    """Exudates on the left, ignored pixels on the right; microaneurysms annotated, but absent."""
    return Sample(
        photograph=write_photograph(tmp_path / "x.png"),
        name="x",
        patient="p",
        dataset="d",
        grade=0,
        lesion_masks={"MA": None},
        union_masks={"EX+SE": write_square(tmp_path / "e.png", 35)},
        ignored_mask=write_square(tmp_path / "i.png", 75),
    )


def prepared(tmp_path: Path, *samples: Sample) -> PreparedSet:
    return prepare(samples, tmp_path, tmp_path / "out", size=SIZE, workers=1)


def test_masks_have_the_position_and_area_of_their_pixels(tmp_path: Path, sample: Sample) -> None:
    done = prepared(tmp_path, sample)
    (row,), (frame,) = done.rows, done.frames()
    expected = pytest.approx((10 * SIZE / 80) ** 2, rel=0.15)
    assert (row.areas, row.unions, row.ignored) == ({"MA": 0}, {"EX+SE": expected}, expected)
    masks = frame.masks(CHANNELS)
    assert masks is not None and masks.shape == (6, SIZE, SIZE) and not masks[:4].any()
    columns = [np.nonzero(mask)[1].mean() for mask in masks[4:]]
    assert columns == pytest.approx([16 - 0.5, 48 - 0.5], abs=1)
    assert mask_channels([frame]) == CHANNELS


def test_set_is_read_as_written(tmp_path: Path, sample: Sample) -> None:
    bare = replace(sample, name="y", lesion_masks={}, union_masks={"EX+SE": None}, ignored_mask=None)
    done = prepared(tmp_path, sample, bare)
    again = read_prepared(done.folder)
    assert again.samples() == done.samples()
    first, second = again.samples()
    assert first.union_masks == {"EX+SE": done.folder / "EX+SE/x.tif"}
    assert first.ignored_mask == done.folder / "ignored/x.tif"
    assert (second.union_masks, second.ignored_mask) == ({"EX+SE": None}, None)
    assert second.has_masks and again.frames()[1].masks(CHANNELS) is None
    masks = read_masks(first, read_photograph(first.photograph).pixels.shape[:2])
    assert masks.unions["EX+SE"].sum() == pytest.approx(again.rows[0].unions["EX+SE"], rel=0.2)
    assert masks.ignored is not None and masks.ignored.sum() >= again.rows[0].ignored
    assert count_labels(again.samples()) == LabelCounts(2, (2, 0, 0, 0, 0), (0, 0, 0, 0), unions={"EX+SE": 1})


def test_second_run_decodes_nothing_unless_a_label_changed(
    tmp_path: Path, sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = prepared(tmp_path, sample).rows
    decoded: list[Path] = []
    real = preparing.read_photograph
    monkeypatch.setattr(
        preparing, "read_photograph", lambda path, **settings: decoded.append(path) or real(path, **settings)
    )
    assert [row.unions.keys() for row in prepared(tmp_path, sample).rows] == [row.unions.keys() for row in rows]
    assert not decoded
    prepared(tmp_path, replace(sample, ignored_mask=None))
    prepared(tmp_path, replace(sample, ignored_mask=None, union_masks={}))
    write_square(tmp_path / "e.png", 36)
    prepared(tmp_path, replace(sample, ignored_mask=None))
    assert len(decoded) == 3


def test_mask_of_another_size_is_named(tmp_path: Path, sample: Sample) -> None:
    wrong = write_mask(tmp_path / "wrong.png", (90, 120))
    for labels in ({"ignored_mask": wrong}, {"union_masks": {"EX+SE": wrong}}):
        (row,) = prepare([replace(sample, **labels)], tmp_path, tmp_path / "bad", size=SIZE, workers=1).rows
        assert row.status == "bad_mask" and "wrong.png: mask of (90, 120) px, expected (100, 120)" in row.problem


def test_audit_and_report_count_union_labels(tmp_path: Path, sample: Sample) -> None:
    done = prepared(tmp_path, sample)
    found = [(finding.kind, finding.detail.split()[0]) for finding in audit(done.rows)]
    assert ("lesions_at_grade_0", "EX+SE") in found
    (lesions,) = [table for table in summary_tables(done) if table.title.startswith("Lesions")]
    assert [row[:3] for row in lesions.rows] == [
        ("microaneurysms", "1", "0"),
        ("hard exudates or soft exudates", "1", "1"),
        ("ignored pixels", "1", "1"),
    ]


# Sets of format 1


@pytest.fixture
def old_format(tmp_path: Path, sample: Sample) -> PreparedSet:
    """A set without union labels, with settings and manifest as version 1 of the format has them."""
    done = prepared(tmp_path, replace(sample, union_masks={}, ignored_mask=None))
    lines = (done.folder / MANIFEST).read_text().splitlines()
    cut = [line.removesuffix(",unions,ignored,mask_problems").removesuffix(",,,") for line in lines]
    (done.folder / MANIFEST).write_text("\n".join(cut) + "\n")
    settings = json.loads((done.folder / SETTINGS).read_text())
    assert settings["form"] == 2
    (done.folder / SETTINGS).write_text(json.dumps({**settings, "form": 1}))
    return done


def test_set_of_format_1_is_read(old_format: PreparedSet) -> None:
    assert read_prepared(old_format.folder).samples() == old_format.samples()


@pytest.mark.parametrize("interrupted", [False, True])
def test_set_of_format_1_is_continued_without_decoding(
    old_format: PreparedSet, tmp_path: Path, sample: Sample, interrupted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if interrupted:
        (old_format.folder / MANIFEST).rename(old_format.folder / JOURNAL_NAME)
    monkeypatch.setattr(preparing, "read_photograph", lambda *_, **__: pytest.fail("decoded again"))
    prepared(tmp_path, replace(sample, union_masks={}, ignored_mask=None))
    again = read_prepared(old_format.folder)
    assert again.samples() == old_format.samples()
    assert json.loads((again.folder / SETTINGS).read_text())["form"] == 2


def test_unknown_format_is_an_error(old_format: PreparedSet) -> None:
    (old_format.folder / SETTINGS).write_text('{"form": 3, "size": 64, "scale": 4}')
    with pytest.raises(DataError, match="prepared in format 3, expected 1 or 2; prepare the set again"):
        read_prepared(old_format.folder)
