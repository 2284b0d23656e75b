"""Nested mappings, as TOML has them, into frozen dataclasses: an unknown key is an error that lists the known ones."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from deepmtdr.errors import RecipeError

T = TypeVar("T")


def from_dict(kind: type[T], values: Mapping[str, Any], where: str, base: T | None = None) -> T:
    """Build a config dataclass from nested mappings, checking every key and type.

    Args:
        kind: the dataclass; each of its fields has a default.
        values: only what differs.
        where: said in front of an error.
        base: what the values differ from; None: the defaults.

    Raises:
        RecipeError: naming the key, what was found and what was expected.
    """
    hints = typing.get_type_hints(kind)
    unknown = set(values) - set(hints)
    if unknown:
        raise RecipeError(f"{where}: unknown key {', '.join(sorted(unknown))}; known are {', '.join(hints)}")
    fields = vars(kind() if base is None else base)
    given = {key: _coerce(hints[key], value, f"{where}: {key}", fields[key]) for key, value in values.items()}
    return kind(**{**fields, **given})


def _coerce(hint: Any, value: Any, where: str, base: Any = None) -> Any:
    if isinstance(hint, types.UnionType):  # `Path | None`: absent is None, and TOML has none
        hint = next(kind for kind in typing.get_args(hint) if kind is not types.NoneType)
    if hint is Path and isinstance(value, str) and value:
        return Path(value)
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return from_dict(typing.cast("type", hint), value, where, base)
    origin = typing.get_origin(hint)
    if origin is tuple and isinstance(value, list | tuple):
        inner = typing.get_args(hint)
        if inner[-1] is not Ellipsis and len(inner) != len(value):
            raise RecipeError(f"{where} = {value!r}, expected {len(inner)} values")
        return tuple(_coerce(inner[0], v, where) for v in value)
    if origin is dict and isinstance(value, Mapping):
        return {str(k): _coerce(typing.get_args(hint)[1], v, where) for k, v in value.items()}
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    plain = hint if isinstance(hint, type) and not isinstance(hint, types.GenericAlias) else object
    if plain is object or not isinstance(value, plain) or (plain is int and isinstance(value, bool)):
        raise RecipeError(f"{where} = {value!r}, expected {getattr(hint, '__name__', hint)}")
    return value
