"""Fixtures of all tests: the folder of real photographs, fixed random seeds, few threads."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "2")  # before torch is imported; parallel test processes share the cores

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def root() -> Path:
    """The root folder of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real photographs: $DEEPMTDR_DATA, else ../shared/data. The test is skipped if it does not exist."""
    named = os.environ.get("DEEPMTDR_DATA")
    if named is not None and not Path(named).is_dir():
        pytest.fail(f"DEEPMTDR_DATA = {named}: not a folder")
    folder = Path(named) if named is not None else ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real photographs: {folder} does not exist and DEEPMTDR_DATA is not set")
    return folder


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    """Every test starts from the same random state."""
    torch.manual_seed(0)


@pytest.fixture
def rng() -> np.random.Generator:
    """A seeded NumPy generator."""
    return np.random.default_rng(0)
