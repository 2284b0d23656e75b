"""FHIR: the resources of a graded and of an ungradable photograph, and what they never contain."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from fhir.resources.R4B.bundle import Bundle
from fhir.resources.R4B.observation import Observation

from deepmtdr.dicom.codes import Namespaces, load_codes
from deepmtdr.dicom.examination import Examination
from deepmtdr.dicom.fhir import to_bundle, to_json
from deepmtdr.errors import DicomError
from deepmtdr.screening.report import ScreeningReport
from dicom_objects import make_report
from dicom_reports import glaucoma_report, graded_report, make_examination, ungradable_report


def sent(
    report: ScreeningReport, about: Examination | None = None, namespaces: Namespaces | None = None
) -> dict[str, Any]:
    """The bundle as a server receives it."""
    codes = load_codes(labels=report.labels)
    return json.loads(to_json(to_bundle(report, about or make_examination(), codes, namespaces)))


def resources(bundle: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [e["resource"] for e in bundle["entry"] if e["resource"]["resourceType"] == kind]


def code_of(concept: dict[str, Any]) -> str:
    return concept["coding"][0]["code"]


def by_code(bundle: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {code_of(one["code"]): one for one in resources(bundle, "Observation")}


def inside(node: Any, key: str) -> Iterator[Any]:
    """Every value under a key, at any depth."""
    for name, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        if name == key:
            yield value
        yield from inside(value, key)


def test_the_grade_is_a_loinc_answer_with_all_probabilities() -> None:
    observation = by_code(sent(graded_report()))["71491-5"]
    assert code_of(observation["valueCodeableConcept"]) == "LA18645-4"
    assert "dataAbsentReason" not in observation
    components = {code_of(one["code"]): one for one in observation["component"]}
    values = {name: one["valueQuantity"]["value"] for name, one in components.items() if "valueQuantity" in one}
    assert values == {"p0": 0.05, "p1": 0.15, "p2": 0.6, "p3": 0.15, "p4": 0.05, "p_referable": 0.8}
    point = components["p_referable"]["referenceRange"][0]
    assert point["high"]["value"] == 0.3125 and "sensitivity of 0.9" in point["text"]
    assert components["referable"]["valueBoolean"] is True
    assert "Artificial intelligence" in observation["method"]["text"]
    assert [one["code"] for one in observation["bodySite"]["coding"]] == ["5665001", "5665001:272741003=24028007"]


def test_without_an_operating_point_there_is_no_referable_component() -> None:
    observation = by_code(sent(graded_report(operating_point=None)))["71491-5"]
    assert [code_of(one["code"]) for one in observation["component"]] == ["p0", "p1", "p2", "p3", "p4", "p_referable"]
    assert "referenceRange" not in observation["component"][-1]


@pytest.mark.parametrize(("side", "question"), [("L", "71490-7"), ("R", "71491-5"), (None, "severity")])
def test_each_side_and_an_unknown_side_have_their_own_question(side: str | None, question: str) -> None:
    observation = by_code(sent(graded_report(), make_examination(laterality=side)))[question]
    assert len(observation["bodySite"]["coding"]) == (1 if side is None else 2)


def test_each_lesion_type_has_its_count_and_area() -> None:
    observations = by_code(sent(graded_report()))
    found = [observations[code]["component"] for code in ("25412000", "28998008", "EX", "SE")]
    assert [count["valueInteger"] for count, _ in found] == [3, 1, 2, 0]
    assert [area["valueQuantity"]["value"] for _, area in found] == [0.02, 1.5, 0.25, 0]
    assert {area["valueQuantity"]["code"] for _, area in found} == {"%"}
    assert [one["code"] for one in observations["SE"]["code"]["coding"]] == ["SE", "HP:0031606"]


def test_an_ungradable_photograph_has_a_reason_and_no_grade() -> None:
    bundle = sent(ungradable_report())
    (observation,) = resources(bundle, "Observation")
    assert code_of(observation["dataAbsentReason"]) == "not-performed"
    assert observation["dataAbsentReason"]["text"].startswith("Ungradable: too dark")
    assert not [name for name in observation if name.startswith("value") or name == "component"]
    (report,) = resources(bundle, "DiagnosticReport")
    assert "ungradable, too dark" in report["conclusion"] and "No grade was given" in report["conclusion"]
    assert "conclusionCode" not in report


def test_quality_and_review_reasons_are_sent_if_the_report_has_them() -> None:
    assert not {"quality", "reader"} & set(by_code(sent(graded_report())))
    bundle = sent(graded_report(quality=0.75, review_reasons=("low confidence", "poor quality")))
    assert by_code(bundle)["quality"]["valueQuantity"]["value"] == 0.75
    assert by_code(bundle)["reader"]["valueString"] == "low confidence; poor quality"
    assert (
        "A person must check this photograph: low confidence" in resources(bundle, "DiagnosticReport")[0]["conclusion"]
    )


def test_the_report_is_marked_as_not_checked_and_names_the_weights() -> None:
    bundle = sent(graded_report())
    (report,) = resources(bundle, "DiagnosticReport")
    assert {one["status"] for one in [report, *resources(bundle, "Observation")]} == {"preliminary"}
    assert "not a medical device" in report["conclusion"]
    assert "Right eye: Moderate non-proliferative retinopathy, grade 2" in report["conclusion"]
    assert code_of(report["conclusionCode"][0]) == "312904009"
    (device,) = resources(bundle, "Device")
    assert [one["value"] for one in device["version"]] == ["1.2", "w-0123456789ab"]


@pytest.mark.parametrize("report", [graded_report(), ungradable_report()], ids=["graded", "ungradable"])
def test_every_reference_is_in_the_bundle_or_an_identifier(report: ScreeningReport) -> None:
    bundle = sent(report)
    urls = {entry["fullUrl"]: entry["resource"]["resourceType"] for entry in bundle["entry"]}
    assert len(urls) == len(bundle["entry"])
    named = [
        one
        for key in ("subject", "device", "derivedFrom", "result", "imagingStudy", "basedOn")
        for value in inside(bundle, key)
        for one in (value if isinstance(value, list) else [value])
    ]
    assert len(named) > 5
    assert all(urls[one["reference"]] == one["type"] if "reference" in one else one["identifier"] for one in named)
    assert len(resources(bundle, "DiagnosticReport")[0]["result"]) == len(resources(bundle, "Observation"))


def test_a_bundle_can_be_read_back() -> None:
    bundle = to_bundle(graded_report(), make_examination(), load_codes())
    assert to_json(Bundle.model_validate_json(to_json(bundle))) == to_json(bundle)


def test_a_repeat_gives_the_same_bytes_and_creates_nothing() -> None:
    first, again = (to_json(to_bundle(graded_report(), make_examination(), load_codes())) for _ in range(2))
    assert first == again
    for entry in json.loads(first)["entry"]:
        system, value = entry["resource"]["identifier"][0].values()
        assert entry["request"]["ifNoneExist"] == f"identifier={system}|{value}"
        assert entry["fullUrl"] == value


def test_other_weights_or_another_photograph_are_other_resources() -> None:
    def urls(*arguments: Any) -> set[str]:
        return {entry["fullUrl"] for entry in sent(*arguments)["entry"]}

    assert not urls(graded_report()) & urls(graded_report(weights="v1-ffff"))
    other = urls(graded_report()) & urls(graded_report(), make_examination(instance_uid="2.25.4"))
    assert len(other) == 1  # the algorithm


@pytest.mark.parametrize(
    "changes",
    [
        {"probabilities": (0.05, 0.15, 0.600001, 0.149999, 0.05)},
        {"counts": {"MA": 4, "HE": 1, "EX": 2, "SE": 0}},
        {"sha256": "of another file"},
    ],
)
def test_another_result_of_the_same_photograph_is_other_resources(changes: dict[str, Any]) -> None:
    """A server keeps only the first of two resources with the same identifier."""
    once, again = (
        {e["fullUrl"] for e in sent(report)["entry"]} for report in (graded_report(), graded_report(**changes))
    )
    assert len(once & again) == 1  # the algorithm


def test_a_corrected_order_number_is_other_resources() -> None:
    once, again = (
        {e["fullUrl"] for e in sent(graded_report(), make_examination(accession=number))["entry"]}
        for number in ("A-17", "A-18")
    )
    assert len(once & again) == 1


@pytest.mark.parametrize(
    "report", [graded_report(), ungradable_report("Müller^Hans 1950.dcm is poor")], ids=["graded", "ungradable"]
)
def test_the_only_patient_data_is_the_identifier(report: ScreeningReport) -> None:
    text = to_json(to_bundle(report, make_examination(), load_codes())).decode()
    assert "Müller" not in text and "1950" not in text and "M\\u00fc" not in text
    for subject in inside(json.loads(text), "subject"):
        assert subject == {"type": "Patient", "identifier": {"system": "urn:oid:1.2.276.0.76", "value": "4711"}}


def test_identifiers_have_the_uri_of_the_site_or_the_name_of_the_issuer() -> None:
    spaces = Namespaces(patient="urn:site:patients", accession="urn:site:orders")
    (report,) = resources(sent(graded_report(), None, spaces), "DiagnosticReport")
    assert report["subject"]["identifier"] == {"system": "urn:site:patients", "value": "4711"}
    assert report["basedOn"][0]["identifier"]["system"] == "urn:site:orders"
    (report,) = resources(sent(graded_report(), make_examination(issuer="Haus 1", accession="")), "DiagnosticReport")
    assert report["subject"]["identifier"] == {"value": "4711", "assigner": {"display": "Haus 1"}}
    assert "basedOn" not in report
    assert "subject" not in resources(sent(graded_report(), make_examination(patient_id="")), "DiagnosticReport")[0]


def test_a_time_without_a_zone_is_sent_as_a_date() -> None:
    def time_of(acquired: datetime | None) -> str | None:
        return resources(sent(graded_report(), make_examination(acquired=acquired)), "DiagnosticReport")[0].get(
            "effectiveDateTime"
        )

    assert time_of(datetime(2024, 5, 1, 10)) == "2024-05-01"
    assert time_of(datetime(2024, 5, 1, 10, tzinfo=UTC)) in ("2024-05-01T10:00:00Z", "2024-05-01T10:00:00+00:00")
    assert time_of(None) is None


def test_a_file_that_was_not_decoded_is_refused() -> None:
    with pytest.raises(DicomError, match="status error, expected ok or ungradable"):
        sent(make_report("error"))


def test_the_example_in_the_docs_has_the_form_of_a_sent_resource(root: Path) -> None:
    (block,) = re.findall(r"```json\n(.*?)```", (root / "docs" / "fhir.md").read_text("utf-8"), re.DOTALL)
    shown, made = json.loads(block), by_code(sent(graded_report()))["71491-5"]
    Observation.model_validate(shown)
    assert set(shown) == set(made)
    for name in ("status", "category", "code", "subject", "effectiveDateTime", "bodySite", "method", "derivedFrom"):
        assert shown[name] == made[name]
    assert set(shown["component"][0]["valueQuantity"]) == set(made["component"][0]["valueQuantity"])


def test_resources_follow_the_label_set() -> None:
    bundle = sent(glaucoma_report())
    (report,) = resources(bundle, "DiagnosticReport")
    assert report["code"]["text"] == "Fundus photograph, graded automatically for glaucoma"
    assert "Right eye: Manifest, grade 2 of 0 to 2 (probability 0.70); P(referable) 0.90" in report["conclusion"]
    assert report["conclusionCode"][0]["coding"][0]["display"] == "Glaucoma"
    displays = [one["code"]["coding"][0]["display"] for one in resources(bundle, "Observation")]
    assert displays == ["Right eye: severity of glaucoma", "Disc haemorrhages", "A defect"]
    assert len(resources(bundle, "Observation")[0]["component"]) == 3 + 2
    assert "etinopathy" not in json.dumps(bundle)


def test_a_lesion_type_named_like_another_part_has_its_own_identifier() -> None:
    bundle = sent(glaucoma_report())  # it has a lesion type "report"
    assert len({entry["fullUrl"] for entry in bundle["entry"]}) == len(bundle["entry"]) == 5


def test_codes_of_another_label_set_are_refused() -> None:
    with pytest.raises(DicomError, match="report of label set 'glaucoma'"):
        to_bundle(glaucoma_report(), make_examination(), load_codes())


def test_a_uri_of_the_site_does_not_change_the_identifiers() -> None:
    def urls(namespaces: Namespaces | None) -> list[str]:
        return [entry["fullUrl"] for entry in sent(graded_report(), None, namespaces)["entry"]]

    assert urls(None) == urls(Namespaces(patient="urn:site:patients"))
