"""Draw round pictures that are no fundus photographs: examples that the quality gate must refuse.

Each is a disc, often in the colours of a retina. Lengths are in radii of the disc, levels are of 255.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray
from scipy import ndimage

RETINA_COLOURS = (
    (190, 95, 45),
    (200, 60, 20),
    (220, 30, 20),
    (255, 0, 0),
    (160, 60, 25),
    (230, 130, 60),
    (120, 50, 20),
)


class _Disc(NamedTuple):
    """Where the disc lies in the picture, and what draws it."""

    u: NDArray
    v: NDArray
    """Place of each pixel to the right of and below the centre, in radii."""
    radius: float
    """In pixels."""
    rng: np.random.Generator

    @property
    def distance(self) -> NDArray:
        """Distance of each pixel from the centre."""
        return np.hypot(self.u, self.v)

    @property
    def angle(self) -> NDArray:
        """Direction of each pixel, in radians."""
        return np.arctan2(self.v, self.u)

    @property
    def height(self) -> NDArray:
        """Height of a ball's surface above each pixel."""
        return np.sqrt((1 - self.u**2 - self.v**2).clip(0, 1))

    def colour(self) -> NDArray:
        """Mostly a colour of a retina, else any."""
        if self.rng.random() < 0.7:
            return np.array(RETINA_COLOURS[self.rng.integers(len(RETINA_COLOURS))]) * self.rng.uniform(0.7, 1.1)
        return self.rng.uniform(20, 250, 3)

    def spots(self, count: int, least: float, most: float) -> Iterator[NDArray]:
        """Distance of each pixel from random places, in random radii."""
        for _ in range(count):
            x, y = self.rng.uniform(-1, 1, 2)
            yield np.hypot(self.u - x, self.v - y) / self.rng.uniform(least, most)

    def cloud(self, power: float) -> NDArray:
        """Random texture whose amplitude falls with this power of the frequency; standard deviation 1."""
        rows, columns = (np.fft.fftfreq(length) for length in self.u.shape)
        frequency = np.hypot(rows[:, None], columns)
        frequency[0, 0] = 1
        values = np.fft.ifft2(np.fft.fft2(self.rng.normal(size=self.u.shape)) / frequency**power).real
        return (values - values.mean()) / values.std()


def draw_other_picture(kind: str, rng: np.random.Generator, side: int, ground: int = 0) -> UInt8[np.ndarray, "h w 3"]:
    """Draw a picture.

    Args:
        kind: one of `OTHER_PICTURES`.
        rng: draws place, size and content.
        side: height of the picture in pixels.
        ground: brightness around the disc, 0 to 255.

    Returns:
        RGB; the width is 1 to 1.5 times the height.

    Raises:
        ValueError: if the kind is unknown.
    """
    if kind not in OTHER_PICTURES:
        raise ValueError(f"unknown kind of picture {kind!r}, expected one of {', '.join(OTHER_PICTURES)}")
    rng = np.random.default_rng((zlib.crc32(kind.encode()), int(rng.integers(2**31))))
    width, radius = int(side * rng.choice([1, 1.15, 1.33, 1.5])), rng.uniform(0.35, 0.49) * side
    x, y = (length / 2 + rng.uniform(-0.6, 0.6) * (length / 2 - radius) for length in (width, side))
    rows, columns = np.mgrid[:side, :width] + 0.5
    disc = _Disc((columns - x) / radius, (rows - y) / radius, radius, rng)
    pixels = OTHER_PICTURES[kind](disc)
    if rng.random() < 0.6:
        pixels = pixels + rng.normal(0, rng.uniform(0.5, 6), (*disc.u.shape, 3))
    rim = ((1 - disc.distance) * radius + 0.5).clip(0, 1)[..., None]
    return np.rint((ground + rim * (pixels - ground)).clip(0, 255)).astype(np.uint8)


def _plain(disc: _Disc) -> NDArray:
    return np.ones((*disc.u.shape, 1)) * disc.colour()


def _radial_gradient(disc: _Disc) -> NDArray:
    x, y = disc.rng.uniform(-0.5, 0.5, 2)
    away = np.hypot(disc.u - x, disc.v - y).clip(0, 1) ** disc.rng.uniform(0.7, 3)
    return (1 - disc.rng.uniform(0.2, 0.8) * away)[..., None] * disc.colour()


def _linear_gradient(disc: _Disc) -> NDArray:
    angle = disc.rng.uniform(0, 2 * np.pi)
    share = ((disc.u * np.cos(angle) + disc.v * np.sin(angle) + 1) / 2)[..., None]
    return disc.colour() * share + disc.colour() * (1 - share)


