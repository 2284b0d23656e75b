"""summary.png: the one picture of a photograph that a person would like to look at (Sec. I).

A page with the lesions at large; beside them the photograph, the super-resolved image, the evidence and the grade. The
lesion colours are Okabe and Ito's, which keep apart under every common colour blindness; the lesions and the evidence
lie on a dimmed grey image, so that no colour has to stand against the retina's own.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from deepmtdr.files import readable
from deepmtdr.screening.report import PRESENT, Pictures, ScreeningReport
from deepmtdr.terms import Grade, Lesion

COLOURS = {
    Lesion.MA: (86, 180, 233),
    Lesion.HE: (213, 94, 0),
    Lesion.EX: (240, 228, 66),
    Lesion.SE: (204, 121, 167),
}
"""Okabe and Ito (2008): sky blue, vermilion, yellow, reddish purple."""

INFERNO = (
    (0, 0, 4),
    (40, 11, 84),
    (101, 21, 110),
    (159, 42, 99),
    (212, 72, 66),
    (245, 125, 21),
    (250, 193, 39),
    (252, 255, 164),
)
"""Eight even steps of matplotlib's colour map: its brightness rises with the evidence, in grey as well."""

PAGE, WELL, LINE = (17, 20, 25), (0, 0, 0), (52, 58, 68)
INK, SOFT, FAINT, MARK = (240, 242, 245), (160, 168, 180), (72, 80, 92), (245, 176, 65)

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
        lesions_in_colour(pictures, LARGE),
    )
    _legend(page, Place(MARGIN, top, LARGE), report)
    size = f"{report.width} x {report.height} px"
    _panel(page, Place(left, top, SMALL), "Photograph", size, pictures.photograph)
    _panel(page, Place(right, top, SMALL), *_sr_caption(report), pictures.sr)
    seen = "for retinopathy" if pictures.evidence.any() else "none for retinopathy"
    _panel(page, Place(left, below, SMALL), "Evidence", seen, evidence_in_colour(pictures, SMALL))
    _colour_bar(page, Place(left, below, SMALL))
    _grade_card(page, Place(right, below, SMALL), report.probabilities)
    _footer(page, report)
    return page


def lesions_in_colour(pictures: Pictures, side: int) -> UInt8[np.ndarray, "{side} {side} 3"]:
    """The grey image with each type filled and outlined in its colour; small ones get a ring, to be found at all."""
    canvas = _dimmed(pictures.sr, side)
    for lesion in (Lesion.SE, Lesion.EX, Lesion.HE, Lesion.MA):  # the small ones last, on top
        present = pictures.lesions[lesion] >= PRESENT
        if not present.any():
            continue
        outline = np.logical_xor(ndimage.binary_dilation(present, iterations=3), ndimage.binary_erosion(present))
        filled, rim = _coverage(present, side), _coverage(outline, side)
        colour = np.array(COLOURS[lesion], np.float32)
        for share in (0.45 * filled, 0.9 * rim):
            canvas += share[..., None] * (colour - canvas)
    return canvas.round().astype(np.uint8)


def evidence_in_colour(pictures: Pictures, side: int) -> UInt8[np.ndarray, "{side} {side} 3"]:
    """The grey image under the evidence: the more of it, the less of the image."""
    canvas = _dimmed(pictures.sr, side)
    evidence = np.asarray(Image.fromarray(pictures.evidence).resize((side, side), Image.Resampling.BILINEAR)).clip(0, 1)
    share = np.sqrt(evidence)[..., None] * 0.9
    return (canvas + share * (_inferno(evidence) - canvas)).round().astype(np.uint8)


def _dimmed(sr: UInt8[np.ndarray, "s s 3"], side: int) -> Float[np.ndarray, "{side} {side} 3"]:
    """Grey, mostly green (where lesions show best), and darker than the colours that are laid on it."""
    resized = np.asarray(Image.fromarray(sr).resize((side, side), Image.Resampling.BICUBIC), np.float32)
    grey = resized @ np.array([0.3, 0.6, 0.1], np.float32)
    white = max(float(np.percentile(grey, 99)), 1.0)
    return np.repeat((grey * (165 / white)).clip(0, 200)[..., None], 3, axis=2)


def _coverage(mask: Bool[np.ndarray, "s s"], side: int) -> Float[np.ndarray, "{side} {side}"]:
    whole = Image.fromarray(mask.astype(np.float32))
    return np.asarray(whole.resize((side, side), Image.Resampling.BILINEAR)).clip(0, 1)


