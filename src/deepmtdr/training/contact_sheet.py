"""Contact sheet of a validation: one row per photograph, with the network's input and outputs and the labels.

A whole frame in a small tile looks the same before and after super-resolution. The LR, SR and HR tiles therefore show a
detail. It is chosen without the network, so that it is the same in every validation of a run.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw
from scipy import ndimage

from deepmtdr.files import make_folder, printable_path, write_atomically
from deepmtdr.labels import LabelSet
from deepmtdr.rendering.overlays import (
    BAR_BACKGROUND,
    BORDER_COLOUR,
    FAINT_COLOUR,
    HIGHLIGHT_COLOUR,
    MUTED_COLOUR,
    PAGE_COLOUR,
    TEXT_COLOUR,
    draw_evidence_overlay,
    draw_lesion_overlay,
    draw_text,
    inferno,
    shorten_middle,
    text_width,
)
from deepmtdr.training.validation import ValidationExample

TILE = 256
"""Side of a picture, px."""
MARGIN, GAP, HEAD, CAPTION = 28, 10, 104, 34
ROW = CAPTION + TILE + GAP
COLUMNS = (
    "Photograph, SR",
    "Detail of LR",
    "Detail of SR",
    "Detail of HR",
    "Lesions, annotated",
    "Lesions, predicted",
    "Evidence",
    "Grade",
)
WIDTH = 2 * MARGIN + len(COLUMNS) * TILE + (len(COLUMNS) - 1) * GAP
DETAIL = 4
"""The side of a detail is the frame's divided by this: in a frame of 1024 px each pixel is one pixel of the tile."""
GRADE_TOP, GRADE_LINE = 58, 42
"""Baseline of the first grade in its tile, and largest distance between the baselines of two grades, px."""
BAR_TOP, BAR_BOTTOM = 8, 15
"""Upper and lower edge of the bar of a grade below the baseline of its text, px."""


class Square(NamedTuple):
    """A part of the frame, in px of the frame."""

    x: int
    y: int
    side: int


def draw_contact_sheet(path: Path, examples: Sequence[ValidationExample], labels: LabelSet, title: str) -> None:
    """Draw a contact sheet and write it as PNG; its folder is made if needed.

    Args:
        path: path of the PNG file.
        examples: photographs, a row for each in this order.
        labels: lesion types and grades.
        title: title, such as "joint, step 400".

    Raises:
        ValueError: if there is no example.
        OSError: if the file cannot be written.
    """
    if not examples:
        raise ValueError(f"{path}: found no photograph to draw, expected at least one")
    page = Image.new("RGB", (WIDTH, HEAD + len(examples) * ROW + MARGIN), PAGE_COLOUR)
    _draw_head(page, labels, title)
    for n, example in enumerate(examples):
        _draw_row(page, HEAD + n * ROW, example, labels)
    buffer = io.BytesIO()
    page.save(buffer, "PNG", compress_level=4)  # 6 takes twice the time and saves 3 % of the size
    make_folder(path.parent)
    write_atomically(path, buffer.getvalue())


def _left(column: int) -> int:
    return MARGIN + column * (TILE + GAP)


def _draw_head(page: Image.Image, labels: LabelSet, title: str) -> None:
    """Draw title, legend and names of the columns."""
    draw = ImageDraw.Draw(page)
    draw_text(page, (MARGIN, 50), shorten_middle(printable_path(title), 30, _left(4) - 2 * MARGIN), 30, bold=True)
    _draw_lesion_legend(page, labels)
    ramp = inferno(np.tile(np.linspace(0, 1, 96, dtype=np.float32), (12, 1))).astype(np.uint8)
    x = _left(7)
    draw_text(page, (x, 48), "evidence 0", 18, MUTED_COLOUR)
    x += round(text_width("evidence 0", 18)) + 8
    page.paste(Image.fromarray(ramp), (x, 36))
    draw_text(page, (x + 104, 48), "1", 18, MUTED_COLOUR)
    draw.line((MARGIN, 66, WIDTH - MARGIN, 66), BORDER_COLOUR)
    for column, name in enumerate(COLUMNS):
        draw_text(page, (_left(column), 94), name, 18, bold=True)


