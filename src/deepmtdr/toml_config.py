"""Read TOML and JSON that may be malformed, and build frozen dataclasses from their nested mappings."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import tomllib
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from deepmtdr.errors import ConfigError
from deepmtdr.files import printable_path

T = TypeVar("T")

MAX_TOML_BYTES = 1 << 20
"""Size of the largest TOML file that is read."""
MAX_NESTING = 32
"""Largest number of tables and lists inside each other."""
MAX_VALUES = 1000
"""Largest number of values of a tuple or a table of a dataclass."""
MAX_VALUE_CHARACTERS = 100
"""Longest value that an error message repeats; of longer ones it has the beginning."""
# A dotted key of more parts than may be nested; bare or quoted parts.
_LONG_KEY = re.compile(r"""(?<![\w.-])(?:(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+){64}""")


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file of at most `MAX_TOML_BYTES` bytes.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it is too long, or for the reasons of `parse_toml`.
    """
    with path.open("rb") as file:
        content = file.read(MAX_TOML_BYTES + 1)
    if len(content) > MAX_TOML_BYTES:
        raise ValueError(f"found more than {MAX_TOML_BYTES >> 20} MiB, expected a file of settings")
    return parse_toml(content.decode())


def parse_toml(text: str) -> dict[str, Any]:
    """Parse TOML.

    Keys of many parts are refused before: CPython's parser takes quadratic time for them, hours for `MAX_TOML_BYTES`.

    Raises:
        ValueError: if it is not TOML, or a value is nested more than `MAX_NESTING` deep; the message is one line.
    """
    if _LONG_KEY.search(text):
        raise ValueError(_too_deep(""))
    return _parse(tomllib.loads, text)


def parse_json(text: str) -> Any:
    """Parse JSON.

    Raises:
        ValueError: if it is not JSON, a value is nested more than `MAX_NESTING` deep, or a number is not finite; the
            message is one line.
    """
    return _parse(partial(json.loads, parse_float=_finite_float, parse_constant=_finite_float), text)


class _NotFiniteError(ValueError):
    """A number of JSON is not finite."""


def _finite_float(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise _NotFiniteError(f"found the number {shorten(text)}, expected a finite number")
    return number


def _parse(parse: Callable[[str], Any], text: str) -> Any:
    try:
        values = parse(text)
    except RecursionError as error:
        raise ValueError(_too_deep("")) from error
    except (tomllib.TOMLDecodeError, json.JSONDecodeError, _NotFiniteError):
        raise
    except ValueError as error:  # CPython's limit against slow conversions
        raise ValueError("found a number of thousands of digits, expected fewer") from error
    _check_nesting(values)
    return values


def _check_nesting(values: Any) -> None:
    """Check that no value is nested too deep, without recursion."""
    to_do = [("", 0, values)]
    while to_do:
        key, depth, value = to_do.pop()
        inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        if inner and depth == MAX_NESTING:
            raise ValueError(_too_deep(key))
        to_do += [(f"{key}.{name}" if key else str(name), depth + 1, one) for name, one in inner]


def _too_deep(key: str) -> str:
    found = f"{shorten(key)} is nested" if key else "found values nested"
    return f"{found} more than {MAX_NESTING} deep, expected a few tables and lists"


def shorten(value: object) -> str:
    """Format a value for an error message: printable, and at most about `MAX_VALUE_CHARACTERS` characters."""
    text = printable_path(value) if isinstance(value, str) else repr(value)
    return text if len(text) <= MAX_VALUE_CHARACTERS else f"{text[:MAX_VALUE_CHARACTERS]}..."


def from_dict(kind: type[T], values: Mapping[str, Any], where: str, base: T | None = None) -> T:
    """Build a dataclass from nested mappings. Every key and every type is checked.

    Nested dataclasses, tuples, `dict[str, ...]`, `Path` and `X | None` are understood. An int is accepted as a float; a
    float must be finite.

    Args:
        kind: the dataclass.
        values: the fields that differ from `base`.
        where: name of the file or setting, for the error message.
        base: the values of the fields that `values` lacks; None: the defaults of `kind`.

    Raises:
        ConfigError: if a key or value is wrong; the message has the key, the value found and what was expected.
    """
    hints = _field_types(kind)
    if unknown := sorted(set(values) - set(hints)):
        found = shorten(", ".join(unknown))
        raise ConfigError(f"{where}: unknown key {found}; known are {', '.join(hints)}")
    given = _default_fields(kind) if base is None else {name: getattr(base, name) for name in hints}
    for key, value in values.items():
        given[key] = _convert(hints[key], value, f"{where}: {key}", given.get(key))
    if missing := [name for name in hints if name not in given]:
        raise ConfigError(f"{where}: missing key {', '.join(missing)}; add it")
    return kind(**given)


def _field_types(kind: type) -> dict[str, Any]:
    """Types of the fields; class variables are no fields."""
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _default_fields(kind: type) -> dict[str, Any]:
    defaults: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        if field.default is not dataclasses.MISSING:
            defaults[field.name] = field.default
        elif field.default_factory is not dataclasses.MISSING:
            defaults[field.name] = field.default_factory()
    return defaults


def _convert(hint: Any, value: Any, where: str, base: Any = None) -> Any:
    """Convert a value to the type of the field; `base` is the value that it replaces."""
    if isinstance(hint, types.UnionType):
        return _convert_optional(hint, value, where, base)
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return from_dict(typing.cast("type", hint), value, where, base)
    if isinstance(value, list | tuple | Mapping) and len(value) > MAX_VALUES:
        raise ConfigError(f"{where} has {len(value)} values, expected at most {MAX_VALUES}")
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple and isinstance(value, list | tuple):
        return _convert_tuple(arguments, value, where)
    if origin is dict and isinstance(value, Mapping):
        return {str(key): _convert(arguments[1], one, f"{where}.{key}") for key, one in value.items()}
    return _convert_plain(hint, value, where)


def _convert_optional(hint: Any, value: Any, where: str, base: Any) -> Any:
    """Convert a value of type `X | None`: null in JSON is None; TOML leaves the key out."""
    if value is None:
        return None
    (inner,) = (kind for kind in typing.get_args(hint) if kind is not types.NoneType)
    return _convert(inner, value, where, base)


def _convert_tuple(kinds: tuple[Any, ...], values: Sequence[Any], where: str) -> tuple[Any, ...]:
    """Convert a value of type `tuple[X, ...]`, or a tuple of fixed length."""
    if kinds[-1] is Ellipsis:
        kinds = (kinds[0],) * len(values)
    if len(kinds) != len(values):
        raise ConfigError(f"{where} = {shorten(list(values))}, expected {len(kinds)} values")
    return tuple(
        _convert(kind, value, f"{where}[{n}]") for n, (kind, value) in enumerate(zip(kinds, values, strict=True))
    )


def _convert_plain(hint: Any, value: Any, where: str) -> Any:
    is_bool = isinstance(value, bool)
    if hint is Path and isinstance(value, str) and value:
        return Path(value)
    if hint is float and isinstance(value, int | float) and not is_bool:
        return _finite(value, where)
    plain = isinstance(hint, type) and not isinstance(hint, types.GenericAlias)
    if plain and isinstance(value, hint) and not (hint is int and is_bool):
        return value
    raise ConfigError(f"{where} = {shorten(repr(value))}, expected {getattr(hint, '__name__', hint)}")


def _finite(value: int | float, where: str) -> float:
    """Convert a number to a finite float."""
    try:
        number = float(value)
    except OverflowError:  # an int of more than 308 digits
        number = math.inf
    if not math.isfinite(number):
        raise ConfigError(f"{where} = {shorten(value)}, expected a finite number")
    return number
