"""Malformed TOML and JSON: each is an error of one line."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from deepmtdr.dicom.codes import load_codes
from deepmtdr.errors import ConfigError, DeepMTDRError
from deepmtdr.labels import load_label_set
from deepmtdr.recipe import load_recipe
from deepmtdr.service.settings_file import load_settings
from deepmtdr.toml_config import (
    MAX_NESTING,
    MAX_TOML_BYTES,
    MAX_VALUE_CHARACTERS,
    from_dict,
    parse_json,
    parse_toml,
    read_toml,
    shorten,
)

MALFORMED = {
    "deep list": "a = " + "[" * 3000 + "]" * 3000,
    "deep table": "a = " + "{b = " * 3000 + "1" + "}" * 3000,
    "dotted key": ".".join("a" * 100) + " = 1",
    "dotted key that takes minutes to parse": ".".join("a" * 300_000) + " = 1",
    "quoted dotted key": " . ".join(['"a"'] * 100_000) + " = 1",
    "digits": "a = " + "9" * 5000,
    "not TOML": "a = ",
    "control character": "a = '\0'",
    "long value": "seed = '" + "x" * 10_000 + "'",
    "long key": "x" * 10_000 + " = 1",
    "not finite": "[workers]\nseconds = nan",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    minutes: float = 1.0
    shares: tuple[float, ...] = ()
    by_name: dict[str, float] = dataclasses.field(default_factory=dict)


@pytest.mark.parametrize("read", [load_recipe, load_label_set, load_codes, load_settings])
@pytest.mark.parametrize("text", MALFORMED.values(), ids=MALFORMED)
def test_malformed_toml_is_an_error_of_one_short_line(
    tmp_path: Path, text: str, read: Callable[[Path], object]
) -> None:
    path = tmp_path / "x.toml"
    path.write_text(text)
    with pytest.raises(DeepMTDRError) as caught:
        read(path)
    message = str(caught.value).replace(str(tmp_path), "")
    assert "x.toml" in message and message.isprintable() and len(message) < 900


def test_bytes_that_are_not_utf_8_and_large_files_are_errors(tmp_path: Path) -> None:
    (tmp_path / "latin.toml").write_bytes(b"name = '\xe9'")
    with pytest.raises(ValueError, match="utf-8"):
        read_toml(tmp_path / "latin.toml")
    (tmp_path / "large.toml").write_bytes(b"#" * (MAX_TOML_BYTES + 1))
    with pytest.raises(ValueError, match="found more than 1 MiB, expected a file of settings"):
        read_toml(tmp_path / "large.toml")


def test_nesting_is_limited_exactly() -> None:
    def nested(depth: int) -> str:
        return "[" * depth + "1" + "]" * depth

    assert parse_json(nested(MAX_NESTING)) and parse_toml(f"a = {nested(MAX_NESTING - 1)}")
    with pytest.raises(ValueError, match=rf"^0\.0\..* is nested more than {MAX_NESTING} deep"):
        parse_json(nested(MAX_NESTING + 1))
    with pytest.raises(ValueError, match=rf"^a\.0\..* is nested more than {MAX_NESTING} deep"):
        parse_toml(f"a = {nested(MAX_NESTING)}")


@pytest.mark.parametrize("text", ["NaN", "[1, -Infinity]", '{"a": 1e999}'])
def test_json_with_a_number_that_is_not_finite_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"found the number (NaN|-Infinity|1e999), expected a finite number"):
        parse_json(text)


def test_json_is_read_unchanged() -> None:
    assert parse_json('{"a": [1, 2.5, null, true, "x"], "b": {}}') == {"a": [1, 2.5, None, True, "x"], "b": {}}


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, 10**400], ids=["nan", "inf", "-inf", "1e400"])
@pytest.mark.parametrize(
    ("key", "make"),
    [
        ("minutes", lambda number: {"minutes": number}),
        (r"shares\[1\]", lambda number: {"shares": [1.0, number]}),
        (r"by_name\.x", lambda number: {"by_name": {"x": number}}),
    ],
)
def test_a_number_that_is_not_finite_is_named_by_its_key(
    key: str, make: Callable[[float], dict[str, object]], number: float
) -> None:
    with pytest.raises(ConfigError, match=rf"^f: {key} = .*, expected a finite number$"):
        from_dict(Config, make(number), "f")


def test_shorten_keeps_short_values_and_cuts_long_ones() -> None:
    assert (shorten("name"), shorten([1, 2]), shorten("a\nb\x1b")) == ("name", "[1, 2]", r"a\nb\x1b")
    assert shorten("x" * 1000) == "x" * MAX_VALUE_CHARACTERS + "..."
