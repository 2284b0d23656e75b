"""Write text of any script into a PDF: each letter in the first font that contains it."""

from __future__ import annotations

import bisect
import itertools
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from reportlab.pdfbase.cidfonts import UnicodeCIDFont
from reportlab.pdfbase.pdfmetrics import getRegisteredFontNames, registerFont, stringWidth
from reportlab.pdfbase.ttfonts import TTFError, TTFont
from reportlab.pdfgen.canvas import Canvas

from deepmtdr.errors import ClinicError

REGULAR_FONT, BOLD_FONT = "Vera", "VeraBd"
"""Bitstream Vera, which reportlab includes: the letters of Western Europe. Embedded in the PDF."""
EAST_ASIAN_FONTS = (("STSong-Light", "gbk"), ("HYSMyeongJo-Medium", "cp949"))
"""Adobe's fonts for Chinese and Japanese, and for Korean, each with the encoding that lists its letters. They are not
embedded: a viewer without them shows boxes, but the text can be searched."""
MISSING_GLYPH = "?"
MAX_CHARACTERS = 1000
"""Largest number of characters of a text; more do not fit on the lines of a page."""
BIDI_CLASSES = {"R": "r", "AL": "r", "WS": "s", "NSM": "m"}
"""Unicode class of direction -> r: right to left, s: space, m: mark on a letter."""


class TextWriter:
    """Writes lines of text, each letter in the first font that contains it."""

    def __init__(self, more: Sequence[Path] = ()) -> None:
        """Load the fonts.

        Args:
            more: TrueType fonts for letters that Vera lacks. They are embedded and used in this order, before the East
                Asian fonts of the viewer.

        Raises:
            ClinicError: if a file is not a TrueType font.
        """
        self.fonts = [_true_type(REGULAR_FONT, f"{REGULAR_FONT}.ttf")]
        self.bold = _true_type(BOLD_FONT, f"{BOLD_FONT}.ttf")
        for number, font in enumerate(more):
            try:
                self.fonts.append(_true_type(f"site{number}", str(font)))
            except (TTFError, OSError) as error:
                raise ClinicError(f"{font}: found no TrueType font ({error}), expected one") from error
        for name, _ in EAST_ASIAN_FONTS:
            if name not in getRegisteredFontNames():
                registerFont(UnicodeCIDFont(name))

    def draw_line(
        self,
        canvas: Canvas,
        x: float | int,
        y: float | int,
        text: str,
        size: float | int,
        *,
        bold: bool = False,
        right: bool = False,
    ) -> None:
        """Write a line.

        Args:
            canvas: the page.
            x: left end of the line, or right end if `right`, pt.
            y: base line, pt.
            text: the line; a letter that no font has becomes a question mark.
            size: size of the font, pt.
            bold: use the bold font for the letters that it has.
            right: align right.
        """
        x = x - self.width(text, size, bold=bold) if right else x
        line = canvas.beginText(x, y)
        for font, letters in self._runs(text, bold=bold):
            line.setFont(font, size)
            line.textOut(letters)
        canvas.drawText(line)

    def width(self, text: str, size: float | int, *, bold: bool = False) -> float | int:
        """Compute the width of a line, pt."""
        return sum(stringWidth(letters, font, size) for font, letters in self._runs(text, bold=bold))

    def wrap(self, text: str, size: float | int, width: float | int, most: int) -> list[str]:
        """Break a text into at most `most` lines; three dots replace the rest."""
        lines = [""]
        for word in text[:MAX_CHARACTERS].split():
            longer = f"{lines[-1]} {word}".strip()
            if lines[-1] and self.width(longer, size) > width:
                lines.append(word)
            else:
                lines[-1] = longer
        kept = lines[:most]
        kept[-1] += " ..." if len(lines) > most else ""
        return [self.cut(line, size, width) for line in kept]

    def cut(self, line: str, size: float | int, width: float | int) -> str:
        """Shorten a line to the beginning that fits together with three dots, if it is too long."""
        if self.width(line, size) <= width:
            return line
        fits = bisect.bisect(range(len(line)), width, key=lambda kept: self.width(f"{line[:kept]}...", size))
        return f"{line[: max(fits - 1, 0)]}..."

    def has_missing_glyphs(self, text: str) -> bool:
        """Whether the text has a letter that is in none of the fonts."""
        return any(self._font_of(letter) is None for letter in replace_unprintable(text))

    def _runs(self, text: str, *, bold: bool) -> list[tuple[str, str]]:
        """Divide the text into runs of neighbouring letters of one font: font name and letters."""
        found = [(self._font_of(letter), letter) for letter in visual_order(replace_unprintable(text))]
        shown = [(font or REGULAR_FONT, letter if font else MISSING_GLYPH) for font, letter in found]
        strong = [
            (BOLD_FONT if bold and font == REGULAR_FONT and self._has_bold(letter) else font, letter)
            for font, letter in shown
        ]
        return [(font, "".join(s for _, s in run)) for font, run in itertools.groupby(strong, key=lambda one: one[0])]

    def _has_bold(self, letter: str) -> bool:
        return ord(letter) in self.bold.face.charToGlyph

    def _font_of(self, letter: str) -> str | None:
        for font in self.fonts:
            if ord(letter) in font.face.charToGlyph:
                return str(font.fontName)
        return next((name for name, encoding in EAST_ASIAN_FONTS if len(letter.encode(encoding, "ignore")) == 2), None)


def replace_unprintable(text: str) -> str:
    """Replace every character that moves, ends or hides a line by a space."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def visual_order(text: str) -> str:
    """Order the letters as in the printed line: parts that are written from right to left are reversed."""
    kinds = "".join(BIDI_CLASSES.get(unicodedata.bidirectional(letter), "-") for letter in text)
    for span in re.finditer("r([rsm]*[rm])?", kinds):
        text = text[: span.start()] + text[span.start() : span.end()][::-1] + text[span.end() :]
    return text


def _true_type(name: str, file: str) -> TTFont:
    font = TTFont(name, file)
    registerFont(font)
    return font