def _noise(disc: _Disc) -> NDArray:
    values = disc.rng.normal(size=(*disc.u.shape, disc.rng.choice([1, 3])))
    if disc.rng.random() < 0.5:
        sigma = disc.rng.uniform(0.6, 3)
        values = ndimage.gaussian_filter(values, (sigma, sigma, 0)) * 2 * sigma
    return disc.colour() + disc.rng.uniform(5, 70) * values


def _texture(disc: _Disc) -> NDArray:
    values = disc.cloud(disc.rng.uniform(0.7, 2.2))[..., None]
    return disc.colour() + disc.rng.uniform(8, 45) * disc.rng.uniform(0.5, 1.2, 3) * values


def _sectors(disc: _Disc) -> NDArray:
    count = int(disc.rng.integers(2, 9))
    colours = np.array([disc.colour() for _ in range(count)])
    places = (disc.distance, disc.angle / (2 * np.pi) + 0.5, (disc.v + 1) / 2)[disc.rng.integers(3)]
    return colours[(places * count).astype(int).clip(0, count - 1)]


def _lit(disc: _Disc, roughness: float | NDArray = 0.0) -> tuple[NDArray, NDArray]:
    """Diffuse and mirrored light of a ball under a lamp."""
    x, y, z = disc.rng.normal(size=3)
    lamp = np.array((x, y, abs(z) + 0.7)) / np.linalg.norm((x, y, abs(z) + 0.7))
    diffuse = (disc.u * lamp[0] + disc.v * lamp[1] + disc.height * lamp[2] + roughness).clip(0, 1)
    mirrored = (2 * diffuse * disc.height - lamp[2]).clip(0, 1) ** disc.rng.uniform(8, 80)
    return diffuse[..., None], mirrored[..., None]


def _ball(disc: _Disc) -> NDArray:
    diffuse, mirrored = _lit(disc)
    pixels = disc.colour() * (disc.rng.uniform(0.1, 0.4) + 0.8 * diffuse) + disc.rng.uniform(60, 255) * mirrored
    if disc.rng.random() < 0.4:
        for place in disc.rng.uniform(-0.8, 0.8, 3):
            seam = abs(disc.u * np.cos(3 * place) + disc.v * np.sin(3 * place) - place * (1 - disc.v**2 / 2)) < 0.02
            pixels = np.where(seam[..., None], 0.35 * pixels, pixels)
    return pixels


def _orange(disc: _Disc) -> NDArray:
    dimples = ndimage.gaussian_filter(disc.rng.normal(size=disc.u.shape), max(0.6, 0.012 * disc.radius))
    dimples /= dimples.std()
    peel = np.array((235, disc.rng.uniform(90, 150), disc.rng.uniform(10, 50)))
    if disc.rng.random() < 0.6:
        diffuse, mirrored = _lit(disc, 0.05 * dimples)
        return peel * (0.25 + 0.8 * diffuse) + 120 * mirrored
    skins = (abs(np.sin(5 * disc.angle)) < 0.06) | (disc.distance > 0.9) | (disc.distance < 0.08)
    return np.where(skins[..., None], (245, 215, 150), peel * (0.9 + 0.08 * dimples[..., None]))


def _moon(disc: _Disc) -> NDArray:
    light = 0.7 + disc.rng.uniform(0.05, 0.2) * disc.cloud(disc.rng.uniform(1, 1.6))
    for distance in disc.spots(int(disc.rng.integers(20, 120)), 0.01, 0.12):
        light += 0.25 * np.exp(-(((distance - 1) / 0.15) ** 2)) - 0.1 * (distance < 1)
    return light[..., None] * (np.array((200, 195, 185)) if disc.rng.random() < 0.5 else 1.1 * disc.colour())


def _coin(disc: _Disc) -> NDArray:
    relief = np.exp(-(((disc.distance - 0.93) / 0.03) ** 2))
    letters = np.sin(disc.angle * disc.rng.integers(20, 40) + 7 * disc.distance) > 0.2
    relief += 0.6 * (letters & (disc.distance > 0.68) & (disc.distance < 0.8))
    relief += 0.25 * ndimage.gaussian_filter(disc.cloud(1.5), 0.02 * disc.radius) * (disc.distance < 0.6)
    down, right = np.gradient(ndimage.gaussian_filter(relief, max(0.5, 0.006 * disc.radius)))
    x, y = disc.rng.uniform(-0.06, 0.06, 2) * disc.radius
    metals = ((200, 150, 60), (190, 110, 70), (180, 180, 185), (220, 190, 90))
    return (0.65 + x * right + y * down).clip(0.1, 1.5)[..., None] * metals[disc.rng.integers(len(metals))]


