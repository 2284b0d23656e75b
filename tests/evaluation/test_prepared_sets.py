"""Prepared sets in evaluation: the masks of low-resolution photographs, and photographs that could not be prepared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from deepmtdr.datasets.sample import Sample
from deepmtdr.errors import PhotographError
from deepmtdr.evaluation.config import EvaluationConfig
from deepmtdr.evaluation.framed_photograph import load_into_frame
from deepmtdr.preparation.prepare import prepare
from image_files import write_mask, write_photograph

FRAME = 128


def sample(path: Path, **labels: object) -> Sample:
    return Sample(photograph=path, name=path.stem, patient="p", dataset="d", **labels)  # type: ignore[arg-type]


def test_masks_of_a_prepared_low_resolution_photograph_are_those_of_the_photograph(tmp_path: Path) -> None:
    masks = {"MA": write_mask(tmp_path / "m.png"), "HE": None}
    original = sample(write_photograph(tmp_path / "x.png"), lesion_masks=masks)
    prepared = prepare([original], tmp_path, tmp_path / "out", size=2 * FRAME, workers=1)
    assert prepared.rows[0].scale == 4
    before, after = (load_into_frame(one, EvaluationConfig(), 2 * FRAME) for one in (original, *prepared.samples()))
    assert (before.scale, after.scale) == (4, 4)
    assert after.lesion_masks["MA"].shape == (2 * FRAME, 2 * FRAME) and not after.lesion_masks["HE"].any()
    assert (before.lesion_masks["MA"] != after.lesion_masks["MA"]).mean() < 0.01
    assert before.lesion_masks["MA"].sum() == pytest.approx(after.lesion_masks["MA"].sum(), rel=0.1)
    assert after.original is not None and after.original.masks.shape == (2 * FRAME, 2 * FRAME)
    rows, columns = np.nonzero(after.original.masks.lesions["MA"])
    assert (rows.mean(), columns.mean()) == pytest.approx((FRAME, FRAME), abs=4)


def test_photograph_that_could_not_be_prepared_gives_the_reason(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"text")
    (prepared,) = prepare([sample(tmp_path / "x.png")], tmp_path, tmp_path / "out", size=64, workers=1).samples()
    with pytest.raises(PhotographError, match=r"x\.png: found no photograph"):
        load_into_frame(prepared, EvaluationConfig(), FRAME)
