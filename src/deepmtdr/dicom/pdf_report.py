"""The report of one photograph as a PDF page of A4, with text that can be searched.

The same arguments give the same bytes. The page contains the patient's name, and never the path of the file.

This module is in `dicom/` and not in `rendering/` because its content is the DICOM examination: patient, order, time
and UID of the photograph. The functions for any page (text in every script, bars, pictures) are in
`rendering/pdf_page.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from deepmtdr.dicom.examination import Examination, check_reportable, ungradable_reason
from deepmtdr.labels import LabelSet, capitalise
from deepmtdr.rendering.overlays import draw_evidence_overlay, draw_lesion_overlay
from deepmtdr.rendering.pdf_page import BAR, INK, MARGIN, MARK, SOFT, WIDTH, Length, PdfPage
from deepmtdr.screening.report import Pictures, ScreeningReport
from deepmtdr.terms import LESION_THRESHOLD, RESEARCH_USE_NOTICE

TEXT_WIDTH = WIDTH - 2 * MARGIN
GAP = 14.0
PICTURE_SIDE_PT = 168.0
"""Side of a picture, pt."""
PICTURE_SIDE_PX = 704
"""Side of a picture, px: 300 dots per inch."""
GRADE_STEP, GRADES_HEIGHT = 26.0, 234.0
"""Height of the line and bar of one grade, and largest height of all grades together, pt."""
LESION_STEP, LESIONS_HEIGHT = 14.0, 112.0
"""Height of the line of one lesion type, and largest height of all lesion types together, pt."""
DISCLAIMER = (
    "This page was made by a research program. It has not been cleared by any authority, and its content was not "
    "checked by a person. Do not use it to diagnose, treat or refer a patient. The details of the super-resolved image "
    "are computed and may be wrong: do not base a finding on this image alone. The evidence map shows which pixels "
    "contributed to the score for the disease. It does not show which pixels are diseased. Only one photograph of one "
    "eye was graded, and only for {disease}."
)


class Fact(NamedTuple):
    """A line of the head: a name and its value."""

    name: str
    value: str


def document_title(labels: LabelSet) -> str:
    """Title of the document."""
    return f"{capitalise(labels.disease)}, graded by deepmtdr"


def draw_pdf_report(
    report: ScreeningReport, examination: Examination, patient: str, fonts: Sequence[Path] = ()
) -> bytes:
    """Draw the page of a photograph.

    Args:
        report: a report of status `ok`, with pictures, or `ungradable`.
        examination: patient, study and photograph.
        patient: name of the patient as it is displayed (`attributes.format_person_name` formats a DICOM name).
        fonts: TrueType fonts for letters that Western Europe does not have.

    Returns:
        The PDF file.

    Raises:
        DicomError: if no result can be written for the report.
        ClinicError: if a font is not a TrueType font.
        ValueError: if a graded report has no pictures.
    """
    check_reportable(report)
    if report.status == "ok" and report.pictures is None:
        raise ValueError("found status ok without pictures, expected a graded photograph with pictures")
    page = PdfPage(document_title(report.labels), f"deepmtdr {report.version}", fonts)
    _ReportPage(page, report, examination).draw(patient)
    return page.to_bytes()


class _ReportPage:
    def __init__(self, page: PdfPage, report: ScreeningReport, examination: Examination) -> None:
        self.page, self.report, self.examination = page, report, examination
        self.labels = report.labels

    def draw(self, patient: str) -> None:
        """Draw the page from top to bottom."""
        self._title()
        self._facts(patient)
        if self.report.pictures is not None and self.report.probabilities is not None:
            top = self.page.y
            self._pictures(self.report.pictures)
            self._grades(self.report.probabilities, top)
            self._lesions()
        self._remarks()
        self._foot()

    def _title(self) -> None:
        grade, page = self.report.grade, self.page
        title, below = "Not graded", f"The photograph is not fit to be graded: {ungradable_reason(self.report)}."
        if grade is not None:
            name = capitalise(self.labels.grade_names[grade])
            title = f"{name} {self.labels.disease}" if grade else name
            last = len(self.labels.grades) - 1
            below = f"Grade {grade:d} on the scale of 0 to {last}, estimated by a program and not checked by a person."
        page.text(self.examination.eye, 12, bold=True, right=True, drop=20)
        page.text(page.text_writer.cut(title, 20, TEXT_WIDTH - 60), 20, bold=True, drop=0)
        for line in page.text_writer.wrap(below, 9.5, TEXT_WIDTH, 4):
            page.text(line, 9.5, SOFT, drop=15)
        page.rule(10)

    def _facts(self, patient: str) -> None:
        report, about, page = self.report, self.examination, self.page
        taken = about.acquired.strftime("%Y-%m-%d %H:%M") if about.acquired else "unknown"
        missing = page.text_writer.has_missing_glyphs(patient)
        facts = (
            Fact("Patient", patient + (" (letters that this font lacks are shown as ?)" if missing else "")),
            Fact("Order", about.accession or "none"),
            Fact("Taken", f"{taken} · {about.device}" if about.device else taken),
            Fact("Photograph", f"{report.width} x {report.height} px · SOP Instance UID {about.instance_uid}"),
            Fact("Digest", f"SHA-256 {report.sha256 or 'unknown'}"),
        )
        for name, value in facts:
            for number, line in enumerate(page.text_writer.wrap(value, 9, TEXT_WIDTH - 64, 2)):
                page.text(name if number == 0 else "", 9, SOFT, drop=13)
                page.text(line, 9, x=MARGIN + 64, drop=0)
        page.rule(9)

    def _pictures(self, pictures: Pictures) -> None:
        """Draw photograph, super-resolved image, lesions and evidence, two in a row."""
        way, labels, page = self.report.way, self.labels, self.page
        not_enlarged = way is None or way.scale == 1
        lesions = draw_lesion_overlay(pictures.sr, pictures.lesions, labels, PICTURE_SIDE_PX)
        evidence = draw_evidence_overlay(pictures.sr, pictures.evidence, PICTURE_SIDE_PX)
        panels = (
            ("Photograph", "", pictures.photograph),
            ("Resized" if not_enlarged else "Super-resolved", self.report.scaling_description, pictures.sr),
            ("Lesions", f"from probability {LESION_THRESHOLD} on", lesions),
            ("Evidence", f"for {labels.short_disease or labels.disease}", evidence),
        )
        for number, (name, detail, pixels) in enumerate(panels):
            x = MARGIN + (number % 2) * (PICTURE_SIDE_PT + GAP)
            if number % 2 == 0:
                page.y -= 16 + (PICTURE_SIDE_PT + 8 if number else 0)
            page.text(name, 9, bold=True, x=x, drop=0)
            page.text(detail, 8, SOFT, x=x + PICTURE_SIDE_PT, right=True, drop=0)
            page.picture(pixels, x, page.y - 5 - PICTURE_SIDE_PT, PICTURE_SIDE_PT, PICTURE_SIDE_PX)
        page.y -= PICTURE_SIDE_PT + 5

    def _grades(self, probabilities: tuple[float, ...], top: Length) -> None:
        """Draw the probability of each grade as a bar, and that of referable disease, beside the pictures."""
        page, labels = self.page, self.labels
        left, right, end = MARGIN + 2 * (PICTURE_SIDE_PT + GAP) + 4, WIDTH - MARGIN, page.y
        page.y = top
        page.text("Grade", 9, bold=True, x=left, drop=16)
        page.text("probability", 8, SOFT, x=right, right=True, drop=0)
        drop = min(GRADE_STEP, GRADES_HEIGHT / len(probabilities)) - 7
        for grade, (name, p) in enumerate(zip(labels.grade_names, probabilities, strict=True)):
            chosen = grade == self.report.grade
            colour = INK if chosen else SOFT
            line = page.text_writer.cut(f"{grade}  {name if grade else 'none'}", 9, right - left - 30)
            page.text(line, 9, colour, bold=chosen, x=left, drop=drop)
            page.text(_percent(p), 9, colour, bold=chosen, x=right, right=True, drop=0)
            page.bar(left, right, p, MARK if chosen else BAR)
        page.text(f"Referable: grade {labels.referable_from} or worse", 9, SOFT, x=left, drop=34)
        page.text(_percent(self.report.p_referable or 0.0), 17, bold=True, x=right, right=True, drop=20)
        page.y -= 4
        page.paragraph(self._referral_text(), 8, left, right - left, 6)
        page.y = end

    def _referral_text(self) -> str:
        decided = f"{self.report.decision_text}. " if self.report.decision_text else ""
        return decided + self._operating_point_text()

    def _operating_point_text(self) -> str:
        point = self.report.operating_point
        if point is None:
            return "No operating point: these weights are not calibrated."
        call = "referable" if self.report.referable else "not referable"
        return (
            f"Called {call}: the operating point is {_percent(point.value)}, set to find "
            f"{_percent(point.sensitivity)} of such photographs on the calibration set."
        )

    def _lesions(self) -> None:
        """Draw the table of lesion types: colour, name, number and area."""
        page, counts, areas = self.page, self.report.counts or {}, self.report.areas or {}
        name_x, count_x, area_x = MARGIN + 14, MARGIN + 200, MARGIN + 340
        page.text("Lesions", 9, bold=True, drop=24)
        page.text("number", 8, SOFT, x=count_x, right=True, drop=0)
        page.text("share of the field of view", 8, SOFT, x=area_x, right=True, drop=0)
        drop = min(LESION_STEP, LESIONS_HEIGHT / len(self.labels.lesions))
        for lesion in self.labels.lesions:
            count, area = counts.get(lesion.code, 0), areas.get(lesion.code, 0.0)
            share = f"{area:.2f} %" if area >= 0.005 or not count else "below 0.01 %"
            page.text(page.text_writer.cut(capitalise(lesion.name), 9, count_x - name_x - 30), 9, x=name_x, drop=drop)
            page.swatch(lesion.colour)
            page.text(str(count), 9, x=count_x, right=True, drop=0)
            page.text(share if count else "none found", 9, x=area_x, right=True, drop=0)
        page.rule(9)

    def _remarks(self) -> None:
        report, page = self.report, self.page
        if report.quality is not None:
            page.paragraph(f"Quality of the photograph: {report.quality:.2f} of 1.", 9, MARGIN, TEXT_WIDTH, 1)
        if report.review_reasons:
            text = f"A person must check this photograph: {'; '.join(report.review_reasons)}."
            page.paragraph(text, 9, MARGIN, TEXT_WIDTH, 3, MARK)
        if report.grade is None:
            text = (
                "No grade, no probability and no finding is given. "
                "Take another photograph, or ask a person to look at this one."
            )
            page.paragraph(text, 10, MARGIN, TEXT_WIDTH, 2, MARK)

    def _foot(self) -> None:
        """Draw notice, version and disclaimer at the bottom of the page."""
        report, page = self.report, self.page
        lines = page.text_writer.wrap(DISCLAIMER.format(disease=self.labels.disease), 7.5, TEXT_WIDTH, 6)
        page.y = MARGIN + 10 * len(lines) + 26
        page.rule(0)
        page.text(RESEARCH_USE_NOTICE, 10, MARK, bold=True, drop=15)
        about = f"deepmtdr {report.version} · weights {report.weights} · {report.settings_text}".rstrip(" ·")
        page.text(page.text_writer.wrap(about, 8, 300, 1)[0], 8, SOFT, x=WIDTH - MARGIN, right=True, drop=0)
        page.y -= 3
        for line in lines:
            page.text(line, 7.5, SOFT, drop=10)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
