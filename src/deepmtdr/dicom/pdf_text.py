"""Text in a PDF, in letters of any script: which font has which letter, and names as DICOM writes them."""

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
"""Bitstream Vera, which reportlab brings: the letters of Western Europe. Embedded."""
EAST_ASIAN_FONTS = (("STSong-Light", "gbk"), ("HYSMyeongJo-Medium", "cp949"))
"""Adobe's fonts for Chinese and Japanese, and for Korean, with the encoding that tells what they have. Not embedded: a
viewer without them shows boxes, though the text below can be searched."""
MISSING_GLYPH = "?"
MAX_CHARACTERS = 1000
"""Letters of a text that are looked at: more than fit on any lines here."""
BIDI_CLASSES = {"R": "r", "AL": "r", "WS": "s", "NSM": "m"}
"""Unicode's classes of direction, as far as they matter here: from right to left, space, mark on a letter."""


class TextWriter:
    """Writes text, each letter in the first font that has it."""

    def __init__(self, more: Sequence[Path] = ()) -> None:
        """Load the fonts.

        Args:
            more: TrueType fonts for letters that Vera lacks, embedded; asked in this order, before the viewer's.

        Raises:
            ClinicError: if one is no TrueType font.
        """
        self.fonts = [_true_type(REGULAR_FONT, f"{REGULAR_FONT}.ttf")]
        self.bold = _true_type(BOLD_FONT, f"{BOLD_FONT}.ttf")
        for number, font in enumerate(more):
            try:
                self.fonts.append(_true_type(f"site{number}", str(font)))
            except (TTFError, OSError) as error:
                raise ClinicError(f"{font}: no TrueType font ({error})") from error
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
            x: where it begins, or ends if `right`, pt.
            y: its base line, pt.
            text: what no font has becomes a question mark.
            size: pt.
            bold: where there is a bold font.
            right: set flush right.
        """
        x = x - self.width(text, size, bold=bold) if right else x
        line = canvas.beginText(x, y)
        for font, letters in self._runs(text, bold=bold):
            line.setFont(font, size)
            line.textOut(letters)
        canvas.drawText(line)

    def width(self, text: str, size: float | int, *, bold: bool = False) -> float | int:
        """How wide a line is, pt."""
        return sum(stringWidth(letters, font, size) for font, letters in self._runs(text, bold=bold))

    def wrap(self, text: str, size: float | int, width: float | int, most: int) -> list[str]:
        """Break a text into lines; what does not fit into `most` of them is cut off with three dots."""
        lines = [""]
        for word in text[:MAX_CHARACTERS].split():
            longer = f"{lines[-1]} {word}".strip()
            if lines[-1] and self.width(longer, size) > width:
                lines.append(word)
            else:
                lines[-1] = longer
        kept = lines[:most]
        kept[-1] += " ..." if len(lines) > most else ""
        return [self._cut(line, size, width) for line in kept]

    def _cut(self, line: str, size: float | int, width: float | int) -> str:
        """The line, or as much of its beginning as fits with three dots."""
        if self.width(line, size) <= width:
            return line
        fits = bisect.bisect(range(len(line)), width, key=lambda kept: self.width(f"{line[:kept]}...", size))
        return f"{line[: max(fits - 1, 0)]}..."

    def has_missing_glyphs(self, text: str) -> bool:
        """Whether some letter is in none of the fonts."""
        return any(self._font_of(letter) is None for letter in replace_unprintable(text))

    def _runs(self, text: str, *, bold: bool) -> list[tuple[str, str]]:
        """Neighbouring letters of one font."""
        found = [(self._font_of(letter), letter) for letter in _visual_order(replace_unprintable(text))]
        shown = [(font or REGULAR_FONT, letter if font else MISSING_GLYPH) for font, letter in found]
        strong = [
            (BOLD_FONT if bold and font == REGULAR_FONT and self._in_bold(letter) else font, letter)
            for font, letter in shown
        ]
        return [(font, "".join(s for _, s in run)) for font, run in itertools.groupby(strong, key=lambda one: one[0])]

    def _in_bold(self, letter: str) -> bool:
        return ord(letter) in self.bold.face.charToGlyph

    def _font_of(self, letter: str) -> str | None:
        for font in self.fonts:
            if ord(letter) in font.face.charToGlyph:
                return str(font.fontName)
        return next((name for name, encoding in EAST_ASIAN_FONTS if len(_encoded(letter, encoding)) == 2), None)


def format_person_name(name: str) -> str:
    """A DICOM person name (PN) for people: the alphabetic group, and the ideographic one in brackets.

    Args:
        name: `family^given^middle^prefix^suffix`, up to three groups of it parted by `=`; the last, phonetic, is left
            out.
    """
    groups = [" ".join(part for part in group.split("^") if part.strip()) for group in name.split("=")][:2]
    first, *second = [" ".join(group.split()) for group in groups if group.strip()] or [""]
    return f"{first} ({second[0]})" if second else first


def replace_unprintable(text: str) -> str:
    """The text with a space for whatever moves, ends or hides a line."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _visual_order(text: str) -> str:
    """Letters in the order in which they stand on paper: what is written from right to left is turned round."""
    kinds = "".join(BIDI_CLASSES.get(unicodedata.bidirectional(letter), "-") for letter in text)
    for span in re.finditer("r([rsm]*[rm])?", kinds):
        text = text[: span.start()] + text[span.start() : span.end()][::-1] + text[span.end() :]
    return text


def _encoded(letter: str, encoding: str) -> bytes:
    return letter.encode(encoding, "ignore")


def _true_type(name: str, file: str) -> TTFont:
    font = TTFont(name, file)
    registerFont(font)
    return font
