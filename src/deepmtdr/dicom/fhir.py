"""FHIR R4: a report as a transaction of a DiagnosticReport, its Observations and the Device that made them.

Every resource is `preliminary`: no person has checked it. Patient, order, study and photograph are references by
identifier; the patient's name is never written. Each resource has an identifier that is derived from the photograph,
the weights, the codes and the results, and the server creates it only if it has none with that identifier. Sending a
report again therefore changes nothing.

The oldest edition that the library supports is R4B (4.3.0). The resources written here are valid R4 (4.0.1) too;
docs/fhir.md describes how that was checked.
"""

from __future__ import annotations

import hashlib
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
from deepmtdr.dicom.examination import Examination, check_reportable, ungradable_reason
from deepmtdr.dicom.objects import UID_NAMESPACE, lesion_part
from deepmtdr.labels import capitalise
from deepmtdr.screening.report import ScreeningReport
from deepmtdr.terms import RESEARCH_USE_NOTICE

HL7 = "http://terminology.hl7.org/CodeSystem"
METHOD = "Artificial intelligence on one fundus photograph, not checked by a person"


def to_bundle(
    report: ScreeningReport, examination: Examination, codes: Codes, namespaces: Namespaces | None = None
) -> Bundle:
    """Write a report as FHIR resources.

    Args:
        report: a report of status `ok` or `ungradable`.
        examination: patient, study and photograph.
        codes: codes of the report's label set.
        namespaces: URIs for the identifiers of the site.

    Returns: A valid transaction. The same arguments give the same transaction.

    Raises:
        DicomError: if no result can be written for the report, or the codes are of another label set.
    """
    check_reportable(report)
    codes.check_labels(report.labels)
    return _BundleWriter(report, examination, codes, namespaces or Namespaces()).bundle()


def to_json(bundle: Bundle) -> bytes:
    """The bundle as UTF-8 JSON (`application/fhir+json`), the same bytes for the same bundle."""
    return (bundle.model_dump_json(indent=2) + "\n").encode()


