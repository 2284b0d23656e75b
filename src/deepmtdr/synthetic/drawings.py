"""Draw fundus photographs with known lesions and grade, reproducible by seed (in place of the data sets of Sec. V-A).

A drawing shows no patient: it can be stored in the repository, published, and used in tests. A score on drawings is not
evidence of performance on patients. The optics are simple: a mean colour, times the reflection of the fundus and its
lesions in each channel, times the illumination; then blur, noise and rounding to 8 bits.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, UInt8
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from deepmtdr.csv_tables import write_table
from deepmtdr.datasets.drawings import read_drawings
from deepmtdr.datasets.folder import TABLE_NAME
from deepmtdr.datasets.sample import Sample
from deepmtdr.files import make_folder, write_atomically
from deepmtdr.labels import DIABETIC_RETINOPATHY
from deepmtdr.photographs.geometry import FieldOfView
from deepmtdr.synthetic.eye import Eye, Point, grow_vessels, paint_fundus, paint_vessels, place_eye
from deepmtdr.synthetic.lesions import DrawnLesions, draw_lesions
from deepmtdr.terms import FRAME, Grade, Laterality, Lesion

EXAMPLE_SEEDS = dict(zip(Grade, (26, 19, 34, 17, 15), strict=True))
"""Grade -> seed of the five drawings in examples/drawings."""
GRADE_SHARES = (0.3, 0.15, 0.3, 0.15, 0.1)
"""Probability of each grade, for drawings without a given grade."""

# Factors on the light of each channel (R, G, B); blood absorbs more green than red.
_VEIN = (0.80, 0.55, 0.72)
_ARTERY = (0.95, 0.70, 0.85)
_BLOOD = (0.80, 0.56, 0.72)
_POOL = (0.55, 0.24, 0.35)
_HARD = (1.20, 1.48, 1.25)
_SOFT = (1.14, 1.32, 1.38)


@dataclass(frozen=True)
class Drawing:
    """A drawn photograph with its ground truth."""

    photograph: UInt8[np.ndarray, "h w 3"]
    lesion_masks: Bool[np.ndarray, "l h w"]
    """Masks in the channel order of `DIABETIC_RETINOPATHY`; a preretinal haemorrhage is a haemorrhage."""
    new_vessels: Bool[np.ndarray, "h w"]
    """Where new vessels were drawn; in grade 4 only."""
    grade: Grade
    fov: FieldOfView
    """Square around the circle of the field of view; outside the photograph where the camera cuts the circle."""
    laterality: Laterality
    disc: Point
    """Centre of the optic disc in the photograph, pixels."""
    macula: Point
    """Centre of the macula in the photograph, pixels."""
    disc_diameter: float
    """Diameter of the optic disc, px."""

    def mask(self, lesion: Lesion) -> Bool[np.ndarray, "h w"]:
        """Mask of one lesion type."""
        return self.lesion_masks[DIABETIC_RETINOPATHY.channel(lesion)]


class _Camera(NamedTuple):
    """A patient's pigment and the camera; ranges as in photographs of IDRiD, EyePACS and DRIVE."""

    colour: tuple[float, float, float]
    """Mean colour of the fundus, 0-255."""
    fall: float
    """Share of the light that is lost at the edge of the field of view."""
    tilt: tuple[float, float]
    """Change of the light across the field of view, horizontal and vertical, as a share."""
    haze: tuple[float, float, float]
    """Stray light added at the edge, 0-255."""
    blur: float
    """Standard deviation of the blur, 1/1024 of the field of view."""
    noise: float
    """Standard deviation of the noise, in levels of 255."""
    margins: tuple[float, float]
    """Dark margin beside and above the circle, in sides of its square; negative where the circle is cut."""


