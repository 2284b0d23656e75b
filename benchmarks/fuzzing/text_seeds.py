"""Sound tables, TOML files and checkpoints from which fuzzing starts."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

from deepmtdr import checkpoint
from deepmtdr.datasets.manifest import ManifestRow, format_manifest
from deepmtdr.labels import DIABETIC_RETINOPATHY
from deepmtdr.model.deepmtdr import DeepMTDR, ModelConfig
from deepmtdr.model.grading import GradingConfig
from deepmtdr.model.isr import ISRConfig
from deepmtdr.model.segmentation import SegmentationConfig
from deepmtdr.photographs.geometry import FieldOfView, InputScale
from deepmtdr.recipe import DataRecipe, Recipe, list_recipes
from deepmtdr.screening.report import ScreeningReport
from deepmtdr.service.settings_file import example_settings
from deepmtdr.terms import ReferralThreshold

NAMES = ("1000_left", "1000_right")
"""Photographs of which there are empty files beside the tables."""

_TABLES = (
    "name,grade,patient,dataset,predicted_grade,p0,p1,p2,p3,p4,status\n{0},2,a,d,2,0.1,0.2,0.4,0.2,0.1,graded\n{1},NA,b,d,,,,,,,error\n",
    "name,grade,p_positive\n{0},negative,0.25\n{1},positive,.75\n",
    "image,level,Usage\n{0},2,Public\n{1},2.0,Private\n",
    "image_id,adjudicated_dr_grade,adjudicated_dme,adjudicated_gradable\n{0}.png,2,0,1\n{1}.png,,,0\n",
    "left;right\n{0}.png;{1}.png\n",
    "stage,step,term,value,score\njoint,1,loss,0.5,a\njoint,2,loss,nan,b\n",
    "dataset,name,patient,grade,split\nidrid,{0},p1,2,train\nidrid,{1},p2,,test\n",
    "path,patient,eye,grade,side,MA,EX+SE\n{0}.png,p,OS,2.0,train,none,\n{1}.png,'=p,R,ungradable,,,none\n",
    "path,folder,sha256,status,grade\n/a/{0}.png,{0},00,graded,1\n/a/{1}.png,{1},00,error,\n",
    "image,label,patient,eye\n{0}.png,negative,p,L\n{1}.png,positive,p,R\n",
    "photograph,patient,eye,grade,note,exudates,other_bright,microaneurysms,haemorrhages\n"
    "{0}.png,p,L,2,,1,0,0,2\n{1}.png,p,R,,advanced diabetic eye disease,0,0,0,0\n",
    "image,redsmalldots,hemorrhages,hardexudates,softexudates,neovascularisation\n{0},1,0,0.0,1,0\n{1},0,0,0,0,1.0\n",
)

_LABEL_SET = """
name = "glaucoma"
disease = "glaucoma"
coding = ["SCT", "23986001", "Glaucoma"]
lesions = [{ code = "NV", name = "notches", colour = [1, 2, 3], coding = ["SCT", "1", "Notch"], froc = true }]
grades = [{ name = "none" }, { name = "early" }, { name = "late", condition = ["SCT", "2", "Late"] }]
thresholds = { any = 1, referable = 2 }
"""
_CODES = """
[grade]
2 = ["SCT", "312904009", "Moderate"]
[system]
"99LOCAL" = "urn:oid:1.2.3"
[lesion]
MA = ["99LOCAL", "ma", "Microaneurysm"]
"""


def tables() -> Iterator[bytes]:
    """A sound table for each reader."""
    for text in _TABLES:
        yield text.format(*NAMES).encode()
    row = ManifestRow(
        name=NAMES[0], dataset="idrid", status="ok", source="a.png", patient="p", grade=2, areas={"MA": 0.5}
    )
    yield format_manifest([row]).encode()


def recipes() -> Iterator[bytes]:
    """The shipped recipes, and one with a label set."""
    folder = files("deepmtdr") / "recipes"
    yield from ((folder / f"{name}.toml").read_bytes() for name in list_recipes())
    yield _LABEL_SET.replace("\n", "\nlabels.", 6).replace("labels.\n", "\n").encode() + b"\nseed = 3\n"


def label_sets() -> Iterator[bytes]:
    """A label set, and a site's file of codes."""
    yield _LABEL_SET.encode()
    yield _CODES.encode()


def settings() -> Iterator[bytes]:
    """The example of the service, as it is and with every setting."""
    text = example_settings()
    yield text.encode()
    yield re.sub(r"(?m)^# (?=[a-z_]+ = |\[)", "", text).encode()


def reports() -> Iterator[bytes]:
    """Reports of a graded and of a refused photograph, settings of a run, and settings of a prepared set."""
    graded = ScreeningReport(
        path=Path("a.png"),
        status="ok",
        sha256="00",
        quality=0.5,
        grade=2,
        probabilities=(0.1, 0.1, 0.5, 0.2, 0.1),
        grade_thresholds=(0.5, 1.5, 2.5, 3.5),
        operating_point=ReferralThreshold(0.9, 0.3),
        counts=dict.fromkeys(DIABETIC_RETINOPATHY.codes, 1),
        areas=dict.fromkeys(DIABETIC_RETINOPATHY.codes, 0.5),
        width=300,
        height=300,
        fov=FieldOfView(1, 2, 298),
        way=InputScale(64, 2),
    )
    for report in (graded, ScreeningReport(path=Path("b.png"), status="error", message="b.png: damaged")):
        yield json.dumps(report.to_json()).encode()
    yield b'{"weights": "tiny", "grades": [0, 1]}'
    yield b'{"form": 3, "size": 64, "scale": 4, "labels": {"name": "a", "disease": "b", "lesions": [], "grades": []}}'


def checkpoints() -> Iterator[bytes]:
    """A tiny network, with a calibrated card and a label set of its own."""
    model = ModelConfig(
        isr=ISRConfig(width=2, blocks=1),
        segmentation=SegmentationConfig(width=2),
        grading=GradingConfig(width=2, hidden=4),
    )
    recipe = Recipe(name="tiny", data=DataRecipe(frame=128), model=model, labels=DIABETIC_RETINOPATHY)
    calibration = {
        "temperature": 1.5,
        "biases": [0.0, 0.1, 0.2, 0.1, 0.0],
        "grade_thresholds": [0.5, 1.5, 2.5, 3.5],
        "operating_points": {"referable": [{"wanted": 0.9, "threshold": 0.3}]},
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tiny.safetensors"
        checkpoint.save(path, DeepMTDR(recipe.model), recipe, half=True, weights="tiny", calibration=calibration)
        yield path.read_bytes()
