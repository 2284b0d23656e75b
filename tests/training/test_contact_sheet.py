"""The contact sheet: a row for each photograph, the truth beside what was found, and never a wrong picture for none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deepmtdr.photographs.resize import resize
from deepmtdr.rendering.overlays import HIGHLIGHT_COLOUR, LESION_COLOURS
from deepmtdr.terms import Lesion
from deepmtdr.training.contact_sheet import (
    CAPTION,
    COLUMNS,
    GAP,
    HEAD,
    MARGIN,
    ROW,
    TILE,
    WIDTH,
    choose_detail,
    draw_contact_sheet,
)
from deepmtdr.training.validation import ValidationExample
from fundus import draw_fundus

S = 128
TRUTH, FOUND, GRADE = 4, 5, 7
SPOT = (40, 64)
"""Column and row of the one lesion."""


def seen(lesion: Lesion = Lesion.EX, **changes: object) -> ValidationExample:
    """A drawn fundus with one lesion, which the network finds."""
    hr = draw_fundus(S, S, (S / 2, S / 2), S / 2)
    masks = np.zeros((4, S, S), np.uint8)
    masks[lesion, SPOT[1] - 5 : SPOT[1] + 5, SPOT[0] - 5 : SPOT[0] + 5] = 255
    lr = resize(hr, S // 4)
    one = ValidationExample(
        name="drawings one", lr=lr, sr=resize(lr, S), hr=hr, lesion_masks=masks, annotated=(True,) * 4,
        lesions=masks.astype(np.float32) / 255, evidence=np.zeros((S, S), np.float32), grade=2,
        grade_probs=(0.1, 0.1, 0.6, 0.1, 0.1),
    )  # fmt: skip
    return one._replace(**changes)  # type: ignore[arg-type]


def drawn(tmp_path: Path, *rows: ValidationExample, title: str = "joint, step 400") -> np.ndarray:
    draw_contact_sheet(tmp_path / "sheets" / "joint_400.png", rows, title)
    with Image.open(tmp_path / "sheets" / "joint_400.png") as image:
        assert (image.format, image.mode) == ("PNG", "RGB")
        return np.asarray(image)


def tile(page: np.ndarray, column: int, row: int = 0) -> np.ndarray:
    y, x = HEAD + row * ROW + CAPTION, MARGIN + column * (TILE + GAP)
    return page[y : y + TILE, x : x + TILE].astype(int)


def coloured(pixels: np.ndarray) -> np.ndarray:
    return (np.ptp(pixels, axis=2) > 40).nonzero()


def test_a_sheet_has_a_row_for_each_photograph_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    one, three = drawn(tmp_path, seen()), drawn(tmp_path, seen(), seen(), seen())
    assert one.shape == (HEAD + ROW + MARGIN, WIDTH, 3)
    assert three.shape[0] - one.shape[0] == 2 * ROW
    assert (tile(three, 2, row=2) == tile(three, 2)).all() and tile(three, 2).std() > 5
    assert [file.name for file in (tmp_path / "sheets").iterdir()] == ["joint_400.png"]


@pytest.mark.parametrize("lesion", Lesion)
def test_truth_and_prediction_lie_each_in_its_tile_in_the_lesions_colour(tmp_path: Path, lesion: Lesion) -> None:
    missed = seen(lesion, lesions=np.zeros((4, S, S), np.float32))
    page = drawn(tmp_path, seen(lesion), missed)
    at = SPOT[1] * TILE // S, SPOT[0] * TILE // S
    for row, column in ((0, TRUTH), (0, FOUND), (1, TRUTH)):
        pixel = tile(page, column, row)[at]
        expected = np.array(LESION_COLOURS[lesion]) - np.mean(LESION_COLOURS[lesion])
        assert np.corrcoef(pixel - pixel.mean(), expected)[0, 1] > 0.99
        assert max(np.ptp(axis) for axis in coloured(tile(page, column, row))) < 40, "the rest is grey"
    assert coloured(tile(page, FOUND, row=1))[0].size == 0


def test_what_is_not_known_is_left_blank_in_words(tmp_path: Path) -> None:
    page = drawn(tmp_path, seen(hr=None, lesion_masks=None, annotated=(False,) * 4), seen())
    for column in (3, TRUTH):
        assert np.median(tile(page, column)) < 30 and 0 < (tile(page, column) > 60).mean() < 0.05
        assert (tile(page, column, row=1) > 60).mean() > 0.2


def test_a_type_that_was_not_annotated_is_named(tmp_path: Path) -> None:
    page = drawn(tmp_path, seen(annotated=(True, True, True, False)), seen())
    differing = (tile(page, TRUTH) != tile(page, TRUTH, row=1)).any(axis=2).nonzero()
    assert differing[0].size and differing[0].min() > TILE - 30, "words in the lower corner"


def test_the_evidence_lights_up_where_it_is(tmp_path: Path) -> None:
    evidence = np.zeros((S, S), np.float32)
    evidence[80:100, 30:50] = 1
    page = drawn(tmp_path, seen(evidence=evidence), seen())
    rows, columns = (tile(page, 6) != tile(page, 6, row=1)).any(axis=2).nonzero()
    assert (rows.min(), columns.min()) == pytest.approx((160, 60), abs=4)
    assert (rows.max(), columns.max()) == pytest.approx((200, 100), abs=4)


def test_a_wrong_grade_is_told_from_a_right_one(tmp_path: Path) -> None:
    page = drawn(tmp_path, seen(grade=2), seen(grade=3), seen(grade=None))
    words = [tile(page, GRADE, row)[:24, TILE // 2 :] for row in range(3)]
    marked = [bool((word == HIGHLIGHT_COLOUR).all(axis=2).any()) for word in words]
    assert marked == [False, True, False]


def test_the_bars_are_as_long_as_the_probabilities(tmp_path: Path) -> None:
    card = tile(drawn(tmp_path, seen(grade=None, grade_probs=(0.05, 0.1, 0.25, 0.5, 0.1))), GRADE)
    assert (card[58 + 42 * 3 + 11] == HIGHLIGHT_COLOUR).all(axis=1).sum() == pytest.approx(0.5 * TILE, abs=2)
    assert not (card[58 + 42 * 2 + 11] == HIGHLIGHT_COLOUR).all(axis=1).any()


def test_the_detail_shows_the_lesions_and_does_not_hang_on_the_network() -> None:
    square = choose_detail(seen())
    assert square.side == S // 4
    assert square.x <= SPOT[0] - 5 < SPOT[0] + 5 <= square.x + square.side
    assert square.y <= SPOT[1] - 5 < SPOT[1] + 5 <= square.y + square.side
    later = seen(sr=seen().sr[::-1].copy(), lesions=np.ones((4, S, S), np.float32))
    assert choose_detail(later) == square


def test_the_detail_of_a_photograph_without_annotation_lies_in_the_field_of_view() -> None:
    square = choose_detail(seen(lesion_masks=None))
    corners = [(square.x + dx, square.y + dy) for dx in (0, square.side) for dy in (0, square.side)]
    assert max(np.hypot(x - S / 2, y - S / 2) for x, y in corners) <= S / 2
    inside = seen().lr[square.y // 4 : (square.y + square.side) // 4, square.x // 4 : (square.x + square.side) // 4]
    assert inside[..., 1].std() > 20, "the rim of the disc, not the plain retina"


def test_the_details_keep_their_pixels(tmp_path: Path) -> None:
    page, square = drawn(tmp_path, seen()), choose_detail(seen())
    detail = seen().hr[square.y : square.y + square.side, square.x : square.x + square.side]  # type: ignore[index]
    assert (tile(page, 3)[::8, ::8] == detail).all()
    lr = tile(page, 1)
    assert (lr[:32, :32] == lr[0, 0]).all() == (square.x % 4 == square.y % 4 == 0)


def test_the_rim_of_the_field_of_view_is_never_the_detail() -> None:
    y, x = np.mgrid[: S // 4, : S // 4] + 0.5 - S / 8
    plain = np.repeat((200 * (np.hypot(x, y) < S / 8)).astype(np.uint8)[..., None], 3, axis=2)
    square = choose_detail(seen(lr=plain, lesion_masks=None))
    corners = [(square.x + dx, square.y + dy) for dx in (0, square.side) for dy in (0, square.side)]
    assert max(np.hypot(x - S / 2, y - S / 2) for x, y in corners) <= S / 2


@pytest.mark.parametrize("words", ["", "x" * 500, "眼底\n\x1b\udcff"])
def test_any_name_and_title_can_be_drawn(tmp_path: Path, words: str) -> None:
    plain, named = drawn(tmp_path, seen()), drawn(tmp_path, seen(name=words), title=words)
    for column in range(len(COLUMNS)):
        assert (tile(named, column) == tile(plain, column)).all(), "words stay out of the pictures"


def test_title_and_names_are_written(tmp_path: Path) -> None:
    plain = drawn(tmp_path, seen())
    titled, named = drawn(tmp_path, seen(), title="joint, step 401"), drawn(tmp_path, seen(name="drawings two"))
    for other, top, low in ((titled, 0, 66), (named, HEAD, HEAD + CAPTION)):
        rows = (plain != other).any(axis=(1, 2)).nonzero()[0]
        assert top < rows.min() < rows.max() < low


def test_a_sheet_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no photograph to draw"):
        draw_contact_sheet(tmp_path / "sheet.png", [], "nothing")
    assert list(tmp_path.iterdir()) == []
