"""summary.png: one picture that shows the result for a photograph (Sec. I).

The lesions are drawn large; beside them are the photograph, the super-resolved image, the evidence and the grade.
"""

from __future__ import annotations

import textwrap
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from deepmtdr.files import printable_path
from deepmtdr.labels import LabelSet, capitalise
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
from deepmtdr.screening.report import Pictures, ScreeningReport
from deepmtdr.terms import LESION_THRESHOLD, RESEARCH_USE_NOTICE

MARGIN, GAP, CAPTION, HEAD, FOOT = 48, 28, 40, 128, 64
SMALL_SIDE = 424
LARGE_SIDE = 2 * SMALL_SIDE + CAPTION + GAP
PAGE_SIZE = (2 * MARGIN + LARGE_SIDE + 2 * (GAP + SMALL_SIDE), HEAD + CAPTION + LARGE_SIDE + FOOT)
TITLE_SIZES = (44, 36, 30, 26)
"""Letter heights of the title, px: the largest that fits is used."""
GRADE_ROWS_HEIGHT = 310
"""Height in px of the rows of all grades in the grade panel."""


class PageSquare(NamedTuple):
    """A square on the page; its caption is above it."""

    x: int
    y: int
    side: int


def draw_summary(report: ScreeningReport) -> Image.Image:
    """Draw the summary image of a graded photograph.

    Args:
        report: a report with status `ok` and its pictures.

    Returns:
        An RGB image of `PAGE_SIZE`.

    Raises:
        ValueError: if the report has no pictures.
    """
    if report.pictures is None or report.probabilities is None:
        raise ValueError(
            f"{report.path}: found status {report.status} without pictures, expected a graded photograph with pictures"
        )
    page = Image.new("RGB", PAGE_SIZE, PAGE_COLOUR)
    top, left = HEAD + CAPTION, MARGIN + LARGE_SIDE + GAP
    right, below = left + SMALL_SIDE + GAP, top + SMALL_SIDE + GAP + CAPTION
    _draw_header(page, report)
    _draw_lesions(page, PageSquare(MARGIN, top, LARGE_SIDE), report, report.pictures)
    quality = "" if report.quality is None else f" · quality {report.quality:.2f}"
    size = f"{report.width} x {report.height} px{quality}"
    _draw_panel(page, PageSquare(left, top, SMALL_SIDE), "Photograph", size, report.pictures.photograph)
    _draw_panel(page, PageSquare(right, top, SMALL_SIDE), *_sr_caption(report), report.pictures.sr)
    _draw_evidence(page, PageSquare(left, below, SMALL_SIDE), report.labels, report.pictures)
    _draw_grades(page, PageSquare(right, below, SMALL_SIDE), report, report.probabilities)
    _draw_footer(page, report)
    return page


def _draw_panel(
    page: Image.Image, square: PageSquare, title: str, detail: str, pixels: UInt8[np.ndarray, "s s 3"]
) -> None:
    picture = Image.fromarray(pixels).resize((square.side, square.side), Image.Resampling.LANCZOS)
    page.paste(picture, (square.x, square.y))
    _draw_caption(page, square, title, detail)


def _draw_caption(page: Image.Image, square: PageSquare, title: str, detail: str) -> None:
    draw_text(page, (square.x, square.y - 13), title, 22, bold=True)
    space = square.side - text_width(title, 22) - GAP
    draw_text(page, (square.x + square.side, square.y - 13), shorten_middle(detail, 18, space), 18, MUTED_COLOUR, "rs")


def _sr_caption(report: ScreeningReport) -> tuple[str, str]:
    if report.way is None or report.way.scale == 1:
        return "Resized", "large enough, not super-resolved"
    return "Super-resolved", report.scaling_description


