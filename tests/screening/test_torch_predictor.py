"""The PyTorch predictor with a tiny checkpoint."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from deepmtdr import checkpoint
from deepmtdr.errors import CheckpointError
from deepmtdr.grade_decision import MOST_PROBABLE
from deepmtdr.labels import DIABETIC_RETINOPATHY
from deepmtdr.screening.engine import ScreeningEngine
from deepmtdr.screening.predictor import Predictor
from deepmtdr.screening.torch_predictor import TorchPredictor
from deepmtdr.systems import build_system
from fundus import draw_fundus
from tiny_model import FRAME, save_photograph, save_tiny_weights, tiny_recipe


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_weights(tmp_path_factory.mktemp("weights") / "tiny.safetensors")


@pytest.fixture(scope="module")
def predictor(weights: Path) -> TorchPredictor:
    return TorchPredictor.load(weights, precision="fp32")


@pytest.fixture(scope="module")
def lr() -> NDArray[np.uint8]:
    return draw_fundus(32, 32, (16, 16), 16)


def test_it_is_a_predictor(predictor: TorchPredictor) -> None:
    assert isinstance(predictor, Predictor)


def test_info_describes_the_checkpoint(predictor: TorchPredictor, weights: Path) -> None:
    info, digest = predictor.info, checkpoint.load(weights).digest
    assert (info.weights, info.precision) == (f"tiny-{digest[:12]}", "fp32")
    assert (info.labels, info.frame) == (DIABETIC_RETINOPATHY, FRAME)
    assert (info.decision, info.operating_point) == (MOST_PROBABLE, None)


def test_findings_are_those_of_the_network(predictor: TorchPredictor, weights: Path, lr: NDArray[np.uint8]) -> None:
    findings = predictor.predict(lr, 4)
    image = torch.from_numpy(lr.copy()).permute(2, 0, 1)[None].float() / 255
    prediction, evidence = checkpoint.load(weights).model.predict(image, 4)
    sr = (255 * prediction.sr[0]).round().permute(1, 2, 0).numpy()
    assert np.abs(findings.sr - sr).max() <= 1
    np.testing.assert_allclose(findings.lesions, prediction.lesions[0].numpy(), atol=1e-5)
    np.testing.assert_allclose(findings.grade_logits, prediction.grade_logits[0].numpy(), atol=1e-5)
    np.testing.assert_allclose(findings.evidence, evidence[0, 0].numpy(), atol=1e-4)


def test_findings_fill_the_frame_and_keep_their_ranges(predictor: TorchPredictor, lr: NDArray[np.uint8]) -> None:
    findings = predictor.predict(lr, 4)
    assert (findings.sr.shape, findings.sr.dtype) == ((FRAME, FRAME, 3), np.uint8)
    assert findings.lesions.shape == (4, FRAME, FRAME) and findings.evidence.shape == (FRAME, FRAME)
    assert findings.lesions.min() >= 0 and findings.lesions.max() <= 1
    assert findings.evidence.min() >= 0 and 0 < findings.evidence.max() <= 1


def test_scale_1_keeps_the_image(predictor: TorchPredictor) -> None:
    frame = draw_fundus(FRAME, FRAME, (FRAME / 2, FRAME / 2), FRAME / 2)
    np.testing.assert_array_equal(predictor.predict(frame, 1).sr, frame)


def test_the_same_photograph_gives_the_same_report_again(predictor: TorchPredictor, tmp_path: Path) -> None:
    engine, photograph = ScreeningEngine(predictor), save_photograph(tmp_path / "eye.png")
    first, second = engine.predict(photograph, 32), engine.predict(photograph, 32)
    assert first.status == "ok" and first.to_json() == second.to_json()
    assert first.pictures is not None and second.pictures is not None
    for one, other in zip(first.pictures, second.pictures, strict=True):
        np.testing.assert_array_equal(one, other)


def test_bfloat16_gives_nearly_the_same_logits(weights: Path, predictor: TorchPredictor, lr: NDArray[np.uint8]) -> None:
    halved = TorchPredictor.load(weights, precision="bf16")
    assert halved.info.precision == "bf16"
    findings = halved.predict(lr, 4)
    assert findings.grade_logits == pytest.approx(predictor.predict(lr, 4).grade_logits, abs=0.1)
    assert findings.lesions.dtype == np.float32


def test_an_unknown_precision_is_refused(weights: Path) -> None:
    with pytest.raises(ValueError, match="'half', expected one of auto, fp32, bf16"):
        ScreeningEngine.load(weights, precision="half")


def test_prediction_does_not_change_the_weights(predictor: TorchPredictor, lr: NDArray[np.uint8]) -> None:
    before = {name: tensor.clone() for name, tensor in predictor.model.state_dict().items()}
    predictor.predict(lr, 4)
    assert all(torch.equal(before[name], tensor) for name, tensor in predictor.model.state_dict().items())
    assert all(parameter.grad is None for parameter in predictor.model.parameters())


def test_missing_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"none\.safetensors"):
        ScreeningEngine.load(tmp_path / "none.safetensors")


def test_weights_of_a_system_without_segmentation_are_refused(weights: Path) -> None:
    loaded, recipe = checkpoint.load(weights), tiny_recipe()
    model = build_system("ResNet-18", recipe.parts, recipe.model)
    with pytest.raises(CheckpointError, match="grades, but does not segment lesions; expected a system that does both"):
        TorchPredictor(loaded._replace(model=model))
