"""Lesions, their probabilities and the evidence as DICOM segmentations of the super-resolved image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import highdicom as hd
import numpy as np
from jaxtyping import Bool, Float
from pydicom import Dataset

from deepmtdr.clinic.codes import Code
from deepmtdr.clinic.objects import IMPLEMENTATION, Answer, neutral, settle
from deepmtdr.data.photograph import fov_mask
from deepmtdr.screening.report import Pictures
from deepmtdr.terms import PRESENT, Lesion


def lesion_segments(answer: Answer, image: Dataset, pictures: Pictures) -> Dataset:
    """A BINARY segmentation: what is there with probability >= `PRESENT`, inside the field of view.

    Segment n, and frame n, is lesion type n of MA, HE, EX, SE; a type of which nothing was found has an empty frame.

    Args:
        answer: to which photograph.
        image: the super-resolved image, which it lies on.
        pictures: of the report.
    """
    present = present_lesions(pictures)
    named = [(lesion.full_name.capitalize(), answer.codes[f"lesion.{lesion.name}"]) for lesion in Lesion]
    return _segmentation(answer, image, "lesions", present, named, "LESIONS", 9002)


def probability_maps(answer: Answer, image: Dataset, pictures: Pictures) -> Dataset:
    """A FRACTIONAL segmentation: the probabilities of MA, HE, EX, SE, and the evidence, 255 for 1.

    Args:
        answer: to which photograph.
        image: the super-resolved image, which it lies on.
        pictures: of the report.
    """
    maps = np.concatenate([pictures.lesions, pictures.evidence[None]])
    named = [
        (f"{lesion.full_name.capitalize()}, probability", answer.codes[f"lesion.{lesion.name}"]) for lesion in Lesion
    ]
    evidence = ("Evidence", answer.codes["map.evidence"])
    return _segmentation(answer, image, "probabilities", maps, [*named, evidence], "PROBABILITIES", 9003)


def present_lesions(pictures: Pictures) -> Bool[np.ndarray, "4 s s"]:
    """Where each type is present, as it is counted in the report."""
    return (pictures.lesions >= PRESENT) & fov_mask(pictures.sr)


def _segmentation(
    answer: Answer,
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
        segment_descriptions=[_segment(answer, kind, n, *one) for n, one in enumerate(named, 1)],
        series_instance_uid=answer.series_uid(kind),
        series_number=number,
        sop_instance_uid=answer.uid(kind),
        instance_number=answer.instance_number,
        manufacturer="deepmtdr",
        manufacturer_model_name="deepmtdr",
        software_versions=answer.report.version,
        device_serial_number=answer.report.weights[:64],
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
    organisation = answer.uid(kind, "dimensions")
    for item in (*made.DimensionOrganizationSequence, *made.DimensionIndexSequence):
        item.DimensionOrganizationUID = organisation
    return settle(own(made), answer)


def own(made: Any) -> Dataset:
    """Take over an object that highdicom made: no time of making in it, and this project's implementation."""
    for item in made.get("ContributingEquipmentSequence", ()):
        if "ContributionDateTime" in item:
            del item.ContributionDateTime
    made.file_meta.ImplementationClassUID = IMPLEMENTATION
    del made.file_meta.ImplementationVersionName
    return made


def _as_highdicom_wants(image: Dataset) -> Dataset:
    """A copy of the header with what it looks for in enhanced images, as which it takes Ophthalmic Photography."""
    header = neutral(image)
    header.file_meta = image.file_meta
    groups = Dataset()
    groups.PixelMeasuresSequence = hd.PixelMeasuresSequence(pixel_spacing=[1.0, 1.0], slice_thickness=1.0)
    header.SharedFunctionalGroupsSequence = [groups]
    return header


def _segment(answer: Answer, kind: str, number: int, label: str, code: Code) -> hd.seg.SegmentDescription:
    def concept(code: Code) -> hd.sr.CodedConcept:
        return hd.sr.CodedConcept(code.value, code.scheme, code.meaning)

    codes, side = answer.codes, answer.source.laterality
    made = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=label,
        segmented_property_category=concept(codes["document.category"]),
        segmented_property_type=concept(code),
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            "deepmtdr", concept(codes["document.family"]), answer.report.version
        ),
        tracking_uid=answer.uid(kind, str(number)),
        tracking_id=f"{label}, image {answer.instance_number}",
        anatomic_regions=[concept(codes["place.retina"])],
    )
    if side is not None:
        made.AnatomicRegionSequence[0].AnatomicRegionModifierSequence = [concept(codes[f"place.{side}"])]
    return made