def _draw_header(page: Image.Image, report: ScreeningReport) -> None:
    labels, grade = report.labels, report.grade or 0
    name = capitalise(labels.grade_names[grade])
    title = name if grade == 0 else f"{name} {labels.disease}"
    space = PAGE_SIZE[0] / 2 - 2 * MARGIN
    size = next((size for size in TITLE_SIZES if text_width(title, size) <= space), TITLE_SIZES[-1])
    draw_text(page, (MARGIN, 74), shorten_middle(title, size, space), size, bold=True)
    scale = f"Grade {grade} on the scale of 0 to {len(labels.grades) - 1}, estimated by a program"
    draw_text(page, (MARGIN, 110), scale, 20, MUTED_COLOUR)
    if report.review_reasons:
        x = MARGIN + round(text_width(scale, 20)) + GAP
        reasons = f"A person must check this photograph: {', '.join(report.review_reasons)}"
        draw_text(page, (x, 110), shorten_middle(reasons, 20, PAGE_SIZE[0] - MARGIN - 320 - x), 20, HIGHLIGHT_COLOUR)
    _draw_file_name(page, report)
    draw_text(page, (PAGE_SIZE[0] - MARGIN, 110), f"SHA-256 {(report.sha256 or '')[:16]}", 20, MUTED_COLOUR, "rs")


def _draw_file_name(page: Image.Image, report: ScreeningReport) -> None:
    name = shorten_middle(printable_path(report.path.name), 26, PAGE_SIZE[0] / 2)
    draw_text(page, (PAGE_SIZE[0] - MARGIN, 74), name, 26, anchor="rs")


def _draw_lesions(page: Image.Image, square: PageSquare, report: ScreeningReport, pictures: Pictures) -> None:
    detail = f"count · share of the field of view, from probability {LESION_THRESHOLD} on"
    overlay = draw_lesion_overlay(pictures.sr, pictures.lesions, report.labels, square.side)
    _draw_panel(page, square, "Lesions", detail, overlay)
    for number in range(len(report.labels.lesions)):
        _draw_legend_entry(page, square, report, number)


def _draw_legend_entry(page: Image.Image, square: PageSquare, report: ScreeningReport, number: int) -> None:
    """Name, count and area of a lesion type in a corner, which the round field of view leaves empty.

    Entry 0 is at the top left, then top right, bottom left, bottom right; entry 4 is below entry 0, and so on.
    """
    lesion = report.labels.lesions[number]
    at_right, at_bottom, row = number % 2 == 1, number % 4 >= 2, number // 4
    x = square.x + (square.side - 20 if at_right else 20)
    y = square.y + (square.side - 70 - 54 * row if at_bottom else 20 + 54 * row)
    left, text_x, anchor = (x - 14, x - 26, "rs") if at_right else (x, x + 26, "ls")
    ImageDraw.Draw(page).rectangle((left, y + 4, left + 14, y + 18), lesion.colour)
    name = shorten_middle(capitalise(lesion.name), 21, 0.4 * square.side)
    draw_text(page, (text_x, y + 19), name, 21, anchor=anchor, bold=True)
    count, area = (report.counts or {}).get(lesion.code, 0), (report.areas or {}).get(lesion.code, 0.0)
    share = f"{area:.2f} %" if area >= 0.005 else "below 0.01 %"
    draw_text(page, (text_x, y + 46), f"{count} · {share}" if count else "none found", 19, MUTED_COLOUR, anchor)


def _draw_evidence(page: Image.Image, square: PageSquare, labels: LabelSet, pictures: Pictures) -> None:
    disease = labels.short_disease or labels.disease
    detail = f"for {disease}" if pictures.evidence.any() else f"none for {disease}"
    overlay = draw_evidence_overlay(pictures.sr, pictures.evidence, square.side)
    _draw_panel(page, square, "Evidence", detail, overlay)
    ramp = inferno(np.tile(np.linspace(0, 1, 64, dtype=np.float32), (8, 1))).astype(np.uint8)
    y = square.y + square.side - 22
    draw_text(page, (square.x + 14, y + 10), "0", 16, MUTED_COLOUR)
    page.paste(Image.fromarray(ramp), (square.x + 30, y))
    draw_text(page, (square.x + 102, y + 10), "1", 16, MUTED_COLOUR)