class _BundleWriter:
    def __init__(self, report: ScreeningReport, examination: Examination, codes: Codes, namespaces: Namespaces) -> None:
        self.report, self.examination, self.codes, self.namespaces = report, examination, codes, namespaces
        self.entries: list[BundleEntry] = []

    def bundle(self) -> Bundle:
        """The whole transaction."""
        self.algorithm = self._add("algorithm", self._device())
        results = [self._add("grade", self._grade())]
        results += [self._add(lesion_part(code), self._lesion(code)) for code in self.report.counts or ()]
        if self.report.quality is not None:
            quality = self._observation(self.concept("measured.quality"))
            quality.valueQuantity = self._quantity(self.report.quality, "one")
            results.append(self._add("quality", quality))
        if self.report.review_reasons:
            reader = self._observation(self.concept("said.reader"))
            reader.valueString = "; ".join(self.report.review_reasons)
            results.append(self._add("reader", reader))
        self._add("report", self._report(results))
        return Bundle(type="transaction", entry=self.entries)

    def _add(self, part: str, resource: Device | Observation | DiagnosticReport) -> Reference:
        """Add a resource to the bundle, with an identifier derived from its part of the report and from its content.

        The algorithm is the same for all photographs. The URIs of `Namespaces` and of coding schemes are not part of
        the identifier: a corrected URI does not make a second resource for the same finding.
        """
        report, about = self.report, self.examination
        names = ["FHIR", part, report.version, report.weights]
        if part != "algorithm":
            names += [about.instance_uid, about.study_uid, about.issuer, about.patient_id]
            names.append(_content_digest(report, about))
            names += [report.scaling_text, report.settings_text]
        key = "|".join((*names, self.codes.fingerprint))
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
        examination, grade, disease = self.examination, self.report.grade, self.report.labels.disease
        condition = "" if grade is None else f"condition.{grade:d}"
        return DiagnosticReport(
            status="preliminary",
            category=[_hl7("v2-0074", "IMG", "Diagnostic Imaging")],
            code=self.concept("document.report", f"Fundus photograph, graded automatically for {disease}"),
            subject=self._subject(),
            basedOn=[self._order()] if examination.accession else None,
            imagingStudy=[_by_uid("ImagingStudy", examination.study_uid)],
            effectiveDateTime=_fhir_time(examination),
            result=list(results),
            conclusion=self._conclusion(),
            conclusionCode=[self.concept(condition)] if condition in self.codes.by_name else None,
        )

    def _conclusion(self) -> str:
        report, eye = self.report, self.examination.eye
        notice = f"{METHOD}. {RESEARCH_USE_NOTICE}."
        if report.grade is None or report.probabilities is None:
            return f"{eye}: ungradable, {ungradable_reason(report)}. No grade was given. {notice}"
        called = {True: "referable", False: "not referable", None: "no operating point"}[report.referable]
        scale = f"grade {report.grade:d} of 0 to {len(report.labels.grades) - 1}"
        finding = f"{self.codes[f'grade.{report.grade:d}'].meaning}, {scale}"
        probability = f"probability {report.probabilities[report.grade]:.2f}"
        probability += f"; {report.decision_text}" if report.decision_text else ""
        reasons = "; ".join(report.review_reasons)
        review = f" A person must check this photograph: {reasons}." if reasons else ""
        return f"{eye}: {finding} ({probability}); P(referable) {report.p_referable:.2f}, {called}.{review} {notice}"

    def _grade(self) -> Observation:
        """Observation of the grade with all probabilities, or with the reason why there is no grade."""
        report = self.report
        observation = self._observation(self.concept(f"question.{self.examination.laterality or 'unknown'}"))
        if report.grade is None:
            reason = f"Ungradable: {ungradable_reason(report)}"
            observation.dataAbsentReason = _hl7("data-absent-reason", "not-performed", "Not Performed", reason)
            return observation
        observation.valueCodeableConcept = self.concept(f"grade.{report.grade:d}")
        probabilities = [self._component(f"measured.p{grade}", p) for grade, p in enumerate(report.probabilities or ())]
        observation.component = [*probabilities, *self._referable()]
        return observation

    def _referable(self) -> list[ObservationComponent]:
        """Components for the probability of referable disease and, if there is an operating point, point and decision.

        The operating point is the upper end of the range that is not called referable.
        """
        probability = self._component("measured.p_referable", self.report.p_referable)
        point = self.report.operating_point
        if point is None:
            return [probability]
        text = (
            "operating point: a photograph is called referable from this probability on; "
            f"chosen for a sensitivity of {point.sensitivity:g}"
        )
        probability.referenceRange = [ObservationReferenceRange(high=self._quantity(point.value, "one"), text=text)]
        call = ObservationComponent(code=self.concept("said.referable"), valueBoolean=self.report.referable)
        return [probability, call]

    def _lesion(self, code: str) -> Observation:
        """Observation of the number and area of a lesion type."""
        counts, areas = self.report.counts or {}, self.report.areas or {}
        count = ObservationComponent(code=self.concept("measured.count"), valueInteger=counts[code])
        area = [self._component("measured.area", areas[code], "share")] if code in areas else []
        name = capitalise(self.report.labels.lesion(code).name)
        observation = self._observation(self.concept(f"lesion.{code}", name))
        observation.component = [count, *area]
        return observation

    def _observation(self, code: CodeableConcept) -> Observation:
        """Create an observation of the photograph, without a value."""
        examination = self.examination
        photograph = _by_uid("Media", examination.instance_uid, f"Fundus photograph {examination.device}".strip())
        return Observation(
            status="preliminary",
            category=[_hl7("observation-category", "imaging", "Imaging")],
            code=code,
            subject=self._subject(),
            effectiveDateTime=_fhir_time(examination),
            bodySite=self._site(),
            method=CodeableConcept(text=METHOD),
            device=self.algorithm,
            derivedFrom=[_by_uid("ImagingStudy", examination.study_uid), photograph],
        )

    def _component(self, name: str, value: float | None, unit: str = "one") -> ObservationComponent:
        assert value is not None
        return ObservationComponent(code=self.concept(name), valueQuantity=self._quantity(value, unit))

    def _quantity(self, value: float, unit: str) -> Quantity:
        code = self.codes[f"unit.{unit}"]
        exact = Decimal(f"{value:.6f}".rstrip("0").rstrip("."))
        return Quantity(value=exact, unit=code.meaning, system=self.codes.systems[code.scheme], code=code.value)

    def _site(self) -> CodeableConcept:
        """The retina; if the side is known, also a SNOMED CT expression with the laterality (272741003)."""
        retina, side = self.codes["place.retina"], self.examination.laterality
        concept = self.concept("place.retina", f"Retina: {self.examination.eye.lower()}")
        if side is not None and {retina.scheme, self.codes[f"place.{side}"].scheme} == {"SCT"}:
            expression = f"{retina.value}:272741003={self.codes[f'place.{side}'].value}"
            concept.coding = [*(concept.coding or ()), Coding(system=self.codes.systems["SCT"], code=expression)]
        return concept

    def concept(self, name: str, text: str | None = None) -> CodeableConcept:
        """Create the concept of a code, with its second code if it has one."""
        also = name.replace("lesion.", "also.")
        found = [self.codes[one] for one in dict.fromkeys((name, also)) if one in self.codes.by_name]
        codings = [Coding(system=self.codes.systems[c.scheme], code=c.value, display=c.meaning) for c in found]
        return CodeableConcept(coding=codings, text=text)

    def _subject(self) -> Reference | None:
        examination = self.examination
        if not examination.patient_id:  # DICOM allows an empty one
            return None
        identifier = _identifier(examination.patient_id, self.namespaces.patient, examination.issuer)
        return Reference(type="Patient", identifier=identifier)

    def _order(self) -> Reference:
        identifier = _identifier(self.examination.accession, self.namespaces.accession)
        identifier.type = _hl7("v2-0203", "ACSN", "Accession ID")
        return Reference(type="ServiceRequest", identifier=identifier)


