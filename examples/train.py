"""Train from Python: draw photographs, prepare them, run a recipe, look at the result.

Run it from a clone: `.venv/bin/python examples/train.py`. Each `# %%` begins a cell that Jupyter, VS Code and PyCharm
can run on its own. The recipe `smoke` takes a few steps of every stage; its weights are useless.
"""

# %% Photographs with lesion masks and grades. Drawings need no download.
import csv
from collections import Counter
from pathlib import Path
from tempfile import mkdtemp

from deepmtdr import load
from deepmtdr.datasets.catalogue import read_datasets
from deepmtdr.preparation.report import prepare_and_report
from deepmtdr.recipe import load_recipe
from deepmtdr.synthetic.drawings import write_drawings
from deepmtdr.training import run

OUT = Path(mkdtemp(prefix="deepmtdr-train-"))
samples = write_drawings(OUT / "drawings", seeds=range(8), size=256)
print(f"{len(samples)} drawings, grades {[int(sample.grade or 0) for sample in samples]}")

# %% Prepare them once: frames, LR images, masks, a split by patient, and a report of possible problems.
# `workers=1` stays in this process; a script that uses more needs `if __name__ == "__main__":`.
PREPARED = OUT / "prepared" / "drawings"
shares = {"train": 0.7, "validation": 0.3}
result = prepare_and_report("drawings", OUT / "drawings", PREPARED, size=256, shares=shares, workers=1)
print(f"open {result.page}")
print("photographs by split:", Counter(sample.official_split for sample in read_datasets({"drawings": PREPARED})))

# %% A recipe has every setting; overrides are written as on the command line.
recipe = load_recipe("smoke", ["seed=1", "joint.loss.lambda_tv=0"])
print(recipe.restoration.steps, recipe.grading.steps, recipe.joint.steps, recipe.joint.loss)

# %% Train all stages. The same call with `resume=True` continues an interrupted run.
weights = run(recipe, PREPARED.parent, OUT / "run")

# %% The losses, step by step, and the checkpoint.
with (OUT / "run" / "metrics.csv").open(encoding="utf-8") as file:
    for row in csv.DictReader(file):
        print(row)
checkpoint = load(weights)
print(checkpoint.recipe.name, checkpoint.digest[:12], checkpoint.card["stage"])
print(f"open {OUT / 'run' / 'report.html'}")
