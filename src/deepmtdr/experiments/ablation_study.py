"""Does joint learning help? Compare a recipe with its first stages alone and with its ablations (Fig. 10, Table V).

All arms have the same photographs, steps and seeds. Arms that change only the joint stage start from the same weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from deepmtdr import training
from deepmtdr.datasets.catalogue import read_datasets
from deepmtdr.errors import RecipeError
from deepmtdr.evaluation import EvaluationConfig, PhotographResult, ReportConfig, SampleSelection, evaluate_folder
from deepmtdr.evaluation.pairing import pair_results
from deepmtdr.evaluation.scores import DEFAULT_BOOTSTRAP, Bootstrap
from deepmtdr.experiments.study_arms import ARMS, STAGE_1, Arm, check_names, find_earlier_arms, plan_arm
from deepmtdr.experiments.study_runs import PHOTOGRAPHS_FILE, read_photographs, write_photographs
from deepmtdr.experiments.study_scores import JOINT, StudyScore, StudyScorer
from deepmtdr.experiments.study_tables import study_markdown, study_tables
from deepmtdr.experiments.system_comparison import check_same_recipe, evaluation_scale
from deepmtdr.experiments.training_runs import (
    NO_WEIGHTS,
    WEIGHTS_FILE,
    RunFailedError,
    describe_failure,
    train_unless_finished,
)
from deepmtdr.files import make_folder, write_atomically, write_json
from deepmtdr.model.precision import resolve_precision
from deepmtdr.recipe import Recipe
from deepmtdr.rendering.html import Table
from deepmtdr.training.report import RUN_FILE


class ArmFailure(NamedTuple):
    """An arm without scores, or with photographs that could not be scored."""

    arm: str
    seed: int
    reason: str


class AblationStudy(NamedTuple):
    """Result of `run_ablation_study`."""

    scores: list[StudyScore]
    """Every score of every arm, with its difference to `JOINT`."""
    tables: list[Table]
    """A table for each task and data set, with a row for each arm."""
    failed: list[ArmFailure]


def run_ablation_study(
    recipe: Recipe,
    data: Path,
    out: Path,
    *,
    ablations: Sequence[str] = (),
    seeds: Sequence[int] = (0,),
    start: training.StartWeights = NO_WEIGHTS,
    bootstrap: Bootstrap = DEFAULT_BOOTSTRAP,
) -> AblationStudy:
    """Train and score the recipe, its first stages alone and its ablations; a stopped study continues where it was.

    The tables are written after each run, from all finished runs in the folder. If one run fails, the others continue.

    Args:
        recipe: the recipe of the arm `JOINT`.
        data: folder with a folder for each data set.
        out: folder for `seed-N/ARM` with each run, the shared prepared photographs, `study.json`, and the tables in
            `study.md`.
        ablations: names of `ABLATIONS`.
        seeds: seeds of the runs; each arm is trained with each of them.
        start: weights that runs start from if they are trained from the start, such as ImageNet weights.
        bootstrap: how intervals are computed.

    Returns:
        The scores of all finished runs, and the runs that failed.

    Raises:
        RecipeError: if an ablation is unknown or changes nothing in this recipe, there is no seed or no joint stage, or
            a run in the folder was trained with another recipe.
        DataError: if a data set has errors, or the runs were scored on different photographs.
        TrainingStopped: if a signal stopped the training.
    """
    check_names(recipe, ablations, seeds)
    names = [name for name in ARMS if name in (STAGE_1, JOINT, *ablations)]
    arms = [plan_arm(recipe, name, seed) for seed in seeds for name in names]
    earlier = [*find_earlier_arms(recipe, out, {(arm.name, arm.seed) for arm in arms})]
    for arm in (*arms, *earlier):
        check_same_recipe(arm.recipe, arm.folder(out))
    read_datasets({name: data / name for name in recipe.data.datasets}, recipe.labels)  # an error here concerns all
    study = StudyFolder(recipe, out, bootstrap)
    for arm in earlier:
        study.add(arm)
    for arm in arms:
        study.run(arm, data, start)
        study.write()
    return study.result()


class StudyFolder:
    """The folder of a study: trains and scores runs, and writes the tables of the finished ones."""

    def __init__(self, recipe: Recipe, out: Path, bootstrap: Bootstrap = DEFAULT_BOOTSTRAP) -> None:
        """Start without runs; see `run_ablation_study`."""
        self.recipe = recipe
        self.out = out
        self.bootstrap = bootstrap
        self.failed: list[ArmFailure] = []
        self.scales: dict[str, int] = {}
        self._runs: dict[str, dict[int, list[PhotographResult]]] = {}
        self._scorer = StudyScorer(recipe.labels, bootstrap)
        self._scores: list[StudyScore] = []

    def run(self, arm: Arm, data: Path, start: training.StartWeights) -> None:
        """Train and score a run if that is not done yet, and add its photographs. An error is kept in `failed`."""
        try:
            with describe_failure():
                self._train_and_score(arm, data, start)
        except RunFailedError as error:
            self.failed.append(ArmFailure(arm.name, arm.seed, str(error)))
        else:
            self.add(arm)

    def _train_and_score(self, arm: Arm, data: Path, start: training.StartWeights) -> None:
        folder = arm.folder(self.out)
        if not (folder / RUN_FILE).exists():
            own = self._start_weights(arm) if arm.from_stage_1 else start
            train_unless_finished(arm.recipe, data, folder, self.out / "prepared", own)
        if not (folder / PHOTOGRAPHS_FILE).exists():
            done = evaluate_folder(
                SampleSelection(data=data, split_file=folder / "split.csv"),
                folder / WEIGHTS_FILE,
                config=self._config(arm),
                report=ReportConfig(out=folder, pictures=False),
            )
            write_photographs(folder / PHOTOGRAPHS_FILE, done.results)

    def _config(self, arm: Arm) -> EvaluationConfig:
        return EvaluationConfig(
            scale=arm.scale,
            bf16=resolve_precision(arm.recipe.precision) == "bf16",
            thorough=False,
            slow_metrics=False,  # SSIM and FROC are in no table of the study
            bootstrap=self.bootstrap,
        )

    def _start_weights(self, arm: Arm) -> training.StartWeights:
        folder = replace(arm, name=STAGE_1).folder(self.out)
        if not (folder / RUN_FILE).exists():
            raise RecipeError(f"not trained: the arm {STAGE_1} of this seed failed, from whose weights it starts")
        return training.StartWeights(checkpoint=folder / WEIGHTS_FILE)

    def add(self, arm: Arm) -> None:
        """Add the photographs of a run, if it has been scored.

        Raises:
            DataError: if the other runs have other photographs or labels.
        """
        if not (file := arm.folder(self.out) / PHOTOGRAPHS_FILE).exists():
            return
        results = read_photographs(file)
        first = next((found for seeds in self._runs.values() for found in seeds.values()), results)
        pair_results(first, results)
        if failed := sum(bool(m.failure) for m in results):
            self.failed.append(ArmFailure(arm.name, arm.seed, f"photographs that were not scored: {failed}"))
        self._runs.setdefault(arm.name, {})[arm.seed] = results
        self.scales[arm.name] = arm.scale

    def write(self) -> None:
        """Write `study.json` and `study.md`."""
        self._scores = self._scorer.scores({arm: self._runs[arm] for arm in ARMS if arm in self._runs})
        finished = {arm: sorted(self._runs[arm]) for arm in ARMS if arm in self._runs}
        scale = evaluation_scale(self.recipe)
        notes = [f"{arm} is scored from x{own} images." for arm, own in self.scales.items() if own != scale]
        notes += [f"{failure.arm}, seed {failure.seed}: {failure.reason}" for failure in self.failed]
        make_folder(self.out)
        study = {
            "recipe": self.recipe.name,
            "finished": finished,
            "scales": self.scales,
            "failed": [failure._asdict() for failure in self.failed],
            "scores": [score.as_dict() for score in self._scores],
        }
        write_json(self.out / "study.json", study)
        text = study_markdown(self.recipe.name, finished, notes, self._scores)
        write_atomically(self.out / "study.md", text.encode())

    def result(self) -> AblationStudy:
        """Return the scores of the last `write`."""
        return AblationStudy(self._scores, [*study_tables(self._scores, ARMS)], self.failed)
