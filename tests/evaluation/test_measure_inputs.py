"""Predictions on other images than SR, lesions on the photograph's own pixels, agreement with HR."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn import metrics as reference

from deepmtdr.datasets.frames import read_masks
from deepmtdr.datasets.sample import Sample
from deepmtdr.evaluation.config import EvaluationConfig
from deepmtdr.evaluation.framed_photograph import load_into_frame
from deepmtdr.evaluation.measure import measure
from deepmtdr.evaluation.measure_inputs import count_agreement, measure_all_inputs
from deepmtdr.evaluation.photograph_result import Agreement, InputImage
from deepmtdr.grade_decision import GradeDecision
from deepmtdr.labels import DIABETIC_RETINOPATHY
from deepmtdr.metrics import label_components
from deepmtdr.model.deepmtdr import DeepMTDR
from deepmtdr.photographs.decode import read_photograph
from deepmtdr.photographs.field_of_view import crop_to_frame, find_fov
from deepmtdr.photographs.geometry import fov_mask, map_to_photograph
from deepmtdr.recipe import load_recipe
from deepmtdr.synthetic.drawings import write_drawings

FRAME = 256
SR, BICUBIC, HR, ORIGINAL = InputImage.SR, InputImage.BICUBIC, InputImage.HR, InputImage.ORIGINAL


@pytest.fixture(scope="module")
def network() -> DeepMTDR:
    torch.manual_seed(0)
    return DeepMTDR(load_recipe("smoke", ['model.isr.skip="bicubic"']).model).eval()


@pytest.fixture(scope="module")
def drawing(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    return write_drawings(tmp_path_factory.mktemp("data"), [2], size=FRAME + 44)[0]


def test_result_on_sr_equals_that_of_measure(network: DeepMTDR, drawing: Sample) -> None:
    alone, _ = measure(network, drawing, frame=FRAME)
    thorough, pools = measure_all_inputs(network, drawing, frame=FRAME)
    assert (thorough.probs, thorough.image) == (alone.probs, alone.image)
    assert thorough.for_input(SR) is thorough
    assert set(pools) == {SR, BICUBIC, HR, ORIGINAL}


def test_untrained_isr_subnet_equals_bicubic_and_hr_is_the_frame(network: DeepMTDR, drawing: Sample) -> None:
    measured, _ = measure_all_inputs(network, drawing, frame=FRAME)
    assert measured.other_inputs[BICUBIC].probs == pytest.approx(measured.probs, abs=1e-6)
    pixels = read_photograph(drawing.photograph).pixels
    frame = crop_to_frame(pixels, find_fov(pixels), FRAME)
    with torch.no_grad():
        logits = network.segment_and_grade(
            torch.from_numpy(frame / np.float32(255)).permute(2, 0, 1)[None]
        ).grade_logits
    assert measured.other_inputs[HR].probs == pytest.approx(logits[0].double().softmax(0).tolist(), abs=1e-6)
    assert measured.for_input(HR).probs == measured.other_inputs[HR].probs


def test_lesions_on_each_image_are_compared_with_the_annotation_in_the_frame(
    network: DeepMTDR, drawing: Sample
) -> None:
    measured, _ = measure_all_inputs(network, drawing, frame=FRAME)
    framed = load_into_frame(drawing, EvaluationConfig(), FRAME)
    assert set(measured.annotated_agreement) == {SR, BICUBIC, HR}
    for image in (SR, BICUBIC, HR):
        assert set(measured.annotated_agreement[image]) == set(framed.lesion_masks)
        for code, mask in framed.lesion_masks.items():
            found = measured.annotated_agreement[image][code]
            assert found.reference == label_components(mask & framed.inside)[1]
            assert 0 <= found.missed <= found.reference and 0 <= found.hallucinated <= found.detected
    assert any(found.reference for found in measured.annotated_agreement[SR].values())


def test_lesions_are_scored_on_the_pixels_of_the_photograph(network: DeepMTDR, drawing: Sample) -> None:
    measured, pools = measure_all_inputs(network, drawing, frame=FRAME)
    pixels = read_photograph(drawing.photograph).pixels
    (height, width), fov = pixels.shape[:2], find_fov(pixels)
    frame = crop_to_frame(pixels, fov, FRAME)
    inside = map_to_photograph(fov_mask(frame).astype(np.float32), fov, height, width) >= 0.5
    mask = read_masks(drawing, (height, width)).lesions["HE"]
    assert measured.other_inputs[ORIGINAL].lesions["HE"].prevalence == pytest.approx(mask[inside].mean())
    lr = torch.nn.functional.interpolate(
        torch.from_numpy(frame).permute(2, 0, 1)[None], (64, 64), mode="bicubic", antialias=True
    )
    with torch.no_grad():
        lesions = network(lr / 255, 4).lesions[0, DIABETIC_RETINOPATHY.channel("HE")].numpy()
    mapped = map_to_photograph(lesions, fov, height, width)[inside]
    expected = reference.average_precision_score(mask[inside], mapped)
    assert pools[ORIGINAL]["HE"].average_precision() == pytest.approx(expected, abs=2e-3)


def test_photograph_smaller_than_the_frame_has_no_other_images(
    network: DeepMTDR, tmp_path_factory: pytest.TempPathFactory
) -> None:
    (small,) = write_drawings(tmp_path_factory.mktemp("small"), [2], size=FRAME - 60)
    measured, pools = measure_all_inputs(network, small, frame=FRAME)
    assert (set(measured.other_inputs), measured.agreement) == ({ORIGINAL}, {})
    assert set(pools) == {SR, ORIGINAL}
    assert measured.for_input(HR).probs == ()


def test_unreadable_photograph_has_the_reason(network: DeepMTDR, drawing: Sample) -> None:
    torn = Sample(photograph=drawing.photograph.with_name("none.png"), name="none", patient="p", dataset="x")
    measured, pools = measure_all_inputs(network, torn, frame=FRAME)
    assert "none.png" in measured.failure
    assert pools == {}


def test_slow_metrics_can_be_left_out(network: DeepMTDR, drawing: Sample) -> None:
    measured, _ = measure_all_inputs(network, drawing, EvaluationConfig(slow_metrics=False), frame=FRAME)
    assert {name.split("_")[0] for name in measured.image} == {"psnr"}
    assert measured.lesions["MA"].froc is None


def test_evidence_is_removed_at_the_temperature_of_the_predicted_grade(network: DeepMTDR, drawing: Sample) -> None:
    config = EvaluationConfig(slow_metrics=False, removal_steps=1)
    measured, _ = measure_all_inputs(network, drawing, config, frame=FRAME, decision=GradeDecision(temperature=0.25))
    assert measured.evidence is not None and measured.evidence.removal is not None
    assert measured.evidence.removal.deletion[0] == pytest.approx(measured.probs, abs=1e-5)
    assert np.ptp(measured.probs) > 0.05, "not the same at every temperature"


def test_lesion_maps_in_bfloat16_have_the_scores_of_their_values(network: DeepMTDR, drawing: Sample) -> None:
    class InBfloat16(DeepMTDR):
        def segment(self, segmentation_input: torch.Tensor) -> torch.Tensor:
            return super().segment(segmentation_input).bfloat16()

    class Rounded(InBfloat16):
        def segment(self, segmentation_input: torch.Tensor) -> torch.Tensor:
            return super().segment(segmentation_input).float()

    pools = []
    for kind in (InBfloat16, Rounded):
        model = kind(load_recipe("smoke").model).eval()
        model.load_state_dict(network.state_dict())
        pools.append(measure_all_inputs(model, drawing, EvaluationConfig(slow_metrics=False), frame=FRAME)[1])
    for image in (SR, ORIGINAL):
        found, expected = ({code: curve.auc() for code, curve in own[image].items()} for own in pools)
        assert found == pytest.approx(expected, nan_ok=True) and found


def lesion_map(*places: tuple[int, int]) -> np.ndarray:
    """A map of 1024 px with a lesion of 3 x 3 px at each position."""
    found = np.zeros((1024, 1024), np.float32)
    for y, x in places:
        found[y - 1 : y + 2, x - 1 : x + 2] = 0.9
    return found


def test_lesions_match_within_five_pixels() -> None:
    inside = np.ones((1024, 1024), bool)
    here = lesion_map((100, 100), (200, 200), (300, 300))
    there = lesion_map((100, 107), (200, 208), (500, 500), (600, 600))
    # Edges of the first pair: columns 101 and 106, 5 px apart; of the second: 201 and 207, 6 px apart.
    assert count_agreement(here, there, inside) == Agreement(detected=3, hallucinated=2, reference=4, missed=3)
    assert count_agreement(here, here, inside) == Agreement(3, 0, 3, 0)
    inside[:250] = False
    assert count_agreement(here, there, inside) == Agreement(1, 1, 2, 2)


def test_one_lesion_on_hr_can_match_several() -> None:
    inside = np.ones((1024, 1024), bool)
    assert count_agreement(lesion_map((100, 100), (100, 104)), lesion_map((100, 102)), inside) == Agreement(2, 0, 1, 0)
