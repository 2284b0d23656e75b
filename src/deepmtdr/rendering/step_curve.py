"""A value over the steps as inline SVG, coloured by the page it stands in: light or dark, no script."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from deepmtdr.rendering.plots import Panel, linear_axis, log_axis

POINTS = 400
"""Most points of a line; more would not be seen, and make the page slow."""
DECADES = 2
"""A curve that spans more than these is drawn on a logarithmic axis."""


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
        An `<svg>` of class `curve`, for a page that has `plots.PLOT_STYLE`.

    Raises:
        ValueError: if there is no value, or another number of steps.
    """
    if not values.size or steps.shape != values.shape:
        raise ValueError(f"{steps.size} steps and {values.size} values, expected as many, and at least one")
    logarithmic = is_logarithmic(values)
    mean = running_mean(values, max(1, values.size // 40)) if smooth else values
    drawn = np.concatenate([values, mean])  # zeros may bring a mean below every value that has a place
    y_axis = log_axis(drawn[drawn > 0]) if logarithmic else linear_axis(drawn)
    x_axis = linear_axis(steps, whole=True)
    keep = values > 0 if logarithmic else np.ones(values.shape, bool)
    panel = Panel(x_axis, y_axis)
    parts = [panel.axes("step", label, lambda step: f"{step:,.0f}")]
    if smooth:
        raw = thin_to_extremes(np.flatnonzero(keep), values)
        parts.append(panel.line("raw", steps[raw], values[raw]))
    shown = _evenly(np.flatnonzero(mean > 0) if logarithmic else np.arange(values.size))
    parts.append(panel.line("smooth", steps[shown], mean[shown]))
    if not smooth:
        dots = zip(panel.x_pixels(steps[shown]), panel.y_pixels(values[shown]), strict=True)
        parts += [f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="2.5"/>' for x, y in dots]
    if best is not None and keep[best]:
        x, y = panel.x_pixels(steps[best : best + 1])[0], panel.y_pixels(values[best : best + 1])[0]
        parts.append(f'<circle class="best" cx="{x:.1f}" cy="{y:.1f}" r="5.5"/>')
    said = f"{label}: {values[0]:.4g} at step {steps[0]:,.0f}, {values[-1]:.4g} at step {steps[-1]:,.0f}"
    return panel.svg(said, parts)


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


def thin_to_extremes(places: np.ndarray, values: Float[np.ndarray, " n"]) -> np.ndarray:
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
