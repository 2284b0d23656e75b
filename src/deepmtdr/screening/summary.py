"""summary.png: the one picture of a photograph that a person would like to look at (Sec. I).

A page with the lesions at large; beside them the photograph, the super-resolved image, the evidence and the grade.
"""

from __future__ import annotations

import textwrap
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from deepmtdr.canvas import (
    COLOURS,
    FAINT,
    INK,
    LINE,
    MARK,
    PAGE,
    SOFT,
    TRACK,
    evidence_in_colour,
    inferno,
    lesions_in_colour,
    shortened,
    width_of,
    write,
)
from deepmtdr.files import readable
from deepmtdr.screening.report import ScreeningReport
from deepmtdr.terms import PRESENT, Grade, Lesion

MARGIN, GAP, CAPTION, HEAD, FOOT = 48, 28, 40, 128, 64
SMALL = 424
LARGE = 2 * SMALL + CAPTION + GAP
SIZE = (2 * MARGIN + LARGE + 2 * (GAP + SMALL), HEAD + CAPTION + LARGE + FOOT)


class Place(NamedTuple):
    """A square on the page; its caption stands above it."""

    x: int
    y: int
    side: int


def draw_summary(report: ScreeningReport) -> Image.Image:
    """Draw the page of a graded photograph.

    Args:
        report: with status `ok` and its pictures.

    Returns:
        An RGB image of `SIZE`.

    Raises:
        ValueError: if the report has no pictures.
    """
    if report.pictures is None or report.probabilities is None:
        raise ValueError(f"{report.path}: status {report.status} without pictures, expected a graded photograph")
    page = Image.new("RGB", SIZE, PAGE)
    top, left = HEAD + CAPTION, MARGIN + LARGE + GAP
    right, below = left + SMALL + GAP, top + SMALL + GAP + CAPTION
    pictures = report.pictures
    _header(page, report)
    _panel(
        page,
        Place(MARGIN, top, LARGE),
        "Lesions",
        f"count · share of the field of view, from probability {PRESENT} on",
        lesions_in_colour(pictures.sr, pictures.lesions, LARGE),
    )
    _legend(page, Place(MARGIN, top, LARGE), report)
    quality = "" if report.quality is None else f" · quality {report.quality:.2f}"
    size = f"{report.width} x {report.height} px{quality}"
    _panel(page, Place(left, top, SMALL), "Photograph", size, pictures.photograph)
    _panel(page, Place(right, top, SMALL), *_sr_caption(report), pictures.sr)
    seen = "for retinopathy" if pictures.evidence.any() else "none for retinopathy"
    _panel(page, Place(left, below, SMALL), "Evidence", seen, evidence_in_colour(pictures.sr, pictures.evidence, SMALL))
    _colour_bar(page, Place(left, below, SMALL))
    _grade_card(page, Place(right, below, SMALL), report.probabilities)
    _footer(page, report)
    return page


def _panel(page: Image.Image, place: Place, title: str, detail: str, pixels: UInt8[np.ndarray, "s s 3"]) -> None:
    picture = Image.fromarray(pixels).resize((place.side, place.side), Image.Resampling.LANCZOS)
    page.paste(picture, (place.x, place.y))
    _caption(page, place, title, detail)


def _caption(page: Image.Image, place: Place, title: str, detail: str) -> None:
    write(page, (place.x, place.y - 13), title, 22, bold=True)
    write(page, (place.x + place.side, place.y - 13), detail, 18, SOFT, "rs")


def _sr_caption(report: ScreeningReport) -> tuple[str, str]:
    if report.way is None or report.way.scale == 1:
        return "As read", "large enough, not super-resolved"
    return "Super-resolved", report.way_in_words


def _header(page: Image.Image, report: ScreeningReport) -> None:
    grade = report.grade if report.grade is not None else Grade.NEGATIVE
    title = (
        grade.full_name.capitalize()
        if grade is Grade.NEGATIVE
        else f"{grade.full_name.capitalize()} diabetic retinopathy"
    )
    write(page, (MARGIN, 74), title, 44, bold=True)
    scale = f"Grade {int(grade)} on the scale of 0 to 4, estimated by a machine"
    write(page, (MARGIN, 110), scale, 20, SOFT)
    if report.for_reader:
        x = MARGIN + round(width_of(scale, 20)) + GAP
        marks = shortened(f"For a human reader: {', '.join(report.for_reader)}", 20, SIZE[0] - MARGIN - 320 - x)
        write(page, (x, 110), marks, 20, MARK)
    name = shortened(readable(report.path.name), 26, SIZE[0] / 2)
    write(page, (SIZE[0] - MARGIN, 74), name, 26, anchor="rs")
    write(page, (SIZE[0] - MARGIN, 110), f"SHA-256 {(report.sha256 or '')[:16]}", 20, SOFT, "rs")


