"""Training runs on a tiny IDRiD of drawings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deepmtdr.recipe import Recipe
from deepmtdr.training import run
from drawings import draw_idrid


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    draw_idrid(root / "idrid")
    return root


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def train(data: Path, cache: Path, tmp_path: Path) -> Callable[..., Path]:
    """`train(recipe)` trains on the tiny IDRiD into `tmp_path / "out"`, and says where."""

    def train(recipe: Recipe, out: str = "out", **settings: Any) -> Path:
        run(recipe, data, tmp_path / out, cache=cache, **settings)
        return tmp_path / out

    return train
