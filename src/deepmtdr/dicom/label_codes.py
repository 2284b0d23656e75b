"""The codes of a label set other than diabetic retinopathy: those in the label set, else private codes.

A private code is of the scheme 99DEEPMTDR. It is derived from the label set's name, the concept and its meaning, so
that it is the same in every run, and two label sets never share one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from deepmtdr.labels import Coding, LabelSet, capitalise

PRIVATE_SCHEME = "99DEEPMTDR"
MAX_TEXT_LENGTH = 64
"""Characters of a DICOM text (value representation LO)."""


def codes_from_labels(labels: LabelSet) -> dict[str, Coding]:
    """Make the codes of a label set under the names of `codes_diabetic_retinopathy.toml`.

    A grade has a code `condition.N`, and a lesion type a second code `also.CODE`, only where the label set has one.
    """
    return dict(_codes(labels))


def _codes(labels: LabelSet) -> Iterator[tuple[str, Coding]]:
    disease = labels.disease
    yield "document.disease", labels.coding or _private(labels, "disease", capitalise(disease))
    for side, eye in (("R", "Right eye"), ("L", "Left eye"), ("unknown", "Eye of unknown side")):
        yield f"question.{side}", _private(labels, "severity", f"{eye}: severity of {disease}")
    yield "map.evidence", _private(labels, "evidence", f"Evidence for {disease}")
    yield "measured.p_referable", _private(labels, "referable", f"Probability of referable {disease}")
    for number, grade in enumerate(labels.grades):
        yield f"grade.{number}", grade.coding or _private(labels, f"grade{number}", capitalise(grade.name))
        yield f"measured.p{number}", _private(labels, f"p{number}", f"Probability of grade {number}: {grade.name}")
        if grade.condition is not None:
            yield f"condition.{number}", grade.condition
    for lesion in labels.lesions:
        yield f"lesion.{lesion.code}", lesion.coding or _private(labels, lesion.code, capitalise(lesion.name))
        if lesion.extra_coding is not None:
            yield f"also.{lesion.code}", lesion.extra_coding


def _private(labels: LabelSet, concept: str, meaning: str) -> Coding:
    """Make a private code: the beginning of the concept's name and six hexadecimal digits, at most 16 characters."""
    digest = hashlib.sha256("|".join((labels.name, concept, meaning)).encode()).hexdigest()[:6]
    return PRIVATE_SCHEME, f"{concept[:9]}-{digest}", short_text(meaning)


def short_text(text: str) -> str:
    """Shorten a text to what DICOM's LO can hold: at most 64 printable characters, no backslash."""
    printable = "".join(letter if letter.isprintable() and letter != "\\" else " " for letter in text)
    return printable[:MAX_TEXT_LENGTH].strip()
