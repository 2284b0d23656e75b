"""Read the settings of a service from a TOML file, and the secrets that they refer to."""

from __future__ import annotations

import os
from dataclasses import is_dataclass
from importlib.resources import files
from pathlib import Path
from typing import TypeVar

from deepmtdr.errors import ConfigError, ServiceError
from deepmtdr.service.settings import ServiceSettings
from deepmtdr.service.settings_checks import find_problems
from deepmtdr.toml_config import from_dict, read_toml

T = TypeVar("T")


def load_settings(path: Path) -> ServiceSettings:
    """Read and check the settings of a service.

    Args:
        path: a TOML file like `example_settings`; relative paths in it are relative to its folder.

    Raises:
        ServiceError: if it is not TOML, has an unknown key, or a wrong value.
        OSError: if it cannot be read.
    """
    try:
        values = read_toml(path)
        settings = _resolve_paths(from_dict(ServiceSettings, values, str(path)), path.resolve().parent)
    except ValueError as error:
        raise ServiceError(
            f"{path}: found no valid TOML ({error}); `deepmtdr serve --example` prints a valid file"
        ) from error
    except ConfigError as error:
        raise ServiceError(str(error)) from error
    if "folder" not in values:
        raise ServiceError(f'{path}: found no `folder`; add folder = "PATH", where the service keeps its queue')
    for problem in find_problems(settings):
        raise ServiceError(f"{path}: {problem}")
    return settings


def example_settings() -> str:
    """Return the shipped example: every setting, with comments."""
    return files("deepmtdr.service").joinpath("serve.toml").read_text(encoding="utf-8")


def read_secret(where: str) -> str:
    """Read a secret from the place that a setting names, without the line break at its end.

    Args:
        where: "env:NAME" or "file:PATH".

    Raises:
        ServiceError: if the environment variable is not set.
        OSError: if the file cannot be read.
    """
    kind, _, name = where.partition(":")
    if kind == "file":
        return Path(name).read_text(encoding="utf-8").strip()
    if name not in os.environ:
        raise ServiceError(
            f"environment variable {name} is not set; set it to the secret before `deepmtdr serve` starts"
        )
    return os.environ[name]


def _resolve_paths(settings: T, folder: Path) -> T:
    """Make every relative path in the settings absolute."""
    resolved = {name: _resolve(value, folder) for name, value in vars(settings).items()}
    return type(settings)(**resolved)


def _resolve(value: object, folder: Path) -> object:
    if isinstance(value, Path):
        return folder / value
    if isinstance(value, str) and value.startswith("file:"):
        return f"file:{folder / value.removeprefix('file:')}"
    if isinstance(value, dict):
        return {name: _resolve(inner, folder) for name, inner in value.items()}
    return _resolve_paths(value, folder) if is_dataclass(value) else value
