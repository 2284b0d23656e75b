"""A healthy eye for the drawings: positions of disc and macula, vessels, fundus.

Anatomical coordinates (u, v) are in disc diameters (1 DD, about 1.8 mm) from the centre of the optic disc, u towards
the temple and v upwards, so that left and right eyes are mirror images. The picture is the square of the field of view,
with its side as the unit of length.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from deepmtdr.terms import Laterality

STEP_LENGTH = 0.05
"""Length of one step of a growing vessel, DD."""
MIN_HALF_WIDTH = 0.006
"""Half-width below which a vessel is invisible, DD (10 um)."""
AVASCULAR_RADIUS = 0.3
"""Radius around the fovea that no vessel enters, DD."""
FULL_COLOUR_HALF_WIDTH = 0.006
"""Half-width from which a vessel has its full colour, in sides of the square; a third as wide, it has half of it."""
SUPERSAMPLING = 4
"""Vessels are drawn at this many times the resolution, then averaged."""


class Point(NamedTuple):
    """A position, in pixels of the photograph (centre of the first pixel: 0.5) or in sides of the field of view."""

    x: float
    y: float


@dataclass(frozen=True)
class Eye:
    """Positions of disc and macula in the square of the field of view, in units of its side."""

    laterality: Laterality
    disc: Point
    macula: Point
    disc_diameter: float
    """Diameter of the disc: 0.14 to 0.17 for a field of view of 45-50 degrees."""
    reach: float
    """Half of the height that the camera shows; 0.5 if it cuts nothing off."""

    def to_frame(self, anatomy: NDArray) -> NDArray:
        """Points (u, v) in DD from the disc -> points (x, y) in the square."""
        temporal = 1 if self.laterality == "L" else -1
        return np.array(self.disc) + self.disc_diameter * np.asarray(anatomy) * [temporal, -1]

    def distance_from_disc(self, x: float, y: float) -> float:
        """Distance from the disc's centre in DD."""
        return float(np.hypot(x - self.disc.x, y - self.disc.y) / self.disc_diameter)

    def is_visible(self, x: float, y: float, margin: float) -> bool:
        """Whether a position lies inside the field of view, at least `margin` from its edge."""
        inside = np.hypot(x - 0.5, y - 0.5) < 0.5 - margin
        return bool(inside and abs(y - 0.5) < self.reach - margin)


class Vessel(NamedTuple):
    """The path of a vessel in the square of the field of view."""

    points: Float[np.ndarray, "n 2"]
    half_widths: Float[np.ndarray, " n"]
    vein: bool


class _Sprout(NamedTuple):
    """The start of a vessel, in DD and radians; headings are anticlockwise from the temple."""

    u: float
    v: float
    heading: float
    final: float
    """The heading towards which it bends."""
    bend: float
    """The length over which it bends."""
    half_width: float
    vein: bool
    depth: int


def place_eye(rng: Generator, laterality: Laterality, reach: float) -> Eye:
    """Place the macula 2.3-2.8 DD from the disc and a little lower, and the field of view between the two."""
    diameter = rng.uniform(0.14, 0.17)
    away, lower = rng.uniform(2.3, 2.8), rng.uniform(0.1, 0.4)
    centre_u, centre_v = rng.uniform(0.55, 0.85) * away, rng.uniform(-0.35, 0.25)
    temporal = 1 if laterality == "L" else -1
    disc = Point(0.5 - temporal * centre_u * diameter, 0.5 + centre_v * diameter)
    macula = Point(disc.x + temporal * away * diameter, disc.y + lower * diameter)
    return Eye(laterality, disc, macula, diameter, reach)


def grow_vessels(rng: Generator, eye: Eye) -> list[Vessel]:
    """Grow arteries and veins: four arcades of each and some twigs from the disc, all branching and tapering."""
    sprouts = _trunks(rng)
    vessels = []
    while sprouts:
        sprout = sprouts.pop()
        vessel, children = _grow(rng, eye, sprout)
        if len(vessel.points) > 2:
            vessels.append(vessel)
        sprouts.extend(children)
    return vessels


def _trunks(rng: Generator) -> list[_Sprout]:
    sprouts = []
    thickness = rng.uniform(0.85, 1.1)
    for vein, half_width in ((True, 0.043), (False, 0.031)):
        for up in (1, -1):
            for heading, final, bend, share in ((84, -6, 1.5, 1.0), (97, 155, 1.0, 0.8)):
                start, end = up * np.radians([heading + rng.normal(0, 7), final + rng.normal(0, 8)])
                u, v = rng.normal(-0.12, 0.035), -up * rng.uniform(0.0, 0.06)  # vessels meet in the cup
                width = thickness * share * half_width * rng.uniform(0.9, 1.1)
                sprouts.append(_Sprout(u, v, start, end, bend * rng.uniform(0.8, 1.2), width, vein, 0))
    for n in range(rng.integers(4, 8)):
        heading = np.radians(rng.uniform(10, 45) if n % 2 else rng.uniform(150, 185)) * rng.choice((-1, 1))
        start = rng.uniform(0.1, 0.4)
        u, v = start * np.cos(heading) - 0.05, start * np.sin(heading)
        final = 0.4 * heading if n % 2 else heading
        sprouts.append(_Sprout(u, v, heading, final, 3.0, rng.uniform(0.010, 0.017), bool(n % 3), 1))
    return sprouts


