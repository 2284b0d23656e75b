"""Calibrate a checkpoint: fit how logits become grades on graded photographs, and store it in the card."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from deepmtdr import checkpoint
from deepmtdr._version import __version__
from deepmtdr.calibration.fit import EVERYTHING, FittedParts, check_sample_size, fit_calibration
from deepmtdr.calibration.report import Calibration
from deepmtdr.checkpoint import Checkpoint
from deepmtdr.datasets.sample import Sample
from deepmtdr.errors import CheckpointError
from deepmtdr.evaluation.config import EvaluationConfig, SampleSelection
from deepmtdr.evaluation.measure import measure
from deepmtdr.evaluation.photograph_result import PhotographResult
from deepmtdr.evaluation.run import checkpoint_protocol
from deepmtdr.evaluation.samples import load_samples, split_protocol
from deepmtdr.evaluation.scores import DEFAULT_BOOTSTRAP, Bootstrap
from deepmtdr.files import make_folder
from deepmtdr.progress import Progress

TARGET_SENSITIVITIES = (0.80, 0.90, 0.95)


@dataclass(frozen=True, kw_only=True)
class CalibrationConfig:
    """How photographs are predicted and what is fitted.

    Raises:
        ValueError: from the constructor, if a sensitivity is out of range.
    """

    sensitivities: tuple[float, ...] = TARGET_SENSITIVITIES
    """Target sensitivities of the thresholds, each in (0, 1]."""
    as_lr: int | None = None
    """Size to which each field of view is reduced, as `EvaluationConfig.as_lr`. None: chosen by its size (R19)."""
    bf16: bool = False
    """Compute convolutions in bfloat16."""
    bootstrap: Bootstrap = DEFAULT_BOOTSTRAP
    """How confidence intervals are computed; its seed also divides the patients."""
    parts: FittedParts = EVERYTHING
    """What is fitted beside the temperature and the operating points."""

    def __post_init__(self) -> None:
        if wrong := [target for target in self.sensitivities if not 0 < target <= 1]:
            raise ValueError(f"found a target sensitivity of {wrong[0]}, expected above 0 and at most 1")

    @property
    def evaluation(self) -> EvaluationConfig:
        """Return the settings for the measurement of a photograph."""
        return EvaluationConfig(as_lr=self.as_lr, scale=None, bf16=self.bf16, thorough=False, slow_metrics=False)


DEFAULT_CALIBRATION = CalibrationConfig()


def calibrate(
    trained: Checkpoint,
    samples: Sequence[Sample],
    config: CalibrationConfig = DEFAULT_CALIBRATION,
    *,
    advance: Callable[[], None] = lambda: None,
) -> Calibration:
    """Predict every graded photograph once, and fit temperature, prior correction, grade thresholds, operating points.

    Args:
        trained: a loaded checkpoint; a calibration in its card is not used.
        samples: photographs that were not used to train the weights; those without a grade are ignored.
        config: how photographs are predicted and what is fitted.
        advance: called after each graded photograph.

    Returns:
        The fit on all photographs. Scores, reliability, sensitivities and specificities after the calibration are
        cross-fitted: each half of the patients with the fit on the other half. Their intervals account for the
        photographs that are scored, but not for those used in the fit.

    Raises:
        DataError: if fewer than `fit.MIN_PHOTOGRAPHS` graded photographs, two grades or `fit.MIN_PATIENTS` patients can
            be used.
        InputSizeError: if `config.as_lr` is not a low-resolution size of the checkpoint's frame.
    """
    config.evaluation.fixed_lr_size(trained.recipe.data.frame)  # raises before the first photograph is read
    graded = [sample for sample in samples if sample.grade is not None]
    check_sample_size([(s.grade, s.dataset, s.patient) for s in graded if s.grade is not None])
    measured = []
    for sample in graded:
        measured.append(_predict(trained, sample, config))
        advance()
    done = fit_calibration(measured, config.sensitivities, config.bootstrap, trained.model.labels, config.parts)
    return replace(done, protocol={**_protocol(trained, config), **done.protocol})


def calibrate_folder(
    weights: Path,
    selection: SampleSelection,
    config: CalibrationConfig = DEFAULT_CALIBRATION,
    *,
    out: Path | None = None,
) -> Calibration:
    """Calibrate a checkpoint on photographs from a folder, with a progress bar: `deepmtdr calibrate`.

    Args:
        weights: the checkpoint.
        selection: the photographs.
        config: how photographs are predicted and what is fitted.
        out: the `.safetensors` file to write, with the calibration in its card. None: `weights` itself.

    Raises:
        CheckpointError: if the weights are missing, damaged or do not grade, or `out` is not a `.safetensors` file.
        DataError: if the photographs cannot be selected, or as `calibrate`.
        InputSizeError: as `calibrate`.
        OSError: if `out` cannot be written.
    """
    trained = checkpoint.load(weights)
    if not trained.model.has_grading:
        raise CheckpointError(
            f"{weights}: found {trained.recipe.system}, which does not grade; expected weights with grading"
        )
    out = weights if out is None else out
    _check_writable(out)
    samples = [s for s in load_samples(selection, trained.model.labels) if s.grade is not None]
    with Progress("calibrate", len(samples)) as progress:
        done = calibrate(trained, samples, config, advance=progress.advance)
    done = _with_split(done, trained, selection)
    checkpoint.update_card(weights, out, digest=trained.digest, calibration=done.to_card())
    return done


def _predict(trained: Checkpoint, sample: Sample, config: CalibrationConfig) -> PhotographResult:
    """Predict the grade probabilities without calibration, and without scores of the other tasks."""
    unmasked = sample.without_masks()
    return measure(trained.model, unmasked, config.evaluation, frame=trained.recipe.data.frame)[0]


def _protocol(trained: Checkpoint, config: CalibrationConfig) -> dict[str, Any]:
    """Record everything that is needed to compute the same calibration again."""
    return {
        "version": __version__,
        **checkpoint_protocol(trained, bf16=config.bf16),
        "as_lr": config.as_lr,
    }


def _with_split(done: Calibration, trained: Checkpoint, selection: SampleSelection) -> Calibration:
    """Add the split to the protocol, and warnings if the weights may have been trained on these photographs."""
    entry = split_protocol(selection, trained)
    warnings = []
    if not entry:
        warnings.append("no split file was given: the weights may have been trained on these photographs")
    elif selection.split == "train":
        warnings.append("these are training photographs according to the split file")
    if entry and not entry["split"]["of_the_weights"]:
        warnings.append("the split file is not the one that the weights were trained with")
    return replace(done, protocol={**done.protocol, **entry}, warnings=[*done.warnings, *warnings])


def _check_writable(out: Path) -> None:
    """Check that the file can be written, before the photographs are read."""
    if out.suffix != ".safetensors":
        raise CheckpointError(f"{out}: found another file type, expected a name that ends in .safetensors")
    make_folder(out.parent)
    if not os.access(out.parent, os.W_OK):
        raise PermissionError(errno.EACCES, "no permission to write", str(out.parent))
