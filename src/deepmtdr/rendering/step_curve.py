"""Plot a value over the training steps, as inline SVG."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from deepmtdr.rendering.plots import Panel, linear_axis, log_axis

POINTS = 400
"""Largest number of points of a line. More would not be visible, and the page would be slow."""
DECADES = 2
"""Values that span more than this many powers of ten are drawn on a logarithmic axis."""


def curve_svg(
    steps: Float[np.ndarray, " n"],
    values: Float[np.ndarray, " n"],
    label: str,
    *,
    smooth: bool = True,
    best: int | None = None,
) -> str:
    """Draw a value over the training steps. The vertical axis is logarithmic if the values span more than two decades.

    Args:
        steps: steps of the optimiser, ascending.
        values: one finite value for each step. A logarithmic axis leaves out values that are not positive.
        label: label of the vertical axis.
        smooth: draw the running mean over a fortieth of the values, and the values themselves faintly behind it. Use
            this for many noisy values. False: draw a dot for each value, and a line through the dots.
        best: index of a value that gets a ring.

    Returns:
        An `<svg>` for a page with `plots.PLOT_STYLE`.

    Raises:
        ValueError: if there are no values, or not as many as steps.
    """
    if not values.size or steps.shape != values.shape:
        raise ValueError(f"found {steps.size} steps and {values.size} values, expected equal numbers, at least 1")
    logarithmic = is_logarithmic(values)
    mean = running_mean(values, max(1, values.size // 40)) if smooth else values
    drawn = np.concatenate([values, mean])  # with zeros among them, the mean can be below every positive value
    y_axis = log_axis(drawn[drawn > 0]) if logarithmic else linear_axis(drawn)
    x_axis = linear_axis(steps, whole=True)
    keep = values > 0 if logarithmic else np.ones(values.shape, bool)
    panel = Panel(x_axis, y_axis)
    parts = [panel.axes("step", label, lambda step: f"{step:,.0f}")]
    if smooth:
        raw = thin_to_extremes(np.flatnonzero(keep), values)
        parts.append(panel.line("raw", steps[raw], values[raw]))
    drawn_at = _evenly(np.flatnonzero(mean > 0) if logarithmic else np.arange(values.size))
    parts.append(panel.line("smooth", steps[drawn_at], mean[drawn_at]))
    if not smooth:
        parts += panel.dots(steps[drawn_at], values[drawn_at], radius=2.5)
    if best is not None and keep[best]:
        x, y = panel.x_pixels(steps[best : best + 1])[0], panel.y_pixels(values[best : best + 1])[0]
        parts.append(f'<circle class="best" cx="{x:.1f}" cy="{y:.1f}" r="5.5"/>')
    words = f"{label}: {values[0]:.4g} at step {steps[0]:,.0f}, {values[-1]:.4g} at step {steps[-1]:,.0f}"
    return panel.svg(words, parts)


def is_logarithmic(values: Float[np.ndarray, " n"]) -> bool:
    """Whether the positive values span more than `DECADES`, and none is negative."""
    positive = values[values > 0]
    return bool(positive.size and values.min() >= 0 and positive.max() > 10**DECADES * positive.min())


def running_mean(values: Float[np.ndarray, " n"], window: int) -> Float[np.ndarray, " n"]:
    """Compute the mean of the values within half a window on either side; near the ends the window is cut."""
    sums = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    at = np.arange(values.size)
    first, last = np.maximum(at - window // 2, 0), np.minimum(at + (window + 1) // 2, values.size)
    last = np.maximum(last, first + 1)
    return (sums[last] - sums[first]) / (last - first)


def thin_to_extremes(places: np.ndarray, values: Float[np.ndarray, " n"]) -> np.ndarray:
    """Choose at most `POINTS` indexes: the lowest and the highest value of each stretch, so that no peak is lost."""
    if places.size <= POINTS:
        return places
    stretches = np.array_split(places, POINTS // 2)
    ends = [{int(part[values[part].argmin()]), int(part[values[part].argmax()])} for part in stretches]
    return np.array([place for pair in ends for place in sorted(pair)])


def _evenly(places: np.ndarray) -> np.ndarray:
    """Choose at most `POINTS` indexes at even distances, with the first and the last."""
    if places.size <= POINTS:
        return places
    return places[np.linspace(0, places.size - 1, POINTS).round().astype(int)]
