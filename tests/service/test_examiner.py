"""The settings of the workers reach the screening engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from deepmtdr.labels import DIABETIC_RETINOPATHY
from deepmtdr.screening.engine import ScreeningEngine
from deepmtdr.screening.turned_copies import TurnedCopies
from deepmtdr.service.examiner import load_examiner
from deepmtdr.service.settings import WorkerSettings
from fake_predictor import FakePredictor


@pytest.mark.parametrize(
    ("settings", "weights", "copies"),
    [
        (None, None, TurnedCopies.NONE),
        (WorkerSettings(weights=Path("w.safetensors"), check_mirror=True), Path("w.safetensors"), TurnedCopies.MIRROR),
        (WorkerSettings(tta=True), None, TurnedCopies.ALL),
    ],
)
def test_weights_and_turned_copies_are_those_of_the_settings(
    monkeypatch: pytest.MonkeyPatch, settings: WorkerSettings | None, weights: Path | None, copies: TurnedCopies
) -> None:
    loaded = []

    def load(weights: Path | None, **options: Any) -> ScreeningEngine:
        loaded.append((weights, options))
        return ScreeningEngine(FakePredictor(DIABETIC_RETINOPATHY), options["turned_copies"])

    monkeypatch.setattr(ScreeningEngine, "load", load)
    assert callable(load_examiner(settings))
    assert loaded == [(weights, {"turned_copies": copies})]
