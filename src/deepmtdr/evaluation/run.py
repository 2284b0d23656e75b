"""Evaluate a checkpoint: predict each photograph once and score the three tasks (Sec. V-B)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from deepmtdr import checkpoint
from deepmtdr._version import __version__
from deepmtdr.checkpoint import Checkpoint
from deepmtdr.datasets.sample import Sample
from deepmtdr.errors import DataError
from deepmtdr.evaluation.binary import BINARY_TASK, use_binary_labels
from deepmtdr.evaluation.config import DEFAULT_CONFIG, NO_REPORT, EvaluationConfig, ReportConfig, SampleSelection
from deepmtdr.evaluation.curves import lesion_curves
from deepmtdr.evaluation.evidence_scores import region_scores
from deepmtdr.evaluation.flips import flip_scores, predict_turns
from deepmtdr.evaluation.framed_photograph import MIN_COVERAGE, load_into_frame
from deepmtdr.evaluation.grading import by_grade_scores, confusion_matrices, grade_task, grading_scores
from deepmtdr.evaluation.input_scores import hallucination_scores, input_scores
from deepmtdr.evaluation.lesions import CurveKey, PooledCurves, froc_curves, lesion_scores
from deepmtdr.evaluation.measure import LesionCurves, measure
from deepmtdr.evaluation.measure_inputs import measure_all_inputs
from deepmtdr.evaluation.operating_points import operating_point_scores
from deepmtdr.evaluation.page import write_page
from deepmtdr.evaluation.photograph_result import InputImage, PhotographResult
from deepmtdr.evaluation.results import Evaluation
from deepmtdr.evaluation.samples import load_samples, split_protocol
from deepmtdr.evaluation.scores import Bootstrap, Score, ScoreTable
from deepmtdr.evaluation.super_resolution import super_resolution_scores
from deepmtdr.evaluation.worst_cases import make_thumbnails, worst_cases
from deepmtdr.grade_decision import GradeDecision
from deepmtdr.labels import DIABETIC_RETINOPATHY, LabelSet
from deepmtdr.metrics import PooledCurve
from deepmtdr.metrics.lesions import DICE_THRESHOLD
from deepmtdr.progress import Progress

SCORES_ON_ORIGINAL = frozenset({"aupr_pooled", "prevalence", "dice_pooled", "iou_pooled", "ap_per_image"})
"""Lesion scores that are also computed on the pixels of the photograph."""

Pools = dict[InputImage, dict[CurveKey, PooledCurve]]
"""Fine pixel counts of all photographs, by image."""


def evaluate(
    trained: Checkpoint,
    samples: Sequence[Sample],
    config: EvaluationConfig = DEFAULT_CONFIG,
    *,
    advance: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Predict every photograph once, one at a time, and score the three tasks for each data set.

    Args:
        trained: a loaded checkpoint.
        samples: photographs with their labels; a photograph contributes to the scores for which it has labels.
        config: how photographs are measured.
        advance: called after each photograph.

    Returns:
        The scores and all results. A photograph that cannot be read is among the results, with the reason.

    Raises:
        DataError: if there is no photograph.
        InputSizeError: if `config.as_lr` is not a low-resolution size of the checkpoint's frame.
    """
    if not samples:
        raise DataError("no photograph to evaluate, expected at least one")
    config.fixed_lr_size(trained.recipe.data.frame)  # raises before the first photograph is read
    measured: list[PhotographResult] = []
    pools: Pools = {}
    for sample in samples:
        result, curves_by_image = _measure(trained, sample, config)
        measured.append(result)
        _pool(pools, sample.dataset, curves_by_image)
        advance()
    measured = use_binary_labels(measured, samples)
    protocol = _protocol(trained, measured, config)
    return score_photographs(measured, pools, config.bootstrap, protocol, trained.model.labels)


def _measure(
    trained: Checkpoint, sample: Sample, config: EvaluationConfig
) -> tuple[PhotographResult, Mapping[InputImage, LesionCurves]]:
    frame, decision = trained.recipe.data.frame, trained.decision
    if config.thorough:
        result, curves_by_image = measure_all_inputs(trained.model, sample, config, frame=frame, decision=decision)
    else:
        result, curves = measure(trained.model, sample, config, frame=frame, decision=decision)
        curves_by_image = {InputImage.SR: curves}
    if config.flips and result.probs:
        framed = load_into_frame(sample, config, frame)
        flips = predict_turns(trained.model, framed.lr, framed.scale, bf16=config.bf16, decision=decision)
        result = replace(result, flips=flips)
    return result, curves_by_image


def _pool(pools: Pools, dataset: str, curves_by_image: Mapping[InputImage, LesionCurves]) -> None:
    """Add the pixel counts of one photograph."""
    for image, curves in curves_by_image.items():
        for code, curve in curves.items():
            pools.setdefault(image, {}).setdefault((dataset, code), PooledCurve()).merge(curve)


