"""summary.png: the one picture of a photograph that a person would like to look at (Sec. I).

A page with the lesions at large; beside them the photograph, the super-resolved image, the evidence and the grade.
"""

from __future__ import annotations

import textwrap
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from deepmtdr.files import printable_path
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
from deepmtdr.screening.report import ScreeningReport
from deepmtdr.terms import LESION_THRESHOLD, Grade, Lesion

MARGIN, GAP, CAPTION, HEAD, FOOT = 48, 28, 40, 128, 64
SMALL_SIDE = 424
LARGE_SIDE = 2 * SMALL_SIDE + CAPTION + GAP
PAGE_SIZE = (2 * MARGIN + LARGE_SIDE + 2 * (GAP + SMALL_SIDE), HEAD + CAPTION + LARGE_SIDE + FOOT)


class Square(NamedTuple):
    """A square on the page; its caption stands above it."""

    x: int
    y: int
    side: int


def draw_summary(report: ScreeningReport) -> Image.Image:
    """Draw the page of a graded photograph.

    Args:
        report: with status `ok` and its pictures.

    Returns:
        An RGB image of `PAGE_SIZE`.

    Raises:
        ValueError: if the report has no pictures.
    """
    if report.pictures is None or report.probabilities is None:
        raise ValueError(f"{report.path}: status {report.status} without pictures, expected a graded photograph")
    page = Image.new("RGB", PAGE_SIZE, PAGE_COLOUR)
    top, left = HEAD + CAPTION, MARGIN + LARGE_SIDE + GAP
    right, below = left + SMALL_SIDE + GAP, top + SMALL_SIDE + GAP + CAPTION
    pictures = report.pictures
    _header(page, report)
    _panel(
        page,
        Square(MARGIN, top, LARGE_SIDE),
        "Lesions",
        f"count · share of the field of view, from probability {LESION_THRESHOLD} on",
        draw_lesion_overlay(pictures.sr, pictures.lesions, LARGE_SIDE),
    )
    _legend(page, Square(MARGIN, top, LARGE_SIDE), report)
    quality = "" if report.quality is None else f" · quality {report.quality:.2f}"
    size = f"{report.width} x {report.height} px{quality}"
    _panel(page, Square(left, top, SMALL_SIDE), "Photograph", size, pictures.photograph)
    _panel(page, Square(right, top, SMALL_SIDE), *_sr_caption(report), pictures.sr)
    seen = "for retinopathy" if pictures.evidence.any() else "none for retinopathy"
    _panel(
        page,
        Square(left, below, SMALL_SIDE),
        "Evidence",
        seen,
        draw_evidence_overlay(pictures.sr, pictures.evidence, SMALL_SIDE),
    )
    _colour_bar(page, Square(left, below, SMALL_SIDE))
    _grade_card(page, Square(right, below, SMALL_SIDE), report.probabilities)
    _footer(page, report)
    return page


def _panel(page: Image.Image, place: Square, title: str, detail: str, pixels: UInt8[np.ndarray, "s s 3"]) -> None:
    picture = Image.fromarray(pixels).resize((place.side, place.side), Image.Resampling.LANCZOS)
    page.paste(picture, (place.x, place.y))
    _caption(page, place, title, detail)


def _caption(page: Image.Image, place: Square, title: str, detail: str) -> None:
    draw_text(page, (place.x, place.y - 13), title, 22, bold=True)
    draw_text(page, (place.x + place.side, place.y - 13), detail, 18, MUTED_COLOUR, "rs")


def _sr_caption(report: ScreeningReport) -> tuple[str, str]:
    if report.way is None or report.way.scale == 1:
        return "As read", "large enough, not super-resolved"
    return "Super-resolved", report.scaling_text


def _header(page: Image.Image, report: ScreeningReport) -> None:
    grade = report.grade if report.grade is not None else Grade.NEGATIVE
    title = (
        grade.full_name.capitalize()
        if grade is Grade.NEGATIVE
        else f"{grade.full_name.capitalize()} diabetic retinopathy"
    )
    draw_text(page, (MARGIN, 74), title, 44, bold=True)
    scale = f"Grade {int(grade)} on the scale of 0 to 4, estimated by a machine"
    draw_text(page, (MARGIN, 110), scale, 20, MUTED_COLOUR)
    if report.review_reasons:
        x = MARGIN + round(text_width(scale, 20)) + GAP
        marks = shorten_middle(
            f"For a human reader: {', '.join(report.review_reasons)}", 20, PAGE_SIZE[0] - MARGIN - 320 - x
        )
        draw_text(page, (x, 110), marks, 20, HIGHLIGHT_COLOUR)
    name = shorten_middle(printable_path(report.path.name), 26, PAGE_SIZE[0] / 2)
    draw_text(page, (PAGE_SIZE[0] - MARGIN, 74), name, 26, anchor="rs")
    draw_text(page, (PAGE_SIZE[0] - MARGIN, 110), f"SHA-256 {(report.sha256 or '')[:16]}", 20, MUTED_COLOUR, "rs")


