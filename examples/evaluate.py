"""Evaluate: score weights on photographs with known lesions and grades.

Run it from a clone: `.venv/bin/python examples/evaluate.py`. Each `# %%` begins a cell that Jupyter, VS Code and
PyCharm can run on its own. The photographs are drawings: the scores do not show how well patients are graded.
"""

# %% Photographs with known labels: a folder per data set, under its name. At 1024 px they are the ground truth of SR.
from pathlib import Path
from tempfile import mkdtemp

from deepmtdr.evaluation import Bootstrap, EvaluationConfig, ReportConfig, SampleSelection, evaluate_checkpoints
from deepmtdr.synthetic.drawings import write_drawings

OUT = Path(mkdtemp(prefix="deepmtdr-evaluate-"))
write_drawings(OUT / "data" / "drawings", seeds=range(3))

# %% Score the shipped weights. Each photograph is first reduced to a quarter of the frame, and super-resolved by x4.
runs = evaluate_checkpoints(
    SampleSelection(data=OUT / "data", datasets=("drawings",)),
    config=EvaluationConfig(scale=4, thorough=False, slow_metrics=False, bootstrap=Bootstrap(resamples=200)),
    report=ReportConfig(out=OUT / "evaluation"),
)
(evaluation,) = runs.evaluations

# %% Each score has a 95 % confidence interval. A score that is undefined for these photographs has a note.
for score in evaluation.scores:
    if score.score in ("psnr_fov", "aupr_pooled", "kappa_quadratic", "auc_referable"):
        print(f"{score.task}, {score.subject}, {score.score}: {score.value:.3f} [{score.low:.3f}, {score.high:.3f}]")

# %% One result per photograph, and an HTML page with tables, curves and the worst cases.
for result in evaluation.results:
    print(result.name, "true grade:", result.grade, "probabilities:", [f"{p:.2f}" for p in result.probs])
print(f"open {OUT / 'evaluation' / 'report.html'}")
