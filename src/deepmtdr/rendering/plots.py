"""Line and bar plots as inline SVG, without scripts. Their colours fit the page, light or dark."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from deepmtdr.rendering.html import figure_html
from deepmtdr.rendering.numbers import format_number

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
"""The style of a page with plots."""

SERIES_STYLE = """
:root { --c0: #1f5fbf; --c1: #b4520a; --c2: #857000; --c3: #a0407f; }
@media (prefers-color-scheme: dark) { :root { --c0: #7fb2ff; --c1: #ff8f52; --c2: #e6d84a; --c3: #e79ccb; } }
.c0 { stroke: var(--c0); } .c1 { stroke: var(--c1); stroke-dasharray: 7 3; }
.c2 { stroke: var(--c2); stroke-dasharray: 2 2.5; } .c3 { stroke: var(--c3); stroke-dasharray: 9 3 2 3; }
.c0, .c1, .c2, .c3 { fill: none; stroke-width: 1.8; stroke-linejoin: round; }
.curve .level { stroke-width: 1; opacity: .6; }
.curve .even { stroke: currentColor; opacity: .45; stroke-dasharray: 4 4; }
.curve .bar { fill: var(--line); opacity: .3; }
.curve .count { font-size: 10px; opacity: .8; }
figcaption .series { padding-left: 2.4em; text-indent: -2.4em; margin: .15em 0; }
figcaption svg { width: 1.9em; height: .6em; margin-right: .5em; }
"""
"""The style of a page with `line_plot` or bars, in addition to `PLOT_STYLE`."""
SERIES_COLOURS = 4
"""Colours of `SERIES_STYLE`; a fifth series has the first colour again."""


class Axis(NamedTuple):
    """One axis of a plot."""

    to_unit: Callable[[np.ndarray], np.ndarray]
    """Function from values to positions, 0 at one end of the axis and 1 at the other."""
    ticks: Sequence[float]
    """Values that have a tick with a number."""


def linear_axis(values: np.ndarray, whole: bool = False) -> Axis:
    """Make an axis from the lowest to the highest value, with ticks at round numbers; `whole`: whole numbers only."""
    low, high = float(values.min()), float(values.max())
    if high - low < 1e-12 * max(abs(high), 1e-300):  # a single value: put it in the middle
        around = abs(high) / 2 or 1.0
        low, high = low - around, high + around
    step = 10.0 ** math.floor(math.log10((high - low) / 3))
    step = next(nice for nice in (step, 2 * step, 5 * step, 10 * step) if (high - low) / nice <= 5)
    step = max(1.0, step) if whole else step
    ticks = np.arange(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1) * step
    return Axis(lambda values: (values - low) / (high - low), ticks.tolist())


def log_axis(positive: np.ndarray) -> Axis:
    """Make a logarithmic axis with ticks at powers of ten, at most six of them."""
    low, high = math.log10(float(positive.min())), math.log10(float(positive.max()))
    powers = range(math.ceil(low - 1e-9), math.floor(high + 1e-9) + 1)
    ticks = [10.0**power for power in powers[:: max(1, math.ceil(len(powers) / 6))]]
    return Axis(lambda values: (np.log10(values) - low) / (high - low), ticks)


UNIT_AXIS = Axis(lambda values: np.asarray(values), (0.0, 0.2, 0.4, 0.6, 0.8, 1.0))
"""An axis from 0 to 1, for shares."""


class Panel(NamedTuple):
    """The rectangle that a plot is drawn in. Its methods return positions, or parts of the plot as SVG."""

    x: Axis
    y: Axis
    height: int = HEIGHT

    def x_pixels(self, values: np.ndarray) -> np.ndarray:
        """Compute the positions of x values, in pixels from the left."""
        return np.asarray(LEFT + self.x.to_unit(values) * (WIDTH - LEFT - RIGHT))

    def y_pixels(self, values: np.ndarray) -> np.ndarray:
        """Compute the positions of y values, in pixels from the top."""
        return np.asarray(self.height - BOTTOM - self.y.to_unit(values) * (self.height - TOP - BOTTOM))

    def line(self, kind: str, x: np.ndarray, y: np.ndarray) -> str:
        """Draw a line through the points, of the CSS class `kind`."""
        pairs = zip(self.x_pixels(x), self.y_pixels(y), strict=True)
        return f'<polyline class="{kind}" points="{" ".join(f"{across:.1f},{up:.1f}" for across, up in pairs)}"/>'

    def dots(self, x: np.ndarray, y: np.ndarray, radius: float) -> list[str]:
        """Draw a dot at each point."""
        places = zip(self.x_pixels(x), self.y_pixels(y), strict=True)
        return [f'<circle class="dot" cx="{across:.1f}" cy="{up:.1f}" r="{radius:g}"/>' for across, up in places]

    def bar(self, left: float, right: float, top: float | int, text: str = "") -> str:
        """Draw a bar from the x axis up.

        Args:
            left: x value of its left edge.
            right: x value of its right edge.
            top: y value of its upper edge.
            text: text above the bar.
        """
        x, end = (float(self.x_pixels(np.array(place))) for place in (left, right))
        y, base = float(self.y_pixels(np.array(top))), float(self.y_pixels(np.array(0)))
        size = f'width="{max(end - x - 1, 1):.1f}" height="{base - y:.1f}"'
        words = f'<text class="count" x="{(x + end) / 2:.1f}" y="{y - 3:.1f}" text-anchor="middle">{text}</text>'
        return f'<rect class="bar" x="{x + 0.5:.1f}" y="{y:.1f}" {size}/>{words if text else ""}'

    def axes(self, x_label: str, y_label: str, x_number: Callable[[float], str] = format_number) -> str:
        """Draw both axes with their labels and ticks."""
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
        """Make the whole plot, for a page with `PLOT_STYLE`.

        Args:
            alt_text: the plot in words, for screen readers.
            parts: SVG of its parts.
        """
        head = f'<svg class="curve" viewBox="0 0 {WIDTH} {self.height}" role="img" aria-label="{escape(alt_text)}">'
        return f"{head}{''.join(parts)}</svg>"


SQUARE_HEIGHT = TOP + BOTTOM + WIDTH - LEFT - RIGHT
"""Height of a panel whose two axes have the same length, px."""
DIAGONAL = np.array([0.0, 1.0])
"""The ends of the line x = y, as both coordinates."""


class Series(NamedTuple):
    """One line of a plot and its entry in the legend."""

    name: str
    label: str
    """Text after the name, such as the score."""
    x: Float[np.ndarray, " n"]
    """The x values; without points the series has only an entry in the legend."""
    y: Float[np.ndarray, " n"]
    level: float | None = None
    """Height of a thin horizontal line in the same colour, such as the score of a guess; None: no such line."""


def line_plot(
    title: str, series: Sequence[Series], labels: tuple[str, str], *, diagonal: bool = False, x_axis: Axis = UNIT_AXIS
) -> str:
    """Make a figure with lines and a legend; the y axis is from 0 to 1.

    Args:
        title: title of the figure.
        series: the lines.
        labels: labels of the x axis and of the y axis.
        diagonal: draw the line x = y too.
        x_axis: the x axis, by default from 0 to 1.

    Returns:
        A `<figure>` for a page with `PLOT_STYLE` and `SERIES_STYLE`; empty without series.
    """
    if not series:
        return ""
    panel = Panel(x_axis, UNIT_AXIS, SQUARE_HEIGHT)
    parts = [panel.axes(*labels)]
    if diagonal:
        parts.append(panel.line("even", DIAGONAL, DIAGONAL))
    legend = []
    for number, one in enumerate(series):
        kind = f"c{number % SERIES_COLOURS}"
        if one.x.size:
            parts.append(panel.line(kind, one.x, one.y))
        if one.x.size and one.level is not None:
            parts.append(panel.line(f"{kind} level", np.array([0, 1]), np.array([one.level, one.level])))
        swatch = f'<svg viewBox="0 0 24 8" aria-hidden=true><path class={kind} d="M0 4H24"></path></svg>'
        legend.append(f"{swatch}{escape(one.name)}: {escape(one.label)}")
    words = f"{title}: " + "; ".join(f"{one.name} {one.label}" for one in series)
    return figure_html(title, legend, panel.svg(words, parts))
