"""Lesions, their probabilities and the evidence as DICOM segmentations of the super-resolved image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import highdicom as hd
import numpy as np
from jaxtyping import Bool, Float
from pydicom import Dataset

from deepmtdr.dicom.codes import Code
from deepmtdr.dicom.objects import IMPLEMENTATION_UID, DicomResult, set_common_attributes, without_patient
from deepmtdr.photographs.decode import fov_mask
from deepmtdr.screening.report import Pictures
from deepmtdr.terms import LESION_THRESHOLD, Lesion


def create_lesion_segmentation(result: DicomResult, image: Dataset, pictures: Pictures) -> Dataset:
    """A BINARY segmentation: what is there with probability >= `LESION_THRESHOLD`, inside the field of view.

    Segment n, and frame n, is lesion type n of MA, HE, EX, SE; a type of which nothing was found has an empty frame.

    Args:
        result: to which photograph.
        image: the super-resolved image, which it lies on.
        pictures: of the report.
    """
    present = threshold_lesions(pictures)
    named = [(lesion.full_name.capitalize(), result.codes[f"lesion.{lesion.name}"]) for lesion in Lesion]
    return _segmentation(result, image, "lesions", present, named, "LESIONS", 9002)


def create_probability_segmentation(result: DicomResult, image: Dataset, pictures: Pictures) -> Dataset:
    """A FRACTIONAL segmentation: the probabilities of MA, HE, EX, SE, and the evidence, 255 for 1.

    Args:
        result: to which photograph.
        image: the super-resolved image, which it lies on.
        pictures: of the report.
    """
    maps = np.concatenate([pictures.lesions, pictures.evidence[None]])
    named = [
        (f"{lesion.full_name.capitalize()}, probability", result.codes[f"lesion.{lesion.name}"]) for lesion in Lesion
    ]
    evidence = ("Evidence", result.codes["map.evidence"])
    return _segmentation(result, image, "probabilities", maps, [*named, evidence], "PROBABILITIES", 9003)


def threshold_lesions(pictures: Pictures) -> Bool[np.ndarray, "4 s s"]:
    """Where each type is present, as it is counted in the report."""
    return (pictures.lesions >= LESION_THRESHOLD) & fov_mask(pictures.sr)


def _segmentation(
    result: DicomResult,
    image: Dataset,
    kind: str,
    maps: Bool[np.ndarray, "n s s"] | Float[np.ndarray, "n s s"],
    named: Sequence[tuple[str, Code]],
    label: str,
    number: int,
) -> Dataset:
    """By highdicom; what it draws at random is replaced."""
    made = hd.seg.Segmentation(
        source_images=[_as_highdicom_wants(image)],
        pixel_array=np.moveaxis(maps, 0, -1)[None],
        segmentation_type="BINARY" if maps.dtype == bool else "FRACTIONAL",
        segment_descriptions=[_segment(result, kind, n, *one) for n, one in enumerate(named, 1)],
        series_instance_uid=result.series_uid(kind),
        series_number=number,
        sop_instance_uid=result.uid(kind),
        instance_number=result.instance_number,
        manufacturer="deepmtdr",
        manufacturer_model_name="deepmtdr",
        software_versions=result.report.version,
        device_serial_number=result.report.weights[:64],
        content_label=label,
        content_description=f"deepmtdr: {label.lower()} of MA, HE, EX, SE",
        omit_empty_frames=False,
    )
    made.SeriesDescription = f"deepmtdr: {'lesions' if kind == 'lesions' else 'lesion probabilities and evidence'}"
    made.PatientOrientation = image.PatientOrientation
    made.LossyImageCompression = image.LossyImageCompression
    for keyword in ("LossyImageCompressionRatio", "LossyImageCompressionMethod"):
        if keyword in image:
            made[keyword] = image[keyword]
    for groups in made.SharedFunctionalGroupsSequence:
        groups.pop("PixelMeasuresSequence", None)  # no size of a pixel is known
    organisation = result.uid(kind, "dimensions")
    for item in (*made.DimensionOrganizationSequence, *made.DimensionIndexSequence):
        item.DimensionOrganizationUID = organisation
    return set_common_attributes(normalise_highdicom_object(made), result)


def normalise_highdicom_object(made: Any) -> Dataset:
    """Take over an object that highdicom made: no time of making in it, and this project's implementation."""
    for item in made.get("ContributingEquipmentSequence", ()):
        if "ContributionDateTime" in item:
            del item.ContributionDateTime
    made.file_meta.ImplementationClassUID = IMPLEMENTATION_UID
    del made.file_meta.ImplementationVersionName
    return made


def _as_highdicom_wants(image: Dataset) -> Dataset:
    """A copy of the header with what it looks for in enhanced images, as which it takes Ophthalmic Photography."""
    header = without_patient(image)
    header.file_meta = image.file_meta
    groups = Dataset()
    groups.PixelMeasuresSequence = hd.PixelMeasuresSequence(pixel_spacing=[1.0, 1.0], slice_thickness=1.0)
    header.SharedFunctionalGroupsSequence = [groups]
    return header


def _segment(result: DicomResult, kind: str, number: int, label: str, code: Code) -> hd.seg.SegmentDescription:
    def concept(code: Code) -> hd.sr.CodedConcept:
        return hd.sr.CodedConcept(code.value, code.scheme, code.meaning)

    codes, side = result.codes, result.source.laterality
    made = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=label,
        segmented_property_category=concept(codes["document.category"]),
        segmented_property_type=concept(code),
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            "deepmtdr", concept(codes["document.family"]), result.report.version
        ),
        tracking_uid=result.uid(kind, str(number)),
        tracking_id=f"{label}, image {result.instance_number}",
        anatomic_regions=[concept(codes["place.retina"])],
    )
    if side is not None:
        made.AnatomicRegionSequence[0].AnatomicRegionModifierSequence = [concept(codes[f"place.{side}"])]
    return made
