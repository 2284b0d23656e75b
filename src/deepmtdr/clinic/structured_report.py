"""What was read, as a DICOM structured report: Comprehensive 3D SR after template TID 1500."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import highdicom as hd
from pydicom import Dataset

from deepmtdr.clinic.codes import Code
from deepmtdr.clinic.examination import reason_of
from deepmtdr.clinic.objects import Answer, neutral, settle
from deepmtdr.clinic.segments import own
from deepmtdr.terms import Grade, Lesion

LIMITS = "Research use: not a medical device. No human has read this."


def structured_report(answer: Answer, image: Dataset | None = None, lesions: Dataset | None = None) -> Dataset:
    """The report of one photograph.

    One group of measurements for the eye: grade and probabilities, or why there is none. One for each lesion type:
    number and area, with the segment that shows it.

    Args:
        answer: the photograph and what was read in it.
        image: the super-resolved image; None where the photograph was not graded.
        lesions: the segmentation on it.
    """
    groups: list[Any] = [_eye(answer)]
    if lesions is not None and image is not None:
        groups += [_lesion(answer, lesion, lesions) for lesion in Lesion]
    evidence = [neutral(one) for one in (answer.source.dataset, image, lesions) if one is not None]
    content = hd.sr.MeasurementReport(
        observation_context=_observer(answer),
        procedure_reported=concept(answer.codes["document.procedure"]),
        imaging_measurements=groups,
        title=concept(answer.codes["document.report"]),
    )
    made = hd.sr.Comprehensive3DSR(
        evidence=evidence,
        content=content,
        series_instance_uid=answer.series_uid("report"),
        series_number=9004,
        sop_instance_uid=answer.uid("report"),
        instance_number=answer.instance_number,
        manufacturer="deepmtdr",
        is_complete=True,
        is_final=False,
        is_verified=False,
    )
    made.SeriesDescription = "deepmtdr: structured report"
    made.CompletionFlagDescription = LIMITS if answer.report.status == "ok" else "The photograph was not graded."
    return settle(own(made), answer)


def concept(code: Code) -> hd.sr.CodedConcept:
    """A code as highdicom takes it."""
    return hd.sr.CodedConcept(code.value, code.scheme, code.meaning)


def _observer(answer: Answer) -> hd.sr.ObservationContext:
    report = answer.report
    device = hd.sr.DeviceObserverIdentifyingAttributes(
        uid=answer.uid("device"),
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


def _eye(answer: Answer) -> hd.sr.MeasurementsAndQualitativeEvaluations:
    """The group of the whole photograph."""
    report, codes = answer.report, answer.codes
    measured: list[tuple[str, float | None]] = [
        ("quality", report.quality),
        ("p_referable", report.p_referable),
    ]
    measured += [(f"p{grade}", p) for grade, p in enumerate(report.probabilities or ())]
    said = [("said.gradable", _yes_or_no(report.grade is not None))]
    if report.grade is not None:
        said.append((f"question.{answer.source.laterality or 'unknown'}", f"grade.{int(report.grade)}"))
        if report.grade is not Grade.NEGATIVE:
            said.append(("document.disease", f"condition.{int(report.grade)}"))
    if report.referable is not None:
        said.append(("said.referable", _yes_or_no(report.referable)))
    group = hd.sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(answer, "eye"),
        finding_type=concept(codes["document.disease"]),
        algorithm_id=_algorithm(answer),
        finding_sites=_sites(answer),
        measurements=[_measurement(answer, name, value, "one") for name, value in measured if value is not None],
        qualitative_evaluations=[
            hd.sr.QualitativeEvaluation(name=concept(codes[name]), value=concept(codes[value])) for name, value in said
        ],
        source_images=[hd.sr.SourceImageForMeasurementGroup.from_source_image(neutral(answer.source.dataset))],
    )
    texts = [("said.reader", reason) for reason in report.for_reader]
    if report.grade is None:
        texts.append(("said.reason", reason_of(report)))
    for name, text in texts:
        group[0].ContentSequence.append(
            hd.sr.TextContentItem(concept(codes[name]), text, hd.sr.RelationshipTypeValues.CONTAINS)
        )
    return group


def _lesion(answer: Answer, lesion: Lesion, lesions: Dataset) -> Any:
    """The group of a lesion type; only what was found has a segment to be shown."""
    report, codes = answer.report, answer.codes
    count, area = (report.counts or {}).get(lesion, 0), (report.areas or {}).get(lesion, 0.0)
    shared: dict[str, Any] = {
        "tracking_identifier": _tracking(answer, lesion.name),
        "finding_type": concept(codes[f"lesion.{lesion.name}"]),
        "finding_category": concept(codes["document.category"]),
        "algorithm_id": _algorithm(answer),
        "finding_sites": _sites(answer),
        "measurements": [
            _measurement(answer, "count", count, "one"),
            _measurement(answer, "area", round(area, 5), "share"),
        ],
    }
    if not count:
        return hd.sr.MeasurementsAndQualitativeEvaluations(**shared)
    segment = hd.sr.ReferencedSegmentationFrame.from_segmentation(lesions, segment_number=int(lesion) + 1)
    for item in segment:  # the segment is one frame, and the image has no more: to number them is not allowed
        del item.ReferencedSOPSequence[0].ReferencedFrameNumber
    return hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations(referenced_segment=segment, **shared)


def _measurement(answer: Answer, name: str, value: float | int, unit: str) -> hd.sr.Measurement:
    codes = answer.codes
    return hd.sr.Measurement(
        concept(codes[f"measured.{name}"]), value=round(value, 6), unit=concept(codes[f"unit.{unit}"])
    )


def _yes_or_no(so: bool) -> str:
    return "said.yes" if so else "said.no"


def _tracking(answer: Answer, what: str) -> hd.sr.TrackingIdentifier:
    return hd.sr.TrackingIdentifier(
        uid=answer.uid("report", what), identifier=f"{what}, image {answer.instance_number}"
    )


def _algorithm(answer: Answer) -> hd.sr.AlgorithmIdentification:
    report = answer.report
    return hd.sr.AlgorithmIdentification(
        name="deepmtdr", version=report.version, parameters=[f"weights {report.weights}", report.precision]
    )


def _sites(answer: Answer) -> Sequence[hd.sr.FindingSite]:
    codes, side = answer.codes, answer.source.laterality
    laterality = None if side is None else concept(codes[f"place.{side}"])
    return [hd.sr.FindingSite(anatomic_location=concept(codes["place.retina"]), laterality=laterality)]
