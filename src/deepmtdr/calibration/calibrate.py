"""Make the probabilities of a checkpoint honest: from graded photographs to a temperature in its card (Sec. V-B)."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from deepmtdr import __version__, checkpoint
from deepmtdr.calibration.fit import check_sample_size, fit_calibration
from deepmtdr.calibration.report import Calibration
from deepmtdr.checkpoint import Checkpoint
from deepmtdr.datasets.sample import Sample
from deepmtdr.errors import CheckpointError
from deepmtdr.evaluation.measure import PhotographResult, measure
from deepmtdr.evaluation.run import load_samples
from deepmtdr.evaluation.scores import Bootstrap
from deepmtdr.photographs.geometry import choose_input_scale
from deepmtdr.progress import Progress
from deepmtdr.terms import FRAME

TARGET_SENSITIVITIES = (0.80, 0.90, 0.95)
"""For which thresholds are read."""


def calibrate(
    trained: Checkpoint,
    samples: Sequence[Sample],
    *,
    sensitivities: Sequence[float] = TARGET_SENSITIVITIES,
    as_lr: int | None = None,
    bf16: bool = False,
    bootstrap: Bootstrap | None = None,
    advance: Callable[[], None] = lambda: None,
) -> Calibration:
    """Read every graded photograph once, fit the temperature, and read thresholds.

    Args:
        trained: a loaded checkpoint; a temperature that it has already is not used.
        samples: photographs that the weights were not trained on; without a grade they are left aside.
        sensitivities: for which thresholds are read, each in (0, 1].
        as_lr: see `evaluate`; None, the default, is how `deepmtdr grade` reads them.
        bf16: see `evaluate`.
        bootstrap: how the intervals are made; its seed divides the patients, too.
        advance: called after each graded photograph.

    Returns:
        The temperature fitted on all photographs; scores, reliability, sensitivities and specificities after it are
        those of each half of the patients at the temperature and thresholds of the other half, whose intervals are
        over the patients judged and not over those fitted on.

    Raises:
        DataError: if there are fewer than `cross_fit.MIN_PHOTOGRAPHS` graded photographs that can be read, or they are of one
            grade or of fewer than `cross_fit.MIN_PATIENTS` patients.
        ValueError: if `as_lr` is none of the sizes, or a sensitivity is out of range.
    """
    choose_input_scale(FRAME, as_lr)  # a wrong size is the caller's mistake, not the photograph's
    if wrong := [wanted for wanted in sensitivities if not 0 < wanted <= 1]:
        raise ValueError(f"sensitivity {wrong[0]}, expected above 0 and at most 1")
    graded = [sample for sample in samples if sample.grade is not None]
    check_sample_size([(int(s.grade), s.dataset, s.patient) for s in graded if s.grade is not None])
    measured = []
    for sample in graded:
        measured.append(_read(trained, sample, as_lr, bf16))
        advance()
    bootstrap = bootstrap or Bootstrap()
    done = fit_calibration(measured, sensitivities, bootstrap)
    return replace(done, protocol={**_protocol(trained, as_lr, bf16), **done.protocol})


def calibrate_folder(
    weights: Path,
    data: Path,
    *,
    split: Path | None = None,
    side: str = "validation",
    datasets: Sequence[str] = (),
    out: Path | None = None,
    **chosen: Any,
) -> Calibration:
    """From paths to a calibrated checkpoint: what `deepmtdr calibrate` does, with a progress bar.

    Args:
        weights: the checkpoint.
        data: see `evaluate_folder`.
        split: see `evaluate_folder`.
        side: of the split.
        datasets: see `evaluate_folder`.
        out: the `.safetensors` file that gets the calibration in its card; None: `weights` itself.
        **chosen: passed on to `calibrate`.

    Raises:
        CheckpointError: if the weights are missing or damaged, or `out` is no `.safetensors` file.
        DataError: if data sets and split do not belong together, or where `calibrate` does.
        OSError: if `out` cannot be written.
    """
    trained = checkpoint.load(weights)
    if not trained.model.has_grading:
        raise CheckpointError(f"{weights}: {trained.recipe.system} does not grade, expected weights that do")
    out = weights if out is None else out
    _try_to_write(out)
    samples = [sample for sample in load_samples(data, split, side, datasets) if sample.grade is not None]
    with Progress("calibrate", len(samples)) as progress:
        done = calibrate(trained, samples, **chosen, advance=progress.advance)
    done = _with_split(done, trained, split, side)
    checkpoint.update_card(weights, out, digest=trained.digest, calibration=done.to_card())
    return done


def _read(trained: Checkpoint, sample: Sample, as_lr: int | None, bf16: bool) -> PhotographResult:
    """The probabilities at temperature 1, and nothing of the other tasks."""
    way: dict[str, Any] = {"frame": trained.recipe.data.frame, "as_lr": as_lr, "bf16": bf16}
    return measure(trained.model, replace(sample, lesion_masks={}), **way, slow_metrics=False)[0]


def _protocol(trained: Checkpoint, as_lr: int | None, bf16: bool) -> dict[str, Any]:
    """What somebody who wants the same temperature has to know."""
    return {
        "version": __version__,
        "weights_sha256": trained.digest,
        "precision": "bf16" if bf16 else "fp32",
        "as_lr": as_lr,
    }


def _with_split(done: Calibration, trained: Checkpoint, split: Path | None, side: str) -> Calibration:
    """Say which photographs they were, and warn if the weights may have been trained on them."""
    if split is None:
        doubt = "no split was given: it is not known that the weights were not trained on these photographs"
        return replace(done, warnings=[*done.warnings, doubt])
    digest = hashlib.sha256(split.read_bytes()).hexdigest()
    said = {"side": side, "sha256": digest, "of_the_weights": digest == trained.card.get("data")}
    doubts = [
        *(["the weights were trained on these photographs, or so the split says"] if side == "train" else []),
        *([] if said["of_the_weights"] else ["the split is another than the weights were trained by"]),
    ]
    return replace(done, protocol={**done.protocol, "split": said}, warnings=[*done.warnings, *doubts])


def _try_to_write(out: Path) -> None:
    """Now, not after an hour."""
    if out.suffix != ".safetensors":
        raise CheckpointError(f"{out}: expected the name of a .safetensors file")
    out.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(out.parent, os.W_OK):
        raise PermissionError(errno.EACCES, "no right to write there", str(out.parent))