def _content_digest(report: ScreeningReport, examination: Examination) -> str:
    """Compute a digest of everything that the resources of a report contain, and of the photograph's file.

    Another processor or number of threads may change the last digits of a result. It then has other identifiers:
    resources with the same identifier are equal.
    """
    counts, areas = (sorted((values or {}).items()) for values in (report.counts, report.areas))
    findings = (report.status, report.grade, report.probabilities, counts, areas, report.quality)
    decision = (report.grade_thresholds, report.operating_point, report.review_reasons, ungradable_reason(report))
    return hashlib.sha256(repr((report.sha256, findings, decision, examination)).encode()).hexdigest()


def _identifier(value: str, system: str, issuer: str = "") -> Identifier:
    """Create an identifier under the site's URI, else under the issuer if it is an OID, else with the issuer's name."""
    if not system and re.fullmatch(r"[0-2](\.(0|[1-9]\d*))+", issuer):
        system = f"urn:oid:{issuer}"
    assigner = Reference(display=issuer) if issuer and not system else None
    return Identifier(system=system or None, value=value, assigner=assigner)


def _by_uid(kind: str, uid: str, display: str | None = None) -> Reference:
    return Reference(type=kind, identifier=Identifier(system="urn:dicom:uid", value=f"urn:oid:{uid}"), display=display)


def _hl7(system: str, code: str, display: str, text: str | None = None) -> CodeableConcept:
    return CodeableConcept(coding=[Coding(system=f"{HL7}/{system}", code=code, display=display)], text=text)


def _fhir_time(examination: Examination) -> Any:
    """The time of the photograph; only the day if the time zone is unknown, since a FHIR time must have a time zone.

    The library takes a day too, although it declares the parameter as a datetime.
    """
    acquired = examination.acquired
    return acquired.date() if acquired is not None and acquired.tzinfo is None else acquired
