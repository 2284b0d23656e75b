"""FHIR R4: a report as a transaction of a DiagnosticReport, its Observations and the Device that made them.

Everything is `preliminary`: no person has verified it. The patient, the order, the study and the photograph are named
by their identifiers alone, the patient's name is not known here. Each resource has an identifier that follows from the
photograph, the weights and the codes, and is created only where the server has none such: a repeat changes nothing.

The library's oldest edition is R4B (4.3.0). What is written here is R4 (4.0.1) as well; docs/fhir.md says how that was
judged.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from fhir.resources.R4B.annotation import Annotation
from fhir.resources.R4B.bundle import Bundle, BundleEntry, BundleEntryRequest
from fhir.resources.R4B.codeableconcept import CodeableConcept
from fhir.resources.R4B.coding import Coding
from fhir.resources.R4B.device import Device, DeviceDeviceName, DeviceVersion
from fhir.resources.R4B.diagnosticreport import DiagnosticReport
from fhir.resources.R4B.identifier import Identifier
from fhir.resources.R4B.observation import Observation, ObservationComponent, ObservationReferenceRange
from fhir.resources.R4B.quantity import Quantity
from fhir.resources.R4B.reference import Reference

from deepmtdr.dicom.codes import Codes, Namespaces
from deepmtdr.dicom.examination import RESEARCH_USE_NOTICE, Examination, check_reportable, ungradable_reason
from deepmtdr.dicom.objects import UID_NAMESPACE
from deepmtdr.screening.report import ScreeningReport
from deepmtdr.terms import Grade, Lesion

HL7 = "http://terminology.hl7.org/CodeSystem"
METHOD = "Artificial intelligence on one fundus photograph, not verified by a person"


def to_bundle(
    report: ScreeningReport, examination: Examination, codes: Codes, namespaces: Namespaces | None = None
) -> Bundle:
    """Say a report in FHIR.

    Args:
        report: of status `ok` or `ungradable`.
        examination: what it is about.
        codes: of grades, lesions and questions.
        namespaces: of the site's identifiers.

    Returns:
        A transaction. It validates, and the same arguments give the same one.

    Raises:
        ClinicError: if nothing can be said of the photograph.
    """
    check_reportable(report)
    return _Writer(report, examination, codes, namespaces or Namespaces()).bundle()


def to_json(bundle: Bundle) -> bytes:
    """The bundle as UTF-8 JSON (`application/fhir+json`), the same bytes for the same bundle."""
    return (bundle.model_dump_json(indent=2) + "\n").encode()


class _Writer:
    def __init__(self, report: ScreeningReport, examination: Examination, codes: Codes, namespaces: Namespaces) -> None:
        self.report, self.examination, self.codes, self.namespaces = report, examination, codes, namespaces
        self.entries: list[BundleEntry] = []

    def bundle(self) -> Bundle:
        self.algorithm = self._add("algorithm", self._device())
        results = [self._add("grade", self._grade())]
        results += [self._add(lesion.name, self._lesion(lesion)) for lesion in self.report.counts or ()]
        if self.report.quality is not None:
            answer = {"valueQuantity": self._quantity(self.report.quality, "one")}
            results.append(self._add("quality", self._observation(self.concept("measured.quality"), **answer)))
        if self.report.review_reasons:
            answer = {"valueString": "; ".join(self.report.review_reasons)}
            results.append(self._add("reader", self._observation(self.concept("said.reader"), **answer)))
        self._add("report", self._report(results))
        return Bundle(type="transaction", entry=self.entries)

    def _add(self, part: str, resource: Device | Observation | DiagnosticReport) -> Reference:
        """Take a resource into the bundle under its identifier."""
        report, of = self.report, self.examination
        photograph = (of.instance_uid, of.study_uid, of.issuer, of.patient_id)
        about = () if part == "algorithm" else (*photograph, report.scaling_text, report.precision)
        key = "|".join(("FHIR", part, report.version, report.weights, *about, self.codes.fingerprint))
        urn = uuid.uuid5(UID_NAMESPACE, key).urn
        resource.identifier = [Identifier(system="urn:ietf:rfc:3986", value=urn)]
        request = BundleEntryRequest(
            method="POST", url=resource.get_resource_type(), ifNoneExist=f"identifier=urn:ietf:rfc:3986|{urn}"
        )
        self.entries.append(BundleEntry(fullUrl=urn, resource=resource, request=request))
        return Reference(reference=urn, type=resource.get_resource_type())

    def _device(self) -> Device:
        versions = [("software", self.report.version), ("weights", self.report.weights)]
        return Device(
            status="active",
            type=self.concept("document.family"),
            deviceName=[DeviceDeviceName(name="deepmtdr", type="model-name")],
            version=[DeviceVersion(type=CodeableConcept(text=what), value=value) for what, value in versions if value],
            note=[Annotation(text=RESEARCH_USE_NOTICE)],
        )

    def _report(self, results: Sequence[Reference]) -> DiagnosticReport:
        examination, grade = self.examination, self.report.grade
        known = grade is not None and f"condition.{int(grade)}" in self.codes.by_name
        return DiagnosticReport(
            status="preliminary",
            category=[_hl7("v2-0074", "IMG", "Diagnostic Imaging")],
            code=self.concept("document.report", "Fundus photograph, read by a machine for diabetic retinopathy"),
            subject=self._subject(),
            basedOn=[self._order()] if examination.accession else None,
            imagingStudy=[_by_uid("ImagingStudy", examination.study_uid)],
            effectiveDateTime=_when(examination),
            result=list(results),
            conclusion=self._conclusion(),
            conclusionCode=[self.concept(f"condition.{int(grade)}")] if known and grade is not None else None,
        )

    def _conclusion(self) -> str:
        report, eye = self.report, self.examination.eye
        notice = f"{METHOD}. {RESEARCH_USE_NOTICE}."
        if report.grade is None or report.probabilities is None:
            return f"{eye}: ungradable, {ungradable_reason(report)}. No grade was given. {notice}"
        called = {True: "referable", False: "not referable", None: "no operating point"}[report.referable]
        finding = f"{self.codes[f'grade.{int(report.grade)}'].meaning}, grade {int(report.grade)} of 0 to 4"
        sure = f"probability {report.probabilities[report.grade]:.2f}"
        reader = (
            f" To be read by a person: {'; '.join(self.report.review_reasons)}." if self.report.review_reasons else ""
        )
        return f"{eye}: {finding} ({sure}); P(referable) {report.p_referable:.2f}, {called}.{reader} {notice}"

    def _grade(self) -> Observation:
        question = self.concept(f"question.{self.examination.laterality or 'unknown'}")
        report = self.report
        if report.grade is None:
            absent = _hl7(
                "data-absent-reason", "not-performed", "Not Performed", f"Ungradable: {ungradable_reason(report)}"
            )
            return self._observation(question, dataAbsentReason=absent)
        return self._observation(
            question,
            valueCodeableConcept=self.concept(f"grade.{int(report.grade)}"),
            component=[*self._probabilities(report), *self._referable(report)],
        )

    def _probabilities(self, report: ScreeningReport) -> list[ObservationComponent]:
        pairs = zip(Grade, report.probabilities or (), strict=True)
        return [self._component(f"measured.p{int(grade)}", p) for grade, p in pairs]

    def _referable(self, report: ScreeningReport) -> list[ObservationComponent]:
        """P(grade >= 2), with the operating point as the end of what is not called referable, and the call."""
        probability = self._component("measured.p_referable", report.p_referable)
        point = report.operating_point
        if point is None:
            return [probability]
        text = f"operating point: referable from here on, set for a sensitivity of {point.sensitivity:g}"
        probability.referenceRange = [ObservationReferenceRange(high=self._quantity(point.value, "one"), text=text)]
        call = ObservationComponent(code=self.concept("said.referable"), valueBoolean=report.referable)
        return [probability, call]

    def _lesion(self, lesion: Lesion) -> Observation:
        counts, areas = self.report.counts or {}, self.report.areas or {}
        count = ObservationComponent(code=self.concept("measured.count"), valueInteger=counts[lesion])
        area = [self._component("measured.area", areas[lesion], "share")] if lesion in areas else []
        concept = self.concept(f"lesion.{lesion.name}", lesion.full_name.capitalize())
        return self._observation(concept, component=[count, *area])

    def _observation(self, code: CodeableConcept, **answer: Any) -> Observation:
        examination = self.examination
        photograph = _by_uid("Media", examination.instance_uid, f"Fundus photograph {examination.device}".strip())
        return Observation(
            status="preliminary",
            category=[_hl7("observation-category", "imaging", "Imaging")],
            code=code,
            subject=self._subject(),
            effectiveDateTime=_when(examination),
            bodySite=self._site(),
            method=CodeableConcept(text=METHOD),
            device=self.algorithm,
            derivedFrom=[_by_uid("ImagingStudy", examination.study_uid), photograph],
            **answer,
        )

    def _component(self, name: str, value: float | None, unit: str = "one") -> ObservationComponent:
        assert value is not None
        return ObservationComponent(code=self.concept(name), valueQuantity=self._quantity(value, unit))

    def _quantity(self, value: float, unit: str) -> Quantity:
        code = self.codes[f"unit.{unit}"]
        exact = Decimal(f"{value:.6f}".rstrip("0").rstrip("."))
        return Quantity(value=exact, unit=code.meaning, system=self.codes.systems[code.scheme], code=code.value)

    def _site(self) -> CodeableConcept:
        """The retina; if the side is known, also as a SNOMED CT expression with the laterality (272741003)."""
        retina, side = self.codes["place.retina"], self.examination.laterality
        concept = self.concept("place.retina", f"Retina: {self.examination.eye.lower()}")
        if side is not None and {retina.scheme, self.codes[f"place.{side}"].scheme} == {"SCT"}:
            expression = f"{retina.value}:272741003={self.codes[f'place.{side}'].value}"
            concept.coding = [*(concept.coding or ()), Coding(system=self.codes.systems["SCT"], code=expression)]
        return concept

    def concept(self, name: str, text: str | None = None) -> CodeableConcept:
        """A code by its name in `codes.toml`, and its second one if it has any."""
        also = name.replace("lesion.", "also.")
        found = [self.codes[one] for one in dict.fromkeys((name, also)) if one in self.codes.by_name]
        codings = [Coding(system=self.codes.systems[c.scheme], code=c.value, display=c.meaning) for c in found]
        return CodeableConcept(coding=codings, text=text)

    def _subject(self) -> Reference | None:
        examination = self.examination
        if not examination.patient_id:  # which DICOM allows
            return None
        identifier = _identifier(examination.patient_id, self.namespaces.patient, examination.issuer)
        return Reference(type="Patient", identifier=identifier)

    def _order(self) -> Reference:
        identifier = _identifier(self.examination.accession, self.namespaces.accession)
        identifier.type = _hl7("v2-0203", "ACSN", "Accession ID")
        return Reference(type="ServiceRequest", identifier=identifier)


def _identifier(value: str, system: str, issuer: str = "") -> Identifier:
    """Under the site's URI; else under the issuer's, if that is an OID; else with the issuer in words."""
    if not system and re.fullmatch(r"[0-2](\.(0|[1-9]\d*))+", issuer):
        system = f"urn:oid:{issuer}"
    assigner = Reference(display=issuer) if issuer and not system else None
    return Identifier(system=system or None, value=value, assigner=assigner)


def _by_uid(kind: str, uid: str, display: str | None = None) -> Reference:
    return Reference(type=kind, identifier=Identifier(system="urn:dicom:uid", value=f"urn:oid:{uid}"), display=display)


def _hl7(system: str, code: str, display: str, text: str | None = None) -> CodeableConcept:
    return CodeableConcept(coding=[Coding(system=f"{HL7}/{system}", code=code, display=display)], text=text)


def _when(examination: Examination) -> Any:
    """The time of the photograph; its day alone where the zone is unknown, for FHIR has no time without one."""
    taken = examination.acquired
    return taken.date() if taken is not None and taken.tzinfo is None else taken
