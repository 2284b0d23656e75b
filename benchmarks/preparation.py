"""Time to prepare JPEG photographs of 4288 x 2848 px on one core and on two, compared with decoding them by Pillow.

The photographs are IDRiD's if present ($DEEPMTDR_DATA or ../shared/data), otherwise drawings of that size.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from deepmtdr.datasets.idrid import read_idrid_segmentation
from deepmtdr.datasets.prepared import PreparedSet
from deepmtdr.datasets.sample import Sample
from deepmtdr.photographs.decode import read_photograph
from deepmtdr.photographs.field_of_view import crop_to_frame, find_fov
from deepmtdr.preparation.prepare import prepare
from deepmtdr.synthetic.drawings import draw_photograph
from deepmtdr.terms import FRAME, Grade

COUNT = 16
SIZE = (4288, 2848)


def measure() -> dict[str, object]:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        samples = _photographs(Path(folder))
        pillow = _seconds(lambda: [_decode_and_resize(sample.photograph) for sample in samples])
        done: dict[int, PreparedSet] = {}
        seconds = {cores: _prepare(samples, Path(folder), cores, done) for cores in (1, 2)}
        quality = [_psnr(sample, done[1], n) for n, sample in enumerate(samples)]
    return {
        "photographs": len(samples),
        "data set": samples[0].dataset,
        "photographs per second of Pillow's full decode and resize, one core": round(len(samples) / pillow, 2),
        "photographs per second, one core": round(len(samples) / seconds[1], 2),
        "ratio": round(pillow / seconds[1], 2),
        "two cores to one": round(seconds[1] / seconds[2], 2),
        "PSNR to the full decode, least and mean, dB": [round(min(quality), 1), round(float(np.mean(quality)), 1)],
    }


def _photographs(folder: Path) -> list[Sample]:
    named = os.environ.get("DEEPMTDR_DATA", Path(__file__).parents[2] / "shared" / "data")
    if (root := Path(named) / "idrid").is_dir():
        found = read_idrid_segmentation(root)[:COUNT]
        return [Sample(photograph=s.photograph, name=s.name, patient=s.patient, dataset="idrid") for s in found]
    return [_drawn(folder / f"{n}.jpg", n) for n in range(COUNT)]


def _drawn(path: Path, seed: int) -> Sample:
    drawing = Image.fromarray(draw_photograph(seed, Grade(seed % 5), 3400).photograph)
    canvas = Image.new("RGB", SIZE)
    canvas.paste(drawing, ((SIZE[0] - drawing.width) // 2, (SIZE[1] - drawing.height) // 2))
    canvas.save(path, quality=92)
    return Sample(photograph=path, name=path.stem, patient=path.stem, dataset="drawings")


def _decode_and_resize(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB").resize((FRAME, FRAME), Image.Resampling.BICUBIC)


def _prepare(samples: list[Sample], folder: Path, cores: int, done: dict[int, PreparedSet]) -> float:
    """Seconds for the photographs, without the start of the workers, which happens once per data set."""
    many = [
        Sample(photograph=s.photograph, name=f"{n}_{s.name}", patient=s.patient, dataset=s.dataset)
        for n in range(1 if cores == 1 else 4)
        for s in samples
    ]
    start = _seconds(lambda: prepare(many[:2], folder, folder / f"start{cores}", workers=cores))
    few = _seconds(lambda: prepare(many[:2], folder, folder / f"few{cores}", workers=1))
    whole = _seconds(lambda: done.update({cores: prepare(many, folder, folder / f"out{cores}", workers=cores)}))
    return (whole - max(0.0, start - few)) * len(samples) / len(many)


def _psnr(sample: Sample, prepared: PreparedSet, n: int) -> float:
    pixels = read_photograph(sample.photograph).pixels
    row = prepared.rows[n]
    expected = crop_to_frame(pixels, row.fov or find_fov(pixels), FRAME).astype(float)
    return float(10 * np.log10(255**2 / ((prepared.frames()[n].pixels - expected) ** 2).mean()))


def _seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun
