"""Numbers as text."""

from __future__ import annotations

import math

import pytest

from deepmtdr.rendering.numbers import (
    format_count,
    format_interval,
    format_mean_sd,
    format_number,
    format_p_value,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.002, "0.002"), (0.00001, "1e-05"), (20_000, "20,000"), (2_000_000, "2e+06"), (0, "0"), (0.1 + 0.2, "0.3")],
)
def test_numbers_of_any_size_are_short(value: float, text: str) -> None:
    assert format_number(value) == text


def test_interval_is_left_out_if_it_is_undefined() -> None:
    assert format_interval(0.81234, 0.7701, 0.85, digits=4) == "0.8123 [0.77, 0.85]"
    assert format_interval(0.81234, math.nan, math.nan) == "0.812"


def test_counts_means_and_p_values() -> None:
    assert (format_count(20_000), format_count(None)) == ("20,000", "")
    assert format_mean_sd(0.6133, 0.0351) == "0.613 (0.035)"
    assert (format_p_value(0.01234), format_p_value(math.nan)) == ("0.0123", "")
