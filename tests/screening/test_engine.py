from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import deepmtdr
from deepmtdr.errors import CheckpointError
from deepmtdr.files import printable_path
from deepmtdr.screening.engine import ScreeningEngine, measure_lesions
from deepmtdr.screening.needs_review import find_review_reasons
from deepmtdr.screening.quality_model import Fault
from deepmtdr.terms import Lesion
from tiny_model import FRAME, save_bad_inputs, save_photograph, save_tiny_weights


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_weights(tmp_path_factory.mktemp("weights") / "tiny.safetensors")


@pytest.fixture(scope="module")
def engine(weights: Path) -> ScreeningEngine:
    return ScreeningEngine.load(weights, precision="fp32")


@pytest.fixture(scope="module")
def photograph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_photograph(tmp_path_factory.mktemp("photographs") / "eye.png")


def test_a_photograph_is_graded_with_everything_said(engine: ScreeningEngine, photograph: Path) -> None:
    report = engine.predict(photograph)
    assert (report.status, report.message, report.version) == ("ok", "", deepmtdr.__version__)
    assert report.probabilities is not None and report.p_referable is not None
    assert sum(report.probabilities) == pytest.approx(1, abs=1e-6)
    assert report.grade == int(np.argmax(report.probabilities))
    assert report.p_referable == pytest.approx(sum(report.probabilities[2:]))
    assert (report.width, report.height) == (320, 300)
    assert set(report.counts or ()) == set(report.areas or ()) == set(Lesion)
    assert report.seconds > 0


def test_the_field_of_view_is_where_it_was_drawn(engine: ScreeningEngine, photograph: Path) -> None:
    fov = engine.predict(photograph).fov
    assert fov is not None
    assert (fov.x, fov.y, fov.side) == pytest.approx((20, 10, 280), abs=3)


def test_every_picture_fills_the_frame_within_its_range(engine: ScreeningEngine, photograph: Path) -> None:
    pictures = engine.predict(photograph).pictures
    assert pictures is not None
    assert pictures.photograph.shape == pictures.sr.shape == (FRAME, FRAME, 3)
    assert pictures.lesions.shape == (4, FRAME, FRAME) and pictures.evidence.shape == (FRAME, FRAME)
    assert pictures.lesions.min() >= 0 and pictures.lesions.max() <= 1
    assert pictures.evidence.min() >= 0 and 0 < pictures.evidence.max() <= 1


def test_the_same_photograph_is_read_the_same_again(engine: ScreeningEngine, photograph: Path) -> None:
    first, second = engine.predict(photograph), engine.predict(photograph)
    assert first.to_json() == second.to_json()
    assert first.pictures is not None and second.pictures is not None
    for one, other in zip(first.pictures, second.pictures, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("side", "as_lr", "way"),
    [
        (280, None, f"x4 from {FRAME // 4} px"),
        (130, None, f"x8 from {FRAME // 8} px"),
        (900, None, "straight, ISR skipped"),
        (900, 512, f"x2 from {FRAME // 2} px"),
    ],
)
def test_the_way_into_the_frame_is_said(
    engine: ScreeningEngine, tmp_path: Path, side: int, as_lr: int | None, way: str
) -> None:
    report = engine.predict(save_photograph(tmp_path / "eye.png", side), as_lr)
    assert report.to_json()["way"] == way


def test_an_unknown_low_resolution_size_is_the_callers_mistake(engine: ScreeningEngine, photograph: Path) -> None:
    with pytest.raises(ValueError, match=r"300.*\[128, 256, 512\]"):
        engine.predict(photograph, as_lr=300)


def test_every_bad_input_is_one_line_with_path_and_reason(engine: ScreeningEngine, tmp_path: Path) -> None:
    expected = save_bad_inputs(tmp_path / "bad")
    for name, status in expected.items():
        report = engine.predict(tmp_path / "bad" / name)
        assert report.status == status, name
        assert str(tmp_path / "bad" / name) in report.message and "\n" not in report.message
        assert len(report.message) > len(str(tmp_path / "bad" / name)) + 10
        assert report.grade is None and report.probabilities is None and report.pictures is None


def test_a_message_names_the_path_once_whatever_it_is(engine: ScreeningEngine, tmp_path: Path) -> None:
    for name in ("1", "two  blanks.jpg", "line\nbreak.jpg"):
        (tmp_path / name).write_text("1 line")
        message = engine.predict(tmp_path / name).message
        assert message.startswith(printable_path(f"{tmp_path / name}: found ")) and message.count(str(tmp_path)) == 1


