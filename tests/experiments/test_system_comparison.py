"""System comparison: minutes of each stage, failures, resumed comparisons, tables."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deepmtdr import training
from deepmtdr.baselines.vgg16 import VGG16
from deepmtdr.errors import DataError, RecipeError, TrainingError, TrainingStopped
from deepmtdr.evaluation import EvaluationConfig, ReportConfig, SampleSelection
from deepmtdr.experiments import system_comparison as module
from deepmtdr.experiments.comparison_tables import comparison_markdown, comparison_tables
from deepmtdr.experiments.system_comparison import compare_systems, limit_minutes
from deepmtdr.files import slug
from deepmtdr.labels import GradeLabel, LabelSet, LesionType
from deepmtdr.recipe import Recipe, load_recipe, to_dict
from deepmtdr.synthetic.drawings import write_drawings
from deepmtdr.systems import SYSTEMS

TINY = (
    'data.datasets=["drawings"]',
    'data.split=""',
    "data.held_out=0.5",
    "data.frame=64",
    "restoration.crop=32",
    "restoration.batch=2",
    "grading.batch=2",
    "model.isr.width=4",
    "model.isr.blocks=1",
    "model.segmentation.width=2",
    "model.grading.width=2",
    "model.grading.hidden=8",
)


def minutes(system: str, *settings: str) -> dict[str, float]:
    recipe = limit_minutes(load_recipe("compared", (*TINY, *settings)), system, 10.0)
    return {stage.name: stage.minutes for stage in recipe.stages if stage.steps}


def test_every_system_has_the_same_minutes_in_total() -> None:
    for system in ("DeepMT-DR", "Wang et al.", "SRCNN", "CE-Net", "ResNet-18", "Lin et al."):
        assert sum(minutes(system).values()) == pytest.approx(10), system
    assert minutes("bicubic") == {}


def test_minutes_go_to_the_stages_that_train_something() -> None:
    assert minutes("DeepMT-DR") == pytest.approx({"restoration": 5.0, "grading": 3.5, "joint": 1.5})
    assert sum(minutes("DeepMT-DR", "joint.steps=0").values()) == pytest.approx(10)
    assert minutes("SRCNN") == {"restoration": 10.0}
    assert minutes("ResNet-18") == {"grading": 10.0}
    assert [*minutes("Lin et al.")] == ["restoration", "grading"]


def test_wide_dense_layers_without_norm_have_the_learning_rate_of_vgg16() -> None:
    recipe = load_recipe("compared", [*TINY, "model.grading.head_norm=false"])
    rates = {
        name: limit_minutes(recipe, name, 10.0).grading.lr_grading for name in ("DeepMT-DR", "Wang et al.", "ResNet-18")
    }
    vgg = recipe.grading.lr_grading * VGG16.learning_rate_factor
    assert rates == {"DeepMT-DR": vgg, "Wang et al.": vgg, "ResNet-18": recipe.grading.lr_grading}


def test_segmenters_and_graders_are_behind_bicubic_interpolation() -> None:
    recipe = load_recipe("compared", TINY)
    assert limit_minutes(recipe, "Inception-v3", 10.0).parts.isr == "bicubic"
    assert limit_minutes(recipe, "MDRN", 10.0).parts.isr == ""


@pytest.mark.slow
def test_systems_are_trained_and_scored_once_and_tabulated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_drawings(tmp_path / "data" / "drawings", range(8), size=80)
    recipe, names = load_recipe("compared", TINY), ["DeepMT-DR", "SRCNN", "ResNet-18"]
    found = compare_systems(recipe, tmp_path / "data", tmp_path / "out", systems=names, minutes=0.02).tables
    by_title = {table.title: [row[0] for row in table.rows] for table in found}
    assert by_title["Table I, grading, drawings"] == ["DeepMT-DR", "ResNet-18"]
    assert by_title["Table III, AP of lesions, image by image, drawings"] == ["DeepMT-DR"]
    assert by_title["Table IV, super-resolution, drawings"] == ["DeepMT-DR", "SRCNN"]
    written = json.loads((tmp_path / "out" / "compared.json").read_text(encoding="utf-8"))
    stages = {name: [stage["ended"] for stage in one["stages"]] for name, one in written["systems"].items()}
    assert stages == {"DeepMT-DR": ["by the clock"] * 3, "SRCNN": ["by the clock"], "ResNet-18": ["by the clock"]}
    assert list(comparison_tables(written["systems"])) == found
    page = (tmp_path / "out" / "compared.md").read_text(encoding="utf-8")
    assert [line.strip("*") for line in page.splitlines() if line.startswith("**Table")] == [t.title for t in found]
    monkeypatch.setattr(training, "run", None)  # the second time nothing is trained
    monkeypatch.setattr(module, "evaluate_folder", None)  # and nothing is scored
    assert compare_systems(recipe, tmp_path / "data", tmp_path / "out", systems=names, minutes=0.02).tables == found


MACHINE = {"device": "cpu", "threads": 1}


def finished(recipe: Recipe, data: Path, out: Path, **_: object) -> Path:
    """Write what the comparison reads of a training, instead of training."""
    out.mkdir(parents=True, exist_ok=True)
    facts = {"recipe": to_dict(recipe), "parameters": {}, "stages": [], "machine": MACHINE, "data": "a split"}
    (out / "run.json").write_text(json.dumps(facts), encoding="utf-8")
    return out / "weights.safetensors"


def write_evaluation(
    report: ReportConfig, scores: list[dict] | None = None, failures: list[dict] | None = None
) -> None:
    assert report.out is not None
    evaluation = {"scores": scores or [], "failures": failures or []}
    (report.out / "evaluation.json").write_text(json.dumps(evaluation), encoding="utf-8")


def no_scores(selection: SampleSelection, weights: Path, *, config: EvaluationConfig, report: ReportConfig) -> None:
    """Write an evaluation without scores, instead of evaluating."""
    write_evaluation(report)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "run", finished)
    monkeypatch.setattr(module, "evaluate_folder", no_scores)
    monkeypatch.setattr(module, "read_datasets", lambda roots, labels: [])


@pytest.mark.usefixtures("quick")
def test_system_trained_with_another_recipe_is_an_error(tmp_path: Path) -> None:
    recipe = load_recipe("compared", TINY)
    compare_systems(recipe, tmp_path, tmp_path, systems=["SRCNN"], minutes=1.0)
    with pytest.raises(RecipeError, match=r"srcnn: trained with another recipe \(restoration.minutes was 1.*, is 10"):
        compare_systems(recipe, tmp_path, tmp_path, systems=["bicubic"], minutes=10.0)


@pytest.mark.usefixtures("quick")
def test_systems_of_later_calls_are_added_to_the_tables(tmp_path: Path) -> None:
    for name in ("SRCNN", "bicubic"):
        compare_systems(load_recipe("compared", TINY), tmp_path, tmp_path, systems=[name])
    written = json.loads((tmp_path / "compared.json").read_text(encoding="utf-8"))
    assert [*written["systems"]] == ["bicubic", "SRCNN"]


@pytest.mark.usefixtures("quick")
def test_system_is_trained_from_imagenet_weights_as_a_row_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts = {}

    def remember(recipe: Recipe, *args: Path, start: training.StartWeights, **_: object) -> Path:
        starts[recipe.name] = (start.segmentation, start.grading, recipe.grading.imagenet_lr_share)
        return finished(recipe, *args)

    monkeypatch.setattr(training, "run", remember)
    recipe = load_recipe("compared", [*TINY, "grading.imagenet_lr_share=0.25"])
    file, form = tmp_path / "weights", "DeepMT-DR, EfficientNet-Lite0"
    files = {"SqueezeNet 1.1": file, form: file, "CE-Net": file}
    compare_systems(recipe, tmp_path, tmp_path, systems=["SqueezeNet 1.1"], imagenet=files)
    assert starts == {
        "SqueezeNet 1.1": (None, None, 1.0),
        "SqueezeNet 1.1, ImageNet": (None, file, 0.25),
        f"{form}, ImageNet": (file, file, 0.25),
        "CE-Net, ImageNet": (file, None, 0.25),
    }
    assert list(json.loads((tmp_path / "compared.json").read_text())["systems"]) == [
        f"{form}, ImageNet",
        "CE-Net, ImageNet",
        "SqueezeNet 1.1",
        "SqueezeNet 1.1, ImageNet",
    ]


@pytest.mark.usefixtures("quick")
def test_scores_outside_the_tables_are_not_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = [{"task": "super-resolution", "subject": "sr", "score": name} for name in ("psnr_fov", "ms_ssim_fov")]

    def evaluate(*_: object, report: ReportConfig, **__: object) -> None:
        cells = [{**score, "dataset": "drive", "value": 30.0, "low": None, "high": None} for score in scores]
        write_evaluation(report, scores=cells)

    monkeypatch.setattr(module, "evaluate_folder", evaluate)
    (table,) = compare_systems(load_recipe("compared", TINY), tmp_path, tmp_path, systems=["bicubic"]).tables
    written = json.loads((tmp_path / "compared.json").read_text(encoding="utf-8"))
    assert [score["score"] for score in written["systems"]["bicubic"]["scores"]] == ["psnr_fov"]
    assert table.rows == [("bicubic", "", "", "30.000", "")]


@pytest.mark.usefixtures("quick")
def test_systems_trained_under_other_conditions_are_an_error(tmp_path: Path) -> None:
    recipe = load_recipe("compared", TINY)
    compare_systems(recipe, tmp_path, tmp_path, systems=["SRCNN"])
    facts = json.loads((tmp_path / "srcnn" / "run.json").read_text(encoding="utf-8"))
    (tmp_path / "srcnn" / "run.json").write_text(json.dumps({**facts, "data": "another split"}), encoding="utf-8")
    with pytest.raises(DataError, match="bicubic and SRCNN were trained with other photographs, labels or splits"):
        compare_systems(recipe, tmp_path, tmp_path, systems=["bicubic"])
    more = {"machine": {**MACHINE, "threads": 2}}
    (tmp_path / "srcnn" / "run.json").write_text(json.dumps({**facts, **more}), encoding="utf-8")
    with pytest.raises(DataError, match="bicubic and SRCNN were trained with other devices or numbers of threads"):
        compare_systems(recipe, tmp_path, tmp_path, systems=["bicubic"])


@pytest.mark.usefixtures("quick")
def test_other_systems_continue_after_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    errors = {"SRCNN": TrainingError("a loss is not finite"), "MDRN": RuntimeError("not enough memory")}

    def run(recipe: Recipe, *rest: Path, **more: object) -> Path:
        if recipe.name in errors:
            raise errors[recipe.name]
        return finished(recipe, *rest, **more)

    monkeypatch.setattr(training, "run", run)
    done = compare_systems(load_recipe("compared", TINY), tmp_path, tmp_path, systems=["SRCNN", "MDRN", "bicubic"])
    assert done.failed == [("SRCNN", "a loss is not finite"), ("MDRN", "RuntimeError: not enough memory")]
    assert "| bicubic |" in (tmp_path / "compared.md").read_text(encoding="utf-8")


@pytest.mark.usefixtures("quick")
def test_photographs_without_scores_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def evaluate(*_: object, report: ReportConfig, **__: object) -> None:
        write_evaluation(report, failures=[{"dataset": "drive", "name": "21", "reason": "a grade is not finite"}])

    monkeypatch.setattr(module, "evaluate_folder", evaluate)
    done = compare_systems(load_recipe("compared", TINY), tmp_path, tmp_path, systems=["bicubic"])
    assert done.failed == [("bicubic", "photographs that were not scored: 1")]


@pytest.mark.usefixtures("quick")
def test_systems_are_scored_at_the_scale_and_precision_of_the_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configs = []

    def evaluate(*_: object, config: EvaluationConfig, report: ReportConfig) -> None:
        configs.append((config.scale, config.bf16))
        write_evaluation(report)

    monkeypatch.setattr(module, "evaluate_folder", evaluate)
    doubled = load_recipe("paper-ddr-512", ['precision="fp32"'])
    compare_systems(doubled, tmp_path, tmp_path / "x2", systems=["bicubic", "SRCNN"])
    compare_systems(load_recipe("compared"), tmp_path, tmp_path / "x4", systems=["bicubic"])
    assert configs == [(2, False), (2, False), (4, True)]


@pytest.mark.parametrize("setting", ["parts.isr=MDRN", "system=U-Net"])
def test_recipe_with_a_system_or_parts_is_an_error(tmp_path: Path, setting: str) -> None:
    with pytest.raises(RecipeError, match="expected neither of them"):
        compare_systems(load_recipe("compared", (*TINY, setting)), tmp_path, tmp_path)


@pytest.mark.usefixtures("quick")
def test_signal_stops_the_comparison(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_: object, **__: object) -> Path:
        raise TrainingStopped("stopped by SIGTERM")

    monkeypatch.setattr(training, "run", run)
    with pytest.raises(TrainingStopped):
        compare_systems(load_recipe("compared", TINY), tmp_path, tmp_path, systems=["SRCNN", "bicubic"])
    assert not (tmp_path / "compared.md").exists()


def test_unknown_system_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=f"system 'ResNet-19', expected one of '{SYSTEMS[0]}', "):
        compare_systems(load_recipe("compared", TINY), tmp_path, tmp_path, systems=["ResNet-19"])


def test_cell_has_the_value_of_its_subject_and_score_with_the_interval() -> None:
    score = {"task": "lesions", "dataset": "d", "score": "ap_per_image", "low": 0.1, "high": 0.3}
    scores = [{**score, "subject": "MA", "value": 0.2}, {**score, "subject": "mean", "value": None}]
    scores.append({**score, "subject": "MA", "score": "iou_per_image", "value": 0.9})
    found = {"U-Net": {"scores": scores, "parameters": {}, "stages": []}, "ResNet-18": {"scores": []}}
    ap = next(
        table for table in comparison_tables(found) if table.title == "Table III, AP of lesions, image by image, d"
    )
    assert ap.columns == ("system", "MA", "HE", "EX", "SE", "mean")
    assert ap.rows == [("U-Net", "0.200 [0.100, 0.300]", "", "", "", "undefined")]


@pytest.mark.parametrize(("sets", "shown"), [(("d", "all"), ["d"]), (("d", "e", "all"), ["d", "e"])])
def test_one_data_set_is_not_repeated_as_all(sets: tuple[str, ...], shown: list[str]) -> None:
    score = {"task": "grading", "subject": "grade", "score": "accuracy", "value": 0.5, "low": None, "high": None}
    scores = [{**score, "dataset": name} for name in sets]
    assert [table.title for table in comparison_tables({"CKML": {"scores": scores}})] == [
        f"Table I, grading, {n}" for n in shown
    ]


def test_images_of_all_data_sets_are_shown_together() -> None:
    score = {"task": "super-resolution", "subject": "sr", "score": "psnr_fov", "value": 40.0, "low": None, "high": None}
    scores = [{**score, "dataset": name} for name in ("d", "e", "all")]
    titles = [table.title for table in comparison_tables({"SRCNN": {"scores": scores}})]
    assert titles == [f"Table IV, super-resolution, {name}" for name in ("d", "e", "all")]


def test_graders_are_ranked_by_the_mean_kappa_over_the_data_sets() -> None:
    def scores(*values: float | None) -> dict:
        row = {"task": "grading", "subject": "grade", "score": "kappa_quadratic", "low": None, "high": None}
        sets = ("d", "e", "mean over sets")
        return {"scores": [{**row, "dataset": name, "value": v} for name, v in zip(sets, values, strict=True)]}

    found = {"CKML": scores(0.9, 0.1, 0.5), "U-Net": {"scores": []}, "VNXK": scores(0.6, 0.6, 0.6)}
    tables = list(comparison_tables({**found, "ResNet-18": scores(0.5, None, None)}))
    assert [[row[0] for row in table.rows] for table in tables] == [["VNXK", "CKML", "ResNet-18"]] * 3


def test_markdown_has_the_steps_of_each_stage() -> None:
    stages = [{"stage": "grading", "steps": 120, "read": 904}]
    one = {
        "scores": [],
        "failed": 2,
        "parameters": {"isr": 0, "grading": 10323119},
        "stages": stages,
        "machine": MACHINE,
    }
    text = comparison_markdown(10.0, {"CKML": one})
    assert "| CKML | 10,323,119 | 904 |  | 120 |  |" in text
    assert "Training of each system in 10 minutes (cpu, threads: 1)" in text
    assert "Photographs of CKML that could not be scored: 2." in text


def test_lesion_columns_follow_the_label_set() -> None:
    labels = LabelSet(
        name="drusen",
        disease="macular degeneration",
        lesions=(LesionType(code="DR", name="drusen"), LesionType(code="GA", name="atrophies")),
        grades=tuple(GradeLabel(name=f"{n}") for n in range(3)),
    )
    score = {"task": "lesions", "dataset": "d", "score": "ap_per_image", "low": None, "high": None}
    scores = [{**score, "subject": code, "value": value} for code, value in (("DR", 0.2), ("MA", 0.9))]
    (table, *_) = (t for t in comparison_tables({"U-Net": {"scores": scores}}, labels) if "AP of lesions" in t.title)
    assert (table.columns, table.rows) == (("system", "DR", "GA", "mean"), [("U-Net", "0.200", "", "")])


def test_folders_of_the_systems_are_plain_and_unique() -> None:
    names = [slug(system) for system in SYSTEMS]
    assert len(set(names)) == len(SYSTEMS)
    assert {"deepmt-dr", "wang-et-al", "vgg-16-+-spp"} <= set(names)
