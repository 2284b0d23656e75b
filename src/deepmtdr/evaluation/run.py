"""Predict a split once, score the three tasks (Sec. V-B)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from deepmtdr import __version__, checkpoint
from deepmtdr.checkpoint import Checkpoint
from deepmtdr.datasets.catalogue import read_datasets
from deepmtdr.datasets.sample import Sample
from deepmtdr.datasets.split import apply_split, read_split
from deepmtdr.errors import DataError
from deepmtdr.evaluation.binary import BINARY_TASK, use_binary_labels
from deepmtdr.evaluation.curves import lesion_curves
from deepmtdr.evaluation.evidence_scores import region_scores
from deepmtdr.evaluation.grading import by_grade_scores, confusion_matrices, grading_scores, operating_point_scores
from deepmtdr.evaluation.input_scores import hallucination_scores, input_scores
from deepmtdr.evaluation.lesions import PooledCurves, froc_curves, lesion_scores
from deepmtdr.evaluation.measure import MIN_COVERAGE, ORIGINAL, SR, LesionCurves, PhotographResult, measure
from deepmtdr.evaluation.measure_inputs import measure_all_inputs
from deepmtdr.evaluation.page import write_page
from deepmtdr.evaluation.results import Evaluation, Table
from deepmtdr.evaluation.scores import Bootstrap, Score
from deepmtdr.evaluation.super_resolution import super_resolution_scores
from deepmtdr.evaluation.worst_cases import make_thumbnails, worst_cases
from deepmtdr.metrics import PooledCurve
from deepmtdr.photographs.geometry import choose_input_scale
from deepmtdr.progress import Progress
from deepmtdr.terms import FRAME, Lesion

__all__ = ["Evaluation", "Table", "evaluate", "evaluate_folder", "load_samples"]

ON_ORIGINAL = "lesions on the photograph"
ORIGINAL_SCORES = ("aupr_pooled", "prevalence", "dice_pooled", "iou_pooled", "ap_per_image")


def evaluate(
    trained: Checkpoint,
    samples: Sequence[Sample],
    *,
    as_lr: int | None = 256,
    bf16: bool = False,
    thorough: bool = True,
    removal: int = 0,
    bootstrap: Bootstrap | None = None,
    advance: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Read every photograph once, one at a time, and score the three tasks by data set.

    Args:
        trained: a loaded checkpoint.
        samples: photographs with what is known of them; a label that is absent contributes nothing.
        as_lr: size that each field of view is reduced to first (128, 256 or 512 px: x8, x4, x2); None: reading R19.
        bf16: compute convolutions in bfloat16, two to three times as fast where the processor multiplies it.
        thorough: read the bicubic image and the HR frame beside SR, and measure lesions on the photograph's own pixels
            too, and hold the evidence against them: about three times as long.
        removal: steps of deletion and insertion of the evidence on annotated photographs; each costs three readings.
        bootstrap: how the intervals are made.
        advance: called after each photograph.

    Returns:
        The scores and every prediction. A photograph that cannot be read is among them, with its reason.

    Raises:
        DataError: if there is no photograph.
        ValueError: if `as_lr` is none of these sizes.
    """
    if not samples:
        raise DataError("no photograph to evaluate, expected at least one")
    choose_input_scale(FRAME, as_lr)  # a wrong size is the caller's mistake, not the photograph's
    measured: list[PhotographResult] = []
    pools: dict[str, dict[tuple[str, Lesion], PooledCurve]] = {}
    way = {"frame": trained.recipe.data.frame, "as_lr": as_lr, "bf16": bf16, "temperature": trained.temperature}
    for sample in samples:
        one, by_reading = _measure(trained, sample, thorough, removal, way)
        measured.append(one)
        for reading, curves in by_reading.items():
            for lesion, curve in curves.items():
                pools.setdefault(reading, {}).setdefault((sample.dataset, lesion), PooledCurve()).merge(curve)
        advance()
    bootstrap = bootstrap or Bootstrap()
    measured = use_binary_labels(measured, samples)
    return score_photographs(measured, pools, bootstrap, _protocol(trained, measured, as_lr, bf16, bootstrap))


def _measure(
    trained: Checkpoint, sample: Sample, thorough: bool, removal: int, way: Mapping[str, Any]
) -> tuple[PhotographResult, Mapping[str, LesionCurves]]:
    if thorough:
        return measure_all_inputs(trained.model, sample, **way, removal=removal)
    one, curves = measure(trained.model, sample, **way)
    return one, {SR: curves}


def score_photographs(
    measured: Sequence[PhotographResult],
    pools: Mapping[str, PooledCurves],
    bootstrap: Bootstrap,
    protocol: dict[str, Any],
) -> Evaluation:
    """All tables of photographs that were measured.

    Args:
        measured: the photographs.
        pools: their pixels by reading (`measure.SR`, ...).
        bootstrap: how the intervals are made.
        protocol: what was done.
    """
    return Evaluation(
        protocol=protocol,
        scores=_scores(measured, pools, bootstrap),
        confusion=confusion_matrices(measured),
        results=list(measured),
        curves=lesion_curves(pools.get(SR, {})),
        froc=froc_curves(measured),
    )


