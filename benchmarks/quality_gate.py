"""Fit the quality gate's two models and judge them on patients, cameras and pictures that a fit did not see.

Photographs are read from $DEEPMTDR_DATA, else ../shared/data: IDRiD, EyePACS, DIARETDB0 and DRIVE, untouched, with
ordinary differences between cameras and files ("ordinary"), and spoilt in each way of `deepmtdr.synthetic.degradations`.
Pictures of anything else are read from the folders in $DEEPMTDR_PICTURES, a kind each; those of a folder named
`judge-...` are in no fit. Each is taken as it is, as a disc on black, and as such a disc in a retina's colours and
contrast. out/bench/quality_score.csv is the table of a fit on all: copied over `screening/quality_score.csv` it is what
the gate uses. Photographs that readers refused (label 5 of DDR) were not at hand; they belong beside the spoilt ones.
"""

from __future__ import annotations

import csv
import io
import os
import time
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing import Pool
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold

from deepmtdr.errors import PhotographError
from deepmtdr.photographs.decode import read_photograph
from deepmtdr.photographs.field_of_view import crop_to_frame, find_fov
from deepmtdr.photographs.resize import resize
from deepmtdr.screening.quality import QualityLimits
from deepmtdr.screening.quality_features import FEATURE_NAMES, QUALITY_FRAME_SIDE, compute_quality_features
from deepmtdr.screening.quality_model import POOR_QUALITY_FAULTS, SQUARED_FEATURES, Fault, design_matrix
from deepmtdr.synthetic.degradations import DEGRADATIONS, degrade, inscribed_disc
from deepmtdr.synthetic.drawings import draw_photograph
from deepmtdr.terms import Grade

SETS = {
    "idrid": ("idrid/B*/1*/**/*.jpg", 5),
    "eyepacs": ("eyepacs/train/*.jpeg", 3),
    "diaretdb0": ("diaretdb0/images/**/*.jpg", 6),
    "drive": ("drive/training/images/*.tif", len(DEGRADATIONS)),
}
"""Where the photographs lie, and in how many ways each is spoilt."""
FAULT_OF = {
    **dict.fromkeys(("defocus", "motion"), Fault.BLURRED),
    **dict.fromkeys(("over-exposed", "flare"), Fault.BRIGHT),
    **dict.fromkeys(("haze", "faint"), Fault.FAINT),
    **dict.fromkeys(("shadow", "eyelid", "lashes"), Fault.COVERED),
    **dict.fromkeys(("noise", "compressed"), Fault.NOISY),
    "under-exposed": Fault.DARK,
}
TWINS = {"IDRiD_391": "IDRiD_021", "IDRiD_327": "IDRiD_028", "IDRiD_333": "IDRiD_045"} | {
    "IDRiD_375": "IDRiD_073",
    "IDRiD_279": "IDRiD_079",
}
"""The same photograph twice."""
SIDE, FOLDS, STRENGTH = 512, 5, 2.0
"""Side at which frames are spoilt, px; folds; inverse strength of the penalty."""
TEXTURES, DRAWINGS = 250, 150
"""Random textures among the pictures; the project's own drawings among what is fit to be graded, judged nowhere."""


class Looks(NamedTuple):
    """One row each: what was measured, and what it was measured on."""

    features: NDArray[np.float64]
    """NaN where no field of view was found."""
    source: NDArray[np.str_]
    group: NDArray[np.str_]
    """Patient, or picture."""
    kind: NDArray[np.str_]
    """`untouched`, `ordinary`, one of `DEGRADATIONS`; of pictures `as it is`, `disc`, `tinted disc`."""

    def of(self, chosen: NDArray[np.bool_]) -> Looks:
        """The chosen rows."""
        return Looks(*(column[chosen] for column in self))

    @property
    def seen(self) -> NDArray[np.bool_]:
        """Rows with a field of view."""
        return np.isfinite(self.features[:, 0])

    @property
    def fault(self) -> NDArray[np.intp]:
        """0 is good, then the place in `POOR_QUALITY_FAULTS`."""
        return np.array(
            [1 + POOR_QUALITY_FAULTS.index(FAULT_OF[kind]) if kind in DEGRADATIONS else 0 for kind in self.kind]
        )


Row = tuple[NDArray, str, str, str]


