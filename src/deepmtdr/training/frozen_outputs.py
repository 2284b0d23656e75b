"""What the standing subnets say of each photograph, read once before the grading stage and kept on disk (Sec. IV-C)."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from deepmtdr.datasets.frames import Frame
from deepmtdr.errors import TrainingError
from deepmtdr.files import write_atomically
from deepmtdr.model.deepmtdr import DeepMTDR
from deepmtdr.model.isr import bicubic
from deepmtdr.model.preprocessing import CONTRAST_LIMIT, CONTRAST_STEPS_PER_UNIT
from deepmtdr.progress import Progress
from deepmtdr.recipe import Stage
from deepmtdr.training.augmentation import to_tensor
from deepmtdr.training.batches import CachedOutput
from deepmtdr.training.dataloader import draw_scale

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def cache_outputs(
    fabric: Fabric,
    model: DeepMTDR,
    frames: Sequence[Frame],
    stage: Stage,
    folder: Path,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[list[CachedOutput], float]:
    """Let the standing ISR and segmentation subnets read each photograph once, or find what they said before.

    A photograph that fills the frame comes in by one of the stage's scales, drawn once; a low-resolution one by its
    own. Several processes share the work. Where the stage's minutes are capped, reading ends when half of them are
    gone, in this run and in those that it goes on from.

    Args:
        fabric: where and in which precision it is computed.
        model: the network.
        frames: the photographs.
        stage: the grading stage.
        folder: what was read is kept there.
        clock: seconds, by which the stage's minutes are counted.

    Returns:
        What was read (of all photographs; under a cap perhaps of some, as many of each data set and grade), and the
        seconds that it took.

    Raises:
        TrainingError: if the cap left no time for any.
    """
    model.eval()
    files = [folder / frame.sample.dataset / f"{frame.sample.name}.npy" for frame in frames]
    fabric.barrier()  # nobody writes before all have seen what is there
    missing = [n for n in _in_turn(frames) if not files[n].exists()]
    fabric.barrier()
    begun = clock() - (float((folder / SECONDS_FILE).read_text()) if (folder / SECONDS_FILE).exists() else 0.0)
    with Progress("cached_outputs", len(missing), shown=fabric.is_global_zero) as progress:
        for n in missing[fabric.global_rank :: fabric.world_size]:
            if stage.minutes and clock() - begun >= 30 * stage.minutes:
                break
            _write(files[n], _compute(fabric, model, frames[n], stage, n))
            if fabric.is_global_zero:
                write_atomically(folder / SECONDS_FILE, f"{clock() - begun}".encode())
            progress.advance()
    fabric.barrier()
    seconds = float((folder / SECONDS_FILE).read_text()) if (folder / SECONDS_FILE).exists() else 0.0
    there = [(frame, file) for frame, file in zip(frames, files, strict=True) if not stage.minutes or file.exists()]
    if not there:
        raise TrainingError(f"{folder}: no photograph could be read in half of {stage.minutes:g} minutes; allow more")
    arrays = ((frame, np.load(file, mmap_mode="r")) for frame, file in there)
    return [CachedOutput(frame, both[:3], both[3:]) for frame, both in arrays], seconds


SECONDS_FILE = "seconds"
"""Beside the readings: how long they took."""


def _in_turn(frames: Sequence[Frame]) -> list[int]:
    """Numbers of the frames: the first of each data set and grade, then the second of each, and so on."""
    before: Counter[tuple[str, int | None]] = Counter()
    places = []
    for n, frame in enumerate(frames):
        group = (frame.sample.dataset, frame.sample.grade)
        places.append((before[group], n))
        before[group] += 1
    return [n for _, n in sorted(places)]


def _compute(fabric: Fabric, model: DeepMTDR, frame: Frame, stage: Stage, n: int) -> np.ndarray:
    """What the grading subnet sees of the frame (`view`) and lesion maps as 8 bits, 7 s s."""
    scale = frame.scale if frame.scale > 1 else draw_scale(stage.scales, np.random.default_rng([n, 7]))
    lr = fabric.to_device(to_tensor(frame.pixels)[None])
    if frame.scale == 1:
        lr = bicubic(lr, 1 / scale).clamp(0, 1)
    with torch.no_grad(), fabric.autocast():
        seen, shown = model.preprocess(model.super_resolve(lr, scale).float().clamp(0, 1))
        lesions = model.segment(seen)[:, :4]
    both = torch.cat([(shown + CONTRAST_LIMIT) * CONTRAST_STEPS_PER_UNIT, 255 * lesions.float()], dim=1)[0]
    return both.round().byte().cpu().numpy()


def _write(file: Path, both: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    np.save(file.with_suffix(".part.npy"), both)
    file.with_suffix(".part.npy").replace(file)


def limit_per_grade(count: int, graded: Iterable[Frame]) -> list[Frame]:
    """The first `count` photographs of each grade and data set; all if 0."""
    seen: Counter[tuple[str, int | None]] = Counter()
    kept = []
    for frame in graded:
        key = (frame.sample.dataset, frame.sample.grade)
        seen[key] += 1
        if not count or seen[key] <= count:
            kept.append(frame)
    return kept
