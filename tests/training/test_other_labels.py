"""Training with the lesion types and grades of another disease."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataset_trees import write_table
from deepmtdr import checkpoint
from deepmtdr.errors import DataError
from deepmtdr.training import run
from image_files import write_mask, write_photograph
from tiny_runs import read_csv, small_recipe

LABELS = """
disease = "age-related macular degeneration"
lesions = [{ code = "DRUSEN", name = "drusen" }, { code = "GA", name = "geographic atrophies", colour = [0, 255, 0] }]
grades = [{ name = "none" }, { name = "early" }, { name = "late" }]
thresholds = { any = 1, referable = 2 }
"""
SETTINGS = ('data.datasets=["folder"]', "data.validation=0.4", "grading.loss.class_weights=[1, 2, 3]")


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    path = tmp_path / "amd.toml"
    path.write_text(LABELS)
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Ten photographs with grades 0 to 2, every second one annotated."""
    folder = tmp_path / "data" / "folder"
    for n in range(10):
        write_photograph(folder / f"{n}.png", tint=10 * n)
    write_mask(folder / "mask.png")
    masks = [f"{'mask.png' if n % 4 else 'none'},mask.png" if n % 2 else "," for n in range(10)]
    write_table(folder / "photographs.csv", "path,grade,DRUSEN,GA", *(f"{n}.png,{n % 3},{masks[n]}" for n in range(10)))
    return tmp_path / "data"


def test_all_stages_follow_the_label_set(data: Path, labels: Path, tmp_path: Path) -> None:
    recipe = small_recipe(*SETTINGS, f"labels={labels}")
    run(recipe, data, tmp_path / "out")
    found = checkpoint.load(tmp_path / "out" / "weights.safetensors")
    assert found.labels == recipe.labels and found.labels.codes == ("DRUSEN", "GA")
    cached = [np.load(path) for path in (tmp_path / "out" / "cached_outputs" / "folder").glob("*.npy")]
    assert cached and {output.shape for output in cached} == {(3 + 2, 64, 64)}
    scores = {row["score"] for row in read_csv(tmp_path / "out" / "validation.csv")}
    assert {"psnr_gain", "kappa_quadratic"} <= scores
    for sheet in (tmp_path / "out" / "sheets").iterdir():
        with Image.open(sheet) as image:
            assert image.size[0] > 1000
    run_json = json.loads((tmp_path / "out" / "run.json").read_text())
    assert run_json["recipe"]["labels"]["disease"] == "age-related macular degeneration"
    report = (tmp_path / "out" / "report.html").read_text()
    assert re.search(r"<td>labels</td><td>[^<]*diabetic-retinopathy[^<]*</td><td>[^<]*amd[^<]*</td>", report)
    assert "labels.lesions" not in report
    run(recipe, data, tmp_path / "out", resume=True)


def test_data_set_with_another_label_set_is_an_error_that_names_both(data: Path, labels: Path, tmp_path: Path) -> None:
    recipe = small_recipe(*SETTINGS[1:], f"labels={labels}", 'data.datasets=["idrid"]')
    message = (
        r"data set idrid with the label set 'diabetic-retinopathy' .*, expected 'amd' \(lesions DRUSEN, GA; 3 grades\)"
    )
    with pytest.raises(DataError, match=message):
        run(recipe, data, tmp_path / "out")


def test_prepared_set_with_another_label_set_is_an_error_that_names_both(
    data: Path, labels: Path, tmp_path: Path
) -> None:
    recipe = small_recipe(*SETTINGS, f"labels={labels}", *(f"{s}.steps=0" for s in ("restoration", "grading", "joint")))
    run(recipe, data, tmp_path / "out", cache=tmp_path / "cache")
    (tmp_path / "sets").mkdir()
    (tmp_path / "cache" / "folder_64").rename(tmp_path / "sets" / "folder")
    renamed = labels.with_name("other.toml")
    renamed.write_text(LABELS.replace("DRUSEN", "SOFT"))
    with pytest.raises(DataError, match=r"prepared with the label set 'amd' .*, expected 'other' \(lesions SOFT, GA"):
        run(small_recipe(*SETTINGS, f"labels={renamed}"), tmp_path / "sets", tmp_path / "again")
