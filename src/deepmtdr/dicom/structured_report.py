"""The report of a photograph as a DICOM structured report: Comprehensive 3D SR, template TID 1500."""

from __future__ import annotations

from typing import NamedTuple

import highdicom as hd
from pydicom import Dataset

from deepmtdr.dicom.examination import ungradable_reason
from deepmtdr.dicom.highdicom_items import (
    coded_concept,
    finding_sites,
    normalise_highdicom_object,
    report_algorithm,
    without_patient,
)
from deepmtdr.dicom.objects import PRODUCT, DicomResult, ObjectKind, lesion_part, set_common_attributes
from deepmtdr.terms import RESEARCH_USE_NOTICE

COMPLETION_NOTE = f"{RESEARCH_USE_NOTICE}. Not checked by a person."
NOT_GRADED_NOTE = "The photograph was not graded."

MeasurementGroup = hd.sr.MeasurementsAndQualitativeEvaluations | hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations


class CodedAnswer(NamedTuple):
    """A question and its answer, as names in `codes.toml`."""

    question: str
    answer: str


def create_structured_report(
    result: DicomResult, image: Dataset | None = None, lesions: Dataset | None = None
) -> Dataset:
    """Create the structured report of one photograph.

    The first group of measurements is about the eye: grade and probabilities, or the reason why there is no grade. Then
    follows one group for each lesion type: number and area, with a reference to the segment.

    Args:
        result: photograph and report.
        image: the super-resolved image; None if the photograph was not graded.
        lesions: the lesion segmentation of that image; None if there is no image.
    """
    groups: list[MeasurementGroup] = [_eye_group(result)]
    if lesions is not None and image is not None:
        groups += [_lesion_group(result, code, lesions) for code in result.report.labels.codes]
    created = hd.sr.Comprehensive3DSR(
        evidence=[without_patient(one) for one in (result.source.dataset, image, lesions) if one is not None],
        content=hd.sr.MeasurementReport(
            observation_context=_observer(result),
            procedure_reported=coded_concept(result.codes["document.procedure"]),
            imaging_measurements=groups,
            title=coded_concept(result.codes["document.report"]),
        ),
        series_instance_uid=result.series_uid(ObjectKind.REPORT),
        series_number=ObjectKind.REPORT.series_number,
        sop_instance_uid=result.uid(ObjectKind.REPORT),
        instance_number=result.instance_number,
        manufacturer=PRODUCT,
        is_complete=True,
        is_final=False,
        is_verified=False,
    )
    created.SeriesDescription = "deepmtdr: structured report"
    created.CompletionFlagDescription = COMPLETION_NOTE if result.report.status == "ok" else NOT_GRADED_NOTE
    return set_common_attributes(normalise_highdicom_object(created), result)


def _observer(result: DicomResult) -> hd.sr.ObservationContext:
    report = result.report
    device = hd.sr.DeviceObserverIdentifyingAttributes(
        uid=result.uid("device"),
        name=PRODUCT,
        manufacturer_name=PRODUCT,
        model_name=f"{PRODUCT} {report.version}",
        serial_number=report.weights,
    )
    return hd.sr.ObservationContext(
        observer_device_context=hd.sr.ObserverContext(
            observer_type=hd.sr.CodedConcept("121007", "DCM", "Device"), observer_identifying_attributes=device
        )
    )


def _eye_group(result: DicomResult) -> hd.sr.MeasurementsAndQualitativeEvaluations:
    """Create the group of measurements of the whole photograph."""
    report, codes = result.report, result.codes
    measured: list[tuple[str, float | None]] = [("quality", report.quality), ("p_referable", report.p_referable)]
    measured += [(f"p{grade}", probability) for grade, probability in enumerate(report.probabilities or ())]
    group = hd.sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(result, "eye"),
        finding_type=coded_concept(codes["document.disease"]),
        algorithm_id=report_algorithm(result),
        finding_sites=finding_sites(result),
        measurements=[_measurement(result, name, value, "one") for name, value in measured if value is not None],
        qualitative_evaluations=[
            hd.sr.QualitativeEvaluation(name=coded_concept(codes[one.question]), value=coded_concept(codes[one.answer]))
            for one in _answers(result)
        ],
        source_images=[hd.sr.SourceImageForMeasurementGroup.from_source_image(without_patient(result.source.dataset))],
    )
    texts = [("said.reader", reason) for reason in report.review_reasons]
    if report.grade is None:
        texts.append(("said.reason", ungradable_reason(report)))
    for name, text in texts:
        group[0].ContentSequence.append(
            hd.sr.TextContentItem(coded_concept(codes[name]), text, hd.sr.RelationshipTypeValues.CONTAINS)
        )
    return group


def _answers(result: DicomResult) -> list[CodedAnswer]:
    """Create the answers: gradable or not, the grade, the diagnosis if there is one, and referable or not."""
    report = result.report
    answers = [CodedAnswer("said.gradable", _yes_or_no(report.grade is not None))]
    if report.grade is not None:
        answers.append(CodedAnswer(f"question.{result.source.laterality or 'unknown'}", f"grade.{report.grade:d}"))
        if (condition := f"condition.{report.grade:d}") in result.codes.by_name:
            answers.append(CodedAnswer("document.disease", condition))
    if report.referable is not None:
        answers.append(CodedAnswer("said.referable", _yes_or_no(report.referable)))
    return answers


def _lesion_group(result: DicomResult, code: str, lesions: Dataset) -> MeasurementGroup:
    """Create the group of measurements of a lesion type, which refers to a segment only if a lesion was found."""
    report, codes = result.report, result.codes
    count, area = (report.counts or {}).get(code, 0), (report.areas or {}).get(code, 0.0)
    tracking = _tracking(result, lesion_part(code))
    finding, category = coded_concept(codes[f"lesion.{code}"]), coded_concept(codes["document.category"])
    algorithm, sites = report_algorithm(result), finding_sites(result)
    measurements = [
        _measurement(result, "count", count, "one"),
        _measurement(result, "area", round(area, 5), "share"),
    ]
    if not count:
        return hd.sr.MeasurementsAndQualitativeEvaluations(
            tracking_identifier=tracking,
            finding_type=finding,
            finding_category=category,
            algorithm_id=algorithm,
            finding_sites=sites,
            measurements=measurements,
        )
    return hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=tracking,
        referenced_segment=_segment_reference(lesions, report.labels.channel(code) + 1),
        finding_type=finding,
        finding_category=category,
        algorithm_id=algorithm,
        finding_sites=sites,
        measurements=measurements,
    )


def _segment_reference(lesions: Dataset, number: int) -> hd.sr.ReferencedSegmentationFrame:
    segment = hd.sr.ReferencedSegmentationFrame.from_segmentation(lesions, segment_number=number)
    for item in segment:  # segment and image have one frame each, and DICOM does not allow a frame number then
        del item.ReferencedSOPSequence[0].ReferencedFrameNumber
    return segment


def _measurement(result: DicomResult, name: str, value: float | int, unit: str) -> hd.sr.Measurement:
    codes = result.codes
    return hd.sr.Measurement(
        coded_concept(codes[f"measured.{name}"]), value=round(value, 6), unit=coded_concept(codes[f"unit.{unit}"])
    )


def _yes_or_no(answer: bool) -> str:
    return "said.yes" if answer else "said.no"


def _tracking(result: DicomResult, part: str) -> hd.sr.TrackingIdentifier:
    return hd.sr.TrackingIdentifier(
        uid=result.uid(ObjectKind.REPORT, part), identifier=f"{part}, image {result.instance_number}"
    )
