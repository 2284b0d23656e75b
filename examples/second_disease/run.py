"""Another disease, from photographs to DICOM: prepare, train, evaluate, grade, dicom.

Run it from a clone: `.venv/bin/python examples/second_disease/run.py`. It calls the commands that you would type. Each
`# %%` begins a cell that Jupyter, VS Code and PyCharm can run on its own. Training takes only eight steps, so the
results are random, but every output has the names of `amd.toml`.
"""

# %% Draw photographs with two lesion types and three grades.
import csv
import json
from pathlib import Path
from tempfile import mkdtemp

import pydicom
from draw_photographs import draw_folder

from deepmtdr.cli import app

HERE = Path(__file__).parent
OUT = Path(mkdtemp(prefix="deepmtdr-second-disease-"))
draw_folder(OUT / "photographs", count=10, size=256)


def deepmtdr(*arguments: str | Path) -> None:
    """Run a command of deepmtdr in this process."""
    print("\n$ deepmtdr", *arguments)
    app([str(argument) for argument in arguments], standalone_mode=False)


# %% Prepare the photographs. The prepared set contains the label set.
PREPARED = OUT / "prepared"
options = ["--size", "256", "--split", "train=0.6,test=0.4", "--workers", "1"]
deepmtdr("prepare", "folder", OUT / "photographs", PREPARED / "folder", "--labels", HERE / "amd.toml", *options)

# %% Train. The recipe names the label set; the checkpoint will contain it.
deepmtdr("train", HERE / "recipe.toml", "--data", PREPARED, "--out", OUT / "train")
WEIGHTS = OUT / "train" / "weights.safetensors"

# %% Evaluate on the patients that were not used for training.
split = ["--split", OUT / "train" / "split.csv"]
deepmtdr("evaluate", "--data", PREPARED, *split, "--weights", WEIGHTS, "--out", OUT / "evaluation", "--quick")
scores = json.loads((OUT / "evaluation" / "evaluation.json").read_text())["scores"]
print("lesions with scores:", sorted({score["subject"] for score in scores if score["task"] == "lesions"}))

# %% Grade photographs.
deepmtdr("grade", OUT / "photographs" / "photographs", "--weights", WEIGHTS, "--out", OUT / "graded", "--as-lr", "64")
with (OUT / "graded" / "results.csv").open(encoding="utf-8") as file:
    rows = list(csv.DictReader(file))
print("columns:", ", ".join(rows[0]))
print("grades:", sorted({row["grade_name"] for row in rows}))

# %% DICOM: a segment per lesion type.
deepmtdr("dicom", HERE.parent / "dicom", "--weights", WEIGHTS, "--out", OUT / "dicom")
segmentation = pydicom.dcmread(next((OUT / "dicom").rglob("lesions.dcm")))
print("segments:", [segment.SegmentLabel for segment in segmentation.SegmentSequence])
print(f"open {OUT / 'graded' / '000' / 'summary.png'}")
