"""What was read, as a DICOM structured report: Comprehensive 3D SR after template TID 1500."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import highdicom as hd
from pydicom import Dataset

from deepmtdr.dicom.codes import Code
from deepmtdr.dicom.examination import ungradable_reason
from deepmtdr.dicom.objects import DicomResult, set_common_attributes, without_patient
from deepmtdr.dicom.segmentations import normalise_highdicom_object
from deepmtdr.terms import Grade, Lesion

DISCLAIMER = "Research use: not a medical device. No human has read this."


def create_structured_report(
    result: DicomResult, image: Dataset | None = None, lesions: Dataset | None = None
) -> Dataset:
    """The report of one photograph.

    One group of measurements for the eye: grade and probabilities, or why there is none. One for each lesion type:
    number and area, with the segment that shows it.

    Args:
        result: the photograph and what was read in it.
        image: the super-resolved image; None where the photograph was not graded.
        lesions: the segmentation on it.
    """
    groups: list[Any] = [_eye(result)]
    if lesions is not None and image is not None:
        groups += [_lesion(result, lesion, lesions) for lesion in Lesion]
    evidence = [without_patient(one) for one in (result.source.dataset, image, lesions) if one is not None]
    content = hd.sr.MeasurementReport(
        observation_context=_observer(result),
        procedure_reported=concept(result.codes["document.procedure"]),
        imaging_measurements=groups,
        title=concept(result.codes["document.report"]),
    )
    made = hd.sr.Comprehensive3DSR(
        evidence=evidence,
        content=content,
        series_instance_uid=result.series_uid("report"),
        series_number=9004,
        sop_instance_uid=result.uid("report"),
        instance_number=result.instance_number,
        manufacturer="deepmtdr",
        is_complete=True,
        is_final=False,
        is_verified=False,
    )
    made.SeriesDescription = "deepmtdr: structured report"
    made.CompletionFlagDescription = DISCLAIMER if result.report.status == "ok" else "The photograph was not graded."
    return set_common_attributes(normalise_highdicom_object(made), result)


def concept(code: Code) -> hd.sr.CodedConcept:
    """A code as highdicom takes it."""
    return hd.sr.CodedConcept(code.value, code.scheme, code.meaning)


def _observer(result: DicomResult) -> hd.sr.ObservationContext:
    report = result.report
    device = hd.sr.DeviceObserverIdentifyingAttributes(
        uid=result.uid("device"),
        name="deepmtdr",
        manufacturer_name="deepmtdr",
        model_name=f"deepmtdr {report.version}",
        serial_number=report.weights,
    )
    return hd.sr.ObservationContext(
        observer_device_context=hd.sr.ObserverContext(
            observer_type=hd.sr.CodedConcept("121007", "DCM", "Device"), observer_identifying_attributes=device
        )
    )


def _eye(result: DicomResult) -> hd.sr.MeasurementsAndQualitativeEvaluations:
    """The group of the whole photograph."""
    report, codes = result.report, result.codes
    measured: list[tuple[str, float | None]] = [
        ("quality", report.quality),
        ("p_referable", report.p_referable),
    ]
    measured += [(f"p{grade}", p) for grade, p in enumerate(report.probabilities or ())]
    said = [("said.gradable", _yes_or_no(report.grade is not None))]
    if report.grade is not None:
        said.append((f"question.{result.source.laterality or 'unknown'}", f"grade.{int(report.grade)}"))
        if report.grade is not Grade.NEGATIVE:
            said.append(("document.disease", f"condition.{int(report.grade)}"))
    if report.referable is not None:
        said.append(("said.referable", _yes_or_no(report.referable)))
    group = hd.sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(result, "eye"),
        finding_type=concept(codes["document.disease"]),
        algorithm_id=_algorithm(result),
        finding_sites=_sites(result),
        measurements=[_measurement(result, name, value, "one") for name, value in measured if value is not None],
        qualitative_evaluations=[
            hd.sr.QualitativeEvaluation(name=concept(codes[name]), value=concept(codes[value])) for name, value in said
        ],
        source_images=[hd.sr.SourceImageForMeasurementGroup.from_source_image(without_patient(result.source.dataset))],
    )
    texts = [("said.reader", reason) for reason in report.review_reasons]
    if report.grade is None:
        texts.append(("said.reason", ungradable_reason(report)))
    for name, text in texts:
        group[0].ContentSequence.append(
            hd.sr.TextContentItem(concept(codes[name]), text, hd.sr.RelationshipTypeValues.CONTAINS)
        )
    return group


def _lesion(result: DicomResult, lesion: Lesion, lesions: Dataset) -> Any:
    """The group of a lesion type; only what was found has a segment to be shown."""
    report, codes = result.report, result.codes
    count, area = (report.counts or {}).get(lesion, 0), (report.areas or {}).get(lesion, 0.0)
    shared: dict[str, Any] = {
        "tracking_identifier": _tracking(result, lesion.name),
        "finding_type": concept(codes[f"lesion.{lesion.name}"]),
        "finding_category": concept(codes["document.category"]),
        "algorithm_id": _algorithm(result),
        "finding_sites": _sites(result),
        "measurements": [
            _measurement(result, "count", count, "one"),
            _measurement(result, "area", round(area, 5), "share"),
        ],
    }
    if not count:
        return hd.sr.MeasurementsAndQualitativeEvaluations(**shared)
    segment = hd.sr.ReferencedSegmentationFrame.from_segmentation(lesions, segment_number=int(lesion) + 1)
    for item in segment:  # the segment is one frame, and the image has no more: to number them is not allowed
        del item.ReferencedSOPSequence[0].ReferencedFrameNumber
    return hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations(referenced_segment=segment, **shared)


def _measurement(result: DicomResult, name: str, value: float | int, unit: str) -> hd.sr.Measurement:
    codes = result.codes
    return hd.sr.Measurement(
        concept(codes[f"measured.{name}"]), value=round(value, 6), unit=concept(codes[f"unit.{unit}"])
    )


def _yes_or_no(so: bool) -> str:
    return "said.yes" if so else "said.no"


def _tracking(result: DicomResult, what: str) -> hd.sr.TrackingIdentifier:
    return hd.sr.TrackingIdentifier(
        uid=result.uid("report", what), identifier=f"{what}, image {result.instance_number}"
    )


def _algorithm(result: DicomResult) -> hd.sr.AlgorithmIdentification:
    report = result.report
    return hd.sr.AlgorithmIdentification(
        name="deepmtdr", version=report.version, parameters=[f"weights {report.weights}", report.precision]
    )


def _sites(result: DicomResult) -> Sequence[hd.sr.FindingSite]:
    codes, side = result.codes, result.source.laterality
    laterality = None if side is None else concept(codes[f"place.{side}"])
    return [hd.sr.FindingSite(anatomic_location=concept(codes["place.retina"]), laterality=laterality)]
