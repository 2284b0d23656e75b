"""Super-resolved image, overlay and document, read back."""

from __future__ import annotations

import numpy as np
import pytest
from pydicom.uid import (
    UID,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    OphthalmicPhotography8BitImageStorage,
    SecondaryCaptureImageStorage,
)

from dicom_objects import make_objects, make_photograph, make_result, read_back
from dicom_reports import glaucoma_report

pytestmark = pytest.mark.usefixtures("quick_pages")


def test_the_super_resolved_image_is_stored_without_loss() -> None:
    given = make_result()
    made = read_back(make_objects(given)["sr"])
    assert given.report.pictures is not None
    assert np.array_equal(made.pixel_array, given.report.pictures.sr)
    assert made.SOPClassUID == OphthalmicPhotography8BitImageStorage
    assert (made.ImageLaterality, made.ImageType[0]) == ("R", "DERIVED")
    assert "x 20, y 10, side 280 px" in made.DerivationDescription and "x4 from 16 px" in made.DerivationDescription
    assert made.HorizontalFieldOfView is None  # the square is not what the camera's angle spans


def test_without_a_side_the_image_is_a_secondary_capture() -> None:
    made = make_objects(make_result(make_photograph(ImageLaterality=None)))
    assert made["sr"].SOPClassUID == SecondaryCaptureImageStorage
    assert "AnatomicRegionModifierSequence" not in made["lesions"].SegmentSequence[0].AnatomicRegionSequence[0]


def test_the_document_has_modality_and_length() -> None:
    made = read_back(make_objects(make_result())["document"])
    assert (made.Modality, made.MIMETypeOfEncapsulatedDocument) == ("DOC", "application/pdf")
    assert made.EncapsulatedDocumentLength == 10
    assert made.EncapsulatedDocument[:10] == b"%PDF-1.4\n%"


def test_the_document_title_names_the_disease() -> None:
    assert (
        make_objects(make_result(report=glaucoma_report()))["document"].DocumentTitle == "Glaucoma, graded by deepmtdr"
    )
    assert make_objects(make_result())["document"].DocumentTitle == "Diabetic retinopathy, graded by deepmtdr"


def test_the_overlay_has_no_patient_data_in_its_pixels() -> None:
    made = make_objects(make_result())["overlay"]
    assert (made.BurnedInAnnotation, made.SOPClassUID) == ("NO", SecondaryCaptureImageStorage)


@pytest.mark.parametrize(("syntax", "lossy"), [(JPEGBaseline8Bit, "01"), (JPEG2000Lossless, "00")])
def test_lossy_compression_of_the_photograph_is_recorded(syntax: UID, lossy: str) -> None:
    source = make_photograph()
    source.file_meta.TransferSyntaxUID = syntax
    assert make_objects(make_result(source))["sr"].LossyImageCompression == lossy
    assert make_objects(make_result(source))["lesions"].LossyImageCompression == lossy


def test_text_in_the_photographs_pixels_is_recorded_in_every_picture() -> None:
    made = make_objects(make_result(make_photograph(BurnedInAnnotation="YES")))
    assert (made["sr"].BurnedInAnnotation, made["overlay"].BurnedInAnnotation) == ("YES", "YES")


@pytest.mark.parametrize("keyword", ["BurnedInAnnotation", "LossyImageCompression"])
def test_what_the_photograph_does_not_say_is_left_out(keyword: str) -> None:
    """An Ophthalmic Photography object must say it, so the image is a Secondary Capture then."""
    made = make_objects(make_result(make_photograph(**{keyword: None})))
    assert keyword not in made["sr"] and keyword not in made["overlay"]
    assert made["sr"].SOPClassUID == SecondaryCaptureImageStorage
    assert made["lesions"].LossyImageCompression == "00", "a segmentation must say it"


def test_a_photograph_without_synchronisation_gives_a_secondary_capture() -> None:
    made = make_objects(make_result(make_photograph(SynchronizationTrigger=None)))["sr"]
    assert made.SOPClassUID == SecondaryCaptureImageStorage
