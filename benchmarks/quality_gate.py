"""Fit the two models of the quality gate, and evaluate them by cross-validation over patients and over cameras.

Photographs come from $DEEPMTDR_DATA, else ../shared/data: IDRiD, EyePACS, DIARETDB0 and DRIVE. Each is used untouched,
with ordinary differences between cameras and files ("ordinary"), and with each degradation of
`deepmtdr.synthetic.degradations`. Other pictures come from the folders in $DEEPMTDR_PICTURES, one kind in each folder;
pictures in a folder named `test-...` are used for evaluation only. Each picture is used as it is, as a disc on black,
and as a disc in the colours and contrast of a retina.

out/bench/quality_model.csv has the models fitted on all data. Copy it over `screening/quality_model.csv` to use it in
the gate. Photographs that human readers refused (label 5 of DDR) were not available; they would belong to the degraded
photographs.
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
"""Data set -> glob pattern of its photographs, and number of degradations of each."""
FAULT_OF = {
    **dict.fromkeys(("defocus", "motion"), Fault.BLURRED),
    **dict.fromkeys(("over-exposed", "flare"), Fault.BRIGHT),
    **dict.fromkeys(("haze", "faint"), Fault.FAINT),
    **dict.fromkeys(("shadow", "eyelid", "lashes"), Fault.COVERED),
    **dict.fromkeys(("noise", "compressed"), Fault.NOISY),
    "under-exposed": Fault.DARK,
}
DUPLICATES = {
    "IDRiD_391": "IDRiD_021",
    "IDRiD_327": "IDRiD_028",
    "IDRiD_333": "IDRiD_045",
    "IDRiD_375": "IDRiD_073",
    "IDRiD_279": "IDRiD_079",
}
"""Name of a photograph -> name of the same photograph in another part of the set."""
SIDE = 512
"""Side in px of the frames that are degraded."""
FOLDS = 5
STRENGTH = 2.0
"""Inverse strength of the L2 penalty."""
TEXTURES = 250
"""Number of random textures among the other pictures."""
DRAWINGS = 150
"""Number of synthetic drawings among the gradable photographs. They are used for fitting only."""


class Dataset(NamedTuple):
    """Features of many images; each column has one entry for each image."""

    features: NDArray[np.float64]
    """NaN if no field of view was found."""
    source: NDArray[np.str_]
    """Name of the data set or of the folder of pictures."""
    group: NDArray[np.str_]
    """Patient, or file name of the picture."""
    kind: NDArray[np.str_]
    """`untouched`, `ordinary`, or one of `DEGRADATIONS`; for pictures `as it is`, `disc` or `tinted disc`."""

    def where(self, mask: NDArray[np.bool_]) -> Dataset:
        """The images for which the mask is true."""
        return Dataset(*(column[mask] for column in self))

    @property
    def has_fov(self) -> NDArray[np.bool_]:
        """Whether a field of view was found, for each image."""
        return np.isfinite(self.features[:, 0])

    @property
    def fault(self) -> NDArray[np.intp]:
        """Class of each image: 0 is good, n + 1 is entry n of `POOR_QUALITY_FAULTS`."""
        return np.array(
            [1 + POOR_QUALITY_FAULTS.index(FAULT_OF[kind]) if kind in DEGRADATIONS else 0 for kind in self.kind]
        )


Row = tuple[NDArray, str, str, str]


def measure(quick: bool = False) -> dict[str, object]:
    """Fit and evaluate the models. `quick` uses every tenth photograph and picture."""
    root = Path(os.environ.get("DEEPMTDR_DATA", "../shared/data"))
    photographs = [(name, path) for name, (pattern, _) in SETS.items() for path in sorted(root.glob(pattern))]
    if not photographs:
        return {"left out": "no photographs: set DEEPMTDR_DATA to their folder"}
    folders = [Path(folder) for folder in os.environ.get("DEEPMTDR_PICTURES", "").split(os.pathsep) if folder]
    pictures = [(folder.name, path) for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()]
    step = 10 if quick else 1
    textures = [("texture", Path(str(number))) for number in range(TEXTURES)]
    drawings = [("drawing", Path(str(number))) for number in range(DRAWINGS)]
    real = _collect(_photograph_rows, (photographs + drawings)[::step])
    other = _collect(_picture_rows, (pictures + textures)[::step])
    figures = {"photographs": _count(real.source[real.kind == "untouched"]), "pictures": _count(other.source)}
    _write(Path("out/bench/quality_model.csv"), _fit(real, _for_fitting(other)))
    figures |= {f"{FOLDS} folds of patients": _in_folds(real, other), "cameras": _across_cameras(real, other)}
    return figures | {"ms for each frame": _milliseconds()}


def _collect(make_rows: Callable[[tuple[str, Path]], list[Row]], items: list[tuple[str, Path]]) -> Dataset:
    """The rows of all items, made in parallel."""
    with Pool(os.cpu_count()) as pool:
        rows = [row for rows in pool.imap(make_rows, items, chunksize=4) for row in rows]
    return Dataset(*(np.array(column) for column in zip(*rows, strict=True)))


def _photograph_rows(item: tuple[str, Path]) -> list[Row]:
    """The photograph untouched, three ordinary variants, and some degradations."""
    source, path = item
    rng = np.random.default_rng(zlib.crc32(path.name.encode()))
    if source == "drawing":
        return [(_features(_drawing_pixels(int(path.name), rng)), source, f"drawing/{path}", "drawn")]
    patient = f"{source}/{path.stem.split('_')[0] if source == 'eyepacs' else DUPLICATES.get(path.stem, path.stem)}"
    try:
        pixels = read_photograph(path).pixels
        frame = crop_to_frame(pixels, find_fov(pixels), SIDE)
    except PhotographError:
        return [(np.full(len(FEATURE_NAMES), np.nan), source, patient, "untouched")]
    ways = rng.permutation(list(DEGRADATIONS))[: SETS[source][1]]
    rows = [("untouched", _features(pixels)), *(("ordinary", _ordinary(frame, rng)) for _ in range(3))]
    varied = np.rint((frame * rng.uniform(0.75, 1.25, 3)).clip(0, 255)).astype(np.uint8)
    rows += [(way, _features(_on_canvas(degrade(varied, way, rng)))) for way in ways]
    return [(features, source, patient, kind) for kind, features in rows]


def _drawing_pixels(number: int, rng: np.random.Generator) -> NDArray:
    """A drawing. The gate must accept drawings: the demo and the tests use them."""
    return draw_photograph(number, Grade(number % len(Grade)), int(2 ** rng.uniform(7, 9.5))).photograph


def _ordinary(frame: NDArray, rng: np.random.Generator) -> NDArray:
    """Features after ordinary differences: colours, exposure, noise, mirroring, size, compression, grey, no rim."""
    pixels = frame * rng.uniform(0.75, 1.25) * rng.uniform(0.85, 1.15, 3)
    if rng.random() < 0.5:
        pixels = 255 * (pixels.clip(0, 255) / 255) ** rng.uniform(0.8, 1.25)
    if rng.random() < 0.3:
        pixels = pixels + rng.normal(0, rng.uniform(1, 5), pixels.shape)
    if rng.random() < 0.08:
        pixels = pixels.mean(axis=2, keepdims=True).repeat(3, axis=2)
    pixels = np.rint((pixels * inscribed_disc(SIDE)[..., None]).clip(0, 255)).astype(np.uint8)
    pixels = pixels[:: rng.choice([-1, 1]), :: rng.choice([-1, 1])]
    if rng.random() < 0.1:  # only retina: the square inside the circle
        return _measured(np.ascontiguousarray(pixels[SIDE // 5 : -SIDE // 5, SIDE // 5 : -SIDE // 5]))
    if rng.random() < 0.5:
        pixels = _jpeg(resize(np.ascontiguousarray(pixels), int(2 ** rng.uniform(6.6, 9))), int(rng.integers(80, 96)))
    return _features(_on_canvas(pixels))


def _picture_rows(item: tuple[str, Path]) -> list[Row]:
    """The picture as it is, and three squares of it as discs."""
    source, path = item
    rng = np.random.default_rng(zlib.crc32(path.name.encode()))
    picture = _texture(rng) if source == "texture" else _opened(path)
    if picture is None:
        return []
    rows = [("as it is", _features(picture))] if source != "texture" else []
    least = min(picture.shape[:2])
    for number in range(3):
        side = least if number == 0 else int(least * rng.uniform(0.35, 0.9))
        y, x = (int(rng.integers(0, length - side + 1)) for length in picture.shape[:2])
        square = resize(np.ascontiguousarray(picture[y : y + side, x : x + side]), SIDE)
        if square.std() < 3:
            continue
        for kind, cut in (("disc", square), ("tinted disc", _tinted(square, rng))):
            lit = np.rint((cut * inscribed_disc(SIDE)[..., None]).clip(0, 255)).astype(np.uint8)
            rows.append((kind, _features(_on_canvas(lit))))
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
    """Noise whose amplitude falls with frequency, as in most pictures."""
    frequency = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.fftfreq(SIDE)[None])
    frequency[0, 0] = 1
    values = np.fft.ifft2(np.fft.fft2(rng.normal(size=(SIDE, SIDE))) / frequency ** rng.uniform(0.7, 2)).real
    grey = 128 + (values - values.mean()) / values.std() * rng.uniform(10, 40)
    return np.rint(grey[..., None].repeat(3, axis=2).clip(0, 255)).astype(np.uint8)


def _tinted(square: NDArray, rng: np.random.Generator) -> NDArray:
    """A picture in the colours, contrast and vignetting of a retina."""
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


def _jpeg(pixels: NDArray, quality: int) -> NDArray:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def _features(pixels: NDArray) -> NDArray:
    """Features of the field of view; NaN if there is none."""
    try:
        return _measured(crop_to_frame(pixels, find_fov(pixels), QUALITY_FRAME_SIDE))
    except PhotographError:
        return np.full(len(FEATURE_NAMES), np.nan)


def _measured(frame: NDArray) -> NDArray:
    features = compute_quality_features(frame)
    return np.full(len(FEATURE_NAMES), np.nan) if features is None else features


class Fit(NamedTuple):
    """Both models, fitted."""

    mean: NDArray
    deviation: NDArray
    quality: LogisticRegression
    other: LogisticRegression

    def predict(self, images: Dataset) -> tuple[NDArray, NDArray]:
        """Quality and probability of being no fundus photograph; 0 and 1 without a field of view."""
        rows = design_matrix(np.nan_to_num(images.features), self.mean, self.deviation)
        quality, other = self.quality.predict_proba(rows)[:, 0], self.other.predict_proba(rows)[:, 1]
        return np.where(images.has_fov, quality, 0), np.where(images.has_fov, other, 1)


def _fit(real: Dataset, other: Dataset) -> Fit:
    """Fit the quality model on photographs, and the second model on photographs and other pictures."""
    real, other = real.where(real.has_fov), other.where(other.has_fov)
    mean, deviation = real.features.mean(axis=0), real.features.std(axis=0)
    rows, others = (design_matrix(images.features, mean, deviation) for images in (real, other))
    model = partial(LogisticRegression, C=STRENGTH, max_iter=3000)
    quality = model(class_weight="balanced").fit(rows, real.fault)
    # Gradable photographs have twice the weight, since refusing one is the worse mistake. Prior odds are 1:1.
    counts = np.where(real.fault == 0, 2.0, 1.0)
    counts = np.r_[counts / counts.sum(), np.full(len(others), 1 / len(others))] * (len(rows) + len(others)) / 2
    classes = np.r_[np.zeros(len(rows)), np.ones(len(others))]
    return Fit(mean, deviation, quality, model().fit(np.r_[rows, others], classes, sample_weight=counts))


def _for_fitting(other: Dataset) -> Dataset:
    """The pictures without those that are for evaluation only."""
    return other.where(~np.char.startswith(other.source, "test-"))


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


def _in_folds(real: Dataset, other: Dataset) -> dict[str, object]:
    quality, none, o_quality, o_none = (np.zeros(len(images.kind)) for images in (real, real, other, other))
    folds = np.array([zlib.crc32(name.encode()) % FOLDS for name in other.group])
    splits = GroupKFold(FOLDS).split(real.features, groups=real.group)
    for fold, (train, test) in enumerate(splits):
        fit = _fit(real.where(np.isin(np.arange(len(quality)), train)), _for_fitting(other.where(folds != fold)))
        quality[test], none[test] = fit.predict(real.where(np.isin(np.arange(len(quality)), test)))
        o_quality[folds == fold], o_none[folds == fold] = fit.predict(other.where(folds == fold))
    figures: dict[str, object] = {"all": _figures(real, quality, none)}
    figures |= {
        name: _figures(real.where(at), quality[at], none[at]) for name in SETS if (at := real.source == name).any()
    }
    return figures | {"pictures": dict(_refused_pictures(other, o_quality, o_none))}


def _across_cameras(real: Dataset, other: Dataset) -> dict[str, object]:
    figures = {}
    for fitted in (("idrid", "eyepacs"), ("diaretdb0", "drive"), ("eyepacs", "diaretdb0"), ("idrid", "diaretdb0")):
        fit = _fit(real.where(np.isin(real.source, fitted)), _for_fitting(other))
        for name in set(SETS) - set(fitted):
            part = real.where(real.source == name)
            figures[f"fitted on {' and '.join(fitted)}, evaluated on {name}"] = _figures(part, *fit.predict(part))
    return figures


def _figures(images: Dataset, quality: NDArray, none: NDArray) -> dict[str, Any]:
    """ROC AUC of untouched against degraded photographs, and the shares that the gate refuses."""
    limits = QualityLimits()
    untouched, degraded = images.kind == "untouched", images.fault > 0
    at_99 = np.quantile(quality[untouched], 0.01)
    refused = (quality < limits.quality) | (none > limits.not_fundus)
    aucs = {
        way: _auc(quality[untouched], quality[images.kind == way]) for way in DEGRADATIONS if (images.kind == way).any()
    }
    return {
        "untouched": int(untouched.sum()),
        "AUC": _auc(quality[untouched], quality[degraded]),
        "degraded below the score that 99 % reach": _share(quality[degraded] < at_99),
        "untouched refused": _share(refused[untouched]),
        "untouched called no fundus photograph": _share((none > limits.not_fundus)[untouched & images.has_fov]),
        "ordinary refused": _share(refused[images.kind == "ordinary"]),
        "degraded refused": _share(refused[degraded]),
        "degraded called no fundus photograph": _share((none > limits.not_fundus)[degraded & images.has_fov]),
        "AUC and share refused by degradation": {w: (a, _share(refused[images.kind == w])) for w, a in aucs.items()},
    }


def _refused_pictures(other: Dataset, quality: NDArray, none: NDArray) -> Iterator[tuple[str, dict[str, float]]]:
    """By source and kind of picture: how many, and the shares recognised as no fundus photograph and refused."""
    limits = QualityLimits()
    for source, kind in sorted(set(zip(other.source.tolist(), other.kind.tolist(), strict=True))):
        at = (other.source == source) & (other.kind == kind)
        named, refused = none[at] > limits.not_fundus, (none[at] > limits.not_fundus) | (quality[at] < limits.quality)
        yield f"{source}, {kind}", {"of": int(at.sum()), "recognised": _share(named), "refused": _share(refused)}


def _auc(good: NDArray, poor: NDArray) -> float:
    return round(float(roc_auc_score(np.r_[np.ones(len(good)), np.zeros(len(poor))], np.r_[good, poor])), 4)


def _share(chosen: NDArray) -> float:
    return round(float(chosen.mean()), 4) if len(chosen) else float("nan")


def _count(names: NDArray) -> dict[str, int]:
    return {str(name): int(count) for name, count in zip(*np.unique(names, return_counts=True), strict=True)}


def _milliseconds() -> float:
    """CPU time of the features of one frame."""
    frame = np.random.default_rng(0).integers(0, 256, (256, 256, 3)).astype(np.uint8)
    started = time.process_time()
    for _ in range(20):
        compute_quality_features(frame)
    return round(50 * (time.process_time() - started), 1)