def _inferno(values: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape 3"]:
    steps = np.linspace(0, 1, len(INFERNO))
    channels = [np.interp(values, steps, [colour[i] for colour in INFERNO]) for i in range(3)]
    return np.stack(channels, axis=-1).astype(np.float32)


def _write(
    page: Image.Image,
    at: tuple[int, int],
    text: str,
    size: int,
    colour: tuple[int, int, int] = INK,
    anchor: str = "ls",
    *,
    bold: bool = False,
) -> None:
    draw = ImageDraw.Draw(page)
    draw.text(at, text, colour, _font(size), anchor, stroke_width=size / 60 if bold else 0, stroke_fill=colour)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _shortened(text: str, size: int, width: float) -> str:
    """The text with its middle left out if it is too long: a file's name is told by its ends."""
    font, kept = _font(size), len(text)
    short = text
    while font.getlength(short) > width and kept > 4:
        kept -= 1
        short = f"{text[: kept // 2]}...{text[len(text) - kept // 2 :]}"
    return short


def _panel(page: Image.Image, place: Place, title: str, detail: str, pixels: UInt8[np.ndarray, "s s 3"]) -> None:
    picture = Image.fromarray(pixels).resize((place.side, place.side), Image.Resampling.LANCZOS)
    page.paste(picture, (place.x, place.y))
    _caption(page, place, title, detail)


def _caption(page: Image.Image, place: Place, title: str, detail: str) -> None:
    _write(page, (place.x, place.y - 13), title, 22, bold=True)
    _write(page, (place.x + place.side, place.y - 13), detail, 18, SOFT, "rs")


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
    _write(page, (MARGIN, 74), title, 44, bold=True)
    _write(page, (MARGIN, 110), f"Grade {int(grade)} on the scale of 0 to 4, estimated by a machine", 20, SOFT)
    name = _shortened(readable(report.path.name), 26, SIZE[0] / 2)
    _write(page, (SIZE[0] - MARGIN, 74), name, 26, anchor="rs")
    _write(page, (SIZE[0] - MARGIN, 110), f"SHA-256 {(report.sha256 or '')[:16]}", 20, SOFT, "rs")


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
        _write(page, (words, y + 19), name, 21, anchor="rs" if to_right else "ls", bold=True)
        share = f"{area:.2f} %" if area >= 0.005 else "below 0.01 %"
        detail = f"{count} · {share}" if count else "none found"
        _write(page, (words, y + 46), detail, 19, SOFT, "rs" if to_right else "ls")


def _colour_bar(page: Image.Image, place: Place) -> None:
    ramp = _inferno(np.tile(np.linspace(0, 1, 64, dtype=np.float32), (8, 1))).astype(np.uint8)
    y = place.y + place.side - 22
    _write(page, (place.x + 14, y + 10), "0", 16, SOFT)
    page.paste(Image.fromarray(ramp), (place.x + 30, y))
    _write(page, (place.x + 102, y + 10), "1", 16, SOFT)


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
        _write(page, (left, y), f"{int(grade)}  {name}", 20, INK if chosen else SOFT, bold=chosen)
        _write(page, (right, y), f"{100 * p:.0f} %", 20, INK if chosen else SOFT, "rs", bold=chosen)
        draw.rectangle((left, y + 9, right, y + 18), (30, 35, 42))
        if p > 0:
            draw.rectangle((left, y + 9, left + max(1, round(p * (right - left))), y + 18), MARK if chosen else FAINT)
    y = place.y + place.side - 70
    draw.line((left, y, right, y), LINE)
    referable = sum(p for grade, p in zip(Grade, probabilities, strict=True) if grade.referable)
    _write(page, (left, y + 44), "Referable: grade 2 or worse", 20, SOFT)
    _write(page, (right, y + 44), f"{100 * referable:.0f} %", 30, INK, "rs", bold=True)


def _footer(page: Image.Image, report: ScreeningReport) -> None:
    y = SIZE[1] - 24
    _write(page, (MARGIN, y), "Research use: not a medical device", 18, MARK)
    about = f"deepmtdr {report.version} · weights {report.weights}"
    _write(page, (SIZE[0] - MARGIN, y), _shortened(about, 18, SIZE[0] / 2), 18, SOFT, "rs")