def _draw_lesion_legend(page: Image.Image, labels: LabelSet) -> None:
    """Draw colours and names of the lesion types, right of the title; codes if the names do not fit."""
    draw, left, right = ImageDraw.Draw(page), _left(4), _left(7)
    names = [lesion.name for lesion in labels.lesions]
    if sum(text_width(name, 18) + 48 for name in names) > right - left:
        names = list(labels.codes)
    x = left
    for lesion, name in zip(labels.lesions, names, strict=True):
        width = round(text_width(name, 18)) + 48
        if x + width > right:
            draw_text(page, (x, 48), "...", 18, MUTED_COLOUR)
            return
        draw.rectangle((x, 34, x + 14, 48), lesion.colour)
        draw_text(page, (x + 22, 48), name, 18, MUTED_COLOUR)
        x += width


def _draw_row(page: Image.Image, top: int, example: ValidationExample, labels: LabelSet) -> None:
    frame, detail, y = example.sr.shape[0], choose_detail(example), top + CAPTION
    _draw_caption(page, y - 10, example)
    _paste(page, 0, y, _shrink(example.sr))
    _outline(page, 0, y, detail, frame)
    for column, image in ((1, example.lr), (2, example.sr), (3, example.hr)):
        if image is None:
            _draw_blank(page, column, y, "none:", "a low-resolution photograph")
        else:
            _paste(page, column, y, _cut_out(image, detail, frame))
    rim = max(1, round(1.5 * frame / TILE))  # 1.5 px of the tile
    _draw_true_lesions(page, 4, y, example, labels, rim)
    _paste(page, 5, y, draw_lesion_overlay(example.sr, example.lesions, labels, TILE, rim))
    _paste(page, 6, y, draw_evidence_overlay(example.sr, example.evidence, TILE))
    _draw_grades(page, _left(7), y, example, labels)


def _draw_caption(page: Image.Image, y: int, example: ValidationExample) -> None:
    """Draw the name of the photograph, and the scale of its LR image."""
    name = shorten_middle(printable_path(example.name), 16, _left(3) - MARGIN)
    draw_text(page, (MARGIN, y), name, 16, MUTED_COLOUR)
    scale = example.sr.shape[0] // example.lr.shape[0]
    text = "not reduced" if scale == 1 else f"x{scale} from {example.lr.shape[0]} px"
    draw_text(page, (_left(3) + TILE, y), text, 16, MUTED_COLOUR, "rs")


def _draw_true_lesions(
    page: Image.Image, column: int, y: int, example: ValidationExample, labels: LabelSet, rim: int
) -> None:
    if example.lesion_masks is None:
        _draw_blank(page, column, y, "not annotated")
        return
    truth = example.lesion_masks.astype(np.float32) / 255
    _paste(page, column, y, draw_lesion_overlay(example.sr, truth, labels, TILE, rim))
    if unknown := [code for code, known in zip(labels.codes, example.annotated, strict=True) if not known]:
        draw_text(page, (_left(column) + TILE - 6, y + TILE - 8), f"not {', '.join(unknown)}", 15, MUTED_COLOUR, "rs")