def _legend(page: Image.Image, place: Square, report: ScreeningReport) -> None:
    """One type in each corner, which the round field of view leaves empty."""
    draw = ImageDraw.Draw(page)
    far, low = place.x + place.side - 20, place.y + place.side - 20
    corners = ((place.x + 20, place.y + 20), (far, place.y + 20), (place.x + 20, low - 50), (far, low - 50))
    for lesion, (x, y) in zip(Lesion, corners, strict=True):
        count, area = (report.counts or {}).get(lesion, 0), (report.areas or {}).get(lesion, 0.0)
        to_right = x == far
        name = lesion.full_name.capitalize()
        words = x - 26 if to_right else x + 26
        draw.rectangle((x - 14 if to_right else x, y + 4, x if to_right else x + 14, y + 18), LESION_COLOURS[lesion])
        draw_text(page, (words, y + 19), name, 21, anchor="rs" if to_right else "ls", bold=True)
        share = f"{area:.2f} %" if area >= 0.005 else "below 0.01 %"
        detail = f"{count} · {share}" if count else "none found"
        draw_text(page, (words, y + 46), detail, 19, MUTED_COLOUR, "rs" if to_right else "ls")


def _colour_bar(page: Image.Image, place: Square) -> None:
    ramp = inferno(np.tile(np.linspace(0, 1, 64, dtype=np.float32), (8, 1))).astype(np.uint8)
    y = place.y + place.side - 22
    draw_text(page, (place.x + 14, y + 10), "0", 16, MUTED_COLOUR)
    page.paste(Image.fromarray(ramp), (place.x + 30, y))
    draw_text(page, (place.x + 102, y + 10), "1", 16, MUTED_COLOUR)


def _grade_card(page: Image.Image, place: Square, probabilities: tuple[float, ...]) -> None:
    """The probabilities of the five grades as bars, the highest one marked, and that of referable disease."""
    draw = ImageDraw.Draw(page)
    _caption(page, place, "Grade", "probability")
    draw.rectangle((place.x, place.y, place.x + place.side - 1, place.y + place.side - 1), outline=BORDER_COLOUR)
    left, right, step = place.x + 24, place.x + place.side - 24, 62
    highest = int(np.argmax(probabilities))
    for grade, p in zip(Grade, probabilities, strict=True):
        y = place.y + 44 + step * int(grade)
        chosen = int(grade) == highest
        name = "none" if grade is Grade.NEGATIVE else grade.full_name
        draw_text(page, (left, y), f"{int(grade)}  {name}", 20, TEXT_COLOUR if chosen else MUTED_COLOUR, bold=chosen)
        draw_text(page, (right, y), f"{100 * p:.0f} %", 20, TEXT_COLOUR if chosen else MUTED_COLOUR, "rs", bold=chosen)
        draw.rectangle((left, y + 9, right, y + 18), BAR_BACKGROUND)
        if p > 0:
            draw.rectangle(
                (left, y + 9, left + max(1, round(p * (right - left))), y + 18),
                HIGHLIGHT_COLOUR if chosen else FAINT_COLOUR,
            )
    y = place.y + place.side - 70
    draw.line((left, y, right, y), BORDER_COLOUR)
    referable = sum(p for grade, p in zip(Grade, probabilities, strict=True) if grade.referable)
    draw_text(page, (left, y + 44), "Referable: grade 2 or worse", 20, MUTED_COLOUR)
    draw_text(page, (right, y + 44), f"{100 * referable:.0f} %", 30, TEXT_COLOUR, "rs", bold=True)


def _footer(page: Image.Image, report: ScreeningReport) -> None:
    y = page.height - 24
    draw_text(page, (MARGIN, y), "Research use: not a medical device", 18, HIGHLIGHT_COLOUR)
    about = f"deepmtdr {report.version} · weights {report.weights}"
    draw_text(page, (PAGE_SIZE[0] - MARGIN, y), shorten_middle(about, 18, PAGE_SIZE[0] / 2), 18, MUTED_COLOUR, "rs")


def draw_not_graded(report: ScreeningReport) -> Image.Image:
    """The page of a photograph that was not graded: that, and why.

    Args:
        report: with a message.

    Returns:
        An RGB image as wide as the summary.
    """
    page = Image.new("RGB", (PAGE_SIZE[0], HEAD + 260), PAGE_COLOUR)
    draw_text(page, (MARGIN, 74), "Not graded", 44, HIGHLIGHT_COLOUR, bold=True)
    name = shorten_middle(printable_path(report.path.name), 26, PAGE_SIZE[0] / 2)
    draw_text(page, (PAGE_SIZE[0] - MARGIN, 74), name, 26, anchor="rs")
    for number, line in enumerate(textwrap.wrap(report.reason, 110)[:4]):
        draw_text(page, (MARGIN, HEAD + 30 + 40 * number), line, 28)
    _footer(page, report)
    return page