def measure(quick: bool = False) -> dict[str, object]:
    """Fit and judge; quick takes every tenth photograph and picture."""
    root = Path(os.environ.get("DEEPMTDR_DATA", "../shared/data"))
    photographs = [(name, path) for name, (pattern, _) in SETS.items() for path in sorted(root.glob(pattern))]
    if not photographs:
        return {"left out": "no photographs at hand: DEEPMTDR_DATA names their folder"}
    folders = [Path(folder) for folder in os.environ.get("DEEPMTDR_PICTURES", "").split(os.pathsep) if folder]
    pictures = [(folder.name, path) for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()]
    step = 10 if quick else 1
    textures = [("texture", Path(str(number))) for number in range(TEXTURES)]
    drawings = [("drawing", Path(str(number))) for number in range(DRAWINGS)]
    real = _look(_photograph, (photographs + drawings)[::step])
    other = _look(_picture, (pictures + textures)[::step])
    figures = {"photographs": _by(real.source[real.kind == "untouched"]), "pictures": _by(other.source)}
    _write(Path("out/bench/quality_score.csv"), _fit(real, _fitted(other)))
    figures |= {f"{FOLDS} folds of patients": _in_folds(real, other), "cameras": _across_cameras(real, other)}
    return figures | {"ms for each frame": _milliseconds()}


def _look(look: Callable[[tuple[str, Path]], list[Row]], items: list[tuple[str, Path]]) -> Looks:
    with Pool(os.cpu_count()) as pool:
        rows = [row for rows in pool.imap(look, items, chunksize=4) for row in rows]
    return Looks(*(np.array(column) for column in zip(*rows, strict=True)))


def _photograph(item: tuple[str, Path]) -> list[Row]:
    source, path = item
    rng = np.random.default_rng(zlib.crc32(path.name.encode()))
    if source == "drawing":
        return [(_drawing(int(path.name), rng), source, f"drawing/{path}", "drawn")]
    patient = f"{source}/{path.stem.split('_')[0] if source == 'eyepacs' else TWINS.get(path.stem, path.stem)}"
    try:
        pixels = read_photograph(path).pixels
        frame = crop_to_frame(pixels, find_fov(pixels), SIDE)
    except PhotographError:
        return [(np.full(len(FEATURE_NAMES), np.nan), source, patient, "untouched")]
    ways = rng.permutation(list(DEGRADATIONS))[: SETS[source][1]]
    rows = [("untouched", _seen(pixels)), *(("ordinary", _ordinary(frame, rng)) for _ in range(3))]
    varied = np.rint((frame * rng.uniform(0.75, 1.25, 3)).clip(0, 255)).astype(np.uint8)
    rows += [(way, _seen(_on_canvas(degrade(varied, way, rng)))) for way in ways]
    return [(features, source, patient, kind) for kind, features in rows]


def _drawing(number: int, rng: np.random.Generator) -> NDArray:
    """So that `deepmtdr draw`, the demo and the tests pass, and since they hold lesions of every number and size."""
    return _seen(draw_photograph(number, Grade(number % len(Grade)), int(2 ** rng.uniform(7, 9.5))).photograph)


