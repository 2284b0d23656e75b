"""Lesions of the drawings, by the international clinical severity scale (Sec. III, IV-A).

The scale: C. P. Wilkinson et al., "Proposed international clinical diabetic retinopathy and diabetic macular edema
disease severity scales", Ophthalmology 110(9):1677-1682, 2003. By grade, the drawings show:

    0  no lesion
    1  microaneurysms only
    2  more than that, and at most 20 haemorrhages in each quadrant
    3  more than 20 haemorrhages in each of the four quadrants: the "4" of the 4-2-1 rule. Venous beading (its "2") and
       intraretinal microvascular abnormalities (its "1") are not drawn.
    4  new vessels or a preretinal haemorrhage or both; vitreous haemorrhage is not drawn

Quadrants are those of the photograph about the centre of the field of view. Sizes are in disc diameters (DD).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float
from numpy.random import Generator
from numpy.typing import NDArray

from deepmtdr.synthetic.eye import Eye, Vessel, paint_vessels
from deepmtdr.terms import Grade, Lesion

MAX_MICROANEURYSM_DIAMETER = 1 / 14
"""Diameter in DD, 125 um; a larger red dot is a haemorrhage."""
MAX_MODERATE_HAEMORRHAGES = 20
"""Largest number of haemorrhages in a quadrant that is still moderate by the 4-2-1 rule."""

MICROANEURYSM_COUNTS = {
    Grade.NEGATIVE: (0, 0),
    Grade.MILD: (1, 10),
    Grade.MODERATE: (4, 40),
    Grade.SEVERE: (15, 60),
    Grade.PROLIFERATIVE: (8, 50),
}
"""Fewest and most microaneurysms by grade."""


@dataclass
class DrawnLesions:
    """Strength and masks of the lesions, in the square of the field of view."""

    strength: dict[Lesion, Float[np.ndarray, "s s"]]
    """How much of a lesion's colour is laid on each pixel; 1 is a strong lesion."""
    masks: dict[Lesion, Bool[np.ndarray, "s s"]]
    preretinal: Float[np.ndarray, "s s"]
    """Blood in front of the vessels, 0 to 1; part of the mask of haemorrhages."""
    new_vessels: Float[np.ndarray, "s s"]
    """Share of each pixel that new vessels cover."""
    occupied: list[tuple[float, float, float]] = field(default_factory=list)
    """Centre and radius of every red lesion so far, so that they do not touch."""


def draw_lesions(rng: Generator, eye: Eye, grade: Grade, vessels: NDArray) -> DrawnLesions:
    """Draw the lesions of one eye.

    Args:
        rng: random generator.
        eye: geometry of the eye.
        grade: decides which lesions are drawn.
        vessels: share of each pixel that vessels cover; a red dot on a vessel would be invisible.
    """
    size = vessels.shape[0]
    blank = np.zeros((size, size), np.float32)
    strength = {lesion: blank.copy() for lesion in Lesion}
    masks = {lesion: np.zeros((size, size), bool) for lesion in Lesion}
    found = DrawnLesions(strength, masks, blank, blank.copy())
    brush = _Brush(rng, eye, found, vessels)
    if grade is Grade.PROLIFERATIVE:
        which = rng.integers(3)
        if which != 0:
            brush.preretinal_haemorrhage()
        if which != 1:
            found.new_vessels = paint_vessels(_new_vessels(rng, eye), size)
    if grade >= Grade.MODERATE:
        _scatter(rng, brush, grade)
    fewest, most = MICROANEURYSM_COUNTS[grade]
    for _ in range(round(fewest + (most - fewest) * rng.beta(1.2, 2.2))):
        brush.microaneurysm()
    return found


