"""A page of A4 as PDF, written from top to bottom: lines, paragraphs, bars, rules, pictures.

The same calls give the same bytes.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from reportlab.lib.pagesizes import A4
from reportlab.lib.utils import ImageReader
from reportlab.pdfgen.canvas import Canvas

from deepmtdr.rendering.pdf_text import REGULAR_FONT, TextWriter

WIDTH, HEIGHT = A4
MARGIN = 42.0
INK, SOFT, RULE, TRACK, MARK, BAR = "#16191f", "#5d6675", "#c9ced6", "#eceef1", "#b3541e", "#9aa3b0"
"""Colours of text, secondary text, rules, the empty part of a bar, highlights, and the filled part of a bar."""
BAR_HEIGHT = 4
Length = float | int
"""A length in pt."""


class PdfPage:
    """One page. `y` is the base line of the last line written; it moves down with each call."""

    def __init__(self, title: str, creator: str, fonts: Sequence[Path] = ()) -> None:
        """Start an empty page.

        Args:
            title: title of the PDF file.
            creator: the program that wrote it.
            fonts: TrueType fonts for letters that Western Europe does not have.

        Raises:
            ClinicError: if a file is not a TrueType font.
        """
        self.text_writer, self._file = TextWriter(fonts), io.BytesIO()
        font: Any = REGULAR_FONT  # the stubs declare the name of a font as a number
        self._canvas = Canvas(self._file, pagesize=A4, invariant=1, pageCompression=1, lang="en", initialFontName=font)
        self._canvas.setTitle(title)
        self._canvas.setCreator(creator)
        self.y: Length = HEIGHT - MARGIN

    def to_bytes(self) -> bytes:
        """Finish the page, and return the PDF file."""
        self._canvas.showPage()
        self._canvas.save()
        return self._file.getvalue()

    def text(
        self,
        text: str,
        size: Length,
        colour: str = INK,
        *,
        x: Length | None = None,
        drop: Length,
        bold: bool = False,
        right: bool = False,
    ) -> None:
        """Write a line.

        Args:
            text: the line.
            size: size of the font, pt.
            colour: colour of the letters.
            x: left end of the line, or right end if `right`, pt; None: the margin.
            drop: distance below the last line, pt.
            bold: use the bold font.
            right: align right.
        """
        self.y -= drop
        at = x if x is not None else WIDTH - MARGIN if right else MARGIN
        self._canvas.setFillColor(colour)
        self.text_writer.draw_line(self._canvas, at, self.y, text, size, bold=bold, right=right)

    def paragraph(self, text: str, size: Length, x: Length, width: Length, most: int, colour: str = SOFT) -> None:
        """Write a text on at most `most` lines, each `width` pt wide."""
        for line in self.text_writer.wrap(text, size, width, most):
            self.text(line, size, colour, x=x, drop=size + 4)

    def rule(self, above: Length) -> None:
        """Draw a horizontal line from margin to margin, `above` pt below the last line."""
        self.y -= above
        self._canvas.setStrokeColor(RULE)
        self._canvas.setLineWidth(0.7)
        self._canvas.line(MARGIN, self.y, WIDTH - MARGIN, self.y)

    def bar(self, left: Length, right: Length, share: float, colour: str) -> None:
        """Draw a bar from `left` to `right` below the last line, filled up to `share` of its length."""
        self.y -= 7
        self._canvas.setFillColor(TRACK)
        self._canvas.rect(left, self.y, right - left, BAR_HEIGHT, stroke=0, fill=1)
        self._canvas.setFillColor(colour)
        self._canvas.rect(left, self.y, share * (right - left), BAR_HEIGHT, stroke=0, fill=1)

    def swatch(self, colour: tuple[int, int, int]) -> None:
        """Draw a small filled square at the margin, beside the last line; RGB, 0 to 255."""
        self._canvas.setFillColorRGB(*(channel / 255 for channel in colour))
        self._canvas.rect(MARGIN, self.y, 8, 7, stroke=0, fill=1)

    def picture(self, pixels: UInt8[np.ndarray, "s s 3"], x: Length, y: Length, side: Length, side_px: int) -> None:
        """Draw a square picture.

        Args:
            pixels: RGB.
            x: left edge, pt.
            y: lower edge, pt.
            side: side of the picture on the page, pt.
            side_px: side of the picture in the file, px.
        """
        image = Image.fromarray(pixels).resize((side_px, side_px), Image.Resampling.LANCZOS)
        file = io.BytesIO()
        image.save(file, "JPEG", quality=90, subsampling=0)
        file.seek(0)
        self._canvas.drawImage(ImageReader(file), x, y, side, side)
