"""Fit the model that decides whether a frame shows a retina, and evaluate it by cross-validation over patients.

Photographs come from $DEEPMTDR_DATA, else ../shared/data, in their original layouts. Each that the other checks of the
gate pass is used untouched, with an ordinary change or without its rim, and with one severe change of
`deepmtdr.synthetic.severe_changes`. The project's drawings and those of its tests are added. Other pictures are those
of `deepmtdr.synthetic.other_pictures` and those in the folders in $DEEPMTDR_PICTURES: each as it is, as a disc, and as
a disc in the colours of a retina.

out/bench/retina_model.csv has the model fitted on all data. Copy it over `screening/retina_model.csv` to use it in the
gate. It takes about ten minutes on one core.
"""

from __future__ import annotations

import csv
import os
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from benchmarks.quality_gate import _drawing_pixels, _jpeg, _on_canvas, _opened, _tinted
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from deepmtdr.datasets.catalogue import read_datasets
from deepmtdr.datasets.sample import Sample
from deepmtdr.errors import PhotographError
from deepmtdr.photographs.decode import read_photograph
from deepmtdr.photographs.field_of_view import crop_to_frame, find_fov
from deepmtdr.photographs.geometry import inscribed_disc
from deepmtdr.photographs.resize import resize
from deepmtdr.screening.quality import QualityLimits, assess_quality
from deepmtdr.screening.quality_features import QUALITY_FRAME_SIDE, MaskedImage
from deepmtdr.screening.retina_model import RETINA_FEATURE_NAMES, compute_retina_features, standardise
from deepmtdr.synthetic.other_pictures import OTHER_PICTURES, draw_other_picture
from deepmtdr.synthetic.severe_changes import SEVERE_CHANGES, add_severe_changes

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from fundus import draw_fundus  # pyright: ignore[reportMissingImports]

SETS = {
    "drive": "drive",
    "heimed": "heimed",
    "diaretdb0": "diaretdb0",
    "idrid": "idrid",
    "srahim": "srahim",
    "eyepacs": "eyepacs",
    "eyepacs256_equalised": "eyepacs256_equalised",
    "aptos": "aptos224_filtered",
}
"""Data set -> its folder."""
PROCESSED = ("eyepacs256_equalised", "aptos")
"""Sets of processed pictures: they are no photographs, and the other checks refuse most of them."""
FOLDS = 5
STRENGTH = 0.3
"""Inverse strength of the L2 penalty."""
DRAWN = 80
"""Number of drawn pictures of each kind."""
WEIGHTS = {"untouched": 1.0, "ordinary": 1.0, "severe": 0.5, "drawing": 0.5}
"""Weight of a copy in the fit. That of photographs of grade 3 or 4 is three times, of processed pictures 0.15."""
WITHOUT = QualityLimits(no_retina=1.0)
"""Limits of the gate without this model."""


class Row(NamedTuple):
    """A frame's features, and what it is."""

    features: NDArray[np.float64]
    source: str
    kind: str
    group: str
    """Patient, or name of the picture."""
    grade: int | None = None
    passed: bool = True
    """Whether the other checks of the gate pass it."""


def measure(quick: bool = False) -> dict[str, object]:
    """Fit and evaluate the model. `quick` uses every tenth photograph and picture."""
    root, step = Path(os.environ.get("DEEPMTDR_DATA", "../shared/data")), 10 if quick else 1
    samples = read_datasets({name: root / folder for name, folder in SETS.items() if (root / folder).is_dir()})
    if not samples:
        return {"left out": "no photographs: set DEEPMTDR_DATA to their folder"}
    real = [row for number, sample in enumerate(samples[::step]) for row in _photograph_rows(number, sample)]
    real += [row for number in range(0, 150, step) for row in _drawing_rows(number)]
    other = [row for picture in list(_pictures(step)) for row in _picture_rows(*picture)]
    refused, passed = _in_folds(real, other)
    _write(Path("out/bench/retina_model.csv"), *_fit(real, other))
    return {
        "refused of what the other checks pass, by set": _count(real, refused, lambda row: (row.source, row.kind)),
        "by grade": _count([r for r in real if r.source not in PROCESSED and r.kind == "untouched"], refused, _grade),
        "other pictures that pass both, of those that pass the other checks": _count(
            [row for row in other if row.passed], passed, lambda row: (row.source, row.kind)
        ),
    }