def _scatter(rng: Generator, brush: _Brush, grade: Grade) -> None:
    """Draw hard exudates, soft exudates and haemorrhages, from moderate on."""
    severe = grade is Grade.SEVERE or (grade is Grade.PROLIFERATIVE and rng.random() < 0.3)
    clusters = int(rng.integers(0, 5)) if rng.random() < 0.85 else 0
    for _ in range(clusters):
        brush.hard_exudates()
    for _ in range(int(rng.integers(1, 6)) if rng.random() < (0.6 if severe else 0.35) else 0):
        brush.soft_exudate()
    for quadrant in range(4):
        count = rng.integers(22, 30) if severe else round((MAX_MODERATE_HAEMORRHAGES - 4) * rng.beta(0.8, 2.5))
        if quadrant == 0 and not clusters:
            count = max(int(count), 1)  # more than microaneurysms
        for _ in range(int(count)):
            brush.haemorrhage(quadrant, small=severe)


def _new_vessels(rng: Generator, eye: Eye) -> list[Vessel]:
    """Draw a tuft of fine curling vessels on the disc or along an arcade."""
    on_disc = rng.random() < 0.6
    up = rng.choice((-1, 1))
    root = (rng.uniform(-0.3, 0.3), up * rng.uniform(0.2, 0.45)) if on_disc else (rng.uniform(0.6, 2), up * 1.6)
    tuft = []
    for _ in range(int(rng.integers(12, 20))):
        length = int(rng.integers(16, 42))
        curl = rng.normal(0, 0.12) + np.cumsum(rng.normal(0, 0.11, length))
        heading = rng.uniform(0, 2 * np.pi) + np.cumsum(0.35 * curl + rng.normal(0, 0.18, length))
        path = np.cumsum(0.03 * np.stack([np.cos(heading), np.sin(heading)], 1), axis=0) + root
        half_widths = eye.disc_diameter * rng.uniform(0.007, 0.013) * np.linspace(1, 0.7, length)
        tuft.append(Vessel(eye.to_frame(path), half_widths, vein=False))
    return tuft


