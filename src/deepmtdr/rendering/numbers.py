"""Numbers as text, for tables and pages: counts, intervals, p-values. Each format is defined only here."""

from __future__ import annotations

import math


def format_number(value: float | int) -> str:
    """Format a number of any size in few characters: 0.002, 1e-05, 20,000."""
    if value and not 1e-4 <= abs(value) < 1e6:
        return f"{value:.0e}"
    return f"{value:,.10g}" if abs(value) >= 1e4 else f"{value:.6g}"


def format_count(count: int | float | None) -> str:
    """Format a whole number with commas, such as 20,000; empty for None."""
    return "" if count is None else f"{count:,.0f}"


def format_interval(value: float, low: float, high: float, digits: int = 3) -> str:
    """Format a value with its confidence interval, such as `0.8123 [0.77, 0.85]`.

    Args:
        value: the value.
        low: lower bound; nan leaves the interval out.
        high: upper bound.
        digits: significant digits of the value. The bounds have at most 3.
    """
    bounds = "" if math.isnan(low) else f" [{low:.3g}, {high:.3g}]"
    return f"{value:.{digits}g}{bounds}"


def format_mean_sd(mean: float, sd: float) -> str:
    """Format a mean with its standard deviation, such as `0.62 (0.03)`, as in the paper's tables."""
    return f"{mean:.3g} ({sd:.2g})"


def format_p_value(p_value: float) -> str:
    """Format a p-value to three digits; empty for nan."""
    return "" if math.isnan(p_value) else f"{p_value:.3g}"
