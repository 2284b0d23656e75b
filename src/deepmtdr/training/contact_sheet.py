"""The contact sheet of a look: one row per photograph, what the network was given, what it made of it, and the truth.

A whole frame shrunk to a tile looks the same before and after super-resolution. So the LR, SR and HR tiles show one
small square of it, chosen without the network: it is the same square in every look of a run.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw
from scipy import ndimage

from deepmtdr.files import printable_path, write_atomically
from deepmtdr.rendering.overlays import (
    BAR_BACKGROUND,
    BORDER_COLOUR,
    FAINT_COLOUR,
    HIGHLIGHT_COLOUR,
    LESION_COLOURS,
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
from deepmtdr.terms import Grade, Lesion
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
    "Lesions, truth",
    "Lesions, found",
    "Evidence",
    "Grade",
)
WIDTH = 2 * MARGIN + len(COLUMNS) * TILE + (len(COLUMNS) - 1) * GAP
DETAIL = 4
"""The details show a square this many times smaller than the frame: a frame of 1024 px at one pixel a pixel."""


class Square(NamedTuple):
    """A part of the frame, px of it."""

    x: int
    y: int
    side: int


def draw_contact_sheet(path: Path, seen: Sequence[ValidationExample], title: str) -> None:
    """Draw a contact sheet and write it as PNG, all or nothing; its folder is made if need be.

    Args:
        path: of the PNG.
        seen: one row each, in this order.
        title: such as "joint, step 400".

    Raises:
        ValueError: if there is no photograph.
        OSError: if the file cannot be written.
    """
    if not seen:
        raise ValueError(f"{path}: no photograph to draw, expected at least one")
    page = Image.new("RGB", (WIDTH, HEAD + len(seen) * ROW + MARGIN), PAGE_COLOUR)
    _head(page, title)
    for n, one in enumerate(seen):
        _row(page, HEAD + n * ROW, one)
    buffer = io.BytesIO()
    page.save(buffer, "PNG", compress_level=4)  # 6 takes twice the time for 3 % of the size
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, buffer.getvalue())


def _left(column: int) -> int:
    return MARGIN + column * (TILE + GAP)


def _head(page: Image.Image, title: str) -> None:
    """Title and legend, and the columns' names below."""
    draw = ImageDraw.Draw(page)
    draw_text(page, (MARGIN, 50), shorten_middle(printable_path(title), 30, _left(4) - 2 * MARGIN), 30, bold=True)
    x = _left(4)
    for lesion in Lesion:
        draw.rectangle((x, 34, x + 14, 48), LESION_COLOURS[lesion])
        draw_text(page, (x + 22, 48), lesion.full_name, 18, MUTED_COLOUR)
        x += round(text_width(lesion.full_name, 18)) + 48
    ramp = inferno(np.tile(np.linspace(0, 1, 96, dtype=np.float32), (12, 1))).astype(np.uint8)
    x = _left(7)
    draw_text(page, (x, 48), "evidence 0", 18, MUTED_COLOUR)
    x += round(text_width("evidence 0", 18)) + 8
    page.paste(Image.fromarray(ramp), (x, 36))
    draw_text(page, (x + 104, 48), "1", 18, MUTED_COLOUR)
    draw.line((MARGIN, 66, WIDTH - MARGIN, 66), BORDER_COLOUR)
    for column, name in enumerate(COLUMNS):
        draw_text(page, (_left(column), 94), name, 18, bold=True)


def _row(page: Image.Image, top: int, one: ValidationExample) -> None:
    frame = one.sr.shape[0]
    detail = choose_detail(one)
    y = top + CAPTION
    draw_text(page, (MARGIN, y - 10), shorten_middle(printable_path(one.name), 16, _left(3) - MARGIN), 16, MUTED_COLOUR)
    scale = frame // one.lr.shape[0]
    way = "taken as it is" if scale == 1 else f"x{scale} from {one.lr.shape[0]} px"
    draw_text(page, (_left(3) + TILE, y - 10), way, 16, MUTED_COLOUR, "rs")
    _picture(page, 0, y, _shrunk(one.sr))
    _outline(page, 0, y, detail, frame)
    for column, image in ((1, one.lr), (2, one.sr), (3, one.hr)):
        if image is None:
            _blank(page, column, y, "none:", "a low-resolution photograph")
        else:
            _picture(page, column, y, _cut_out(image, detail, frame))
    rim = max(1, round(1.5 * frame / TILE))  # a pixel and a half of the tile
    if one.lesion_masks is None:
        _blank(page, 4, y, "not annotated")
    else:
        truth = one.lesion_masks.astype(np.float32) / 255
        _picture(page, 4, y, draw_lesion_overlay(one.sr, truth, TILE, rim))
        if unknown := [lesion.name for lesion, known in zip(Lesion, one.annotated, strict=True) if not known]:
            draw_text(page, (_left(4) + TILE - 6, y + TILE - 8), f"not {', '.join(unknown)}", 15, MUTED_COLOUR, "rs")
    _picture(page, 5, y, draw_lesion_overlay(one.sr, one.lesions, TILE, rim))
    _picture(page, 6, y, draw_evidence_overlay(one.sr, one.evidence, TILE))
    _grade_card(page, _left(7), y, one)


