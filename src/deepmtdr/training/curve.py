"""One curve as inline SVG, coloured by the page it stands in: light or dark, no script."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

POINTS = 400
"""Most points of a line; more would not be seen, and make the page slow."""
DECADES = 2
"""A curve that spans more than these is drawn on a logarithmic axis."""
WIDTH, HEIGHT = 380, 230
LEFT, RIGHT, TOP, BOTTOM = 62, 24, 12, 44

CURVE_STYLE = """
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


class Axis(NamedTuple):
    """The way from a value to its place between 0 and 1, and where the values are named."""

    place: Callable[[np.ndarray], np.ndarray]
    ticks: Sequence[float]


def curve_svg(
    steps: Float[np.ndarray, " n"],
    values: Float[np.ndarray, " n"],
    label: str,
    *,
    smooth: bool = True,
    best: int | None = None,
) -> str:
    """Draw a value over the steps, the vertical axis logarithmic where the values span more than two decades.

    Args:
        steps: of the optimiser, ascending.
        values: finite; those that are not positive have no place on a logarithmic axis and are left out there.
        label: of the vertical axis.
        smooth: for many noisy values, a running mean over a fortieth of them, the values themselves faintly behind;
            False: a dot for each value, joined.
        best: index of a value to be marked.

    Returns:
        An `<svg>` of class `curve`, for a page that has `CURVE_STYLE`.

    Raises:
        ValueError: if there is no value, or another number of steps.
    """
    if not values.size or steps.shape != values.shape:
        raise ValueError(f"{steps.size} steps and {values.size} values, expected as many, and at least one")
    logarithmic = is_logarithmic(values)
    mean = running_mean(values, max(1, values.size // 40)) if smooth else values
    drawn = np.concatenate([values, mean])  # zeros may bring a mean below every value that has a place
    y_axis = _log_axis(drawn[drawn > 0]) if logarithmic else _linear_axis(drawn)
    x_axis = _linear_axis(steps, whole=True)
    keep = values > 0 if logarithmic else np.ones(values.shape, bool)
    across = LEFT + x_axis.place(steps) * (WIDTH - LEFT - RIGHT)

    def up(which: np.ndarray) -> np.ndarray:
        return HEIGHT - BOTTOM - y_axis.place(which) * (HEIGHT - TOP - BOTTOM)

    parts = [_frame(x_axis, y_axis, label)]
    if smooth:
        raw = extremes(np.flatnonzero(keep), values)
        parts.append(_line("raw", across[raw], up(values[raw])))
    shown = _evenly(np.flatnonzero(mean > 0) if logarithmic else np.arange(values.size))
    parts.append(_line("smooth", across[shown], up(mean[shown])))
    if not smooth:
        dots = zip(across[shown], up(values[shown]), strict=True)
        parts += [f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="2.5"/>' for x, y in dots]
    if best is not None and keep[best]:
        x, y = across[best], up(values[best : best + 1])[0]
        parts.append(f'<circle class="best" cx="{x:.1f}" cy="{y:.1f}" r="5.5"/>')
    said = f"{label}: {values[0]:.4g} at step {steps[0]:,.0f}, {values[-1]:.4g} at step {steps[-1]:,.0f}"
    head = f'<svg class="curve" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(said)}">'
    return f"{head}{''.join(parts)}</svg>"


def is_logarithmic(values: Float[np.ndarray, " n"]) -> bool:
    """Whether the positive values span more than `DECADES`, and none is negative."""
    positive = values[values > 0]
    return bool(positive.size and values.min() >= 0 and positive.max() > 10**DECADES * positive.min())


def running_mean(values: Float[np.ndarray, " n"], window: int) -> Float[np.ndarray, " n"]:
    """The mean of the values within half a window on either side; at the ends, of as many as there are."""
    sums = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    at = np.arange(values.size)
    first, last = np.maximum(at - window // 2, 0), np.minimum(at + (window + 1) // 2, values.size)
    last = np.maximum(last, first + 1)
    return (sums[last] - sums[first]) / (last - first)


def extremes(places: np.ndarray, values: Float[np.ndarray, " n"]) -> np.ndarray:
    """At most `POINTS` of the places: of each stretch the lowest and the highest value, so that no peak is lost."""
    if places.size <= POINTS:
        return places
    stretches = np.array_split(places, POINTS // 2)
    ends = [{int(part[values[part].argmin()]), int(part[values[part].argmax()])} for part in stretches]
    return np.array([place for pair in ends for place in sorted(pair)])


def _evenly(places: np.ndarray) -> np.ndarray:
    """At most `POINTS` of the places, the first and the last among them."""
    if places.size <= POINTS:
        return places
    return places[np.linspace(0, places.size - 1, POINTS).round().astype(int)]


def _line(kind: str, across: np.ndarray, up: np.ndarray) -> str:
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(across, up, strict=True))
    return f'<polyline class="{kind}" points="{points}"/>'


def _linear_axis(values: np.ndarray, whole: bool = False) -> Axis:
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


def _log_axis(positive: np.ndarray) -> Axis:
    """Named at powers of ten, at most six of them."""
    low, high = math.log10(float(positive.min())), math.log10(float(positive.max()))
    powers = range(math.ceil(low - 1e-9), math.floor(high + 1e-9) + 1)
    ticks = [10.0**power for power in powers[:: max(1, math.ceil(len(powers) / 6))]]
    return Axis(lambda which: (np.log10(which) - low) / (high - low), ticks)


def _frame(x_axis: Axis, y_axis: Axis, label: str) -> str:
    """The two axes, with their names and numbers."""
    right, base = WIDTH - RIGHT, HEIGHT - BOTTOM
    parts = []
    for tick in y_axis.ticks:
        y = base - float(y_axis.place(np.array(tick))) * (base - TOP)
        parts.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{right}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{_number(tick)}</text>')
    for tick in x_axis.ticks:
        x = LEFT + float(x_axis.place(np.array(tick))) * (right - LEFT)
        parts.append(f'<path class="grid" d="M{x:.1f} {TOP}V{base}"/>')
        parts.append(f'<text x="{x:.1f}" y="{base + 15}" text-anchor="middle">{tick:,.0f}</text>')
    parts.append(f'<path class="axis" d="M{LEFT} {TOP}V{base}H{right}"/>')
    parts.append(f'<text x="{(LEFT + right) / 2:.0f}" y="{HEIGHT - 8}" text-anchor="middle">step</text>')
    middle = (TOP + base) / 2
    turned = f'transform="rotate(-90 13 {middle:.0f})"'
    parts.append(f'<text x="13" y="{middle:.0f}" text-anchor="middle" {turned}>{escape(label)}</text>')
    return "".join(parts)


def _number(value: float) -> str:
    """Short: 0.002, 1e-05, 20,000."""
    if value and not 1e-4 <= abs(value) < 1e6:
        return f"{value:.0e}"
    return f"{value:,.10g}" if abs(value) >= 1e4 else f"{value:.6g}"