def _ordinary(frame: NDArray, rng: np.random.Generator) -> NDArray:
    """Another camera's colours and exposure, a little blur and noise, mirrored, small, compressed, grey or rimless."""
    pixels = frame * rng.uniform(0.75, 1.25) * rng.uniform(0.85, 1.15, 3)
    if rng.random() < 0.5:
        pixels = 255 * (pixels.clip(0, 255) / 255) ** rng.uniform(0.8, 1.25)
    if rng.random() < 0.3:
        pixels = pixels + rng.normal(0, rng.uniform(1, 5), pixels.shape)
    if rng.random() < 0.08:
        pixels = pixels.mean(axis=2, keepdims=True).repeat(3, axis=2)
    pixels = np.rint((pixels * inscribed_disc(SIDE)[..., None]).clip(0, 255)).astype(np.uint8)
    pixels = pixels[:: rng.choice([-1, 1]), :: rng.choice([-1, 1])]
    if rng.random() < 0.1:  # retina alone: the square inside the circle
        return _measured(np.ascontiguousarray(pixels[SIDE // 5 : -SIDE // 5, SIDE // 5 : -SIDE // 5]))
    if rng.random() < 0.5:
        pixels = _filed(resize(np.ascontiguousarray(pixels), int(2 ** rng.uniform(6.6, 9))), int(rng.integers(80, 96)))
    return _seen(_on_canvas(pixels))


def _picture(item: tuple[str, Path]) -> list[Row]:
    """As it is, and three squares of it as discs."""
    source, path = item
    rng = np.random.default_rng(zlib.crc32(path.name.encode()))
    picture = _texture(rng) if source == "texture" else _opened(path)
    if picture is None:
        return []
    rows = [("as it is", _seen(picture))] if source != "texture" else []
    least = min(picture.shape[:2])
    for number in range(3):
        side = least if number == 0 else int(least * rng.uniform(0.35, 0.9))
        y, x = (int(rng.integers(0, length - side + 1)) for length in picture.shape[:2])
        square = resize(np.ascontiguousarray(picture[y : y + side, x : x + side]), SIDE)
        if square.std() < 3:
            continue
        for kind, cut in (("disc", square), ("tinted disc", _tinted(square, rng))):
            lit = np.rint((cut * inscribed_disc(SIDE)[..., None]).clip(0, 255)).astype(np.uint8)
            rows.append((kind, _seen(_on_canvas(lit))))
    return [(features, source, path.name, kind) for kind, features in rows]


def _opened(path: Path) -> NDArray | None:
    try:
        with Image.open(path) as file:
            image = file.convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError):
        return None
    image.thumbnail((1000, 1000))
    return np.asarray(image) if min(image.size) >= 120 else None


def _texture(rng: np.random.Generator) -> NDArray:
    """Noise whose strength falls with frequency, as that of most pictures does, and nothing else."""
    frequency = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.fftfreq(SIDE)[None])
    frequency[0, 0] = 1
    values = np.fft.ifft2(np.fft.fft2(rng.normal(size=(SIDE, SIDE))) / frequency ** rng.uniform(0.7, 2)).real
    grey = 128 + (values - values.mean()) / values.std() * rng.uniform(10, 40)
    return np.rint(grey[..., None].repeat(3, axis=2).clip(0, 255)).astype(np.uint8)


def _tinted(square: NDArray, rng: np.random.Generator) -> NDArray:
    """In a retina's colours, contrast and fall of light."""
    light = square.mean(axis=2)
    low, high = np.percentile(light, (2, 98))
    light, kept = ((light - low) / max(high - low, 20)).clip(0, 1.1), rng.uniform(0.25, 1)
    colour = (rng.uniform(150, 250), rng.uniform(70, 140), rng.uniform(20, 80))
    tinted = (1 - kept + kept * light)[..., None] * colour + (square / 255 - 0.5) * rng.uniform(0, 20)
    across = ((np.mgrid[:SIDE, :SIDE] / SIDE - 0.5) ** 2).sum(axis=0)
    return tinted * (1 - rng.uniform(0, 1.4) * across)[..., None]


def _on_canvas(frame: NDArray) -> NDArray:
    side = len(frame)
    canvas = np.zeros((side + side // 12, int(1.3 * side), 3), np.uint8)
    y, x = side // 24, (canvas.shape[1] - side) // 2
    canvas[y : y + side, x : x + side] = frame
    return canvas


def _filed(pixels: NDArray, quality: int) -> NDArray:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def _seen(pixels: NDArray) -> NDArray:
    try:
        return _measured(crop_to_frame(pixels, find_fov(pixels), QUALITY_FRAME_SIDE))
    except PhotographError:
        return np.full(len(FEATURE_NAMES), np.nan)


def _measured(frame: NDArray) -> NDArray:
    features = compute_quality_features(frame)
    return np.full(len(FEATURE_NAMES), np.nan) if features is None else features


class Fit(NamedTuple):
    """Both models."""

    mean: NDArray
    deviation: NDArray
    quality: LogisticRegression
    other: LogisticRegression

    def judge(self, looks: Looks) -> tuple[NDArray, NDArray]:
        """Quality and probability of being no fundus photograph; 0 and 1 without a field of view."""
        rows = design_matrix(np.nan_to_num(looks.features), self.mean, self.deviation)
        quality, other = self.quality.predict_proba(rows)[:, 0], self.other.predict_proba(rows)[:, 1]
        return np.where(looks.seen, quality, 0), np.where(looks.seen, other, 1)


def _fit(real: Looks, other: Looks) -> Fit:
    real, other = real.of(real.seen), other.of(other.seen)
    mean, deviation = real.features.mean(axis=0), real.features.std(axis=0)
    rows, others = (design_matrix(looks.features, mean, deviation) for looks in (real, other))
    model = partial(LogisticRegression, C=STRENGTH, max_iter=3000)
    quality = model(class_weight="balanced").fit(rows, real.fault)
    # A real photograph called none is the worse mistake: those fit to be graded count twice. Even odds beforehand.
    counts = np.where(real.fault == 0, 2.0, 1.0)
    counts = np.r_[counts / counts.sum(), np.full(len(others), 1 / len(others))] * (len(rows) + len(others)) / 2
    classes = np.r_[np.zeros(len(rows)), np.ones(len(others))]
    return Fit(mean, deviation, quality, model().fit(np.r_[rows, others], classes, sample_weight=counts))


def _fitted(other: Looks) -> Looks:
    return other.of(~np.char.startswith(other.source, "judge-"))


def _write(path: Path, fit: Fit) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    weights = np.c_[fit.quality.coef_.T, fit.other.coef_[0]]
    intercepts = np.r_[fit.quality.intercept_, fit.other.intercept_]
    names = (*FEATURE_NAMES, *(f"{name}^2" for name in SQUARED_FEATURES))
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("term", "mean", "deviation", "good", *POOR_QUALITY_FAULTS, Fault.NO_FUNDUS))
        table.writerow(("intercept", "", "", *(f"{value:.4g}" for value in intercepts)))
        for number, name in enumerate(names):
            own = (fit.mean[number], fit.deviation[number]) if number < len(FEATURE_NAMES) else ()
            cells = [f"{value:.4g}" for value in own] or ["", ""]
            table.writerow((name, *cells, *(f"{value:.4g}" for value in weights[number])))


def _in_folds(real: Looks, other: Looks) -> dict[str, object]:
    quality, none, o_quality, o_none = (np.zeros(len(looks.kind)) for looks in (real, real, other, other))
    folds = np.array([zlib.crc32(name.encode()) % FOLDS for name in other.group])
    splits = GroupKFold(FOLDS).split(real.features, groups=real.group)
    for fold, (train, test) in enumerate(splits):
        fit = _fit(real.of(np.isin(np.arange(len(quality)), train)), _fitted(other.of(folds != fold)))
        quality[test], none[test] = fit.judge(real.of(np.isin(np.arange(len(quality)), test)))
        o_quality[folds == fold], o_none[folds == fold] = fit.judge(other.of(folds == fold))
    figures: dict[str, object] = {"all": _figures(real, quality, none)}
    figures |= {
        name: _figures(real.of(at), quality[at], none[at]) for name in SETS if (at := real.source == name).any()
    }
    return figures | {"pictures": dict(_caught(other, o_quality, o_none))}


def _across_cameras(real: Looks, other: Looks) -> dict[str, object]:
    figures = {}
    for fitted in (("idrid", "eyepacs"), ("diaretdb0", "drive"), ("eyepacs", "diaretdb0"), ("idrid", "diaretdb0")):
        fit = _fit(real.of(np.isin(real.source, fitted)), _fitted(other))
        for name in set(SETS) - set(fitted):
            part = real.of(real.source == name)
            figures[f"fitted on {' and '.join(fitted)}, judged on {name}"] = _figures(part, *fit.judge(part))
    return figures


def _figures(looks: Looks, quality: NDArray, none: NDArray) -> dict[str, Any]:
    """ROC AUC of untouched against spoilt, and what the gate's limits refuse."""
    limits = QualityLimits()
    untouched, spoilt = looks.kind == "untouched", looks.fault > 0
    at_99 = np.quantile(quality[untouched], 0.01)
    refused = (quality < limits.quality) | (none > limits.not_fundus)
    aucs = {
        way: _auc(quality[untouched], quality[looks.kind == way]) for way in DEGRADATIONS if (looks.kind == way).any()
    }
    return {
        "untouched": int(untouched.sum()),
        "AUC": _auc(quality[untouched], quality[spoilt]),
        "spoilt below the score that 99 % reach": _share(quality[spoilt] < at_99),
        "untouched refused": _share(refused[untouched]),
        "untouched called no fundus photograph": _share((none > limits.not_fundus)[untouched & looks.seen]),
        "ordinary refused": _share(refused[looks.kind == "ordinary"]),
        "spoilt refused": _share(refused[spoilt]),
        "spoilt called no fundus photograph": _share((none > limits.not_fundus)[spoilt & looks.seen]),
        "AUC and share refused by way": {w: (a, _share(refused[looks.kind == w])) for w, a in aucs.items()},
    }


def _caught(other: Looks, quality: NDArray, none: NDArray) -> Iterator[tuple[str, dict[str, float]]]:
    limits = QualityLimits()
    for source, kind in sorted(set(zip(other.source.tolist(), other.kind.tolist(), strict=True))):
        at = (other.source == source) & (other.kind == kind)
        named, refused = none[at] > limits.not_fundus, (none[at] > limits.not_fundus) | (quality[at] < limits.quality)
        yield f"{source}, {kind}", {"of": int(at.sum()), "named": _share(named), "refused": _share(refused)}


def _auc(good: NDArray, poor: NDArray) -> float:
    return round(float(roc_auc_score(np.r_[np.ones(len(good)), np.zeros(len(poor))], np.r_[good, poor])), 4)


def _share(chosen: NDArray) -> float:
    return round(float(chosen.mean()), 4) if len(chosen) else float("nan")


def _by(names: NDArray) -> dict[str, int]:
    return {str(name): int(count) for name, count in zip(*np.unique(names, return_counts=True), strict=True)}


def _milliseconds() -> float:
    frame = np.random.default_rng(0).integers(0, 256, (256, 256, 3)).astype(np.uint8)
    started = time.process_time()
    for _ in range(20):
        compute_quality_features(frame)
    return round(50 * (time.process_time() - started), 1)