def test_a_file_that_is_no_photograph_still_has_its_digest(engine: ScreeningEngine, tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_bytes(b"abc")
    digest = engine.predict(tmp_path / "text.jpg").sha256
    assert digest == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_retina_that_is_too_dark_is_ungradable(engine: ScreeningEngine, tmp_path: Path) -> None:
    with Image.open(save_photograph(tmp_path / "eye.png")) as image:
        image.point(lambda level: level // 16).save(tmp_path / "night.png")
    report = engine.predict(tmp_path / "night.png")
    assert (report.status, report.grade) == ("ungradable", None), report.message
    assert report.message.startswith(f"{tmp_path / 'night.png'}: too dark: quality 0.")
    assert (report.fault, report.review_reasons) == (Fault.DARK, ("not graded",))
    assert report.quality is not None and report.quality < 0.3


def test_a_picture_of_something_else_is_told_from_a_poor_photograph(engine: ScreeningEngine, tmp_path: Path) -> None:
    with Image.open(save_photograph(tmp_path / "eye.png")) as image:
        Image.merge("RGB", image.split()[::-1]).save(tmp_path / "blue.png")
    report = engine.predict(tmp_path / "blue.png")
    assert (report.status, report.fault, report.grade) == ("ungradable", Fault.NO_FUNDUS, None), report.message
    assert "no fundus photograph: probability" in report.message
    Image.new("RGB", (300, 300)).save(tmp_path / "black.png")
    assert engine.predict(tmp_path / "black.png").fault is Fault.NO_FIELD


def test_a_graded_photograph_has_a_quality_and_says_whether_a_reader_should_look(
    engine: ScreeningEngine, photograph: Path
) -> None:
    report = engine.predict(photograph)
    assert report.quality is not None and report.quality > 0.8 and report.fault is None
    assert report.probabilities is not None
    assert report.review_reasons == find_review_reasons(report.quality, report.probabilities, None)


def test_a_file_that_may_not_be_read_is_an_error(
    engine: ScreeningEngine, photograph: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, *_: object, **__: object) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)  # taking the right away does not hold root back
    monkeypatch.setattr(Path, "open", refuse)
    report = engine.predict(photograph)
    assert report.status == "error" and "Permission denied" in report.message and report.sha256 is None


def test_a_network_that_fails_costs_one_photograph_only(
    engine: ScreeningEngine, photograph: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("out of\nmemory")

    monkeypatch.setattr(engine.model, "predict", fail)
    report = engine.predict(photograph)
    assert (report.status, report.message) == ("error", f"{photograph}: RuntimeError: out of memory")
    assert report.sha256 is not None and report.width == 320


def test_bfloat16_says_nearly_the_same(weights: Path, engine: ScreeningEngine, photograph: Path) -> None:
    halved = ScreeningEngine.load(weights, precision="bf16").predict(photograph)
    assert halved.status == "ok" and halved.probabilities is not None
    assert halved.probabilities == pytest.approx(engine.predict(photograph).probabilities, abs=0.05)
    assert halved.pictures is not None and halved.pictures.lesions.dtype == np.float32


def test_an_unknown_precision_is_refused(weights: Path) -> None:
    with pytest.raises(ValueError, match="half"):
        ScreeningEngine.load(weights, precision="half")


def test_reading_leaves_the_weights_as_they_were(engine: ScreeningEngine, photograph: Path) -> None:
    before = {name: tensor.clone() for name, tensor in engine.model.state_dict().items()}
    engine.predict(photograph)
    assert all(torch.equal(before[name], tensor) for name, tensor in engine.model.state_dict().items())
    assert all(parameter.grad is None for parameter in engine.model.parameters())


def test_weights_that_are_missing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"none\.safetensors"):
        ScreeningEngine.load(tmp_path / "none.safetensors")


def test_touching_at_a_corner_is_one_lesion_and_area_is_per_cent_of_the_field_of_view() -> None:
    lesions = np.zeros((4, 10, 10), np.float32)
    lesions[Lesion.MA, 2, 2] = lesions[Lesion.MA, 3, 3] = lesions[Lesion.MA, 6, 6] = 0.5
    lesions[Lesion.HE, 5, 5] = 0.49
    lesions[Lesion.EX, 0, 0] = 1.0
    inside = np.zeros((10, 10), bool)
    inside[1:9, 1:9] = True
    counts, areas = measure_lesions(lesions, inside)
    assert counts == {Lesion.MA: 2, Lesion.HE: 0, Lesion.EX: 0, Lesion.SE: 0}
    assert areas[Lesion.MA] == pytest.approx(100 * 3 / 64)
    assert areas[Lesion.EX] == 0