def _draw_grades(
    page: Image.Image, square: PageSquare, report: ScreeningReport, probabilities: tuple[float, ...]
) -> None:
    """A bar for the probability of each grade, the predicted one in colour, and that of referable disease."""
    draw, labels = ImageDraw.Draw(page), report.labels
    decided = f" · expected grade {report.expected_grade:.2f}" if report.decision_text else ""
    _draw_caption(page, square, "Grade", f"probability{decided}")
    draw.rectangle((square.x, square.y, square.x + square.side - 1, square.y + square.side - 1), outline=BORDER_COLOUR)
    height = min(62, GRADE_ROWS_HEIGHT // len(probabilities))
    for grade in range(len(probabilities)):
        row = PageSquare(square.x + 24, square.y + 44 + height * grade, square.side - 48)
        _draw_grade(page, row, labels, probabilities[grade], grade, height, chosen=grade == report.grade)
    left, right, y = square.x + 24, square.x + square.side - 24, square.y + square.side - 70
    draw.line((left, y, right, y), BORDER_COLOUR)
    referable = sum(probabilities[labels.referable_from :])
    draw_text(page, (left, y + 44), f"Referable: grade {labels.referable_from} or worse", 20, MUTED_COLOUR)
    draw_text(page, (right, y + 44), f"{100 * referable:.0f} %", 30, TEXT_COLOUR, "rs", bold=True)


def _draw_grade(
    page: Image.Image, row: PageSquare, labels: LabelSet, p: float, grade: int, height: int, *, chosen: bool
) -> None:
    """Name, probability and, if the row is high enough, bar of one grade; `row.y` is the base line of its text."""
    left, right, y = row.x, row.x + row.side, row.y
    colour, size = TEXT_COLOUR if chosen else MUTED_COLOUR, min(20, height - 4)
    name = "none" if grade == 0 else labels.grade_names[grade]
    draw_text(page, (left, y), f"{grade}  {shorten_middle(name, size, row.side - 100)}", size, colour, bold=chosen)
    draw_text(page, (right, y), f"{100 * p:.0f} %", size, colour, "rs", bold=chosen)
    if height < 31:
        return
    draw = ImageDraw.Draw(page)
    draw.rectangle((left, y + 9, right, y + 18), BAR_BACKGROUND)
    if p > 0:
        end = left + max(1, round(p * (right - left)))
        draw.rectangle((left, y + 9, end, y + 18), HIGHLIGHT_COLOUR if chosen else FAINT_COLOUR)


def _draw_footer(page: Image.Image, report: ScreeningReport) -> None:
    y = page.height - 24
    draw_text(page, (MARGIN, y), RESEARCH_USE_NOTICE, 18, HIGHLIGHT_COLOUR)
    about = f"deepmtdr {report.version} · weights {report.weights}"
    draw_text(page, (PAGE_SIZE[0] - MARGIN, y), shorten_middle(about, 18, PAGE_SIZE[0] / 2), 18, MUTED_COLOUR, "rs")


def draw_not_graded(report: ScreeningReport) -> Image.Image:
    """Draw a page that gives the reason why a photograph was not graded.

    Args:
        report: with a message.

    Returns:
        An RGB image as wide as the summary.
    """
    page = Image.new("RGB", (PAGE_SIZE[0], HEAD + 260), PAGE_COLOUR)
    draw_text(page, (MARGIN, 74), "Not graded", 44, HIGHLIGHT_COLOUR, bold=True)
    _draw_file_name(page, report)
    for number, line in enumerate(textwrap.wrap(report.reason, 110)[:4]):
        draw_text(page, (MARGIN, HEAD + 30 + 40 * number), line, 28)
    _draw_footer(page, report)
    return page
