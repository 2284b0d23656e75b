"""Plots as inline SVG, coloured by the page they stand in: light or dark, no script."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import NamedTuple

import numpy as np

WIDTH, HEIGHT = 380, 230
LEFT, RIGHT, TOP, BOTTOM = 62, 24, 12, 44

PLOT_STYLE = """
:root { --line: #1f5fbf; --mark: #b4520a; }
@media (prefers-color-scheme: dark) { :root { --line: #7fb2ff; --mark: #f5b041; } }
.curves { display: grid; grid-template-columns: repeat(auto-fill, minmax(16rem, 1fr)); gap: 1rem 1.5rem; }
figure { margin: 0; display: flex; flex-direction: column; }
figcaption { font-weight: 600; }
figcaption small { font-weight: 400; opacity: .7; display: block; }
svg.curve { width: 100%; height: auto; margin-top: auto; fill: none; font: 13px system-ui, sans-serif; }
.curve text { fill: currentColor; }
.curve .grid { stroke: currentColor; opacity: .15; }
.curve .axis { stroke: currentColor; opacity: .5; }
.curve .raw { stroke: var(--line); opacity: .3; }
.curve .smooth { stroke: var(--line); stroke-width: 1.8; stroke-linejoin: round; }
.curve .dot { fill: var(--line); }
.curve .best { stroke: var(--mark); stroke-width: 2; }
"""
"""For a page with plots, beside `pages.PAGE_STYLE`."""


def format_number(value: float) -> str:
    """Short: 0.002, 1e-05, 20,000."""
    if value and not 1e-4 <= abs(value) < 1e6:
        return f"{value:.0e}"
    return f"{value:,.10g}" if abs(value) >= 1e4 else f"{value:.6g}"


class Axis(NamedTuple):
    """The way from a value to its place between 0 and 1, and where the values are named."""

    to_unit: Callable[[np.ndarray], np.ndarray]
    ticks: Sequence[float]


def linear_axis(values: np.ndarray, whole: bool = False) -> Axis:
    """From the lowest to the highest value, named at round numbers; `whole`: at whole ones."""
    low, high = float(values.min()), float(values.max())
    if high - low < 1e-12 * max(abs(high), 1e-300):  # one value: it stands in the middle
        around = abs(high) / 2 or 1.0
        low, high = low - around, high + around
    step = 10.0 ** math.floor(math.log10((high - low) / 3))
    step = next(nice for nice in (step, 2 * step, 5 * step, 10 * step) if (high - low) / nice <= 5)
    step = max(1.0, step) if whole else step
    ticks = np.arange(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1) * step
    return Axis(lambda which: (which - low) / (high - low), ticks.tolist())


def log_axis(positive: np.ndarray) -> Axis:
    """Named at powers of ten, at most six of them."""
    low, high = math.log10(float(positive.min())), math.log10(float(positive.max()))
    powers = range(math.ceil(low - 1e-9), math.floor(high + 1e-9) + 1)
    ticks = [10.0**power for power in powers[:: max(1, math.ceil(len(powers) / 6))]]
    return Axis(lambda which: (np.log10(which) - low) / (high - low), ticks)


UNIT_AXIS = Axis(lambda which: np.asarray(which), (0.0, 0.2, 0.4, 0.6, 0.8, 1.0))
"""From 0 to 1, for shares."""


class Panel(NamedTuple):
    """The rectangle that a plot is drawn in: places in it, and its parts as SVG."""

    x: Axis
    y: Axis
    height: int = HEIGHT

    def x_pixels(self, values: np.ndarray) -> np.ndarray:
        """Pixels from the left."""
        return np.asarray(LEFT + self.x.to_unit(values) * (WIDTH - LEFT - RIGHT))

    def y_pixels(self, values: np.ndarray) -> np.ndarray:
        """Pixels from the top."""
        return np.asarray(self.height - BOTTOM - self.y.to_unit(values) * (self.height - TOP - BOTTOM))

    def line(self, kind: str, x: np.ndarray, y: np.ndarray) -> str:
        """The points joined, as a line of class `kind`."""
        pairs = zip(self.x_pixels(x), self.y_pixels(y), strict=True)
        return f'<polyline class="{kind}" points="{" ".join(f"{across:.1f},{up:.1f}" for across, up in pairs)}"/>'

    def axes(self, x_label: str, y_label: str, x_number: Callable[[float], str] = format_number) -> str:
        """The two axes, with their names and numbers."""
        right, base = WIDTH - RIGHT, self.height - BOTTOM
        parts = []
        for tick in self.y.ticks:
            y = float(self.y_pixels(np.array(tick)))
            parts.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{right}"/>')
            parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{format_number(tick)}</text>')
        for tick in self.x.ticks:
            x = float(self.x_pixels(np.array(tick)))
            parts.append(f'<path class="grid" d="M{x:.1f} {TOP}V{base}"/>')
            parts.append(f'<text x="{x:.1f}" y="{base + 15}" text-anchor="middle">{x_number(tick)}</text>')
        parts.append(f'<path class="axis" d="M{LEFT} {TOP}V{base}H{right}"/>')
        across, middle = f"{(LEFT + right) / 2:.0f}", (TOP + base) / 2
        parts.append(f'<text x="{across}" y="{self.height - 8}" text-anchor="middle">{escape(x_label)}</text>')
        turned = f'transform="rotate(-90 13 {middle:.0f})"'
        parts.append(f'<text x="13" y="{middle:.0f}" text-anchor="middle" {turned}>{escape(y_label)}</text>')
        return "".join(parts)

    def svg(self, alt_text: str, parts: Sequence[str]) -> str:
        """The whole plot, of class `curve`, for a page that has `PLOT_STYLE`; `alt_text`: to who cannot see it."""
        head = f'<svg class="curve" viewBox="0 0 {WIDTH} {self.height}" role="img" aria-label="{escape(alt_text)}">'
        return f"{head}{''.join(parts)}</svg>"