def draw_photograph(
    seed: int, grade: Grade | None = None, size: int = FRAME, jpeg_quality: int | None = None
) -> Drawing:
    """Draw a fundus photograph.

    Seed 2 p is the left and 2 p + 1 the right eye of patient p, taken by the same camera. At another grade or size, the
    same seed gives the same anatomy with other lesions.

    Args:
        seed: 0 or more.
        grade: decides which lesions are drawn; None: drawn by `GRADE_SHARES`.
        size: diameter of the field of view in pixels, at least 64.
        jpeg_quality: 1 to 95: compress and decompress the photograph as JPEG; None: no compression.

    Raises:
        ValueError: if seed, size or quality is out of range.
    """
    if seed < 0 or size < 64 or not (jpeg_quality is None or 1 <= jpeg_quality <= 95):
        raise ValueError(
            f"found seed {seed}, size {size} and JPEG quality {jpeg_quality} of a drawing; "
            "expected at least 0, at least 64, and 1 to 95 or None"
        )
    camera = _choose_camera(np.random.default_rng([seed // 2, 0]))
    if grade is None:
        grade = Grade(int(np.random.default_rng([seed, 1]).choice(len(Grade), p=GRADE_SHARES)))
    rng = np.random.default_rng([seed, 2])
    eye = place_eye(rng, "R" if seed % 2 else "L", 0.5 + min(0.0, camera.margins[1]))
    vessels = grow_vessels(rng, eye)
    arteries, veins = (paint_vessels([v for v in vessels if v.vein is vein], size) for vein in (False, True))
    reflex = paint_vessels([v for v in vessels if v.half_widths[0] > 0.0025], size, share=0.3)
    lesions = draw_lesions(np.random.default_rng([seed, 3, int(grade)]), eye, grade, np.maximum(arteries, veins))
    fundus = paint_fundus(rng, eye, size)
    _lay_on(fundus, arteries, veins, reflex, lesions)
    square = _expose(rng, fundus, camera)
    return _photograph(square, lesions, eye, camera, grade, jpeg_quality)


def write_drawings(
    root: Path, seeds: Iterable[int], *, grade: Grade | None = None, size: int = FRAME, jpeg_quality: int | None = None
) -> list[Sample]:
    """Write drawings as a folder that `datasets.folder` reads: ROOT/photographs, ROOT/masks and a table.

    Args:
        root: folder to be made or added to; an existing table is replaced when all drawings are written.
        seeds: seeds of the drawings; 2 p and 2 p + 1 are the two eyes of one patient.
        grade: grade of all drawings; None: drawn by `GRADE_SHARES`.
        size: diameter of the field of view in pixels.
        jpeg_quality: see `draw_photograph`; the files are PNG in any case.

    Returns:
        The samples, as `read_drawings` gives them.

    Raises:
        OSError: if a file cannot be written.
        ValueError: as `draw_photograph`.
    """
    make_folder(root / "photographs")
    (root / "masks").mkdir(exist_ok=True)
    (root / TABLE_NAME).unlink(missing_ok=True)  # a run that is interrupted leaves no table of other drawings
    rows = []
    for seed in sorted(set(seeds)):
        drawing, name = draw_photograph(seed, grade, size, jpeg_quality), f"drawing_{seed:05d}"
        photograph = root / "photographs" / f"{name}.png"
        _write_png(photograph, drawing.photograph)
        masks = [_write_mask(root, name, lesion, drawing.mask(lesion)) for lesion in Lesion]
        path = photograph.relative_to(root).as_posix()
        rows.append((path, f"{seed // 2:05d}", drawing.laterality, int(drawing.grade), *masks))
    write_table(root / TABLE_NAME, ("path", "patient", "eye", "grade", *Lesion), rows)
    return read_drawings(root)


def _write_png(path: Path, pixels: NDArray, *, optimize: bool = False) -> None:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG", optimize=optimize)
    write_atomically(path, content.getvalue(), durable=False)  # it can be drawn again


def _write_mask(root: Path, name: str, lesion: Lesion, mask: Bool[np.ndarray, "h w"]) -> str:
    """Write a mask. Returns its path for the table, or "none" for an empty mask, which has no file."""
    path = root / "masks" / f"{name}_{lesion}.png"
    path.unlink(missing_ok=True)  # remove the mask of an earlier drawing of this name
    if not mask.any():
        return "none"
    _write_png(path, mask)
    return path.relative_to(root).as_posix()


def write_examples(folder: Path) -> list[Path]:
    """Write the repository's examples/drawings: one drawing of each grade, reduced to a quarter.

    Returns:
        The files, drawing_0.png to drawing_4.png, named by grade.
    """
    make_folder(folder)
    paths = []
    for grade, seed in EXAMPLE_SEEDS.items():
        photograph = Image.fromarray(draw_photograph(seed, grade).photograph)
        small = photograph.resize((photograph.width // 4, photograph.height // 4), Image.Resampling.BICUBIC)
        paths.append(folder / f"drawing_{int(grade)}.png")
        _write_png(paths[-1], np.asarray(small), optimize=True)
    return paths


def _choose_camera(rng: Generator) -> _Camera:
    red = rng.uniform(115, 215)
    pale = rng.random()
    green = red * (rng.uniform(0.40, 0.52) + 0.18 * pale)
    blue = green * (rng.uniform(0.05, 0.35) + 0.5 * pale)
    hazy = rng.random() < 0.3
    haze = rng.uniform(8, 45) * np.array([rng.uniform(0.2, 0.8), 1.0, rng.uniform(0.7, 1.1)]) * hazy
    margins = ((0.127, -0.083), (0.25, 0.003), (0.03, 0.045), (0.01, -0.09), (0.02, -0.03))[rng.integers(5)]
    return _Camera(
        colour=(red, green, blue),
        fall=rng.uniform(0.15, 0.45),
        tilt=(rng.normal(0, 0.09), rng.normal(0, 0.09)),
        haze=tuple(haze.tolist()),
        blur=rng.uniform(0.5, 1.3),
        noise=rng.uniform(1.0, 3.5),
        margins=margins,
    )


def _lay_on(fundus: NDArray, arteries: NDArray, veins: NDArray, reflex: NDArray, lesions: DrawnLesions) -> None:
    """Paint hard exudates, vessels, soft exudates and blood on the bare fundus, from the back to the front."""
    veins = np.maximum(veins, lesions.new_vessels)
    soft = lesions.strength[Lesion.SE]
    red = np.maximum(lesions.strength[Lesion.MA], lesions.strength[Lesion.HE])
    cover = 1 - 0.6 * np.clip(soft, 0, 1)
    for channel in range(3):
        layer = fundus[..., channel]
        layer *= 1 + (_HARD[channel] - 1) * lesions.strength[Lesion.EX]
        bare = layer.copy()
        thinner = 1 - (0.10, 0.25, 0.15)[channel] * reflex
        layer *= 1 - (1 - _VEIN[channel]) * veins * thinner * cover
        layer *= 1 - (1 - _ARTERY[channel]) * np.clip(arteries - 0.5 * reflex, 0, 1) * cover
        layer *= 1 + (_SOFT[channel] - 1) * soft
        layer *= 1 - (1 - _BLOOD[channel]) * red
        layer += lesions.preretinal * (_POOL[channel] * bare - layer)


def _expose(rng: Generator, fundus: NDArray, camera: _Camera) -> UInt8[np.ndarray, "s s 3"]:
    """Apply illumination, blur, noise and rounding to 8 bits; black outside the circle."""
    size = fundus.shape[0]
    place = (np.arange(size, dtype=np.float32) + 0.5) / size - 0.5
    radius = np.hypot(place[None, :], place[:, None]) * 2
    light = 1 - camera.fall * radius**2.5 + camera.tilt[0] * 2 * place[None, :] + camera.tilt[1] * 2 * place[:, None]
    rim = np.clip(radius, 0, 1) ** 14
    circle = np.clip((1 - radius) * size / 2 + 0.5, 0, 1)
    grain = rng.standard_normal((size, size), np.float32)
    pixels = np.empty((size, size, 3), np.uint8)
    for channel in range(3):
        value = camera.colour[channel] * light * fundus[..., channel] + camera.haze[channel] * rim
        soft = 255 - 55 * np.exp(np.minimum(0, (200 - value) / 55))
        value = np.where(value > 200, soft, value)  # the sensor saturates softly
        if camera.blur * size > 300:
            value = ndimage.gaussian_filter(value, camera.blur * size / FRAME, mode="nearest")
        noise = camera.noise * (0.6 * grain + 0.8 * rng.standard_normal((size, size), np.float32))
        pixels[..., channel] = np.rint(np.clip((value + noise) * circle, 0, 255))
    return pixels


def _photograph(
    square: NDArray, lesions: DrawnLesions, eye: Eye, camera: _Camera, grade: Grade, jpeg_quality: int | None
) -> Drawing:
    """Place the square of the field of view in the sensor's rectangle, which may cut it."""
    size = square.shape[0]
    beside, above = (round(margin * size) for margin in camera.margins)
    shift = Point(beside, above)

    def fit(layer: NDArray) -> NDArray:
        layer = layer[..., max(0, -above) : size - max(0, -above), :]
        dark = (max(0, above), max(0, above)), (beside, beside)
        return np.pad(layer, ((0, 0),) * (layer.ndim - 2) + dark)

    photograph = fit(square.transpose(2, 0, 1)).transpose(1, 2, 0)
    if jpeg_quality is not None:
        file = io.BytesIO()
        Image.fromarray(photograph).save(file, "JPEG", quality=jpeg_quality)
        photograph = np.asarray(Image.open(file))
    disc, macula = (Point(p.x * size + shift.x, p.y * size + shift.y) for p in (eye.disc, eye.macula))
    return Drawing(
        photograph=np.ascontiguousarray(photograph),
        lesion_masks=fit(np.stack([lesions.masks[lesion] for lesion in Lesion])),
        new_vessels=fit(lesions.new_vessels >= 0.5),
        grade=grade,
        fov=FieldOfView(beside, above, size),
        laterality=eye.laterality,
        disc=disc,
        macula=macula,
        disc_diameter=eye.disc_diameter * size,
    )
