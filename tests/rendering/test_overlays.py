"""Overlays of lesions and evidence, and text on pictures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from deepmtdr.labels import DIABETIC_RETINOPATHY, LabelSet
from deepmtdr.rendering.overlays import (
    INFERNO,
    draw_evidence_overlay,
    draw_lesion_overlay,
    draw_text,
    inferno,
    shorten_middle,
    text_width,
)

SIDE = 64
GREY = np.full((SIDE, SIDE, 3), 120, np.uint8)
TWO_TYPES = replace(DIABETIC_RETINOPATHY, lesions=DIABETIC_RETINOPATHY.lesions[:2])


def lesions(labels: LabelSet, *channels: int) -> np.ndarray:
    """A square lesion of each of these channels at the same place."""
    maps = np.zeros((len(labels.lesions), SIDE, SIDE), np.float32)
    maps[list(channels), 20:40, 20:40] = 0.9
    return maps


def tint(picture: np.ndarray, y: int, x: int) -> np.ndarray:
    """The colour of a pixel without its brightness."""
    pixel = picture[y, x].astype(float)
    return pixel - pixel.mean()


@pytest.mark.parametrize("labels", [DIABETIC_RETINOPATHY, TWO_TYPES])
def test_each_lesion_type_has_its_colour(labels: LabelSet) -> None:
    plain = draw_lesion_overlay(GREY, lesions(labels), labels, SIDE)
    assert (plain == plain[..., :1]).all()
    for channel, lesion in enumerate(labels.lesions):
        drawn = draw_lesion_overlay(GREY, lesions(labels, channel), labels, SIDE)
        expected = np.array(lesion.colour, float) - np.mean(lesion.colour)
        assert np.corrcoef(tint(drawn, 30, 30), expected)[0, 1] > 0.99
        assert (drawn[5, 5] == plain[5, 5]).all()


def test_first_lesion_type_is_on_top() -> None:
    labels = DIABETIC_RETINOPATHY
    both, first, last = (draw_lesion_overlay(GREY, lesions(labels, *c), labels, SIDE) for c in ((0, 3), (0,), (3,)))
    edge = 20, 30
    assert (
        np.abs(tint(both, *edge) - tint(first, *edge)).max() < 15 < np.abs(tint(both, *edge) - tint(last, *edge)).max()
    )


def test_pixels_below_the_threshold_are_not_drawn() -> None:
    faint = lesions(DIABETIC_RETINOPATHY, 0) * 0.5
    drawn, plain = (draw_lesion_overlay(GREY, m, DIABETIC_RETINOPATHY, SIDE) for m in (faint, 0 * faint))
    assert (drawn == plain).all()


def test_evidence_is_drawn_in_the_colours_of_the_map() -> None:
    evidence = np.zeros((SIDE, SIDE), np.float32)
    evidence[20:40, 20:40] = 1
    drawn = draw_evidence_overlay(GREY, evidence, SIDE)
    assert np.abs(drawn[30, 30] - np.array(INFERNO[-1], float)).max() < 20
    assert (drawn[5, 5] == drawn[5, 5, 0]).all()
    assert inferno(np.array([0.0, 1.0])).tolist() == [list(INFERNO[0]), list(INFERNO[-1])]


def test_long_text_loses_its_middle_and_short_text_is_unchanged() -> None:
    short = shorten_middle("a_very_long_name_of_a_photograph.jpg", 20, 150)
    assert text_width(short, 20) <= 150 and short.startswith("a_v") and short.endswith(".jpg") and "..." in short
    assert shorten_middle("eye.jpg", 20, 150) == "eye.jpg"


def test_text_is_drawn_in_its_colour() -> None:
    page = Image.new("RGB", (100, 40))
    draw_text(page, (5, 30), "text", 20, (255, 0, 0), bold=True)
    drawn = np.asarray(page)
    assert drawn[..., 0].max() == 255 and not drawn[..., 1:].any()