def _cells(disc: _Disc) -> NDArray:
    pixels = np.ones((*disc.u.shape, 1)) * (np.array((235, 215, 225)) if disc.rng.random() < 0.6 else disc.colour())
    for distance in disc.spots(int(disc.rng.integers(15, 200)), 0.03, 0.1):
        inside = (distance < 1)[..., None]
        pixels = np.where(inside, pixels * disc.rng.uniform(0.5, 0.95, 3), pixels)
        pixels = np.where(abs(distance[..., None] - 0.97) < 0.07, 0.8 * pixels, pixels)
    return pixels


def _tissue(disc: _Disc) -> NDArray:
    pixels = np.where(disc.cloud(1.6)[..., None] > 0.1, (205, 120, 165), (240, 225, 235)).astype(float)
    for distance in disc.spots(300, 0.008, 0.025):
        pixels = np.where(distance[..., None] < 1, (95, 50, 130), pixels)
    tint = (0.85, 0.5, 0.3) if disc.rng.random() < 0.3 else (1, 1, 1)
    return ndimage.gaussian_filter(pixels, (0.6, 0.6, 0)) * tint


def _endoscopy(disc: _Disc) -> NDArray:
    x, y = disc.rng.uniform(-0.5, 0.5, 2)
    depth, angle = np.hypot(disc.u - x, disc.v - y), np.arctan2(disc.v - y, disc.u - x)
    folds = np.sin(np.log(depth + 0.08) * disc.rng.uniform(4, 9) + 0.6 * np.sin(angle * disc.rng.integers(2, 5)))
    light = (0.75 + 0.25 * folds) * (1 - np.exp(-((depth / disc.rng.uniform(0.15, 0.4)) ** 2)))
    mucosa = (disc.rng.uniform(170, 230), disc.rng.uniform(70, 120), disc.rng.uniform(50, 95))
    pixels = (light + 0.05 * disc.cloud(1.3))[..., None] * mucosa
    for distance in disc.spots(int(disc.rng.integers(0, 15)), 0.01, 0.05):
        pixels = np.where(distance[..., None] < 1, 245, pixels)
    return pixels


def _oct(disc: _Disc) -> NDArray:
    """Layers of a retina in cross-section, with speckle."""
    surface = 0.25 * np.exp(-((disc.u / 0.2) ** 2)) - 0.2
    light = np.full(disc.u.shape, 15.0)
    layers = ((0, 0.06, 150), (0.1, 0.04, 90), (0.18, 0.06, 130), (0.26, 0.04, 80), (0.4, 0.06, 210), (0.5, 0.2, 110))
    for depth, thickness, level in layers:
        light += level * np.exp(-(((disc.v - surface - depth) / thickness) ** 2))
    light *= disc.rng.gamma(4, 0.25, light.shape)
    return light[..., None] * (np.ones(3) if disc.rng.random() < 0.6 else disc.colour() / 180)


def _slit_lamp(disc: _Disc) -> NDArray:
    """An eye from in front: pupil, iris with fibres, sclera with vessels, and the slit of light."""
    pupil, iris = disc.rng.uniform(0.15, 0.4), disc.rng.uniform(0.47, 0.63)
    fibres = 1 + 0.2 * np.sin(disc.angle * disc.rng.integers(40, 90) + 3 * np.sin(20 * disc.distance))[..., None]
    colours = ((90, 60, 35), (80, 110, 140), (100, 110, 70))
    distance = disc.distance[..., None]
    pixels = np.where(distance < iris, colours[disc.rng.integers(3)] * fibres, (205, 180, 170))
    pixels = np.where(distance < pupil, (10, 8, 8), pixels)
    for angle in disc.rng.uniform(0, 2 * np.pi, 6):
        line = abs(np.sin(disc.angle - angle + 0.15 * np.sin(15 * disc.distance))) < 0.02
        pixels = np.where((line & (disc.distance > iris + 0.05))[..., None], (190, 90, 80), pixels)
    slit = np.exp(-(((disc.u - disc.rng.uniform(-0.4, 0.4)) / disc.rng.uniform(0.03, 0.1)) ** 2))
    return pixels * disc.rng.uniform(0.3, 1) + slit[..., None] * disc.rng.uniform(60, 180)


OTHER_PICTURES: dict[str, Callable[[_Disc], NDArray]] = {
    "plain": _plain,
    "radial gradient": _radial_gradient,
    "linear gradient": _linear_gradient,
    "noise": _noise,
    "texture": _texture,
    "sectors": _sectors,
    "ball": _ball,
    "orange": _orange,
    "moon": _moon,
    "coin": _coin,
    "cells": _cells,
    "tissue": _tissue,
    "endoscopy": _endoscopy,
    "oct": _oct,
    "slit lamp": _slit_lamp,
}
"""Kind -> the function that draws it."""
