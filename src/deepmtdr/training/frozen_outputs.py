"""Outputs of the frozen ISR and segmentation subnets: computed once before the grading stage, and kept on disk."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import UInt8

from deepmtdr.datasets.frames import Frame
from deepmtdr.errors import TrainingError
from deepmtdr.files import make_folder, write_atomically
from deepmtdr.model.deepmtdr import DeepMTDR
from deepmtdr.model.isr import bicubic
from deepmtdr.model.preprocessing import image_to_tensor, input_to_uint8
from deepmtdr.progress import Progress
from deepmtdr.recipe import GradingStage
from deepmtdr.training.batches import CachedOutput
from deepmtdr.training.dataloader import draw_scale
from deepmtdr.training.grouping import group_by, take_in_turn

if TYPE_CHECKING:
    from lightning_fabric import Fabric

SECONDS_FILE = "seconds"
"""Name of the file with the time that the cached outputs took, s."""


def cache_outputs(
    fabric: Fabric,
    model: DeepMTDR,
    frames: Sequence[Frame],
    stage: GradingStage,
    folder: Path,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[list[CachedOutput], float]:
    """Compute the outputs of the frozen subnets for each photograph, or read those that are already in the folder.

    A photograph of scale 1 is first reduced by one of the stage's scales, drawn once; a low-resolution
    photograph has a fixed scale. Several processes share the work. If the stage has a limit in minutes, this ends after
    half of them, counted over this run and the runs that it resumes.

    Args:
        fabric: Lightning Fabric, which sets the device and the precision.
        model: the network.
        frames: the photographs.
        stage: the grading stage.
        folder: folder of the cached outputs.
        clock: function that returns the seconds that count for the stage's minutes.

    Returns:
        The cached outputs (with a limit perhaps of some photographs only, of each data set and grade in turn), and the
        seconds that they took.

    Raises:
        TrainingError: if no output could be computed within the limit.
    """
    model.eval()
    files = [folder / frame.sample.dataset / f"{frame.sample.name}.npy" for frame in frames]
    fabric.barrier()  # no process writes before all have looked for files
    missing = [n for n in _order(frames) if not files[n].exists()]
    fabric.barrier()
    begun = clock() - _read_seconds(folder)
    with Progress("cached outputs", len(missing), shown=fabric.is_global_zero) as progress:
        for n in missing[fabric.global_rank :: fabric.world_size]:
            if stage.minutes and clock() - begun >= 30 * stage.minutes:
                break
            _write(files[n], _compute(fabric, model, frames[n], stage, n))
            if fabric.is_global_zero:
                write_atomically(folder / SECONDS_FILE, f"{clock() - begun}".encode(), durable=False)
            progress.advance()
    fabric.barrier()
    found = [(frame, file) for frame, file in zip(frames, files, strict=True) if not stage.minutes or file.exists()]
    if not found:
        limit = f"half of {stage.minutes:g} minutes"
        raise TrainingError(f"{folder}: no cached output could be computed in {limit}; set grading.minutes higher")
    return [_read(frame, file) for frame, file in found], _read_seconds(folder)


def _read_seconds(folder: Path) -> float:
    file = folder / SECONDS_FILE
    return float(file.read_text()) if file.exists() else 0.0


def _order(frames: Sequence[Frame]) -> list[int]:
    """Order the frames: the first of each data set and grade, then the second of each, and so on."""
    groups = group_by(range(len(frames)), lambda n: (frames[n].sample.dataset, frames[n].sample.grade))
    return list(take_in_turn(groups.values()))


def _compute(fabric: Fabric, model: DeepMTDR, frame: Frame, stage: GradingStage, n: int) -> UInt8[np.ndarray, "c s s"]:
    """Compute the input of the grading subnet and lesion maps as 8 bits, in one stack of 3 + l channels."""
    # The seed is only the position of the photograph. Do not change it: a resumed run must draw the same scales.
    scale = frame.scale if frame.scale > 1 else draw_scale(stage.scales, np.random.default_rng([n, 7]))
    lr = fabric.to_device(image_to_tensor(frame.pixels)[None])
    if frame.scale == 1:
        lr = bicubic(lr, 1 / scale).clamp(0, 1)
    with torch.no_grad(), fabric.autocast():
        segmentation_input, grading_input = model.preprocess(model.super_resolve(lr, scale).float().clamp(0, 1))
        lesions = model.segment(segmentation_input)[:, :-1]
        image, lesions = model.grading.reduce(grading_input, lesions.float())
    both = torch.cat([input_to_uint8(image), (255 * lesions).round().byte()], dim=1)[0]
    return both.cpu().numpy()


def _read(frame: Frame, file: Path) -> CachedOutput:
    both = np.load(file, mmap_mode="r")
    return CachedOutput(frame, both[:3], both[3:])


def _write(file: Path, both: UInt8[np.ndarray, "c s s"]) -> None:
    make_folder(file.parent)
    content = io.BytesIO()
    np.save(content, both)
    # Thousands of files, which can be computed again: flushing each to the disk would take longer than computing it.
    write_atomically(file, content.getvalue(), durable=False)


def limit_per_grade(count: int, graded: Iterable[Frame]) -> list[Frame]:
    """Keep the first `count` photographs of each grade and data set, in their order; 0: all."""
    kept: list[Frame] = []
    taken: dict[tuple[str, int | None], int] = {}
    for frame in graded:
        key = (frame.sample.dataset, frame.sample.grade)
        taken[key] = taken.get(key, 0) + 1
        if not count or taken[key] <= count:
            kept.append(frame)
    return kept
