"""The report of one photograph for people: a page of A4 as PDF, with text that can be searched.

The same arguments give the same bytes. The page names the patient; the file's path does not appear on it.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from reportlab.lib.pagesizes import A4
from reportlab.lib.utils import ImageReader
from reportlab.pdfgen.canvas import Canvas

from deepmtdr.dicom.examination import RESEARCH_USE_NOTICE, Examination, check_reportable, ungradable_reason
from deepmtdr.dicom.pdf_text import REGULAR_FONT, TextWriter
from deepmtdr.rendering.overlays import LESION_COLOURS, draw_evidence_overlay, draw_lesion_overlay
from deepmtdr.screening.report import Pictures, ScreeningReport
from deepmtdr.terms import LESION_THRESHOLD, Grade, Lesion

WIDTH, HEIGHT = A4
MARGIN, GAP = 42.0, 14.0
PICTURE_SIDE_PT = 168.0
"""Side of a picture, pt."""
PICTURE_SIDE_PX = 704
"""The same in px: 300 dots per inch."""
INK, SOFT, RULE, TRACK, MARK, BAR = "#16191f", "#5d6675", "#c9ced6", "#eceef1", "#b3541e", "#9aa3b0"
DISCLAIMER = (
    "This page was made by a research program. No authority has cleared it, and nobody has verified what it says: do "
    "not diagnose, treat or refer by it. The super-resolved image is plausible, not recovered: no finding may rest on "
    "it alone. The evidence shows which pixels moved the grade, not which are diseased. Only one field of one eye was "
    "looked at, for diabetic retinopathy alone."
)


class Fact(NamedTuple):
    """A line of the head: what it is, and what it says."""

    name: str
    value: str


def draw_pdf_report(
    report: ScreeningReport, examination: Examination, patient: str, fonts: Sequence[Path] = ()
) -> bytes:
    """Draw the page of a photograph.

    Args:
        report: of status `ok`, with pictures, or `ungradable`.
        examination: what it is about.
        patient: whose it is, as the page shall say it (`letters.format_person_name` puts a name into words).
        fonts: TrueType fonts for letters that Western Europe does not have.

    Returns:
        The PDF file.

    Raises:
        ClinicError: if nothing can be said of the photograph, or a font is none.
        ValueError: if a graded report has no pictures.
    """
    check_reportable(report)
    if report.status == "ok" and report.pictures is None:
        raise ValueError("status ok without pictures, expected a graded photograph with them")
    text_writer, file = TextWriter(fonts), io.BytesIO()
    base: Any = REGULAR_FONT  # the stubs take a font's name for a number
    canvas = Canvas(file, pagesize=A4, invariant=1, pageCompression=1, lang="en", initialFontName=base)
    canvas.setTitle("Diabetic retinopathy, read by deepmtdr")
    canvas.setCreator(f"deepmtdr {report.version}")
    _Page(canvas, text_writer, report, examination).draw(patient)
    canvas.showPage()
    canvas.save()
    return file.getvalue()


class _Page:
    def __init__(
        self, canvas: Canvas, text_writer: TextWriter, report: ScreeningReport, examination: Examination
    ) -> None:
        self.canvas, self.text_writer, self.report, self.examination = canvas, text_writer, report, examination
        self.y = HEIGHT - MARGIN

    def draw(self, patient: str) -> None:
        """Everything, from top to bottom."""
        self._title()
        self._facts(patient)
        if self.report.pictures is not None and self.report.probabilities is not None:
            top = self.y
            self._pictures(self.report.pictures)
            self._grades(self.report.probabilities, top)
            self._lesions()
        self._remarks()
        self._foot()

    def _title(self) -> None:
        grade = self.report.grade
        title, below = "Not graded", f"The photograph is not fit to be graded: {ungradable_reason(self.report)}."
        if grade is not None:
            name = grade.full_name.capitalize()
            title = name if grade is Grade.NEGATIVE else f"{name} diabetic retinopathy"
            below = f"Grade {int(grade)} on the scale of 0 to 4, estimated by a machine, verified by nobody."
        self.text(self.examination.eye, 12, bold=True, right=True, drop=20)
        self.text(title, 20, bold=True, drop=0)
        for line in self.text_writer.wrap(below, 9.5, WIDTH - 2 * MARGIN, 4):
            self.text(line, 9.5, SOFT, drop=15)
        self._rule(10)

    def _facts(self, patient: str) -> None:
        report, about = self.report, self.examination
        taken = about.acquired.strftime("%Y-%m-%d %H:%M") if about.acquired else "unknown"
        wrong = " (letters that this font lacks are shown as ?)" if self.text_writer.has_missing_glyphs(patient) else ""
        facts = (
            Fact("Patient", patient + wrong),
            Fact("Order", about.accession or "none"),
            Fact("Taken", f"{taken} · {about.device}" if about.device else taken),
            Fact("Photograph", f"{report.width} x {report.height} px · SOP Instance UID {about.instance_uid}"),
            Fact("Digest", f"SHA-256 {report.sha256 or 'unknown'}"),
        )
        for name, value in facts:
            for number, line in enumerate(self.text_writer.wrap(value, 9, WIDTH - 2 * MARGIN - 64, 2)):
                self.text(name if number == 0 else "", 9, SOFT, drop=13)
                self.text(line, 9, x=MARGIN + 64, drop=0)
        self._rule(9)

    def _pictures(self, pictures: Pictures) -> None:
        way = self.report.way
        skipped = way is None or way.scale == 1
        shown = (
            ("Photograph", "", pictures.photograph),
            ("As read" if skipped else "Super-resolved", self.report.scaling_text, pictures.sr),
            (
                "Lesions",
                f"from probability {LESION_THRESHOLD} on",
                draw_lesion_overlay(pictures.sr, pictures.lesions, PICTURE_SIDE_PX),
            ),
            ("Evidence", "for retinopathy", draw_evidence_overlay(pictures.sr, pictures.evidence, PICTURE_SIDE_PX)),
        )
        for number, (name, detail, pixels) in enumerate(shown):
            x = MARGIN + (number % 2) * (PICTURE_SIDE_PT + GAP)
            if number % 2 == 0:
                self.y -= 16 + (PICTURE_SIDE_PT + 8 if number else 0)
            self.text(name, 9, bold=True, x=x, drop=0)
            self.text(detail, 8, SOFT, x=x + PICTURE_SIDE_PT, right=True, drop=0)
            self.canvas.drawImage(_jpeg(pixels), x, self.y - 5 - PICTURE_SIDE_PT, PICTURE_SIDE_PT, PICTURE_SIDE_PT)
        self.y -= PICTURE_SIDE_PT + 5

    def _grades(self, probabilities: tuple[float, ...], top: float | int) -> None:
        """The five probabilities as bars, and that of referable disease, beside the pictures."""
        left, right, end = MARGIN + 2 * (PICTURE_SIDE_PT + GAP) + 4, WIDTH - MARGIN, self.y
        self.y = top
        self.text("Grade", 9, bold=True, x=left, drop=16)
        self.text("probability", 8, SOFT, x=right, right=True, drop=0)
        for grade, p in zip(Grade, probabilities, strict=True):
            chosen = grade is self.report.grade
            name = "none" if grade is Grade.NEGATIVE else grade.full_name
            self.text(f"{int(grade)}  {name}", 9, INK if chosen else SOFT, bold=chosen, x=left, drop=19)
            self.text(_percent(p), 9, INK if chosen else SOFT, bold=chosen, x=right, right=True, drop=0)
            self._bar(left, right, p, MARK if chosen else BAR)
        p_referable = self.report.p_referable or 0.0
        self.text("Referable: grade 2 or worse", 9, SOFT, x=left, drop=34)
        self.text(_percent(p_referable), 17, bold=True, x=right, right=True, drop=20)
        point, words = self.report.operating_point, "No operating point: these weights are not calibrated."
        if point is not None:
            call = "referable" if self.report.referable else "not referable"
            words = f"Called {call}: the operating point is {_percent(point.value)}, set to find "
            words += f"{_percent(point.sensitivity)} of such photographs on the calibration set."
        self.y -= 4
        self._paragraph(words, 8, left, right - left, 6)
        self.y = end

    def _bar(self, left: float | int, right: float | int, share: float, colour: str) -> None:
        self.y -= 7
        self.canvas.setFillColor(TRACK)
        self.canvas.rect(left, self.y, right - left, 4, stroke=0, fill=1)
        self.canvas.setFillColor(colour)
        self.canvas.rect(left, self.y, share * (right - left), 4, stroke=0, fill=1)

    def _lesions(self) -> None:
        counts, areas = self.report.counts or {}, self.report.areas or {}
        columns = (MARGIN + 14, MARGIN + 200, MARGIN + 340)
        self.text("Lesions", 9, bold=True, drop=24)
        self.text("number", 8, SOFT, x=columns[1], right=True, drop=0)
        self.text("share of the field of view", 8, SOFT, x=columns[2], right=True, drop=0)
        for lesion in Lesion:
            count, area = counts.get(lesion, 0), areas.get(lesion, 0.0)
            share = f"{area:.2f} %" if area >= 0.005 or not count else "below 0.01 %"
            self.text(lesion.full_name.capitalize(), 9, x=columns[0], drop=14)
            self.canvas.setFillColorRGB(*(channel / 255 for channel in LESION_COLOURS[lesion]))
            self.canvas.rect(MARGIN, self.y, 8, 7, stroke=0, fill=1)
            self.text(str(count), 9, x=columns[1], right=True, drop=0)
            self.text(share if count else "none found", 9, x=columns[2], right=True, drop=0)
        self._rule(9)

    def _remarks(self) -> None:
        quality = self.report.quality
        if quality is not None:
            self._paragraph(f"Quality of the photograph: {quality:.2f} of 1.", 9, MARGIN, WIDTH - 2 * MARGIN, 1)
        if self.report.review_reasons:
            words = f"To be read by a person: {'; '.join(self.report.review_reasons)}."
            self._paragraph(words, 9, MARGIN, WIDTH - 2 * MARGIN, 3, MARK)
        if self.report.grade is None:
            words = "No grade, no probability and no finding is given. Take another photograph, or have a person look."
            self._paragraph(words, 10, MARGIN, WIDTH - 2 * MARGIN, 2, MARK)

    def _foot(self) -> None:
        """At the page's end, wherever the rest has ended."""
        report, lines = self.report, self.text_writer.wrap(DISCLAIMER, 7.5, WIDTH - 2 * MARGIN, 6)
        self.y = MARGIN + 10 * len(lines) + 26
        self._rule(0)
        self.text(RESEARCH_USE_NOTICE, 10, MARK, bold=True, drop=15)
        about = f"deepmtdr {report.version} · weights {report.weights} · {report.precision}".rstrip(" ·")
        self.text(self.text_writer.wrap(about, 8, 300, 1)[0], 8, SOFT, x=WIDTH - MARGIN, right=True, drop=0)
        self.y -= 3
        for line in lines:
            self.text(line, 7.5, SOFT, drop=10)

    def _paragraph(
        self, words: str, size: float | int, x: float | int, width: float | int, most: int, colour: str = SOFT
    ) -> None:
        for line in self.text_writer.wrap(words, size, width, most):
            self.text(line, size, colour, x=x, drop=size + 4)

    def _rule(self, above: float | int) -> None:
        self.y -= above
        self.canvas.setStrokeColor(RULE)
        self.canvas.setLineWidth(0.7)
        self.canvas.line(MARGIN, self.y, WIDTH - MARGIN, self.y)

    def text(
        self,
        text: str,
        size: float | int,
        colour: str = INK,
        *,
        x: float | int | None = None,
        drop: float | int,
        bold: bool = False,
        right: bool = False,
    ) -> None:
        """Write a line `drop` pt below the last one."""
        self.y -= drop
        at = x if x is not None else WIDTH - MARGIN if right else MARGIN
        self.canvas.setFillColor(colour)
        self.text_writer.draw_line(self.canvas, at, self.y, text, size, bold=bold, right=right)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _jpeg(pixels: UInt8[np.ndarray, "s s 3"]) -> ImageReader:
    image = Image.fromarray(pixels).resize((PICTURE_SIDE_PX, PICTURE_SIDE_PX), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=90, subsampling=0)
    file.seek(0)
    return ImageReader(file)
