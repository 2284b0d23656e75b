"""Fixtures of the tests of `dicom`."""

from __future__ import annotations

import pytest
from PIL import Image

from deepmtdr.dicom import results


@pytest.fixture
def quick_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pages of overlay and document have their own tests."""
    page = Image.new("RGB", (80, 60))
    monkeypatch.setattr(results, "draw_summary", lambda report: page)
    monkeypatch.setattr(results, "draw_not_graded", lambda report: page)
    monkeypatch.setattr(results, "draw_pdf_report", lambda *_: b"%PDF-1.4\n%")