def choose_detail(example: ValidationExample) -> Square:
    """Choose the detail with most outlines of annotated lesions; without annotation, with most edges in the LR image.

    Args:
        example: only `lr` and `lesion_masks` are used, which are the same in every validation.

    Returns:
        A square in the frame, a quarter of its side, with its centre well inside the field of view.
    """
    frame, grid = example.sr.shape[0], example.lr.shape[0]
    window = max(1, grid // DETAIL)
    if example.lesion_masks is not None and example.lesion_masks.any():
        any_lesion = Image.fromarray(example.lesion_masks.max(axis=0))
        values = np.asarray(any_lesion.resize((grid, grid), Image.Resampling.BOX))
    else:
        values = example.lr[..., 1]
    outlines = ndimage.gaussian_gradient_magnitude(values.astype(np.float32), max(1.0, grid / 256))
    offset = (np.arange(grid) + 0.5) / grid - 0.5
    central = np.hypot(offset[:, None], offset[None, :]) <= 0.5 - 0.75 / DETAIL  # farther out, the rim has most edges
    found = ndimage.uniform_filter(outlines, window, mode="constant")
    y, x = np.unravel_index(int(np.argmax(np.where(central, found, -1.0))), found.shape)
    side = max(1, frame // DETAIL)
    step = frame / grid
    left, top = (min(max(round((float(at) + 0.5) * step - side / 2), 0), frame - side) for at in (x, y))
    return Square(left, top, side)


def _cut_out(image: UInt8[np.ndarray, "s s 3"], detail: Square, frame: int) -> Image.Image:
    """Cut the detail out of an image of the frame, which may have any size; enlarge it without interpolation."""
    step = image.shape[0] / frame
    box = (detail.x * step, detail.y * step, (detail.x + detail.side) * step, (detail.y + detail.side) * step)
    return Image.fromarray(image).resize((TILE, TILE), Image.Resampling.NEAREST, box)


def _shrink(image: UInt8[np.ndarray, "s s 3"]) -> Image.Image:
    return Image.fromarray(image).resize((TILE, TILE), Image.Resampling.LANCZOS)


def _paste(page: Image.Image, column: int, y: int, picture: Image.Image | UInt8[np.ndarray, "t t 3"]) -> None:
    page.paste(picture if isinstance(picture, Image.Image) else Image.fromarray(picture), (_left(column), y))


def _outline(page: Image.Image, column: int, y: int, detail: Square, frame: int) -> None:
    step, x = TILE / frame, _left(column)
    box = [round(v * step) for v in (detail.x, detail.y, detail.x + detail.side, detail.y + detail.side)]
    ImageDraw.Draw(page).rectangle((x + box[0], y + box[1], x + box[2] - 1, y + box[3] - 1), outline=TEXT_COLOUR)


def _draw_blank(page: Image.Image, column: int, y: int, *lines: str) -> None:
    x = _left(column)
    ImageDraw.Draw(page).rectangle((x, y, x + TILE - 1, y + TILE - 1), outline=BORDER_COLOUR)
    for n, line in enumerate(lines):
        draw_text(page, (x + TILE // 2, y + TILE // 2 + 22 * n), line, 16, FAINT_COLOUR, "ms")


def _draw_grades(page: Image.Image, x: int, y: int, example: ValidationExample, labels: LabelSet) -> None:
    """Draw the probability of each grade as a bar, the highest in colour, with a frame around the true grade."""
    probs = np.array(example.grade_probs, np.float64)
    predicted, true = int(probs.argmax()), example.grade
    is_wrong = true is not None and true != predicted
    truth = "not graded" if true is None else f"true {true}"
    draw_text(page, (x, y + 20), truth, 20, MUTED_COLOUR if true is None else TEXT_COLOUR, bold=true is not None)
    colour = HIGHLIGHT_COLOUR if is_wrong else TEXT_COLOUR
    draw_text(page, (x + TILE, y + 20), f"predicted {predicted}", 20, colour, "rs", bold=True)
    spacing = min(GRADE_LINE, (TILE - GRADE_TOP - BAR_BOTTOM - 2) // (len(probs) - 1))
    for grade, name in enumerate(labels.grade_names):
        line = y + GRADE_TOP + spacing * grade
        text = f"{grade}  {name if grade else 'none'}"
        _draw_grade(page, x, line, text, float(probs[grade]), grade == predicted, grade == true, spacing)


def _draw_grade(
    page: Image.Image, x: int, line: int, name: str, prob: float, is_predicted: bool, is_true: bool, spacing: int
) -> None:
    draw, size = ImageDraw.Draw(page), min(16, spacing - BAR_BOTTOM + BAR_TOP - 7)
    ink = TEXT_COLOUR if is_predicted or is_true else MUTED_COLOUR
    if size > 6:  # with more grades than fit, only the bars are drawn
        text = shorten_middle(f"{name}{'  (true)' if is_true else ''}", size, TILE - 60)
        draw_text(page, (x, line), text, size, ink, bold=is_true)
        draw_text(page, (x + TILE, line), f"{100 * prob:.0f} %", size, ink, "rs", bold=is_predicted)
    top, bottom = line + BAR_TOP, line + BAR_BOTTOM
    draw.rectangle((x, top, x + TILE, bottom), BAR_BACKGROUND)
    if prob > 0:
        width = max(1, round(prob * TILE))
        draw.rectangle((x, top, x + width, bottom), HIGHLIGHT_COLOUR if is_predicted else FAINT_COLOUR)
    if is_true:
        draw.rectangle((x - 2, top - 2, x + TILE + 2, bottom + 2), outline=TEXT_COLOUR)