def _legend(page: Image.Image, place: Place, report: ScreeningReport) -> None:
    """One type in each corner, which the round field of view leaves empty."""
    draw = ImageDraw.Draw(page)
    far, low = place.x + place.side - 20, place.y + place.side - 20
    corners = ((place.x + 20, place.y + 20), (far, place.y + 20), (place.x + 20, low - 50), (far, low - 50))
    for lesion, (x, y) in zip(Lesion, corners, strict=True):
        count, area = (report.counts or {}).get(lesion, 0), (report.areas or {}).get(lesion, 0.0)
        to_right = x == far
        name = lesion.full_name.capitalize()
        words = x - 26 if to_right else x + 26
        draw.rectangle((x - 14 if to_right else x, y + 4, x if to_right else x + 14, y + 18), COLOURS[lesion])
        write(page, (words, y + 19), name, 21, anchor="rs" if to_right else "ls", bold=True)
        share = f"{area:.2f} %" if area >= 0.005 else "below 0.01 %"
        detail = f"{count} · {share}" if count else "none found"
        write(page, (words, y + 46), detail, 19, SOFT, "rs" if to_right else "ls")


def _colour_bar(page: Image.Image, place: Place) -> None:
    ramp = inferno(np.tile(np.linspace(0, 1, 64, dtype=np.float32), (8, 1))).astype(np.uint8)
    y = place.y + place.side - 22
    write(page, (place.x + 14, y + 10), "0", 16, SOFT)
    page.paste(Image.fromarray(ramp), (place.x + 30, y))
    write(page, (place.x + 102, y + 10), "1", 16, SOFT)


def _grade_card(page: Image.Image, place: Place, probabilities: tuple[float, ...]) -> None:
    """The probabilities of the five grades as bars, the highest one marked, and that of referable disease."""
    draw = ImageDraw.Draw(page)
    _caption(page, place, "Grade", "probability")
    draw.rectangle((place.x, place.y, place.x + place.side - 1, place.y + place.side - 1), outline=LINE)
    left, right, step = place.x + 24, place.x + place.side - 24, 62
    highest = int(np.argmax(probabilities))
    for grade, p in zip(Grade, probabilities, strict=True):
        y = place.y + 44 + step * int(grade)
        chosen = int(grade) == highest
        name = "none" if grade is Grade.NEGATIVE else grade.full_name
        write(page, (left, y), f"{int(grade)}  {name}", 20, INK if chosen else SOFT, bold=chosen)
        write(page, (right, y), f"{100 * p:.0f} %", 20, INK if chosen else SOFT, "rs", bold=chosen)
        draw.rectangle((left, y + 9, right, y + 18), TRACK)
        if p > 0:
            draw.rectangle((left, y + 9, left + max(1, round(p * (right - left))), y + 18), MARK if chosen else FAINT)
    y = place.y + place.side - 70
    draw.line((left, y, right, y), LINE)
    referable = sum(p for grade, p in zip(Grade, probabilities, strict=True) if grade.referable)
    write(page, (left, y + 44), "Referable: grade 2 or worse", 20, SOFT)
    write(page, (right, y + 44), f"{100 * referable:.0f} %", 30, INK, "rs", bold=True)


def _footer(page: Image.Image, report: ScreeningReport) -> None:
    y = page.height - 24
    write(page, (MARGIN, y), "Research use: not a medical device", 18, MARK)
    about = f"deepmtdr {report.version} · weights {report.weights}"
    write(page, (SIZE[0] - MARGIN, y), shortened(about, 18, SIZE[0] / 2), 18, SOFT, "rs")


def draw_notice(report: ScreeningReport) -> Image.Image:
    """The page of a photograph that was not graded: that, and why.

    Args:
        report: with a message.

    Returns:
        An RGB image as wide as the summary.
    """
    page = Image.new("RGB", (SIZE[0], HEAD + 260), PAGE)
    write(page, (MARGIN, 74), "Not graded", 44, MARK, bold=True)
    name = shortened(readable(report.path.name), 26, SIZE[0] / 2)
    write(page, (SIZE[0] - MARGIN, 74), name, 26, anchor="rs")
    for number, line in enumerate(textwrap.wrap(report.reason, 110)[:4]):
        write(page, (MARGIN, HEAD + 30 + 40 * number), line, 28)
    _footer(page, report)
    return page
