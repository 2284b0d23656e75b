"""What every picture for people is drawn with: lesions and evidence in colour over a dimmed photograph, and text.

The lesion colours are Okabe and Ito's, which keep apart under every common colour blindness; the lesions and the
evidence lie on a dimmed grey image, so that no colour has to stand against the retina's own.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from deepmtdr.terms import LESION_THRESHOLD, Lesion

LESION_COLOURS = {
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

PAGE_COLOUR, BORDER_COLOUR = (17, 20, 25), (52, 58, 68)
TEXT_COLOUR, MUTED_COLOUR, FAINT_COLOUR, HIGHLIGHT_COLOUR = (
    (240, 242, 245),
    (160, 168, 180),
    (72, 80, 92),
    (245, 176, 65),
)
BAR_BACKGROUND = (30, 35, 42)
"""Of a bar that shows a share: what is not reached."""


def draw_lesion_overlay(
    sr: UInt8[np.ndarray, "s s 3"], lesions: Float[np.ndarray, "4 s s"], side: int, rim: int = 3
) -> UInt8[np.ndarray, "{side} {side} 3"]:
    """The grey image with each type filled and outlined in its colour; small ones get a ring, to be found at all.

    Args:
        sr: the photograph in the frame, RGB.
        lesions: probabilities of MA, HE, EX, SE, or coverage in [0, 1].
        side: of the picture, px.
        rim: how far the outline reaches beyond a lesion, px of the frame.
    """
    canvas = _dimmed(sr, side)
    for lesion in (Lesion.SE, Lesion.EX, Lesion.HE, Lesion.MA):  # the small ones last, on top
        present = lesions[lesion] >= LESION_THRESHOLD
        if not present.any():
            continue
        outline = np.logical_xor(ndimage.binary_dilation(present, iterations=rim), ndimage.binary_erosion(present))
        filled, edge = _coverage(present, side), _coverage(outline, side)
        colour = np.array(LESION_COLOURS[lesion], np.float32)
        for share in (0.45 * filled, 0.9 * edge):
            canvas += share[..., None] * (colour - canvas)
    return canvas.round().astype(np.uint8)


def draw_evidence_overlay(
    sr: UInt8[np.ndarray, "s s 3"], evidence: Float[np.ndarray, "s s"], side: int
) -> UInt8[np.ndarray, "{side} {side} 3"]:
    """The grey image under the evidence, in [0, 1]: the more of it, the less of the image."""
    canvas = _dimmed(sr, side)
    shown = np.asarray(Image.fromarray(evidence).resize((side, side), Image.Resampling.BILINEAR)).clip(0, 1)
    share = np.sqrt(shown)[..., None] * 0.9
    return (canvas + share * (inferno(shown) - canvas)).round().astype(np.uint8)


def inferno(values: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape 3"]:
    """Colours, 0 to 255, of values in [0, 1]."""
    steps = np.linspace(0, 1, len(INFERNO))
    channels = [np.interp(values, steps, [colour[i] for colour in INFERNO]) for i in range(3)]
    return np.stack(channels, axis=-1).astype(np.float32)


def _dimmed(sr: UInt8[np.ndarray, "s s 3"], side: int) -> Float[np.ndarray, "{side} {side} 3"]:
    """Grey, mostly green (where lesions show best), and darker than the colours that are laid on it."""
    resized = np.asarray(Image.fromarray(sr).resize((side, side), Image.Resampling.BICUBIC), np.float32)
    grey = resized @ np.array([0.3, 0.6, 0.1], np.float32)
    white = max(float(np.percentile(grey, 99)), 1.0)
    return np.repeat((grey * (165 / white)).clip(0, 200)[..., None], 3, axis=2)


def _coverage(mask: Bool[np.ndarray, "s s"], side: int) -> Float[np.ndarray, "{side} {side}"]:
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
    """Write a line of text; `at` is the point that Pillow's `anchor` means, `size` the letters' height in px."""
    draw = ImageDraw.Draw(page)
    draw.text(at, text, colour, _font(size), anchor, stroke_width=size / 60 if bold else 0, stroke_fill=colour)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def text_width(text: str, size: int) -> float:
    """How wide `draw_text` makes a text, px."""
    return _font(size).getlength(text)


def shorten_middle(text: str, size: int, width: int | float) -> str:
    """The text with its middle left out if it is too long: a file's name is told by its ends."""
    kept = len(text)
    short = text
    while text_width(short, size) > width and kept > 4:
        kept -= 1
        short = f"{text[: kept // 2]}...{text[len(text) - kept // 2 :]}"
    return short
