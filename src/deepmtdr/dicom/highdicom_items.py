"""Items for highdicom, in segmentations and in the structured report: codes, retina and side, algorithm."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import highdicom as hd
from pydicom import Dataset

from deepmtdr.dicom.attributes import PATIENT_ATTRIBUTES, STUDY_ATTRIBUTES
from deepmtdr.dicom.codes import Code
from deepmtdr.dicom.objects import IMPLEMENTATION_UID, PRODUCT, TYPE_2_ATTRIBUTES, DicomResult


def coded_concept(code: Code) -> hd.sr.CodedConcept:
    """Convert a code to the type of highdicom."""
    return hd.sr.CodedConcept(code.value, code.scheme, code.meaning)


def finding_sites(result: DicomResult) -> Sequence[hd.sr.FindingSite]:
    """Create the item for the retina, with the side if it is known, for the structured report."""
    codes, side = result.codes, result.source.laterality
    laterality = None if side is None else coded_concept(codes[f"place.{side}"])
    return [hd.sr.FindingSite(anatomic_location=coded_concept(codes["place.retina"]), laterality=laterality)]


def segment_algorithm(result: DicomResult) -> hd.AlgorithmIdentificationSequence:
    """Create the item for the algorithm of a segment."""
    family = coded_concept(result.codes["document.family"])
    return hd.AlgorithmIdentificationSequence(PRODUCT, family, result.report.version)


def report_algorithm(result: DicomResult) -> hd.sr.AlgorithmIdentification:
    """Create the item for the algorithm with its weights, for the structured report."""
    report = result.report
    return hd.sr.AlgorithmIdentification(
        name=PRODUCT, version=report.version, parameters=[f"weights {report.weights}", report.settings_text]
    )


def normalise_highdicom_object(dataset: Dataset) -> Dataset:
    """Remove the time of creation from an object that highdicom made, and set this project's implementation UID.

    Args:
        dataset: the object; it is changed.

    Returns:
        The object.
    """
    for item in dataset.get("ContributingEquipmentSequence", ()):
        if "ContributionDateTime" in item:
            del item.ContributionDateTime
    dataset.file_meta.ImplementationClassUID = IMPLEMENTATION_UID
    del dataset.file_meta.ImplementationVersionName
    return dataset


def without_patient(dataset: Dataset) -> Dataset:
    """Copy an image's header without patient and study attributes, as input of highdicom.

    highdicom accepts fewer character sets and values than a photograph may have. `set_common_attributes` sets the true
    values afterwards.

    Args:
        dataset: a photograph, or an image made from it; the data set is not changed.
    """
    header = Dataset()
    for element in dataset:
        if element.keyword not in ("PixelData", "SpecificCharacterSet", *PATIENT_ATTRIBUTES, *STUDY_ATTRIBUTES):
            header.add(copy.deepcopy(element))
    header.StudyInstanceUID = dataset.StudyInstanceUID
    for keyword in TYPE_2_ATTRIBUTES:
        setattr(header, keyword, "")
    header.setdefault("Modality", "OP")
    header.setdefault("Rows", 1)
    header.setdefault("Columns", 1)
    return header
