"""One photograph to a report, with a predictor that needs no network."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.special import softmax

import deepmtdr
from deepmtdr.errors import InputSizeError
from deepmtdr.files import printable_path
from deepmtdr.grade_decision import GradeDecision
from deepmtdr.photographs.decode import read_photograph
from deepmtdr.photographs.field_of_view import crop_to_frame, find_fov
from deepmtdr.screening import engine as engine_module
from deepmtdr.screening.engine import ScreeningEngine, measure_lesions
from deepmtdr.screening.needs_review import find_review_reasons
from deepmtdr.screening.predictor import Findings
from deepmtdr.screening.quality_model import Fault
from deepmtdr.terms import ReferralThreshold
from fake_predictor import MACULAR_DEGENERATION, FakePredictor
from tiny_model import save_bad_inputs, save_photograph

FRAME = 128


@pytest.fixture
def predictor() -> FakePredictor:
    return FakePredictor()


@pytest.fixture
def engine(predictor: FakePredictor) -> ScreeningEngine:
    return ScreeningEngine(predictor)


@pytest.fixture(scope="module")
def photograph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_photograph(tmp_path_factory.mktemp("photographs") / "eye.png")


def test_a_graded_photograph_has_every_result(engine: ScreeningEngine, photograph: Path) -> None:
    report = engine.predict(photograph)
    assert (report.status, report.message, report.version) == ("ok", "", deepmtdr.__version__)
    assert (report.weights, report.precision) == ("fake-0123456789ab", "fp32")
    assert report.probabilities == pytest.approx(softmax([0, 0.1, 0.2, 0.3, 0.4]))
    assert (report.grade, report.grade_name) == (4, "proliferative")
    assert report.p_referable == pytest.approx(sum(softmax([0, 0.1, 0.2, 0.3, 0.4])[2:]))
    assert (report.width, report.height) == (320, 300)
    assert report.counts == {"MA": 1, "HE": 0, "EX": 0, "SE": 0}
    assert report.areas == pytest.approx({"MA": 100 * 16 / 12_868, "HE": 0, "EX": 0, "SE": 0}, rel=0.01)
    assert report.quality is not None and report.quality > 0.8 and report.fault is None
    assert report.review_reasons == find_review_reasons(report)
    assert report.seconds > 0


def test_another_label_set_reaches_every_result(photograph: Path) -> None:
    report = ScreeningEngine(FakePredictor(MACULAR_DEGENERATION)).predict(photograph)
    assert (report.grade, report.grade_name) == (2, "late")
    assert report.counts == {"DR": 1, "GA": 0}
    assert report.probabilities is not None and report.p_referable == report.probabilities[2]


def test_logits_are_divided_by_the_temperature(photograph: Path) -> None:
    logits, point = [1.0, 0.0, 3.0, 0.0, 0.0], ReferralThreshold(0.9, 0.5)
    report = ScreeningEngine(
        FakePredictor(logits=logits, decision=GradeDecision(temperature=2.0), operating_point=point)
    ).predict(photograph)
    assert report.probabilities == pytest.approx(softmax([0.5, 0, 1.5, 0, 0]))
    assert (report.operating_point, report.referable) == (point, True)


def test_the_field_of_view_is_found_where_it_was_drawn(engine: ScreeningEngine, photograph: Path) -> None:
    fov = engine.predict(photograph).fov
    assert fov is not None
    assert (fov.x, fov.y, fov.side) == pytest.approx((20, 10, 280), abs=3)


def test_without_a_torch_predictor_torch_is_not_loaded_and_results_are_the_same(
    engine: ScreeningEngine, photograph: Path, root: Path
) -> None:
    program = (
        "import json, sys\n"
        "from fake_predictor import FakePredictor\n"
        "from deepmtdr.screening.engine import ScreeningEngine\n"
        f"report = ScreeningEngine(FakePredictor()).predict({str(photograph)!r}, 64)\n"
        "assert 'torch' not in sys.modules, 'torch was imported'\n"
        "print(json.dumps(report.to_json()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=root / "tests", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == engine.predict(photograph, 64).to_json()


def test_the_predictor_gets_the_field_of_view_at_the_input_size(
    engine: ScreeningEngine, predictor: FakePredictor, photograph: Path
) -> None:
    report = engine.predict(photograph, as_lr=32)
    pixels = read_photograph(photograph).pixels
    ((lr, scale),) = predictor.calls
    np.testing.assert_array_equal(lr, crop_to_frame(pixels, find_fov(pixels), 32))
    assert scale == 4
    assert report.pictures is not None
    np.testing.assert_array_equal(report.pictures.sr, lr.repeat(4, axis=0).repeat(4, axis=1))
    np.testing.assert_array_equal(report.pictures.photograph, crop_to_frame(pixels, find_fov(pixels), FRAME))


@pytest.mark.parametrize(
    ("side", "as_lr", "text"),
    [
        (280, None, "straight, ISR skipped"),
        (280, 64, "x2 from 64 px"),
        (900, 16, "x8 from 16 px"),
    ],
)
def test_the_report_describes_the_scaling(
    engine: ScreeningEngine, tmp_path: Path, side: int, as_lr: int | None, text: str
) -> None:
    report = engine.predict(save_photograph(tmp_path / "eye.png", side), as_lr)
    assert report.to_json()["way"] == text


def test_a_small_photograph_is_super_resolved(tmp_path: Path) -> None:
    engine = ScreeningEngine(FakePredictor(frame=512))
    assert engine.predict(save_photograph(tmp_path / "eye.png", 130)).scaling_text == "x4 from 128 px"


def test_an_input_size_that_does_not_fit_the_frame_is_an_error_of_the_caller(
    engine: ScreeningEngine, photograph: Path
) -> None:
    with pytest.raises(InputSizeError, match=r"256 px, expected one of 16, 32, 64 for a frame of 128 px"):
        engine.predict(photograph, as_lr=256)


def test_each_bad_input_gives_one_line_with_path_and_reason(engine: ScreeningEngine, tmp_path: Path) -> None:
    expected = save_bad_inputs(tmp_path / "bad")
    for name, status in expected.items():
        report = engine.predict(tmp_path / "bad" / name)
        assert report.status == status, name
        assert str(tmp_path / "bad" / name) in report.message and "\n" not in report.message
        assert len(report.message) > len(str(tmp_path / "bad" / name)) + 10
        assert report.grade is None and report.probabilities is None and report.pictures is None
        assert report.review_reasons == ("not graded",)


def test_a_message_has_the_path_once(engine: ScreeningEngine, tmp_path: Path) -> None:
    for name in ("1", "two  blanks.jpg", "line\nbreak.jpg"):
        (tmp_path / name).write_text("1 line")
        message = engine.predict(tmp_path / name).message
        assert message.startswith(printable_path(f"{tmp_path / name}: found ")) and message.count(str(tmp_path)) == 1


def test_a_file_that_is_no_photograph_has_a_digest_too(engine: ScreeningEngine, tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_bytes(b"abc")
    digest = engine.predict(tmp_path / "text.jpg").sha256
    assert digest == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_photograph_that_is_too_dark_is_ungradable(
    engine: ScreeningEngine, predictor: FakePredictor, tmp_path: Path
) -> None:
    with Image.open(save_photograph(tmp_path / "eye.png")) as image:
        image.point(lambda level: level // 16).save(tmp_path / "night.png")
    report = engine.predict(tmp_path / "night.png")
    assert (report.status, report.grade) == ("ungradable", None), report.message
    assert report.message.startswith(f"{tmp_path / 'night.png'}: too dark: quality 0.")
    assert (report.fault, report.review_reasons) == (Fault.DARK, ("not graded",))
    assert report.quality is not None and report.quality < 0.3
    assert predictor.calls == []


def test_a_picture_of_something_else_has_another_fault_than_a_poor_photograph(
    engine: ScreeningEngine, tmp_path: Path
) -> None:
    with Image.open(save_photograph(tmp_path / "eye.png")) as image:
        Image.merge("RGB", image.split()[::-1]).save(tmp_path / "blue.png")
    report = engine.predict(tmp_path / "blue.png")
    assert (report.status, report.fault, report.grade) == ("ungradable", Fault.NO_FUNDUS, None), report.message
    assert "no fundus photograph: probability" in report.message
    Image.new("RGB", (300, 300)).save(tmp_path / "black.png")
    assert engine.predict(tmp_path / "black.png").fault is Fault.NO_FIELD


def test_a_file_without_read_permission_is_an_error(
    engine: ScreeningEngine, photograph: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, *_: object, **__: object) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(engine_module, "read_untrusted", read_photograph)  # decode in this process
    monkeypatch.setattr(Path, "read_bytes", refuse)  # chmod does not stop root
    monkeypatch.setattr(Path, "open", refuse)
    report = engine.predict(photograph)
    assert report.status == "error" and "Permission denied" in report.message and report.sha256 is None


def test_an_error_of_the_network_ends_this_photograph_only(
    engine: ScreeningEngine, predictor: FakePredictor, photograph: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("out of\nmemory")

    monkeypatch.setattr(predictor, "predict", fail)
    report = engine.predict(photograph)
    assert (report.status, report.message) == ("error", f"{photograph}: RuntimeError: out of memory")
    assert report.sha256 is not None and report.width == 320


def test_lesions_that_touch_at_a_corner_are_one_and_areas_are_per_cent_of_the_field_of_view() -> None:
    lesions = np.zeros((4, 10, 10), np.float32)
    lesions[0, 2, 2] = lesions[0, 3, 3] = lesions[0, 6, 6] = 0.5
    lesions[1, 5, 5] = 0.49
    lesions[2, 0, 0] = 1.0
    inside = np.zeros((10, 10), bool)
    inside[1:9, 1:9] = True
    counts, areas = measure_lesions(lesions, inside, ("MA", "HE", "EX", "SE"))
    assert counts == {"MA": 2, "HE": 0, "EX": 0, "SE": 0}
    assert areas["MA"] == pytest.approx(100 * 3 / 64)
    assert areas["EX"] == 0


# Answers of an engine that are not finite


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"grade_logits": np.array([0, 1, np.nan, 0, 0], np.float32)}, "grade logits that are not finite"),
        ({"grade_logits": np.array([0, 1, np.inf, 0, 0], np.float32)}, "grade logits that are not finite"),
        ({"grade_logits": np.zeros(4, np.float32)}, r"grade logits of shape \(4,\), expected \(5,\)"),
        ({"lesions": np.full((4, FRAME, FRAME), np.nan, np.float32)}, r"lesion maps outside \[0, 1\] or not finite"),
        ({"lesions": np.full((4, FRAME, FRAME), 255, np.float32)}, r"lesion maps outside \[0, 1\] or not finite"),
        ({"lesions": np.zeros((3, FRAME, FRAME), np.float32)}, "lesion maps of shape"),
        ({"evidence": np.full((FRAME, FRAME), -np.inf, np.float32)}, r"evidence outside \[0, 1\] or not finite"),
        (
            {
                "sr": np.zeros((64, 64, 3), np.uint8),
                "lesions": np.zeros((4, 64, 64), np.float32),
                "evidence": np.zeros((64, 64), np.float32),
            },
            r"SR image of shape \(64, 64, 3\), expected \(128, 128, 3\)",
        ),
    ],
)
def test_an_answer_that_is_not_finite_is_an_error_and_gets_no_grade(
    photograph: Path, wrong: dict[str, np.ndarray], reason: str
) -> None:
    class WrongPredictor(FakePredictor):
        def predict(self, lr: np.ndarray, scale: int) -> Findings:
            return dataclasses.replace(super().predict(lr, scale), **wrong)

    report = ScreeningEngine(WrongPredictor()).predict(photograph, 32)
    assert (report.status, report.grade, report.probabilities) == ("error", None, None)
    assert re.search(f"eye.png: the network returned {reason}", report.message), report.message
    assert report.review_reasons == ("not graded",)


def test_a_temperature_that_makes_probabilities_overflow_gets_no_grade(photograph: Path) -> None:
    predictor = FakePredictor(logits=[0, 10, 20, 30, 40], decision=GradeDecision(temperature=1e-308))
    report = ScreeningEngine(predictor).predict(photograph)
    assert (report.status, report.grade) == ("error", None)
    assert "eye.png: found 4 of 5 calibrated logits that are NaN or infinite, expected finite" in report.message