def score_photographs(
    measured: Sequence[PhotographResult],
    pools: Mapping[InputImage, PooledCurves],
    bootstrap: Bootstrap,
    protocol: dict[str, Any],
    labels: LabelSet = DIABETIC_RETINOPATHY,
) -> Evaluation:
    """Compute all tables from measured photographs.

    Args:
        measured: the photographs.
        pools: fine pixel counts of the photographs by image.
        bootstrap: how intervals are computed.
        protocol: entries of the protocol.
        labels: lesion types and grades.
    """
    return Evaluation(
        labels=labels,
        protocol=protocol,
        scores=_scores(measured, pools, bootstrap, labels),
        confusion=confusion_matrices(measured, labels),
        results=list(measured),
        curves=lesion_curves(pools.get(InputImage.SR, {})),
        froc=froc_curves(measured),
    )


def _scores(
    measured: Sequence[PhotographResult],
    pools: Mapping[InputImage, PooledCurves],
    bootstrap: Bootstrap,
    labels: LabelSet,
) -> list[Score]:
    """Compute the scores of all tables: the paper's three tasks, each with further scores."""
    sr, original = (pools.get(image, {}) for image in (InputImage.SR, InputImage.ORIGINAL))
    on_original = [m.for_input(InputImage.ORIGINAL) for m in measured]
    return [
        *super_resolution_scores(measured, bootstrap),
        *input_scores(measured, pools, bootstrap, labels),
        *hallucination_scores(measured, bootstrap, labels),
        *lesion_scores(measured, sr, bootstrap, labels),
        *lesion_scores(
            on_original,
            original,
            bootstrap,
            labels,
            ScoreTable.LESIONS_ON_ORIGINAL,
            SCORES_ON_ORIGINAL.__contains__,
        ),
        *region_scores(measured, bootstrap, labels),
        *grade_scores(measured, bootstrap, labels),
    ]


def grade_scores(measured: Sequence[PhotographResult], bootstrap: Bootstrap, labels: LabelSet) -> list[Score]:
    """Compute the scores of all tables about grades."""
    return [
        *grading_scores(measured, bootstrap, grade_task(labels)),
        *by_grade_scores(measured, bootstrap, labels),
        *operating_point_scores(measured, bootstrap, labels),
        *flip_scores(measured, bootstrap),
        *grading_scores(measured, bootstrap, BINARY_TASK),
    ]


def evaluate_folder(
    selection: SampleSelection,
    weights: Path | None = None,
    *,
    config: EvaluationConfig = DEFAULT_CONFIG,
    report: ReportConfig = NO_REPORT,
) -> Evaluation:
    """Evaluate one checkpoint on photographs from a folder, with a progress bar: `deepmtdr evaluate`.

    Args:
        selection: the photographs.
        weights: the checkpoint; None: the shipped weights.
        config: how photographs are measured.
        report: what is written.

    Raises:
        CheckpointError: if the weights are missing or damaged.
        DataError: if the photographs cannot be selected, or a file cannot be written.
        InputSizeError: if `config.as_lr` is not a low-resolution size of the checkpoint's frame.
    """
    trained = checkpoint.load(weights)
    samples = load_samples(selection, trained.model.labels)
    with Progress("evaluate", len(samples)) as progress:
        done = evaluate(trained, samples, config, advance=progress.advance)
    done = replace(done, protocol=done.protocol | split_protocol(selection, trained))
    if report.out is not None:
        done.write(report.out, parquet=report.parquet)
        if report.pictures:
            done = replace(done, thumbnails=make_thumbnails(samples, worst_cases(done.results)))
        write_page(done, report.out)
    return done


def checkpoint_protocol(trained: Checkpoint, *, bf16: bool) -> dict[str, Any]:
    """Make the protocol entries that identify the weights and how they were used."""
    return {
        "weights_sha256": trained.digest,
        "precision": "bf16" if bf16 else "fp32",
    }


def _decision_protocol(decision: GradeDecision) -> dict[str, Any]:
    """Make the protocol entries of the calibration; biases and thresholds only if there are any."""
    lists = {"biases": list(decision.biases), "grade_thresholds": list(decision.thresholds)}
    return {"temperature": decision.temperature, **{name: values for name, values in lists.items() if values}}


def _protocol(trained: Checkpoint, measured: Sequence[PhotographResult], config: EvaluationConfig) -> dict[str, Any]:
    """Record everything that is needed to compute the same numbers again."""
    frame = trained.recipe.data.frame
    return {
        "version": __version__,
        "weights": trained.card.get("weights", trained.recipe.name),
        **checkpoint_protocol(trained, bf16=config.bf16),
        "frame": frame,
        "as_lr": config.fixed_lr_size(frame),
        **_decision_protocol(trained.decision),
        "photographs": len(measured),
        "failed": sum(bool(m.failure) for m in measured),
        "lesion_truth_coverage": MIN_COVERAGE,
        "dice_threshold": DICE_THRESHOLD,
        "bootstrap": config.bootstrap.to_protocol(),
    }
