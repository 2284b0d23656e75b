"""Ablation study: shared first stages, failures, resumed studies, paired differences, tables."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from deepmtdr import training
from deepmtdr.checkpoint import read
from deepmtdr.errors import DataError, RecipeError, TrainingError, TrainingStopped
from deepmtdr.evaluation import EvaluationConfig, ReportConfig, SampleSelection
from deepmtdr.evaluation.photograph_result import LesionResult, PhotographResult
from deepmtdr.evaluation.scores import Bootstrap
from deepmtdr.experiments import ablation_study as module
from deepmtdr.experiments.ablation_study import ArmFailure, run_ablation_study
from deepmtdr.experiments.ablations import ABLATIONS
from deepmtdr.experiments.study_arms import ARMS, GRADIENT_LIMITS, USED_LOSSES, plan_arm
from deepmtdr.experiments.study_runs import read_photographs, write_photographs
from deepmtdr.experiments.study_scores import JOINT, StudyRuns, StudyScore, StudyScorer
from deepmtdr.experiments.study_tables import study_tables
from deepmtdr.losses import LossWeights
from deepmtdr.metrics import PooledCurve
from deepmtdr.model.deepmtdr import DeepMTDR
from deepmtdr.recipe import Recipe, load_recipe, to_dict
from deepmtdr.synthetic.drawings import write_drawings
from deepmtdr.training.batches import Batch, GradingBatch
from deepmtdr.training.step_losses import grading_losses, restoration_losses
from segmenter_checks import randomise_lesion_maps
from tiny_runs import small_recipe

PAPER = "model.segmentation.width=2"  # `smoke` has the paper's subnets
FEW = Bootstrap(resamples=20)
FROM_THE_START = {
    "without-isr",
    "without-segmentation",
    "with-scale-2",
    "with-supervision-75",
    "with-supervision-50",
    "with-supervision-25",
    "without-grading",
    "loss-eq10",
    "loss-cross-entropy",
    "without-head-norm",
}


@pytest.fixture
def recipe() -> Recipe:
    """A recipe like the shipped one: Eq. (4) has no weight in the first stages."""
    return load_recipe("smoke", [PAPER, "restoration.loss.lambda_sa=0"])


# --- The arms ---


def test_arms_that_change_only_the_joint_stage_start_from_the_weights_of_stage_1(recipe: Recipe) -> None:
    arms = {name: plan_arm(recipe, name, 3) for name in ABLATIONS}
    assert {name for name, arm in arms.items() if not arm.from_stage_1} == FROM_THE_START
    steps = {name: [stage.steps for stage in arm.recipe.stages] for name, arm in arms.items()}
    assert {name for name, own in steps.items() if own == [0, 0, 2]} == ABLATIONS.keys() - FROM_THE_START
    assert {arm.recipe.seed for arm in arms.values()} == {3}


def test_loss_with_a_weight_in_the_first_stages_is_not_shared() -> None:
    recipe = load_recipe("smoke", [PAPER, "restoration.loss.lambda_sa=0.4"])
    assert not plan_arm(recipe, "without-segmentation-aware-loss", 0).from_stage_1
    assert plan_arm(recipe, "without-classification-aware-loss", 0).from_stage_1


OTHER_VALUES = {
    field.name: value + 0.25
    for field in dataclasses.fields(LossWeights)
    if isinstance(value := getattr(LossWeights(), field.name), float)
} | {"grading_form": "eq10", "class_weights": (1.0, 2.0, 3.0, 4.0, 5.0), "project_conflicts": True}


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(LossWeights)])
def test_loss_settings_of_the_first_stages_are_those_with_an_effect(name: str) -> None:
    torch.manual_seed(0)
    model = DeepMTDR(small_recipe().model).eval()
    randomise_lesion_maps(model)
    hr, known = torch.rand(2, 3, 32, 32), torch.ones(2, dtype=torch.bool)
    masks, grade = (torch.rand(2, 4, 32, 32) > 0.9).float(), torch.tensor([2, 4])
    crops = Batch(hr, hr, masks, known[:, None].expand(2, 4), grade, known)
    cached = GradingBatch(hr - 0.5, masks, grade)
    weights = (LossWeights(), dataclasses.replace(LossWeights(), **{name: OTHER_VALUES[name]}))
    for stage, found in {
        "restoration": [restoration_losses(model, crops, 4, own) for own in weights],
        "grading": [grading_losses(model, cached, own) for own in weights],
    }.items():
        limits = [
            (step.isr_terms.share, step.isr_terms.project_conflicts) for step in found if step.isr_terms is not None
        ]
        sums = [tuple(float(loss.detach()) for loss in step[:3]) for step in found]
        has_effect = sums[0] != sums[1] or len(set(limits)) > 1
        assert has_effect == (name in USED_LOSSES[stage] or (stage == "restoration" and name in GRADIENT_LIMITS))


def test_stage_1_and_joint_are_the_two_parts_of_the_recipe(recipe: Recipe) -> None:
    first, joint = plan_arm(recipe, "stage-1", 0), plan_arm(recipe, JOINT, 0)
    assert [[stage.steps for stage in arm.recipe.stages] for arm in (first, joint)] == [[3, 3, 0], [0, 0, 2]]
    assert (first.from_stage_1, joint.from_stage_1) == (False, True)
    assert joint.recipe.joint == recipe.joint and first.recipe.restoration == recipe.restoration


def test_arm_is_scored_at_the_scale_of_its_training(recipe: Recipe) -> None:
    assert {name: plan_arm(recipe, name, 0).scale for name in ("stage-1", JOINT, "with-scale-2")} == {
        "stage-1": 4,
        JOINT: 4,
        "with-scale-2": 2,
    }


@pytest.mark.parametrize(
    ("settings", "name", "message"),
    [
        ((), "without-everything", "unknown ablation 'without-everything', expected one of without-isr, "),
        (("joint.end_to_end=true",), "end-to-end", "the ablation end-to-end changes nothing in recipe smoke"),
        (('system="DeepMT-DR, EfficientNet-Lite0"',), "without-head-norm", "without-head-norm changes nothing"),
        (("joint.steps=0",), "separate", "joint.steps = 0, expected a joint stage"),
    ],
)
def test_study_without_a_difference_is_an_error(
    settings: Sequence[str], name: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=message):
        run_ablation_study(load_recipe("smoke", settings), tmp_path, tmp_path, ablations=[name])


# --- Training, scoring, resuming ---


def photograph(name: str, grade: int = 0, predicted: int = 0, psnr: float = 30.0, **more: object) -> PhotographResult:
    probs = tuple(float(other == predicted) for other in range(5))
    image = {f"psnr_{place}_sr": psnr for place in ("whole", "fov", "fov_eroded")}
    values = {"dataset": "d", "name": name, "patient": name, "grade": grade, "probs": probs, "image": image, **more}
    return PhotographResult(**values)  # pyright: ignore[reportArgumentType]


class FakeTraining:
    """Writes the files of trainings and evaluations that the study reads."""

    def __init__(self) -> None:
        self.trained: dict[str, tuple[training.StartWeights, bool, Path | None]] = {}
        self.evaluated: dict[str, EvaluationConfig] = {}
        self.errors: dict[str, Exception] = {}
        self.results = [photograph("a"), photograph("b", 2, 2)]

    def run(
        self,
        recipe: Recipe,
        data: Path,
        out: Path,
        *,
        resume: bool,
        start: training.StartWeights,
        cache: Path | None,
    ) -> Path:
        name = f"{out.parent.name}/{out.name}"
        if name in self.errors:
            raise self.errors[name]
        self.trained[name] = (start, resume, cache)
        out.mkdir(parents=True, exist_ok=True)
        (out / "run.json").write_text(json.dumps({"recipe": to_dict(recipe)}), encoding="utf-8")
        return out / "weights.safetensors"

    def evaluate(
        self, selection: SampleSelection, weights: Path, *, config: EvaluationConfig, report: ReportConfig
    ) -> SimpleNamespace:
        assert report.out is not None and report.out == weights.parent
        assert selection.split_file == report.out / "split.csv" and selection.split == "test"
        self.evaluated[f"{report.out.parent.name}/{report.out.name}"] = config
        return SimpleNamespace(results=self.results)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeTraining:
    found = FakeTraining()
    monkeypatch.setattr(training, "run", found.run)
    monkeypatch.setattr(module, "evaluate_folder", found.evaluate)
    monkeypatch.setattr(module, "read_datasets", lambda roots, labels: [])
    monkeypatch.setattr(module, "StudyScorer", lambda labels, _bootstrap: StudyScorer(labels, FEW))
    return found


def test_stage_1_is_trained_once_per_seed_and_shared(fake: FakeTraining, recipe: Recipe, tmp_path: Path) -> None:
    start = training.StartWeights(segmentation=tmp_path / "s", grading=tmp_path / "g")
    names = ["separate", "without-isr"]
    done = run_ablation_study(recipe, tmp_path, tmp_path, ablations=names, seeds=[0, 7], start=start)
    assert not done.failed
    expected = {}
    for seed in (0, 7):
        shared = training.StartWeights(checkpoint=tmp_path / f"seed-{seed}" / "stage-1" / "weights.safetensors")
        arms = {"stage-1": start, "joint": shared, "without-isr": start, "separate": shared}
        expected |= {f"seed-{seed}/{arm}": (own, False, tmp_path / "prepared") for arm, own in arms.items()}
    assert fake.trained == expected and [*fake.trained] == [*expected]
    configs = {(config.scale, config.thorough, config.slow_metrics) for config in fake.evaluated.values()}
    assert configs == {(4, False, False)}


def test_finished_runs_are_neither_trained_nor_scored_again(fake: FakeTraining, recipe: Recipe, tmp_path: Path) -> None:
    first = run_ablation_study(recipe, tmp_path, tmp_path, ablations=["separate"])
    fake.trained.clear()
    fake.evaluated.clear()
    again = run_ablation_study(recipe, tmp_path, tmp_path, ablations=["separate"])
    assert again.tables == first.tables and not fake.trained and not fake.evaluated
    (tmp_path / "seed-0" / "separate" / "photographs.npz").unlink()
    run_ablation_study(recipe, tmp_path, tmp_path, ablations=["separate"])
    assert not fake.trained and [*fake.evaluated] == ["seed-0/separate"]


def test_stopped_run_is_resumed(fake: FakeTraining, recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "seed-0" / "joint").mkdir(parents=True)
    (tmp_path / "seed-0" / "joint" / "resume.safetensors").touch()
    run_ablation_study(recipe, tmp_path, tmp_path)
    assert {name: resume for name, (_, resume, _) in fake.trained.items()} == {
        "seed-0/stage-1": False,
        "seed-0/joint": True,
    }


def test_runs_of_earlier_calls_stay_in_the_tables(fake: FakeTraining, recipe: Recipe, tmp_path: Path) -> None:
    run_ablation_study(recipe, tmp_path, tmp_path, ablations=["separate"], seeds=[1])
    run_ablation_study(recipe, tmp_path, tmp_path, ablations=["end-to-end"], seeds=[0])
    written = json.loads((tmp_path / "study.json").read_text(encoding="utf-8"))
    assert written["finished"] == {"stage-1": [0, 1], "joint": [0, 1], "separate": [1], "end-to-end": [0]}


def test_run_with_another_recipe_is_an_error(fake: FakeTraining, recipe: Recipe, tmp_path: Path) -> None:
    run_ablation_study(recipe, tmp_path, tmp_path, ablations=["separate"])
    other = dataclasses.replace(recipe, joint=dataclasses.replace(recipe.joint, steps=9))
    with pytest.raises(RecipeError, match=r"joint: trained with another recipe \(joint.steps was 2, is 9\)"):
        run_ablation_study(other, tmp_path, tmp_path)


def test_failed_run_does_not_stop_the_others(fake: FakeTraining, recipe: Recipe, tmp_path: Path) -> None:
    fake.errors = {"seed-0/joint": TrainingError("a loss is not finite"), "seed-0/separate": RuntimeError("memory")}
    done = run_ablation_study(recipe, tmp_path, tmp_path, ablations=["separate", "end-to-end"])
    expected = [("joint", 0, "a loss is not finite"), ("separate", 0, "RuntimeError: memory")]
    assert done.failed == expected
    assert [row[0] for row in done.tables[0].rows] == ["stage-1", "end-to-end"]
    assert "joint, seed 0: a loss is not finite" in (tmp_path / "study.md").read_text(encoding="utf-8")


def test_without_stage_1_only_runs_from_the_start_are_trained(
    fake: FakeTraining, recipe: Recipe, tmp_path: Path
) -> None:
    fake.errors = {"seed-0/stage-1": TrainingError("a loss is not finite")}
    done = run_ablation_study(recipe, tmp_path, tmp_path, ablations=["without-isr"])
    assert [*fake.trained] == ["seed-0/without-isr"]
    reason = "not trained: the arm stage-1 of this seed failed, from whose weights it starts"
    assert done.failed == [("stage-1", 0, "a loss is not finite"), ("joint", 0, reason)]


def test_signal_stops_the_study_with_the_tables_so_far(fake: FakeTraining, recipe: Recipe, tmp_path: Path) -> None:
    fake.errors = {"seed-0/joint": TrainingStopped("stopped by SIGTERM")}
    with pytest.raises(TrainingStopped):
        run_ablation_study(recipe, tmp_path, tmp_path)
    assert json.loads((tmp_path / "study.json").read_text(encoding="utf-8"))["finished"] == {"stage-1": [0]}


def test_photographs_without_scores_are_counted(fake: FakeTraining, recipe: Recipe, tmp_path: Path) -> None:
    fake.results = [*fake.results, PhotographResult(dataset="d", name="c", patient="c", failure="damaged")]
    done = run_ablation_study(recipe, tmp_path, tmp_path)
    assert done.failed == [ArmFailure(arm, 0, "photographs that were not scored: 1") for arm in ("stage-1", "joint")]


def test_runs_with_other_photographs_are_an_error(fake: FakeTraining, recipe: Recipe, tmp_path: Path) -> None:
    run_ablation_study(recipe, tmp_path, tmp_path)
    fake.results = [photograph("a")]
    with pytest.raises(DataError, match="lacks 1 photographs"):
        run_ablation_study(recipe, tmp_path, tmp_path, ablations=["separate"])


# --- Scores and tables ---


def lesion(*counts: tuple[float, int, int]) -> LesionResult:
    """A result with pixel counts: probability, positive pixels, negative pixels."""
    curve = PooledCurve()
    curve.values = np.array([count[0] for count in counts], np.float32)
    curve.positives, curve.negatives = (np.array([count[i] for count in counts], np.int64) for i in (1, 2))
    return LesionResult(0.5, 0.5, 0.1, 0.5, 0.5, curve)


def scores_of(runs: StudyRuns) -> dict[tuple[str, str, str, str], StudyScore]:
    found = StudyScorer().scores(runs)
    return {(score.arm, score.dataset, score.subject, score.score): score for score in found}


def images(*values: float) -> list[PhotographResult]:
    return [photograph(f"p{number}", psnr=float(value)) for number, value in enumerate(values)]


def test_difference_to_joint_is_the_mean_over_the_common_seeds() -> None:
    runs = {JOINT: {0: images(30, 32), 1: images(31, 33)}, "separate": {0: images(29, 30), 1: images(30, 31)}}
    found = scores_of({**runs, "end-to-end": {0: images(30, 32), 2: images(90, 90)}})
    separate = found["separate", "d", "sr", "psnr_whole"]
    assert separate.values == {0: 29.5, 1: 30.5} and separate.mean == 30.0
    assert separate.difference is not None and separate.difference.value == pytest.approx(-1.5)
    assert found["end-to-end", "d", "sr", "psnr_whole"].difference == (0, 0, 0, 1)
    assert found[JOINT, "d", "sr", "psnr_whole"].difference is None


def test_interval_draws_the_same_patients_for_both_arms_and_all_seeds() -> None:
    generator = np.random.default_rng(0)
    spread = generator.normal(30, 5, 40)
    joint = {seed: images(*(spread + seed)) for seed in (0, 1)}
    other = {seed: images(*(spread + seed - 0.25 - 0.01 * (np.arange(40) % 2))) for seed in (0, 1)}
    found = scores_of({JOINT: joint, "separate": other})["separate", "d", "sr", "psnr_fov"]
    assert found.difference is not None and found.differs
    assert -0.261 < found.difference.low < found.difference.value < found.difference.high < -0.249


def test_interval_with_0_is_not_marked() -> None:
    found = scores_of({JOINT: {0: images(30, 31, 32, 33)}, "separate": {0: images(31, 30, 33, 32)}})
    assert not found["separate", "d", "sr", "psnr_fov"].differs


def test_photographs_that_one_arm_lacks_do_not_count_in_the_difference() -> None:
    failed = PhotographResult(dataset="d", name="p1", patient="p1", failure="not finite")
    found = scores_of({JOINT: {0: images(30, 40)}, "separate": {0: [*images(29), failed]}})
    score = found["separate", "d", "sr", "psnr_whole"]
    assert (score.photographs, score.difference and score.difference.value) == (1, pytest.approx(-1))


def test_grades_are_scored_within_each_data_set() -> None:
    grades = [photograph(str(n), n % 3, n % 3, dataset=dataset) for dataset in ("d", "e") for n in range(6)]
    worse = [dataclasses.replace(m, probs=(1.0, 0.0, 0.0, 0.0, 0.0)) if m.dataset == "e" else m for m in grades]
    found = scores_of({JOINT: {0: grades}, "separate": {0: worse}})
    kappas = {key[:2]: score.mean for key, score in found.items() if key[3] == "kappa_quadratic"}
    assert kappas == {(JOINT, "d"): 1, (JOINT, "e"): 1, ("separate", "d"): 1, ("separate", "e"): 0}
    assert {key[1] for key in found if key[3] == "auc_referable"} == {"d", "e"}
    assert {key[1] for key in found if key[3] == "psnr_whole"} == {"d", "e", "all"}


def test_pooled_aupr_of_types_mean_and_union_by_hand() -> None:
    right, half = lesion((0.1, 0, 8), (0.9, 2, 0)), lesion((0.1, 1, 8), (0.9, 1, 0))
    wrong = lesion((0.5, 2, 2))
    joint = photograph("a", lesions={"MA": right, "HE": right, "EX": right, "SE": wrong, "EX+SE": right})
    other = dataclasses.replace(joint, lesions={**joint.lesions, "MA": half, "EX+SE": wrong})
    found = scores_of({JOINT: {0: [joint]}, "separate": {0: [other]}})
    auprs = {key[2]: score.mean for key, score in found.items() if key[0] == "separate" and key[3] == "aupr_pooled"}
    assert auprs == pytest.approx({"MA": 0.6, "HE": 1, "EX": 1, "SE": 0.5, "mean": 0.775, "EX+SE": 0.5})
    mean = found["separate", "d", "mean", "aupr_pooled"].difference
    assert mean is not None and mean.value == pytest.approx(-0.1)


def test_photographs_survive_their_file(tmp_path: Path) -> None:
    failed = PhotographResult(dataset="d", name="b", patient="q", failure="damaged")
    scored = photograph("a", 2, 3, lesions={"MA": lesion((0.25, 1, 8), (0.875, 3, 0))}, decided_grade=2)
    write_photographs(tmp_path / "photographs.npz", [scored, failed])
    found = read_photographs(tmp_path / "photographs.npz")
    assert [dataclasses.replace(m, lesions={}) for m in found] == [dataclasses.replace(scored, lesions={}), failed]
    was, now = scored.lesions["MA"].counts, found[0].lesions["MA"].counts
    for name in ("values", "positives", "negatives"):
        assert np.array_equal(getattr(was, name), getattr(now, name))
        assert getattr(was, name).dtype == getattr(now, name).dtype


def test_cell_has_mean_range_and_marked_difference() -> None:
    spread = np.linspace(20, 40, 30)
    joint = {seed: images(*(spread + seed)) for seed in (0, 1)}
    other = {seed: images(*(spread + seed - 0.5)) for seed in (0, 1)}
    scores = StudyScorer().scores({"stage-1": {0: images(*spread)}, JOINT: joint, "separate": other})
    (table,) = (table for table in study_tables(scores, ARMS) if table.title.startswith("super-resolution"))
    assert table.title == "super-resolution, d (30 photographs, 30 patients)"
    assert table.columns == ("arm", "psnr_whole", "psnr_fov", "psnr_fov_eroded")
    assert [row[:2] for row in table.rows] == [
        ("stage-1", "30.000; +0.000 [+0.000, +0.000]"),
        ("joint", "30.500 (30.000 to 31.000)"),
        ("separate", "30.000 (29.500 to 30.500); -0.500 [-0.500, -0.500] *"),
    ]


@pytest.mark.slow
def test_drawings_are_trained_scored_and_tabulated(tmp_path: Path) -> None:
    write_drawings(tmp_path / "data" / "drawings", range(8), size=80)
    recipe = small_recipe('data.datasets=["drawings"]', "data.held_out=0.5")
    names = ["without-segmentation", "with-grad-cam", "separate"]
    done = run_ablation_study(recipe, tmp_path / "data", tmp_path / "out", ablations=names, bootstrap=FEW)
    assert not done.failed
    rows = {table.title.split(",")[0]: [row[0] for row in table.rows] for table in done.tables}
    arms = ["stage-1", "joint", "without-segmentation", "with-grad-cam", "separate"]
    assert rows == {
        "grading": arms,
        "lesions": [arm for arm in arms if arm != "without-segmentation"],
        "super-resolution": arms,
    }
    first, separate = (read(tmp_path / "out" / "seed-0" / arm / "weights.safetensors")[0] for arm in arms[::4])
    assert first.keys() == separate.keys() and any(not torch.equal(first[name], separate[name]) for name in first)
    again = run_ablation_study(recipe, tmp_path / "data", tmp_path / "out", bootstrap=FEW)  # nothing is trained
    assert again.tables == done.tables