class _Brush:
    """Paints single lesions into `DrawnLesions`; positions and sizes are in units of the square's side."""

    def __init__(self, rng: Generator, eye: Eye, found: DrawnLesions, vessels: NDArray) -> None:
        self.rng, self.eye, self.found, self.vessels = rng, eye, found, vessels
        self.size = vessels.shape[0]
        self.dd = eye.disc_diameter

    def microaneurysm(self) -> None:
        """Paint a round red dot, not on a vessel."""
        diameter = self.dd * (0.026 + (MAX_MICROANEURYSM_DIAMETER - 0.03) * self.rng.beta(1.3, 2.5))
        place = self._free_place(diameter / 2, off_vessels=True)
        if place is not None:
            strength = self.rng.uniform(0.45, 1.0)
            self._blob(Lesion.MA, *place, diameter / 2, strength, wobble=0.08, edge=0.3)

    def haemorrhage(self, quadrant: int, *, small: bool) -> None:
        """Paint a dot, blot or flame along the nerve fibres. `small` limits the radius, so that about ninety fit."""
        rng = self.rng
        radius = float(self.dd * np.clip(0.042 * np.exp(rng.normal(0, 0.55)), 0.026, 0.10 if small else 0.2))
        flame = rng.random() < 0.25
        place = self._free_place(
            1.6 * radius if flame else 1.25 * radius, quadrant=quadrant, off_vessels=radius < 0.008
        )
        if place is None:
            return
        strength = rng.uniform(0.5, 1.1)
        if not flame:
            long = rng.uniform(1.0, 1.5)
            self._blob(
                Lesion.HE,
                *place,
                radius / long**0.5,
                strength,
                long,
                rng.uniform(0, np.pi),
                0.12,
                rng.uniform(0.25, 0.9),
            )
            return
        along = np.arctan2(place[1] - self.eye.disc.y, place[0] - self.eye.disc.x)
        for offset in np.linspace(-0.35, 0.35, 5) * radius:
            shift = rng.normal(0, 0.2) * radius
            x = place[0] + shift * np.cos(along) - offset * np.sin(along)
            y = place[1] + shift * np.sin(along) + offset * np.cos(along)
            self._blob(Lesion.HE, x, y, 0.28 * radius, strength, rng.uniform(3, 4.5), along, 0.1, edge=0.4)

    def hard_exudates(self) -> None:
        """Paint a cluster, ring or part of a ring of small sharp yellow grains, within 2.5 DD of the fovea."""
        rng, dd = self.rng, self.dd
        around = rng.uniform(0, 2 * np.pi)
        away = dd * rng.uniform(0.35, 2.2)
        x, y = self.eye.macula.x + away * np.cos(around), self.eye.macula.y + away * np.sin(around)
        count = int(np.clip(rng.lognormal(3.2, 0.7), 5, 130))
        if rng.random() < 0.3:
            angle = rng.uniform(0, 2 * np.pi) + rng.uniform(1.5, 6.2) * rng.random(count)
            ring = dd * rng.uniform(0.2, 0.55) * (1 + 0.12 * rng.standard_normal(count))
            grains = np.stack([x + ring * np.cos(angle), y + ring * np.sin(angle)], 1)
        else:
            # Grains gather around a few centres, in lumps and plaques.
            seeds = np.array([x, y]) + dd * rng.uniform(0.08, 0.3) * rng.standard_normal((1 + count // 7, 2))
            grains = seeds[rng.integers(len(seeds), size=count)] + dd * 0.055 * rng.standard_normal((count, 2))
        strength = rng.uniform(0.6, 1.15)
        for gx, gy in grains:
            radius = dd * np.clip(0.013 * np.exp(rng.normal(0, 0.6)), 0.007, 0.055)
            if self._drawable(gx, gy, radius):
                own = strength * rng.uniform(0.7, 1.05)
                self._blob(Lesion.EX, gx, gy, radius, own, rng.uniform(1, 1.8), rng.uniform(0, np.pi), 0.15, edge=0.25)

    def soft_exudate(self) -> None:
        """Paint a pale fluffy patch across the nerve fibres, within 3 DD of the disc."""
        rng, dd = self.rng, self.dd
        radius = dd * rng.uniform(0.07, 0.17)
        for _ in range(60):
            around, away = rng.uniform(0, 2 * np.pi), dd * rng.uniform(0.9, 3.0)
            x, y = self.eye.disc.x + away * np.cos(around), self.eye.disc.y + away * np.sin(around)
            from_fovea = np.hypot(x - self.eye.macula.x, y - self.eye.macula.y)
            if self._drawable(x, y, 2 * radius) and from_fovea > 0.8 * dd:
                strength = rng.uniform(0.8, 1.3)
                for _ in range(int(rng.integers(7, 14))):
                    tuft_x, tuft_y = np.array([x, y]) + 0.4 * radius * rng.standard_normal(2)
                    tuft, own = radius * rng.uniform(0.25, 0.6), strength * rng.uniform(0.6, 1.0)
                    turn = around + rng.normal(0, 0.3)
                    self._blob(Lesion.SE, tuft_x, tuft_y, tuft, own, rng.uniform(1, 2.2), turn, 0.15, edge=1.2)
                return

    def preretinal_haemorrhage(self) -> None:
        """Paint a pool of blood in front of the retina, with a level upper edge and a round lower edge."""
        rng, dd = self.rng, self.dd
        half, depth = dd * rng.uniform(0.35, 0.85), dd * rng.uniform(0.35, 0.7)
        x, y = rng.uniform(0.15, 0.85), rng.uniform(0.2, 0.8)
        while not (
            self._drawable(x, y + depth / 2, max(half, depth)) and self.eye.distance_from_disc(x, y) > 0.75 + half / dd
        ):
            x, y = rng.uniform(0.15, 0.85), rng.uniform(0.2, 0.8)
            half, depth = 0.99 * half, 0.99 * depth  # until it fits
        place = (np.arange(self.size, dtype=np.float32) + 0.5) / self.size
        across, down = (place[None, :] - x) / half, (place[:, None] - y) / depth
        bowl = 1 - across**2 - np.clip(down, 0, None) ** 2 + 0.06 * np.sin(7 * across + rng.uniform(0, 6))
        level = (down + 0.05 * np.sin(3 * across)) * depth
        soft = max(0.005, 0.7 / self.size)
        alpha = np.clip(bowl * 0.3 * depth / soft + 0.5, 0, 1) * np.clip(level / soft + 0.5, 0, 1)
        self.found.preretinal = alpha.astype(np.float32)
        self.found.masks[Lesion.HE] |= alpha >= 0.5
        self.found.occupied.append((x, y + depth / 2, max(half, 0.6 * depth)))

    def _drawable(self, x: float, y: float, radius: float) -> bool:
        return self.eye.is_visible(x, y, radius + 0.012) and self.eye.distance_from_disc(x, y) > float(
            0.62 + radius / self.dd
        )

    def _free_place(
        self, radius: float, *, quadrant: int | None = None, off_vessels: bool = False
    ) -> tuple[float, float] | None:
        """A free position in a quadrant (0 to 3, row by row), away from disc and red lesions; None: none found."""
        apart = 2.5 / self.size
        for _ in range(400):
            x, y = self.rng.random(2)
            if quadrant is not None:
                # Not across the border of the quadrant, so that the count of each quadrant is definite.
                x, y = np.array([x, y]) * (0.5 - radius) + np.array([quadrant % 2, quadrant // 2]) * (0.5 + radius)
            if not self._drawable(x, y, radius):
                continue
            if any((x - a) ** 2 + (y - b) ** 2 < (radius + r + apart) ** 2 for a, b, r in self.found.occupied):
                continue
            if off_vessels and self.vessels[int(y * self.size), int(x * self.size)] > 0.2:
                continue
            self.found.occupied.append((x, y, radius))
            return float(x), float(y)
        return None

    def _blob(
        self,
        lesion: Lesion,
        x: float,
        y: float,
        radius: float,
        strength: float,
        elongation: float = 1.0,
        turn: float = 0.0,
        wobble: float = 0.1,
        edge: float = 0.3,
    ) -> None:
        """Paint an ellipse with an uneven outline, whose edge fades over `edge` radii; the mask ends half-way."""
        rng, size = self.rng, self.size
        waves = 2 * wobble * rng.standard_normal(5) / np.arange(2, 7)
        phases = rng.uniform(0, 2 * np.pi, 5)
        reach = 1.6 * radius * max(elongation, 1.0) + 1.5 / size
        x0, x1 = (int(np.clip(np.floor(edge_ * size), 0, size)) for edge_ in (x - reach, x + reach))
        y0, y1 = (int(np.clip(np.floor(edge_ * size), 0, size)) for edge_ in (y - reach, y + reach))
        dx = (np.arange(x0, x1 + 1)[: size - x0][None, :] + 0.5) / size - x
        dy = (np.arange(y0, y1 + 1)[: size - y0][:, None] + 0.5) / size - y
        along, across = dx * np.cos(turn) + dy * np.sin(turn), dy * np.cos(turn) - dx * np.sin(turn)
        along = along / elongation
        around = np.arctan2(across, along)[..., None]
        outline = radius * np.clip(1 + (waves * np.cos(np.arange(2, 7) * around + phases)).sum(-1), 0.6, 1.5)
        # Never sharper than a pixel, so that a small lesion is faint at low resolution.
        alpha = np.clip((outline - np.hypot(along, across)) / max(edge * radius, 0.8 / size) + 0.5, 0, 1)
        window = (slice(y0, y0 + len(dy)), slice(x0, x0 + dx.shape[1]))
        mask = alpha >= 0.5
        if not mask.any():
            mask = alpha >= alpha.max()
        layer = self.found.strength[lesion]
        layer[window] = np.maximum(layer[window], strength * alpha)
        self.found.masks[lesion][window] |= mask
