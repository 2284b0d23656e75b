"""Lesions and evidence in colour over a dimmed photograph, and text on pictures.

All pictures with overlays are drawn with these functions. The photograph below an overlay is dark and grey, so that a
colour of the retina is not mistaken for a colour of the overlay.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from deepmtdr.labels import LabelSet
from deepmtdr.terms import LESION_THRESHOLD

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
"""matplotlib's colour map `inferno` at eight even steps. Its brightness rises with the value, in grey print too."""

PAGE_COLOUR, BORDER_COLOUR = (17, 20, 25), (52, 58, 68)
TEXT_COLOUR = (240, 242, 245)
MUTED_COLOUR = (160, 168, 180)
FAINT_COLOUR = (72, 80, 92)
HIGHLIGHT_COLOUR = (245, 176, 65)
BAR_BACKGROUND = (30, 35, 42)
"""The empty part of a bar that shows a share."""


def draw_lesion_overlay(
    sr: UInt8[np.ndarray, "s s 3"],
    lesions: Float[np.ndarray, "l s s"],
    labels: LabelSet,
    side: int,
    rim: int = 3,
) -> UInt8[np.ndarray, "{side} {side} 3"]:
    """Draw the lesions over the dimmed photograph, each type filled and outlined in its colour.

    Args:
        sr: the photograph in the frame, RGB.
        lesions: probability of each lesion type, or its coverage, in [0, 1].
        labels: the lesion types, in the order of the channels. The first type is drawn last, on top.
        side: side of the picture, px.
        rim: width of the outline around a lesion, px of the frame. It keeps small lesions visible.
    """
    canvas = _dimmed(sr, side)
    for lesion, probability in reversed(list(zip(labels.lesions, lesions, strict=True))):
        present = probability >= LESION_THRESHOLD
        if not present.any():
            continue
        outline = np.logical_xor(ndimage.binary_dilation(present, iterations=rim), ndimage.binary_erosion(present))
        filled, edge = _coverage(present, side), _coverage(outline, side)
        colour = np.array(lesion.colour, np.float32)
        for share in (0.45 * filled, 0.9 * edge):
            canvas += share[..., None] * (colour - canvas)
    return canvas.round().astype(np.uint8)


def draw_evidence_overlay(
    sr: UInt8[np.ndarray, "s s 3"], evidence: Float[np.ndarray, "s s"], side: int
) -> UInt8[np.ndarray, "{side} {side} 3"]:
    """Draw the evidence over the dimmed photograph; the photograph is fainter where there is more evidence.

    Args:
        sr: the photograph in the frame, RGB.
        evidence: evidence in [0, 1].
        side: side of the picture, px.
    """
    canvas = _dimmed(sr, side)
    shown = np.asarray(Image.fromarray(evidence).resize((side, side), Image.Resampling.BILINEAR)).clip(0, 1)
    share = np.sqrt(shown)[..., None] * 0.9
    return (canvas + share * (inferno(shown) - canvas)).round().astype(np.uint8)


def inferno(values: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape 3"]:
    """Return colours of the map `inferno`, 0 to 255, for values in [0, 1]."""
    steps = np.linspace(0, 1, len(INFERNO))
    channels = [np.interp(values, steps, [colour[i] for colour in INFERNO]) for i in range(3)]
    return np.stack(channels, axis=-1).astype(np.float32)


def _dimmed(sr: UInt8[np.ndarray, "s s 3"], side: int) -> Float[np.ndarray, "{side} {side} 3"]:
    """Convert the photograph to dark grey, mostly from the green channel, where lesions are most visible."""
    resized = np.asarray(Image.fromarray(sr).resize((side, side), Image.Resampling.BICUBIC), np.float32)
    grey = resized @ np.array([0.3, 0.6, 0.1], np.float32)
    white = max(float(np.percentile(grey, 99)), 1.0)
    return np.repeat((grey * (165 / white)).clip(0, 200)[..., None], 3, axis=2)


def _coverage(mask: Bool[np.ndarray, "s s"], side: int) -> Float[np.ndarray, "{side} {side}"]:
    """Compute the share of each pixel of a smaller picture that the mask covers."""
    whole = Image.fromarray(mask.astype(np.float32))
    return np.asarray(whole.resize((side, side), Image.Resampling.BILINEAR)).clip(0, 1)


def draw_text(
    page: Image.Image,
    at: tuple[int, int],
    text: str,
    size: int,
    colour: tuple[int, int, int] = TEXT_COLOUR,
    anchor: str = "ls",
    *,
    bold: bool = False,
) -> None:
    """Write one line of text.

    Args:
        page: the picture to write on.
        at: x and y of the anchor, px.
        text: the line.
        size: height of the letters, px.
        colour: colour of the letters.
        anchor: which point of the text `at` is, in Pillow's notation.
        bold: with thicker strokes.
    """
    draw = ImageDraw.Draw(page)
    draw.text(at, text, colour, _font(size), anchor, stroke_width=size / 60 if bold else 0, stroke_fill=colour)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def text_width(text: str, size: int) -> float:
    """Compute the width of a text as `draw_text` writes it, px."""
    return _font(size).getlength(text)


def shorten_middle(text: str, size: int, width: int | float) -> str:
    """Leave out the middle of a text that is wider than `width` px; the ends of a file name identify it best."""
    kept = len(text)
    short = text
    while text_width(short, size) > width and kept > 4:
        kept -= 1
        short = f"{text[: kept // 2]}...{text[len(text) - kept // 2 :]}"
    return short
