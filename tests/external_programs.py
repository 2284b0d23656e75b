"""Find external programs that tests use to check our output: DCMTK, dciodvfy, Orthanc, openssl."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest


def find_program(name: str) -> str | None:
    """Path of a program outside of this Python environment: pynetdicom installs its own `storescu` there."""
    own = Path(sys.prefix, "bin").resolve()
    return shutil.which(name, path=os.pathsep.join(path for path in os.get_exec_path() if Path(path).resolve() != own))


def requires_programs(*names: str) -> pytest.MarkDecorator:
    """A mark that skips a test if a program is not installed."""
    missing = [name for name in names if find_program(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


def program_path(name: str) -> str:
    """Path of a program that `requires_programs` has found."""
    found = find_program(name)
    assert found is not None, f"{name} is not installed"
    return found
