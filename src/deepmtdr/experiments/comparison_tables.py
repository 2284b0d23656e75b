"""Tables of the system comparison, from the files that `system_comparison` wrote (Tables I, III and IV)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypedDict

from deepmtdr.evaluation.lesions import MEAN
from deepmtdr.evaluation.scores import ALL, MEAN_OVER_SETS, ScoreTable
from deepmtdr.labels import DIABETIC_RETINOPATHY, LabelSet
from deepmtdr.recipe import STAGES
from deepmtdr.rendering.html import Table, table_markdown
from deepmtdr.systems import default_part_names

IMAGENET = ", ImageNet"
"""Ending of the name of a system that starts from ImageNet weights, in files and tables."""


def system_of(entry: str) -> str:
    """Return the name of the system without `IMAGENET`."""
    return entry.removesuffix(IMAGENET)


class StoredScore(TypedDict):
    """The keys of a score in `evaluation.json` that the tables use."""

    task: str
    dataset: str
    subject: str
    score: str
    value: float | None
    """Value of the score; None: undefined."""
    low: float | None
    """Lower bound of the 95 % interval; None: no interval."""
    high: float | None


class SystemResult(TypedDict):
    """One system in `compared.json`."""

    scores: Sequence[StoredScore]
    failed: int
    """Number of photographs that could not be scored."""
    parameters: Mapping[str, int]
    """Number of parameters of each subnet."""
    stages: Sequence[Mapping[str, Any]]
    """`training.state.StageCost` of each stage."""
    machine: Mapping[str, Any]
    """Device, threads, ... of the training."""
    data: str
    """Fingerprint of photographs, labels and split."""


class _Cell(NamedTuple):
    subject: str
    score: str


class _TableSpec(NamedTuple):
    title: str
    task: str
    columns: dict[str, _Cell]


GRADING_COLUMNS = ("accuracy", "precision_weighted", "f1_weighted", "kappa_quadratic", "auc_referable")
IMAGE_COLUMNS = ("psnr_whole", "ssim_whole", "psnr_fov", "psnr_fov_eroded")
RANKED_BY = MEAN_OVER_SETS, "kappa_quadratic"
"""Data set and score by which graders are ranked."""
LESION_TABLES = {
    "auc_per_image": "AUC of lesions, image by image",
    "ap_per_image": "AP of lesions, image by image",
    "aupr_pooled": "AUPR of lesions, all pixels together",
}
"""The scores of the paper come first."""


def _table_specs(labels: LabelSet) -> Iterator[_TableSpec]:
    yield _TableSpec("Table I, grading", "grading", {name: _Cell("grade", name) for name in GRADING_COLUMNS})
    for score, title in LESION_TABLES.items():
        columns = {subject: _Cell(subject, score) for subject in (*labels.codes, MEAN)}
        yield _TableSpec(f"Table III, {title}", "lesions", columns)
    images = {name: _Cell("sr", name) for name in IMAGE_COLUMNS}
    yield _TableSpec("Table IV, super-resolution", "super-resolution", images)


def is_in_tables(score: StoredScore, labels: LabelSet = DIABETIC_RETINOPATHY) -> bool:
    """Whether a score is in one of the tables."""
    cell = _Cell(score["subject"], score["score"])
    return any(score["task"] == spec.task and cell in spec.columns.values() for spec in _table_specs(labels))


def comparison_tables(results: Mapping[str, SystemResult], labels: LabelSet = DIABETIC_RETINOPATHY) -> Iterator[Table]:
    """Make a table for each task and data set, with a row for each system that has such scores.

    Graders are ranked by the mean of their quadratic kappas over the data sets, if there are several.

    Args:
        results: by system.
        labels: the lesion types of the columns.
    """
    for spec in _table_specs(labels):
        scores = {
            system: [score for score in result["scores"] if score["task"] == spec.task]
            for system, result in results.items()
            if spec.task != "super-resolution"
            or default_part_names(system_of(system)).isr
            == system_of(system)  # these systems have another super-resolver
        }
        datasets = dict.fromkeys(score["dataset"] for own in scores.values() for score in own)
        for dataset in datasets:
            if dataset == ALL and (len(datasets) == 2 or spec.task == ScoreTable.GRADING):
                continue  # the same as the only data set; grades over several cameras, in a file of an older version
            cells = {system: _cells(scores[system], dataset) for system in _ranked(scores)}
            rows = [
                (name, *(own.get(cell, "") for cell in spec.columns.values())) for name, own in cells.items() if own
            ]
            yield Table(f"{spec.title}, {dataset}", ("system", *spec.columns), rows)


def _super_resolves(system: str) -> bool:
    """Whether a system has its own super-resolver; before other systems there is that of another one."""
    return default_part_names(system).isr == system


def _ranked(scores: Mapping[str, Sequence[StoredScore]]) -> list[str]:
    """Order the systems by `RANKED_BY`, the highest first; systems without it follow in their order."""
    found = {
        system: score["value"]
        for system, own in scores.items()
        for score in own
        if (score["dataset"], score["score"]) == RANKED_BY and score["value"] is not None
    }
    return [*sorted(found, key=lambda system: -found[system]), *(system for system in scores if system not in found)]


def _cells(scores: Sequence[StoredScore], dataset: str) -> dict[_Cell, str]:
    own = (score for score in scores if score["dataset"] == dataset)
    return {_Cell(score["subject"], score["score"]): _format_score(score) for score in own}


def _format_score(score: StoredScore) -> str:
    if score["value"] is None:
        return "undefined"
    interval = "" if score["low"] is None else f" [{score['low']:.3f}, {score['high']:.3f}]"
    return f"{score['value']:.3f}{interval}"


def comparison_markdown(
    minutes: float, results: Mapping[str, SystemResult], labels: LabelSet = DIABETIC_RETINOPATHY
) -> str:
    """Format the tables in Markdown, after the parameters, cached outputs and steps of each system.

    Args:
        minutes: computing time of each system.
        results: by system.
        labels: the lesion types of the columns.
    """
    rows = [
        (
            system,
            f"{sum(result['parameters'].values()):,}",
            _sum(result, "read", "grading"),
            *(_sum(result, "steps", stage) for stage in STAGES),
        )
        for system, result in results.items()
    ]
    columns = ("system", "parameters", "cached outputs", *(f"steps of {stage}" for stage in STAGES))
    machines = "; ".join(dict.fromkeys(machine_name(result) for result in results.values()))
    training = Table(f"Training of each system in {minutes:g} minutes ({machines})", columns, rows)
    tables = [table_markdown(table) for table in (training, *comparison_tables(results, labels))]
    failed = [
        f"Photographs of {name} that could not be scored: {result['failed']}."
        for name, result in results.items()
        if result["failed"]
    ]
    return "\n\n".join([INTRODUCTION, *tables, *failed]) + "\n"


def machine_name(result: SystemResult) -> str:
    """Describe device and threads of a training."""
    return f"{result['machine']['device']}, threads: {result['machine']['threads']}"


def _sum(result: SystemResult, key: str, stage: str) -> str:
    return str(sum(cost[key] for cost in result["stages"] if cost["stage"] == stage) or "")


INTRODUCTION = """\
Each system had the same minutes of computing, including the cached outputs for the grading stage. Only its own part was
trained, behind bicubic interpolation (the paper has MDRN before some systems), from random weights unless its name ends
in ", ImageNet". The recipe sets the size of the frames; networks with another native size get resized frames. MMCNN is
used at its smallest size, without its additional cells. The forms of DeepMT-DR and Wang et al. get local contrast
(interpretation R21), the others RGB. The VGG-16s, VNXK and SqueezeNet + SPP have a tenth of the others' learning rate,
because of their wide dense layers; so do DeepMT-DR and Wang et al. in the grading stage if `head_norm` is off. Cached
outputs take at most half of that stage's minutes; photographs without one are not used for training. Each value has its
95 % interval (bootstrap over patients). All scored photographs are of held-out patients. The numbers in the paper come
from days on a GPU: these tables show the scores that each system reaches in the given minutes. They do not show which
system is best."""
