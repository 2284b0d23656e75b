"""Build frozen dataclasses from nested mappings, as TOML and JSON give them."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from deepmtdr.errors import ConfigError

T = TypeVar("T")


def from_dict(kind: type[T], values: Mapping[str, Any], where: str, base: T | None = None) -> T:
    """Build a dataclass from nested mappings. Every key and every type is checked.

    Nested dataclasses, tuples, `dict[str, ...]`, `Path` and `X | None` are understood. An int is accepted as a float.

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
        raise ConfigError(f"{where}: unknown key {', '.join(unknown)}; known are {', '.join(hints)}")
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
        raise ConfigError(f"{where} = {list(values)!r}, expected {len(kinds)} values")
    return tuple(
        _convert(kind, value, f"{where}[{n}]") for n, (kind, value) in enumerate(zip(kinds, values, strict=True))
    )


def _convert_plain(hint: Any, value: Any, where: str) -> Any:
    is_bool = isinstance(value, bool)
    if hint is Path and isinstance(value, str) and value:
        return Path(value)
    if hint is float and isinstance(value, int) and not is_bool:
        return float(value)
    plain = isinstance(hint, type) and not isinstance(hint, types.GenericAlias)
    if plain and isinstance(value, hint) and not (hint is int and is_bool):
        return value
    raise ConfigError(f"{where} = {value!r}, expected {getattr(hint, '__name__', hint)}")
