"""Contact sheet: one row per photograph, labels beside predictions, blank tiles where there are no labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deepmtdr.labels import DIABETIC_RETINOPATHY, GradeLabel, LabelSet, LesionType
from deepmtdr.photographs.resize import resize
from deepmtdr.rendering.overlays import HIGHLIGHT_COLOUR, TEXT_COLOUR
from deepmtdr.training.contact_sheet import (
    BAR_BOTTOM,
    CAPTION,
    COLUMNS,
    GAP,
    GRADE_LINE,
    GRADE_TOP,
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
"""Column and row of the lesion."""
EX = DIABETIC_RETINOPATHY.channel("EX")


def example(channel: int = EX, **changes: object) -> ValidationExample:
    """A drawn fundus with one lesion, which the network finds."""
    hr = draw_fundus(S, S, (S / 2, S / 2), S / 2)
    masks = np.zeros((4, S, S), np.uint8)
    masks[channel, SPOT[1] - 5 : SPOT[1] + 5, SPOT[0] - 5 : SPOT[0] + 5] = 255
    lr = resize(hr, S // 4)
    one = ValidationExample(
        name="drawings one", lr=lr, sr=resize(lr, S), hr=hr, lesion_masks=masks, annotated=(True,) * 4,
        lesions=masks.astype(np.float32) / 255, evidence=np.zeros((S, S), np.float32), grade=2,
        grade_probs=(0.1, 0.1, 0.6, 0.1, 0.1),
    )  # fmt: skip
    return one._replace(**changes)  # type: ignore[arg-type]


def drawn(
    tmp_path: Path,
    *rows: ValidationExample,
    title: str = "joint, step 400",
    labels: LabelSet = DIABETIC_RETINOPATHY,
) -> np.ndarray:
    draw_contact_sheet(tmp_path / "sheets" / "joint_400.png", rows, labels, title)
    with Image.open(tmp_path / "sheets" / "joint_400.png") as image:
        assert (image.format, image.mode) == ("PNG", "RGB")
        return np.asarray(image)


def tile(page: np.ndarray, column: int, row: int = 0) -> np.ndarray:
    y, x = HEAD + row * ROW + CAPTION, MARGIN + column * (TILE + GAP)
    return page[y : y + TILE, x : x + TILE].astype(int)


def coloured(pixels: np.ndarray) -> np.ndarray:
    return (np.ptp(pixels, axis=2) > 40).nonzero()


def test_sheet_has_a_row_for_each_photograph_and_no_other_file_is_left(tmp_path: Path) -> None:
    one, three = drawn(tmp_path, example()), drawn(tmp_path, example(), example(), example())
    assert one.shape == (HEAD + ROW + MARGIN, WIDTH, 3)
    assert three.shape[0] - one.shape[0] == 2 * ROW
    assert (tile(three, 2, row=2) == tile(three, 2)).all() and tile(three, 2).std() > 5
    assert [file.name for file in (tmp_path / "sheets").iterdir()] == ["joint_400.png"]


@pytest.mark.parametrize("code", DIABETIC_RETINOPATHY.codes)
def test_true_and_predicted_lesions_are_in_their_tiles_in_the_colour_of_the_type(tmp_path: Path, code: str) -> None:
    channel, colour = DIABETIC_RETINOPATHY.channel(code), DIABETIC_RETINOPATHY.lesion(code).colour
    missed = example(channel, lesions=np.zeros((4, S, S), np.float32))
    page = drawn(tmp_path, example(channel), missed)
    at = SPOT[1] * TILE // S, SPOT[0] * TILE // S
    for row, column in ((0, TRUTH), (0, FOUND), (1, TRUTH)):
        pixel = tile(page, column, row)[at]
        expected = np.array(colour) - np.mean(colour)
        assert np.corrcoef(pixel - pixel.mean(), expected)[0, 1] > 0.99
        assert max(np.ptp(axis) for axis in coloured(tile(page, column, row))) < 40, "the rest is grey"
    assert coloured(tile(page, FOUND, row=1))[0].size == 0


def test_missing_images_and_labels_are_blank_tiles_with_a_note(tmp_path: Path) -> None:
    page = drawn(tmp_path, example(hr=None, lesion_masks=None, annotated=(False,) * 4), example())
    for column in (3, TRUTH):
        assert np.median(tile(page, column)) < 30 and 0 < (tile(page, column) > 60).mean() < 0.05
        assert (tile(page, column, row=1) > 60).mean() > 0.2


def test_lesion_types_that_are_not_annotated_are_named(tmp_path: Path) -> None:
    page = drawn(tmp_path, example(annotated=(True, True, True, False)), example())
    differing = (tile(page, TRUTH) != tile(page, TRUTH, row=1)).any(axis=2).nonzero()
    assert differing[0].size and differing[0].min() > TILE - 30, "text in the lower corner"


def test_evidence_is_drawn_at_its_place(tmp_path: Path) -> None:
    evidence = np.zeros((S, S), np.float32)
    evidence[80:100, 30:50] = 1
    page = drawn(tmp_path, example(evidence=evidence), example())
    rows, columns = (tile(page, 6) != tile(page, 6, row=1)).any(axis=2).nonzero()
    assert (rows.min(), columns.min()) == pytest.approx((160, 60), abs=4)
    assert (rows.max(), columns.max()) == pytest.approx((200, 100), abs=4)


def test_wrong_grade_is_highlighted(tmp_path: Path) -> None:
    page = drawn(tmp_path, example(grade=2), example(grade=3), example(grade=None))
    words = [tile(page, GRADE, row)[:24, TILE // 2 :] for row in range(3)]
    marked = [bool((word == HIGHLIGHT_COLOUR).all(axis=2).any()) for word in words]
    assert marked == [False, True, False]


def test_bars_have_the_length_of_the_probabilities(tmp_path: Path) -> None:
    card = tile(drawn(tmp_path, example(grade=None, grade_probs=(0.05, 0.1, 0.25, 0.5, 0.1))), GRADE)
    assert (card[58 + 42 * 3 + 11] == HIGHLIGHT_COLOUR).all(axis=1).sum() == pytest.approx(0.5 * TILE, abs=2)
    assert not (card[58 + 42 * 2 + 11] == HIGHLIGHT_COLOUR).all(axis=1).any()


def test_detail_shows_the_lesions_and_does_not_depend_on_the_network() -> None:
    square = choose_detail(example())
    assert square.side == S // 4
    assert square.x <= SPOT[0] - 5 < SPOT[0] + 5 <= square.x + square.side
    assert square.y <= SPOT[1] - 5 < SPOT[1] + 5 <= square.y + square.side
    later = example(sr=example().sr[::-1].copy(), lesions=np.ones((4, S, S), np.float32))
    assert choose_detail(later) == square


def test_detail_without_annotation_is_inside_the_field_of_view() -> None:
    square = choose_detail(example(lesion_masks=None))
    corners = [(square.x + dx, square.y + dy) for dx in (0, square.side) for dy in (0, square.side)]
    assert max(np.hypot(x - S / 2, y - S / 2) for x, y in corners) <= S / 2
    inside = example().lr[square.y // 4 : (square.y + square.side) // 4, square.x // 4 : (square.x + square.side) // 4]
    assert inside[..., 1].std() > 20, "the edge of the optic disc, not the plain retina"


def test_details_are_enlarged_without_interpolation(tmp_path: Path) -> None:
    page, square = drawn(tmp_path, example()), choose_detail(example())
    detail = example().hr[square.y : square.y + square.side, square.x : square.x + square.side]  # type: ignore[index]
    assert (tile(page, 3)[::8, ::8] == detail).all()
    lr = tile(page, 1)
    assert (lr[:32, :32] == lr[0, 0]).all() == (square.x % 4 == square.y % 4 == 0)


def test_detail_is_never_the_rim_of_the_field_of_view() -> None:
    y, x = np.mgrid[: S // 4, : S // 4] + 0.5 - S / 8
    plain = np.repeat((200 * (np.hypot(x, y) < S / 8)).astype(np.uint8)[..., None], 3, axis=2)
    square = choose_detail(example(lr=plain, lesion_masks=None))
    corners = [(square.x + dx, square.y + dy) for dx in (0, square.side) for dy in (0, square.side)]
    assert max(np.hypot(x - S / 2, y - S / 2) for x, y in corners) <= S / 2


@pytest.mark.parametrize("text", ["", "x" * 500, "眼底\n\x1b\udcff"])
def test_any_name_and_title_can_be_drawn(tmp_path: Path, text: str) -> None:
    plain, named = drawn(tmp_path, example()), drawn(tmp_path, example(name=text), title=text)
    for column in range(len(COLUMNS)):
        assert (tile(named, column) == tile(plain, column)).all(), "no text in the pictures"


def test_title_and_names_are_drawn_in_their_places(tmp_path: Path) -> None:
    plain = drawn(tmp_path, example())
    titled, named = drawn(tmp_path, example(), title="joint, step 401"), drawn(tmp_path, example(name="drawings two"))
    for other, top, low in ((titled, 0, 66), (named, HEAD, HEAD + CAPTION)):
        rows = (plain != other).any(axis=(1, 2)).nonzero()[0]
        assert top < rows.min() < rows.max() < low


def test_sheet_without_photographs_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no photograph to draw"):
        draw_contact_sheet(tmp_path / "sheet.png", [], DIABETIC_RETINOPATHY, "nothing")
    assert list(tmp_path.iterdir()) == []


# Other label sets


def made_up_labels(lesions: int, grades: int) -> LabelSet:
    return LabelSet(
        name="made up",
        disease="a made-up disease",
        lesions=tuple(
            LesionType(code=f"L{n}", name=f"lesions of type {n}", colour=(10 * n, 255 - 10 * n, 99))
            for n in range(lesions)
        ),
        grades=tuple(GradeLabel(name=f"grade number {n}") for n in range(grades)),
    )


@pytest.mark.parametrize(("lesions", "grades"), [(1, 3), (2, 3), (6, 6), (12, 11), (20, 40)])
def test_any_number_of_lesion_types_and_grades_fits(tmp_path: Path, lesions: int, grades: int) -> None:
    labels = made_up_labels(lesions, grades)
    masks = np.zeros((lesions, S, S), np.uint8)
    masks[-1, SPOT[1] - 5 : SPOT[1] + 5, SPOT[0] - 5 : SPOT[0] + 5] = 255
    probs = np.full(grades, 0.5 / (grades - 1))
    probs[-1] = 0.5
    shown = example(
        lesion_masks=masks,
        lesions=masks.astype(np.float32) / 255,
        annotated=(True,) * lesions,
        grade=grades - 1,
        grade_probs=tuple(probs.tolist()),
    )
    page = drawn(tmp_path, shown, labels=labels)
    pixel = tile(page, FOUND)[SPOT[1] * TILE // S, SPOT[0] * TILE // S]
    expected = np.array(labels.lesions[-1].colour) - np.mean(labels.lesions[-1].colour)
    assert np.corrcoef(pixel - pixel.mean(), expected)[0, 1] > 0.99
    spacing = min(GRADE_LINE, (TILE - GRADE_TOP - BAR_BOTTOM - 2) // (grades - 1))
    bar = tile(page, GRADE)[GRADE_TOP + spacing * (grades - 1) + 11]
    assert (bar == HIGHLIGHT_COLOUR).all(axis=1).sum() == pytest.approx(0.5 * TILE, abs=2)
    below = page[HEAD + ROW : HEAD + ROW + MARGIN]
    assert (below == page[-1, 0]).all(), "nothing is drawn below the row"


def test_true_grade_has_a_frame(tmp_path: Path) -> None:
    framed, plain = (tile(drawn(tmp_path, example(grade=grade)), GRADE) for grade in (2, None))
    top = GRADE_TOP + 2 * GRADE_LINE + 6
    assert (framed[top, :-1] == TEXT_COLOUR).all() and not (plain[top] == TEXT_COLOUR).any()