def _grow(rng: Generator, eye: Eye, sprout: _Sprout) -> tuple[Vessel, list[_Sprout]]:
    """Grow a vessel until it is too thin, too long, out of view or at the fovea. Also return its branches' starts."""
    u, v, half_width = sprout.u, sprout.v, sprout.half_width
    longest = 9.0 if sprout.depth == 0 else 110 * half_width * rng.uniform(0.6, 1.2)
    sway, ripple, side, near_fovea = 0.0, 0.0, int(rng.choice((-1, 1))), False
    path, widths, children = [(u, v)], [half_width], []
    next_branch = rng.uniform(0.5, 1.0) if sprout.depth == 0 else rng.uniform(0.2, 0.8)
    for n in range(1, int(longest / STEP_LENGTH)):
        along = n * STEP_LENGTH
        sway, ripple = 0.97 * sway + rng.normal(0, 0.06), 0.85 * ripple + rng.normal(0, 0.08)
        heading = sprout.final + (sprout.heading - sprout.final) * np.exp(-along / sprout.bend) + sway + ripple
        u, v = u + STEP_LENGTH * np.cos(heading), v + STEP_LENGTH * np.sin(heading)
        half_width *= 1 - STEP_LENGTH * (0.05 if sprout.depth == 0 else 0.12)
        path.append((u, v))
        widths.append(half_width * min(1.0, (longest - along) / (0.4 * longest)) if sprout.depth else half_width)
        x, y = eye.to_frame(np.array((u, v)))
        near_fovea = np.hypot(x - eye.macula.x, y - eye.macula.y) < AVASCULAR_RADIUS * eye.disc_diameter
        if widths[-1] < MIN_HALF_WIDTH or near_fovea or not eye.is_visible(x, y, -0.02):
            break
        if sprout.depth == 0 and u > 0.8 and abs(v) < 1.3:
            sway += 0.03 if sprout.heading > 0 else -0.03  # an arcade goes round the macula
        if along > next_branch and sprout.depth < 3:
            share = rng.uniform(0.4, 0.85) if sprout.depth else rng.uniform(0.35, 0.75)
            children.append(_branch(rng, sprout, u, v, heading, side, share * half_width))
            half_width *= (1 - share**3) ** (1 / 3)  # Murray's law: the cubes of the radii add up
            side = -side if rng.random() < 0.7 else side
            next_branch = along + rng.uniform(0.3, 1.2)
    half_widths = np.array(widths) * eye.disc_diameter
    half_widths[:4] *= np.linspace(0.4, 1, 4)[: len(widths)]
    if near_fovea:
        half_widths[-16:] *= np.linspace(1, 0.1, 16)[-len(widths) :]
    return Vessel(eye.to_frame(np.array(path)), half_widths, sprout.vein), children


def _branch(
    rng: Generator, parent: _Sprout, u: float, v: float, heading: float, side: int, half_width: float
) -> _Sprout:
    """Start a branch, which leaves its parent to one side and then bends back towards the parent's direction."""
    start = heading + side * np.radians(rng.uniform(30, 70))
    final = start - side * rng.uniform(0.1, 0.9)
    return _Sprout(u, v, start, final, rng.uniform(0.5, 2), half_width, parent.vein, parent.depth + 1)


def paint_vessels(vessels: list[Vessel], size: int, share: float = 1.0) -> Float[np.ndarray, "{size} {size}"]:
    """Paint how much of each pixel the vessels cover, 0 to 1; fine vessels cover less.

    Args:
        vessels: their paths.
        size: side of the square in pixels.
        share: share of the width of the vessels that is painted; less than 1 for the light reflex along the middle.
    """
    fine = size * SUPERSAMPLING
    sheet = Image.new("L", (fine, fine))
    pen = ImageDraw.Draw(sheet)
    for vessel in sorted(vessels, key=lambda v: v.half_widths[0]):
        points, half_widths = vessel.points * fine, share * vessel.half_widths * fine
        depths = np.rint(255 * np.clip(0.35 + vessel.half_widths / FULL_COLOUR_HALF_WIDTH, 0, 1)).astype(int).tolist()
        for (x0, y0), (x1, y1), r, depth in zip(points[:-1], points[1:], half_widths[:-1], depths[:-1], strict=True):
            pen.line((x0, y0, x1, y1), fill=depth, width=max(1, round(2 * r)))
            if r > 2:
                pen.ellipse((x1 - r, y1 - r, x1 + r, y1 + r), fill=depth)
    return np.asarray(sheet.reduce(SUPERSAMPLING), np.float32) / 255