def _scores(
    measured: Sequence[PhotographResult], pools: Mapping[str, PooledCurves], bootstrap: Bootstrap
) -> list[Score]:
    """Table after table: the paper's three tasks, each with what the field adds."""
    original = [m.for_input(ORIGINAL) for m in measured]
    return [
        *super_resolution_scores(measured, bootstrap),
        *input_scores(measured, pools, bootstrap),
        *hallucination_scores(measured, bootstrap),
        *lesion_scores(measured, pools.get(SR, {}), bootstrap),
        *lesion_scores(original, pools.get(ORIGINAL, {}), bootstrap, ON_ORIGINAL, ORIGINAL_SCORES.__contains__),
        *region_scores(measured, bootstrap),
        *grading_scores(measured, bootstrap),
        *by_grade_scores(measured, bootstrap),
        *operating_point_scores(measured, bootstrap),
        *grading_scores(measured, bootstrap, BINARY_TASK),
    ]


def evaluate_folder(
    data: Path,
    *,
    weights: Path | None = None,
    split: Path | None = None,
    side: str = "test",
    datasets: Sequence[str] = (),
    as_lr: int | None = 256,
    bf16: bool = False,
    thorough: bool = True,
    removal: int = 0,
    bootstrap: Bootstrap | None = None,
    out: Path | None = None,
    pictures: bool = True,
    parquet: bool = False,
) -> Evaluation:
    """From paths to scores: what `deepmtdr evaluate` does, with a progress bar.

    Args:
        data: folder that holds a folder for each data set, under its name.
        weights: a checkpoint; None takes the shipped weights.
        split: a split that was written down (training leaves `split.csv` beside its weights); None takes every
            photograph of `datasets`.
        side: of the split.
        datasets: names of data sets; empty takes those of the split.
        as_lr: see `evaluate`.
        bf16: see `evaluate`.
        thorough: see `evaluate`.
        removal: see `evaluate`.
        bootstrap: how the intervals are made.
        out: folder for `evaluation.json`, `predictions.csv` and `report.html`; None writes nothing.
        pictures: show the worst cases in the report; False for a report that goes where no photograph of a patient may.
        parquet: write `predictions.parquet` too.

    Raises:
        CheckpointError: if the weights are missing or damaged.
        DataError: if data sets and split do not belong together, or neither is named.
        ValueError: if `as_lr` is no size that a scale leads from.
    """
    trained = checkpoint.load(weights)
    samples = load_samples(data, split, side, datasets)
    way: dict[str, Any] = {"as_lr": as_lr, "bf16": bf16, "thorough": thorough, "removal": removal}
    with Progress("evaluate", len(samples)) as progress:
        done = evaluate(trained, samples, **way, bootstrap=bootstrap, advance=progress.advance)
    if split is not None:
        digest = hashlib.sha256(split.read_bytes()).hexdigest()
        done.protocol["split"] = {"side": side, "sha256": digest, "of_the_weights": digest == trained.card.get("data")}
    if out is not None:
        done.write(out, parquet=parquet)
        if pictures:
            done.thumbnails.update(make_thumbnails(samples, worst_cases(done.results)))
        write_page(done, out)
    return done


def load_samples(data: Path, split: Path | None, side: str = "test", datasets: Sequence[str] = ()) -> list[Sample]:
    """The photographs of one side of a written split, or, without a split, of whole data sets.

    Raises:
        DataError: if neither split nor data sets are named, the split has no such side, or the two do not belong
            together.
    """
    if split is None:
        if not datasets:
            raise DataError(f"{data}: neither a split nor the name of a data set was given, expected one of them")
        return read_datasets({name: data / name for name in datasets})
    table = read_split(split)
    names = list(datasets) or sorted({name for name, _ in table})
    sides = apply_split(read_datasets({name: data / name for name in names}), table)
    if side not in sides:
        raise DataError(f"{split}: no side {side!r}; it has {', '.join(sorted(sides))}")
    return sides[side]


def _protocol(
    trained: Checkpoint, measured: Sequence[PhotographResult], as_lr: int | None, bf16: bool, bootstrap: Bootstrap
) -> dict[str, Any]:
    """What somebody who wants the same numbers has to know."""
    return {
        "version": __version__,
        "weights": trained.card.get("weights", trained.recipe.name),
        "weights_sha256": trained.digest,
        "precision": "bf16" if bf16 else "fp32",
        "frame": trained.recipe.data.frame,
        "as_lr": as_lr,
        "temperature": trained.temperature,
        "photographs": len(measured),
        "failed": sum(bool(m.failure) for m in measured),
        "lesion_truth_coverage": MIN_COVERAGE,
        "dice_threshold": 0.5,
        "bootstrap": {"unit": "patient", **bootstrap._asdict()},
    }