def _grade(row: Row) -> tuple[str, ...]:
    return (str(row.grade),)


def _photograph_rows(number: int, sample: Sample) -> Iterator[Row]:
    try:
        pixels = read_photograph(sample.photograph, min_side=2 * QUALITY_FRAME_SIDE).pixels
        fov = find_fov(pixels)
    except PhotographError:
        return
    frame, rng = crop_to_frame(pixels, fov, QUALITY_FRAME_SIDE), np.random.default_rng(number)
    if not assess_quality(frame, limits=WITHOUT).gradable:
        return
    copies = {"untouched": frame}
    if sample.dataset not in PROCESSED:
        severe = list(SEVERE_CHANGES)[number % len(SEVERE_CHANGES)]
        copies |= {severe: add_severe_changes(frame, severe, rng)}
        copies |= {"ordinary": _ordinary(frame, rng)} if number % 3 == 0 else {"no rim": _without_rim(frame, rng)}
    for kind, copy in copies.items():
        yield from _rows(copy, sample.dataset, kind, sample.patient, sample.grade)


def _drawing_rows(number: int) -> Iterator[Row]:
    """The project's drawing of this number, and a drawing of the tests (tests/fundus.py)."""
    rng = np.random.default_rng(number)
    side = int(rng.choice([160, 300, 400]))
    centre = (side / 1.5 + rng.uniform(-20, 20), side / 2)
    simple = draw_fundus(side, int(1.33 * side), centre, side * rng.uniform(0.42, 0.62))
    simple = (simple * rng.uniform(0.6, 1)).astype(np.uint8)
    for source, pixels in (("drawings", _drawing_pixels(number, rng)), ("drawings of the tests", simple)):
        yield from _rows(crop_to_frame(pixels, find_fov(pixels), QUALITY_FRAME_SIDE), source, "drawing", str(number))


def _rows(frame: NDArray, source: str, kind: str, group: str, grade: int | None = None) -> Iterator[Row]:
    """The row of a frame; none if hardly any pixel is lit."""
    if (image := MaskedImage.of(frame)) is not None:
        yield Row(compute_retina_features(image), source, kind, f"{source}/{group}", grade)


def _ordinary(frame: NDArray, rng: np.random.Generator) -> NDArray:
    """Grey, another exposure and colour, noise, or stronger compression."""
    pixels, way = frame.astype(np.float64), rng.integers(4)
    if way == 0:
        pixels = pixels.mean(axis=2, keepdims=True).repeat(3, axis=2)
    elif way == 1:
        pixels = 255 * (pixels / 255) ** rng.uniform(0.75, 1.3) * rng.uniform(0.85, 1.15, 3)
    elif way == 2:
        pixels += rng.normal(0, rng.uniform(1, 5), pixels.shape)
    else:
        return _jpeg(frame, int(rng.integers(75, 95)))
    return np.rint(pixels.clip(0, 255)).astype(np.uint8)


def _without_rim(frame: NDArray, rng: np.random.Generator) -> NDArray:
    """A square inside the circle."""
    side = int(rng.integers(70, 90))
    first = (len(frame) - side) // 2
    return resize(np.ascontiguousarray(frame[first : first + side, first : first + side]), QUALITY_FRAME_SIDE)


def _pictures(step: int) -> Iterator[tuple[str, str, NDArray]]:
    """Source, name and pixels of the other pictures."""
    for kind in OTHER_PICTURES:
        for number in range(0, DRAWN, step):
            rng = np.random.default_rng(number)
            side, ground = int(rng.choice([128, 160, 200, 256, 360])), int(rng.choice([0, 8, 128, 255]))
            yield "drawn " + kind, str(number), draw_other_picture(kind, rng, side, ground)
    for folder in (Path(name) for name in os.environ.get("DEEPMTDR_PICTURES", "").split(os.pathsep) if name):
        for path in sorted(path for path in folder.rglob("*") if path.is_file())[::step]:
            if (pixels := _opened(path)) is not None:
                yield folder.name, path.name, pixels


