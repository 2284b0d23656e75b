"""Grade photographs: from an image file to a grade, lesion maps and evidence.

Run it from a clone: `.venv/bin/python examples/grade.py`. Each `# %%` begins a cell that Jupyter, VS Code and PyCharm
can run on its own.
"""

# %% Load the network. Without an argument: the weights that come with the package.
from pathlib import Path
from tempfile import mkdtemp

import numpy as np

from deepmtdr import ScreeningEngine, map_to_photograph
from deepmtdr.screening.batch import grade_photographs
from deepmtdr.screening.inputs import find_photographs

DRAWINGS = Path(__file__).parent / "drawings"  # drawn by this project; replace it by a folder of your photographs
OUT = Path(mkdtemp(prefix="deepmtdr-grade-"))

engine = ScreeningEngine.load()

# %% Grade one photograph. If it cannot be graded, the report has a status and a message; there is no exception.
report = engine.predict(DRAWINGS / "drawing_3.png")
print(f"status: {report.status} {report.message}")
print(f"grade: {report.grade} ({report.grade_name}), P(referable) = {report.p_referable:.2f}")
print("lesions:", report.counts)
print("reasons for a review by a person:", report.review_reasons)

# %% The maps: NumPy arrays in the HR frame, which shows the field of view of the photograph.
pictures = report.pictures
assert pictures is not None, report.message
print("super-resolved image:", pictures.sr.shape, pictures.sr.dtype)
for code, probability in zip(report.labels.codes, pictures.lesions, strict=True):
    print(f"{report.labels.lesion(code).name}: largest probability {probability.max():.2f}")

# %% Map the evidence back to the pixels of the photograph.
assert report.fov is not None and report.height is not None and report.width is not None
evidence = map_to_photograph(pictures.evidence, report.fov, report.height, report.width)
row, column = np.unravel_index(evidence.argmax(), evidence.shape)
print(f"strongest evidence at row {row}, column {column} of {report.height} x {report.width}")

# %% Grade many photographs (files, folders or globs), and write the files that `deepmtdr grade` writes.
inputs, skipped = find_photographs([DRAWINGS / "*_4.png"], OUT)
for report in grade_photographs(engine, inputs, OUT):
    print(report.path.name, report.status, report.grade, report.grade_name)
print(f"open {OUT / 'drawing_4' / 'summary.png'}")
