"""Lesions, their probabilities and the evidence as DICOM segmentations of the super-resolved image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import highdicom as hd
import numpy as np
from jaxtyping import Bool, Float
from pydicom import Dataset

from deepmtdr.dicom.codes import Code
from deepmtdr.dicom.highdicom_items import (
    coded_concept,
    normalise_highdicom_object,
    segment_algorithm,
    without_patient,
)
from deepmtdr.dicom.label_codes import short_text
from deepmtdr.dicom.objects import PRODUCT, DicomResult, ObjectKind, anatomic_region, set_common_attributes
from deepmtdr.labels import capitalise
from deepmtdr.photographs.geometry import fov_mask
from deepmtdr.screening.report import Pictures
from deepmtdr.terms import LESION_THRESHOLD


class Segment(NamedTuple):
    """One segment: its label, and the code of what it shows."""

    label: str
    code: Code


def create_lesion_segmentation(result: DicomResult, image: Dataset, pictures: Pictures) -> Dataset:
    """Create a BINARY segmentation: probability >= `LESION_THRESHOLD`, inside the field of view.

    Segment n and frame n are lesion type n of the label set. A type that was not found has an empty frame.

    Args:
        result: photograph and report.
        image: the super-resolved image that is segmented.
        pictures: pictures of the report.
    """
    present = threshold_lesions(pictures)
    return _segmentation(result, image, ObjectKind.LESIONS, present, _lesion_segments(result))


def create_probability_segmentation(result: DicomResult, image: Dataset, pictures: Pictures) -> Dataset:
    """Create a FRACTIONAL segmentation: probability of each lesion type, then the evidence; 255 means 1.

    Args:
        result: photograph and report.
        image: the super-resolved image that is segmented.
        pictures: pictures of the report.
    """
    maps = np.concatenate([pictures.lesions, pictures.evidence[None]])
    segments = [Segment(f"{segment.label}, probability", segment.code) for segment in _lesion_segments(result)]
    segments.append(Segment("Evidence", result.codes["map.evidence"]))
    return _segmentation(result, image, ObjectKind.PROBABILITIES, maps, segments)


def threshold_lesions(pictures: Pictures) -> Bool[np.ndarray, "l s s"]:
    """Masks of the lesion types, with the same threshold with which the report counts lesions."""
    return (pictures.lesions >= LESION_THRESHOLD) & fov_mask(pictures.sr)


def _lesion_segments(result: DicomResult) -> list[Segment]:
    lesions = result.report.labels.lesions
    return [Segment(capitalise(lesion.name), result.codes[f"lesion.{lesion.code}"]) for lesion in lesions]


def _segmentation(
    result: DicomResult,
    image: Dataset,
    kind: ObjectKind,
    maps: Bool[np.ndarray, "n s s"] | Float[np.ndarray, "n s s"],
    segments: Sequence[Segment],
) -> Dataset:
    """Create a segmentation with highdicom, and replace the identifiers that highdicom draws at random."""
    created = hd.seg.Segmentation(
        source_images=[_highdicom_source(image)],
        pixel_array=np.moveaxis(maps, 0, -1)[None],
        segmentation_type="BINARY" if maps.dtype == bool else "FRACTIONAL",
        segment_descriptions=[_description(result, kind, number, one) for number, one in enumerate(segments, 1)],
        series_instance_uid=result.series_uid(kind),
        series_number=kind.series_number,
        sop_instance_uid=result.uid(kind),
        instance_number=result.instance_number,
        manufacturer=PRODUCT,
        manufacturer_model_name=PRODUCT,
        software_versions=result.report.version,
        device_serial_number=result.device_serial_number,
        content_label=kind.upper(),
        content_description=short_text(f"deepmtdr: {kind} of {', '.join(result.report.labels.codes)}"),
        omit_empty_frames=False,
    )
    content = "lesions" if kind is ObjectKind.LESIONS else "lesion probabilities and evidence"
    created.SeriesDescription = f"deepmtdr: {content}"
    created.PatientOrientation = image.PatientOrientation
    # A segmentation must say it. "00" if the photograph does not: no lossy compression is known.
    created.LossyImageCompression = image.get("LossyImageCompression", "00")
    for keyword in ("LossyImageCompressionRatio", "LossyImageCompressionMethod"):
        if keyword in image:
            created[keyword] = image[keyword]
    for groups in created.SharedFunctionalGroupsSequence:
        groups.pop("PixelMeasuresSequence", None)  # the size of a pixel is not known
    organisation = result.uid(kind, "dimensions")
    for item in (*created.DimensionOrganizationSequence, *created.DimensionIndexSequence):
        item.DimensionOrganizationUID = organisation
    return set_common_attributes(normalise_highdicom_object(created), result)


def _highdicom_source(image: Dataset) -> Dataset:
    """Copy the image's header with a pixel size, which highdicom requires of enhanced images."""
    header = without_patient(image)
    header.file_meta = image.file_meta
    groups = Dataset()
    groups.PixelMeasuresSequence = hd.PixelMeasuresSequence(pixel_spacing=[1.0, 1.0], slice_thickness=1.0)
    header.SharedFunctionalGroupsSequence = [groups]
    return header


def _description(result: DicomResult, kind: ObjectKind, number: int, segment: Segment) -> hd.seg.SegmentDescription:
    label = short_text(segment.label)
    created = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=label,
        segmented_property_category=coded_concept(result.codes["document.category"]),
        segmented_property_type=coded_concept(segment.code),
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=segment_algorithm(result),
        tracking_uid=result.uid(kind, str(number)),
        tracking_id=f"{label}, image {result.instance_number}",
    )
    created.add_new("AnatomicRegionSequence", "SQ", [anatomic_region(result)])
    return created
