"""Plots of a value over the training steps."""

from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pytest

from deepmtdr.rendering.plots import BOTTOM, HEIGHT, TOP
from deepmtdr.rendering.step_curve import POINTS, curve_svg, is_logarithmic, running_mean, thin_to_extremes


def points(curve: ElementTree.Element, kind: str) -> np.ndarray:
    (line,) = (part for part in curve if part.get("class") == kind)
    return np.array([pair.split(",") for pair in str(line.get("points")).split()], float)


def test_more_than_two_decades_have_a_logarithmic_axis() -> None:
    steps = np.arange(5.0)
    line = points(ElementTree.fromstring(curve_svg(steps, 10.0**-steps, "loss")), "raw")
    assert np.ptp(np.diff(line[:, 1])) <= 0.11, "a power is a straight line"
    labels = [t.text for t in ElementTree.fromstring(curve_svg(steps, 10.0**-steps, "loss")).iter("text")]
    assert {"1", "0.1", "0.01", "0.001", "0.0001"} <= set(labels)
    assert is_logarithmic(np.array([1, 101.0])) and not is_logarithmic(np.array([1, 99.0]))
    assert not is_logarithmic(np.array([-1, 1, 101.0])) and not is_logarithmic(np.zeros(3))


def test_zeros_are_left_out_of_a_logarithmic_axis() -> None:
    values = np.array([1.0, 0.0, 0.1, 0.0, 0.001])
    assert len(points(ElementTree.fromstring(curve_svg(np.arange(5.0), values, "loss")), "raw")) == 3
    many = np.tile([0.0, 1.0], 100) * np.geomspace(1, 1e-3, 200)
    curve = ElementTree.fromstring(curve_svg(np.arange(200.0), many, "loss"))
    assert all(TOP <= y <= HEIGHT - BOTTOM for kind in ("raw", "smooth") for _, y in points(curve, kind))


@pytest.mark.parametrize("values", [[3.0], [0.0, 0.0], [-2.0, 5.0], [1e-9, 1e-9], [1e7, 3e7], [1e-12, 1.0]])
def test_finite_values_stay_inside_the_curve_picture(values: list[float]) -> None:
    curve = ElementTree.fromstring(curve_svg(np.arange(len(values)) * 1.0, np.array(values), "loss", best=0))
    for kind in ("raw", "smooth"):
        assert all(0 <= y <= HEIGHT for _, y in points(curve, kind))
    assert sum(text.text not in ("step", "loss") for text in curve.iter("text")) >= 2


def test_curve_without_values_is_an_error() -> None:
    with pytest.raises(ValueError, match="0 steps and 0 values"):
        curve_svg(np.empty(0), np.empty(0), "loss")


def test_running_mean_is_that_of_the_neighbours() -> None:
    values = np.random.default_rng(0).random(50)
    mean = running_mean(values, 5)
    assert mean[2:-2] == pytest.approx(np.convolve(values, np.ones(5) / 5, "valid"))
    assert mean[0] == pytest.approx(values[:3].mean())
    assert (running_mean(values, 1) == pytest.approx(values)) and mean[-1] == pytest.approx(values[-3:].mean())


def test_thinning_keeps_the_extremes_in_their_order() -> None:
    values = np.random.default_rng(0).random(10_000)
    kept = thin_to_extremes(np.arange(10_000), values)
    assert len(kept) <= POINTS and (np.diff(kept) > 0).all()
    assert {int(values.argmin()), int(values.argmax())} <= set(kept.tolist())