def choose_detail(one: ValidationExample) -> Square:
    """The square to be shown at large: where the annotation has most outlines; without it, where the LR has.

    Args:
        one: of whose pictures those that do not change from look to look are used: `lr` and `lesion_masks`.

    Returns:
        A square inside the frame, a quarter of its side, whose centre lies well inside the field of view.
    """
    frame, grid = one.sr.shape[0], one.lr.shape[0]
    window = max(1, grid // DETAIL)
    if one.lesion_masks is not None and one.lesion_masks.any():
        shown = np.asarray(Image.fromarray(one.lesion_masks.max(axis=0)).resize((grid, grid), Image.Resampling.BOX))
    else:
        shown = one.lr[..., 1]
    outlines = ndimage.gaussian_gradient_magnitude(shown.astype(np.float32), max(1.0, grid / 256))
    offset = (np.arange(grid) + 0.5) / grid - 0.5
    central = np.hypot(offset[:, None], offset[None, :]) <= 0.5 - 0.75 / DETAIL  # further out the rim would win
    found = ndimage.uniform_filter(outlines, window, mode="constant")
    y, x = np.unravel_index(int(np.argmax(np.where(central, found, -1.0))), found.shape)
    side = max(1, frame // DETAIL)
    step = frame / grid
    left, top = (min(max(round((float(at) + 0.5) * step - side / 2), 0), frame - side) for at in (x, y))
    return Square(left, top, side)


def _cut_out(image: UInt8[np.ndarray, "s s 3"], detail: Square, frame: int) -> Image.Image:
    """The square out of an image of any size that shows the whole frame; its pixels stay pixels."""
    step = image.shape[0] / frame
    box = (detail.x * step, detail.y * step, (detail.x + detail.side) * step, (detail.y + detail.side) * step)
    return Image.fromarray(image).resize((TILE, TILE), Image.Resampling.NEAREST, box)


def _shrunk(image: UInt8[np.ndarray, "s s 3"]) -> Image.Image:
    return Image.fromarray(image).resize((TILE, TILE), Image.Resampling.LANCZOS)


def _picture(page: Image.Image, column: int, y: int, picture: Image.Image | UInt8[np.ndarray, "t t 3"]) -> None:
    page.paste(picture if isinstance(picture, Image.Image) else Image.fromarray(picture), (_left(column), y))


def _outline(page: Image.Image, column: int, y: int, detail: Square, frame: int) -> None:
    step, x = TILE / frame, _left(column)
    box = [round(v * step) for v in (detail.x, detail.y, detail.x + detail.side, detail.y + detail.side)]
    ImageDraw.Draw(page).rectangle((x + box[0], y + box[1], x + box[2] - 1, y + box[3] - 1), outline=TEXT_COLOUR)


def _blank(page: Image.Image, column: int, y: int, *lines: str) -> None:
    x = _left(column)
    ImageDraw.Draw(page).rectangle((x, y, x + TILE - 1, y + TILE - 1), outline=BORDER_COLOUR)
    for n, line in enumerate(lines):
        draw_text(page, (x + TILE // 2, y + TILE // 2 + 22 * n), line, 16, FAINT_COLOUR, "ms")


def _grade_card(page: Image.Image, x: int, y: int, one: ValidationExample) -> None:
    """The five probabilities as bars, the highest in colour; the true grade by a frame around its bar."""
    draw = ImageDraw.Draw(page)
    probs: Float[np.ndarray, " 5"] = np.array(one.grade_probs, np.float64)
    predicted = int(probs.argmax())
    truth = "not graded" if one.grade is None else f"true {one.grade}"
    right = one.grade is None or one.grade == predicted
    draw_text(
        page, (x, y + 20), truth, 20, MUTED_COLOUR if one.grade is None else TEXT_COLOUR, bold=one.grade is not None
    )
    draw_text(
        page,
        (x + TILE, y + 20),
        f"predicted {predicted}",
        20,
        TEXT_COLOUR if right else HIGHLIGHT_COLOUR,
        "rs",
        bold=True,
    )
    for grade in Grade:
        line = y + 58 + 42 * int(grade)
        chosen, true = int(grade) == predicted, one.grade == int(grade)
        name = "none" if grade is Grade.NEGATIVE else grade.full_name
        ink = TEXT_COLOUR if chosen or true else MUTED_COLOUR
        draw_text(page, (x, line), f"{int(grade)}  {name}{'  (true)' if true else ''}", 16, ink, bold=true)
        draw_text(page, (x + TILE, line), f"{100 * probs[grade]:.0f} %", 16, ink, "rs", bold=chosen)
        draw.rectangle((x, line + 8, x + TILE, line + 15), BAR_BACKGROUND)
        if probs[grade] > 0:
            width = max(1, round(float(probs[grade]) * TILE))
            draw.rectangle((x, line + 8, x + width, line + 15), HIGHLIGHT_COLOUR if chosen else FAINT_COLOUR)
        if true:
            draw.rectangle((x - 2, line + 6, x + TILE + 2, line + 17), outline=TEXT_COLOUR)
