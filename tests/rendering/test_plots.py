"""Line and bar plots."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from deepmtdr.rendering.plots import (
    LEFT,
    RIGHT,
    SERIES_COLOURS,
    SQUARE_HEIGHT,
    UNIT_AXIS,
    WIDTH,
    Panel,
    Series,
    line_plot,
    linear_axis,
    log_axis,
)

EMPTY = np.empty(0)


def test_axes_have_round_ticks() -> None:
    assert linear_axis(np.array([0.1, 0.9])).ticks == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert linear_axis(np.array([0.0, 3.0]), whole=True).ticks == [0, 1, 2, 3]
    assert log_axis(np.array([1e-3, 10.0])).ticks == pytest.approx([1e-3, 1e-2, 1e-1, 1, 10])
    assert linear_axis(np.array([5.0, 5.0])).to_unit(np.array(5.0)) == 0.5


def test_line_plot_has_a_line_and_an_escaped_legend_for_each_series() -> None:
    x = np.array([0.0, 1.0])
    series = [Series("a & b", "AUC 1", x, x, level=0.5), Series("c", "undefined", EMPTY, EMPTY)]
    figure = line_plot("ROC", series, ("x label", "y <label>"), diagonal=True)
    (plot,) = (ElementTree.fromstring(svg) for svg in re.findall(r'<svg class="curve".*?</svg>', figure))
    lines = {str(part.get("class")): str(part.get("points")) for part in plot if part.tag == "polyline"}
    assert set(lines) == {"even", "c0", "c0 level"}
    assert lines["c0"] == lines["even"] == f"{LEFT:.1f},{SQUARE_HEIGHT - 44:.1f} {WIDTH - RIGHT:.1f},12.0"
    assert plot.get("aria-label") == "ROC: a & b AUC 1; c undefined"
    assert "</svg>a &amp; b: AUC 1</small>" in figure and "</svg>c: undefined</small>" in figure
    assert "y <label>" in {text.text for text in plot.iter("text")}


def test_line_plot_without_series_is_empty_and_colours_repeat() -> None:
    assert line_plot("ROC", [], ("x", "y")) == ""
    x = np.array([0.0, 1.0])
    figure = line_plot("ROC", [Series(f"{n}", "", x, x) for n in range(SERIES_COLOURS + 1)], ("x", "y"))
    assert figure.count('class="c0"') == 2 and f'class="c{SERIES_COLOURS}"' not in figure


def test_bar_stands_on_the_axis() -> None:
    panel = Panel(UNIT_AXIS, UNIT_AXIS, SQUARE_HEIGHT)
    bar = ElementTree.fromstring(f"<g>{panel.bar(0.0, 0.5, 1, 'seven')}</g>")
    rect, text = bar
    side = WIDTH - LEFT - RIGHT
    assert float(str(rect.get("height"))) == side and float(str(rect.get("width"))) == side / 2 - 1
    assert text.text == "seven" and len(ElementTree.fromstring(f"<g>{panel.bar(0.0, 0.5, 1)}</g>")) == 1