def _picture_rows(source: str, name: str, pixels: NDArray) -> Iterator[Row]:
    copies, rng = {"as it is": pixels}, np.random.default_rng(zlib.crc32(name.encode()))
    side = min(pixels.shape[:2])
    if not source.startswith("drawn ") and pixels.std() > 3:
        y, x = (int(rng.integers(0, length - side + 1)) for length in pixels.shape[:2])
        square = resize(np.ascontiguousarray(pixels[y : y + side, x : x + side]), 512)
        for kind, cut in (("disc", square), ("tinted disc", _tinted(square, rng))):
            lit = np.rint((cut * inscribed_disc(512)[..., None]).clip(0, 255)).astype(np.uint8)
            copies[kind] = _on_canvas(lit)
    for kind, copy in copies.items():
        try:
            frame = crop_to_frame(copy, find_fov(copy), QUALITY_FRAME_SIDE)
            passed = assess_quality(frame, limits=WITHOUT).gradable
            yield from (row._replace(passed=passed) for row in _rows(frame, source, kind, name))
        except PhotographError:
            continue


def _weight(row: Row) -> float:
    if row.source in PROCESSED:
        return 1.0 if row.source == "aptos" else 0.15
    severe_disease = 3 if row.grade in (3, 4) and row.kind in ("untouched", "ordinary") else 1
    return severe_disease * WEIGHTS.get(row.kind, WEIGHTS["severe"])


def _fit(real: list[Row], other: list[Row]) -> tuple[NDArray, NDArray, LogisticRegression]:
    """Mean and deviation of the features, and the model. Prior odds are 1:1."""
    features, others = (np.array([row.features for row in rows]) for rows in (real, other))
    weights = np.array([_weight(row) for row in real])
    other_weights = np.array([3.0 if row.passed else 1.0 for row in other])
    mean, deviation = np.average(features, axis=0, weights=weights), features.std(axis=0)
    balanced = np.r_[weights / weights.sum(), other_weights / other_weights.sum()] * (len(real) + len(other)) / 2
    classes = np.r_[np.zeros(len(real)), np.ones(len(other))]
    rows = _design(np.r_[features, others], mean, deviation)
    return mean, deviation, LogisticRegression(C=STRENGTH, max_iter=3000).fit(rows, classes, sample_weight=balanced)


def _design(features: NDArray, mean: NDArray, deviation: NDArray) -> NDArray:
    standard = standardise(features, mean, deviation)
    return np.concatenate([standard, standard**2], axis=1)


def _in_folds(real: list[Row], other: list[Row]) -> tuple[set[int], set[int]]:
    """Identities of the real rows that are refused and of the other rows that pass, by models that did not see them."""
    refused, passed = set(), set()
    for fold in range(FOLDS):
        inside, outside = ([r for r in rows if zlib.crc32(r.group.encode()) % FOLDS != fold] for rows in (real, other))
        mean, deviation, model = _fit(inside, outside)
        for rows, chosen, wanted in ((real, refused, True), (other, passed, False)):
            held = [row for row in rows if zlib.crc32(row.group.encode()) % FOLDS == fold]
            features = np.array([row.features for row in held])
            above = model.predict_proba(_design(features, mean, deviation))[:, 1] > QualityLimits().no_retina
            chosen |= {id(row) for row, is_above in zip(held, above, strict=True) if is_above == wanted}
    return refused, passed


def _count(rows: list[Row], chosen: set[int], key: Callable[[Row], tuple[str, ...]]) -> dict[str, str]:
    """How many rows are chosen, of how many, for each key."""
    by_key: dict[str, list[bool]] = {}
    for row in rows:
        by_key.setdefault(", ".join(key(row)), []).append(id(row) in chosen)
    return {name: f"{sum(own)} of {len(own)}" for name, own in sorted(by_key.items())}


def _write(path: Path, mean: NDArray, deviation: NDArray, model: LogisticRegression) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    weights, squares = np.split(model.coef_[0], 2)
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("feature", "mean", "deviation", "weight", "weight_of_square"))
        table.writerow(("intercept", f"{np.ravel(model.intercept_)[0]:.4g}", "", "", ""))
        for name, *values in zip(RETINA_FEATURE_NAMES, mean, deviation, weights, squares, strict=True):
            table.writerow((name, *(f"{value:.4g}" for value in values)))