def smooth_noise(rng: Generator, cells: int, size: int) -> Float[np.ndarray, "{size} {size}"]:
    """Smooth noise of about unit variance, with grains of 1/cells of the side at every size."""
    grid = Image.fromarray(rng.standard_normal((cells, cells), np.float32))
    return np.asarray(grid.resize((size, size), Image.Resampling.BICUBIC))


def paint_fundus(rng: Generator, eye: Eye, size: int) -> Float[np.ndarray, "{size} {size} 3"]:
    """The fundus without retinal vessels, as a factor on the mean colour: choroid, nerve fibres, macula, disc."""
    fundus = _choroid(rng, size)
    place = (np.arange(size, dtype=np.float32) + 0.5) / size
    _darken_macula(rng, fundus, eye, place)
    x, y = (place[None, :] - eye.disc.x) / eye.disc_diameter, (place[:, None] - eye.disc.y) / eye.disc_diameter
    distance = np.hypot(x, y)
    # Nerve fibres: faint pale rays from the disc in all directions.
    rays = np.interp(np.arctan2(y, x), np.linspace(-np.pi, np.pi, 121), rng.standard_normal(121)).astype(np.float32)
    sheen = rng.uniform(0.0, 0.025) * (2 + rays) * np.exp(-((distance - 0.8) ** 2))
    fundus *= 1 + sheen[..., None] * np.array([0.6, 1.0, 1.3], np.float32)
    _paint_disc(rng, fundus, eye, x, y)
    return fundus


def _choroid(rng: Generator, size: int) -> NDArray:
    """Clouds and grains of pigment, and the broad orange vessels of the choroid behind it, which some eyes hide."""
    clouds = (
        0.06 * smooth_noise(rng, 4, size) + 0.045 * smooth_noise(rng, 9, size) + 0.025 * smooth_noise(rng, 25, size)
    )
    grains = (
        0.014 * smooth_noise(rng, 90, size)
        + 0.016 * smooth_noise(rng, 230, size)
        + 0.014 * smooth_noise(rng, 480, size)
    )
    winding = smooth_noise(rng, 22, size) + 0.35 * smooth_noise(rng, 60, size)
    ribbons = np.exp(-((winding / 0.35) ** 2)) * np.clip(0.6 + 0.6 * smooth_noise(rng, 4, size), 0, 1.5)
    clear = rng.uniform(0.0, 0.13) * rng.uniform(0.2, 1.0)
    shade = 1 + clouds + grains
    parts = [shade * (1 + clear * tint * ribbons) for tint in (1.0, 0.45, -0.3)]
    return np.stack([parts[0] - 0.4 * clouds, *parts[1:]], axis=2).astype(np.float32)


def _darken_macula(rng: Generator, fundus: NDArray, eye: Eye, place: NDArray) -> None:
    x, y = (place[None, :] - eye.macula.x) / eye.disc_diameter, (place[:, None] - eye.macula.y) / eye.disc_diameter
    square = x**2 + y**2
    broad, narrow = np.exp(-square / rng.uniform(0.35, 0.9)), np.exp(-square / rng.uniform(0.03, 0.07))
    depth = rng.uniform(0.08, 0.3)
    foveola = rng.uniform(0.0, 0.12)
    for channel, (wide, small) in enumerate(((0.5, 0.0), (1.0, 1.0), (1.1, 0.9))):
        fundus[..., channel] *= 1 - depth * wide * broad - foveola * small * narrow


def _paint_disc(rng: Generator, fundus: NDArray, eye: Eye, x: NDArray, y: NDArray) -> None:
    """Paint a pale ellipse with a brighter cup and a soft rim; in some eyes a crescent beside it."""
    tall, temporal = rng.uniform(1.0, 1.14), 1 if eye.laterality == "L" else -1
    edge = rng.uniform(0.025, 0.05)
    rim = 2 * np.hypot(x * tall**0.5, y / tall**0.5)

    def inside(radius: NDArray, limit: float, soft: float) -> NDArray:
        return 1 / (1 + np.exp(np.clip((radius - limit) / soft, -30, 30)))

    disc = inside(rim, 1.0, edge)
    ratio = rng.uniform(0.3, 0.62)
    cup = inside(2 * np.hypot(x - temporal * 0.06, y), ratio, 0.08)
    glow = np.exp(-(np.clip(rim - 1, 0, None) ** 2) / 0.12) * rng.uniform(0.0, 0.14)
    crescent = inside(2 * np.hypot(x - temporal * 0.07, y), 1.1, 0.03) * (1 - disc) * max(0.0, rng.uniform(-0.3, 0.35))
    pallor = 0.12 * np.clip(temporal * x / 0.5, -1, 1)
    bright = rng.uniform(0.75, 1.1) * (1 + pallor)
    for channel, (of_disc, of_cup) in enumerate(((0.27, 0.12), (0.58, 0.55), (0.60, 1.0))):
        painted = 1 + bright * (of_disc * disc + of_cup * cup * disc) + (glow + crescent) * (0.5, 1.0, 0.9)[channel]
        # The disc has no pigment: the choroid's pattern fades there.
        fundus[..., channel] = painted * (1 + (fundus[..., channel] - 1) * (1 - 0.75 * disc))
