"""Evidence for a threshold (interpretation R28): turns of the frame, Gaussian filter, percentile."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from deepmtdr.model.deepmtdr import DeepMTDR, ModelConfig
from deepmtdr.model.grading import GradingConfig
from deepmtdr.model.isr import ISRConfig
from deepmtdr.model.segmentation import SegmentationConfig
from deepmtdr.model.stable_evidence import (
    TURNS,
    UNPREPARED_EVIDENCE,
    StableEvidenceConfig,
    scale_by_percentile,
    smooth,
    turn,
    turn_back,
)
from segmenter_checks import randomise_lesion_maps

PICTURE = torch.tensor([[1.0, 2.0], [3.0, 4.0]])[None, None]


@pytest.fixture
def model() -> DeepMTDR:
    """A small network whose last stage has positive weights for DR, so that there is evidence."""
    config = ModelConfig(
        isr=ISRConfig(width=4, blocks=1),
        segmentation=SegmentationConfig(width=4),
        grading=GradingConfig(width=4, hidden=8, head_norm=False),
    )
    model = DeepMTDR(config).eval()
    randomise_lesion_maps(model)
    with torch.no_grad():
        model.grading.spp_fc.weight.abs_()
        model.grading.classifier.weight.abs_()[0].neg_()
    return model


# Turns


def test_eight_turns_by_hand() -> None:
    expected = ["1234", "2143", "3412", "4321", "1324", "3142", "2413", "4231"]
    found = ["".join(str(int(value)) for value in turn(PICTURE, number).flatten()) for number in range(8)]
    assert found == expected


@pytest.mark.parametrize("number", range(8))
def test_turn_back_reverses_each_turn(number: int) -> None:
    image = torch.rand(2, 3, 5, 5)
    assert torch.equal(turn_back(turn(image, number), number), image)


@pytest.mark.parametrize("count", TURNS)
def test_each_number_of_turns_is_closed(count: int) -> None:
    """One turn after another is a turn of the same set, so an average over the set turns with the frame."""
    image = torch.rand(1, 1, 4, 4)
    known = [turn(image, number) for number in range(count)]
    for first in known:
        for number in range(count):
            assert any(torch.equal(turn(first, number), other) for other in known)


# Filter and percentile


def test_filter_is_gaussian_and_continues_the_border() -> None:
    evidence = torch.rand(2, 1, 40, 30)
    expected = [gaussian_filter(one.numpy(), 2.0, mode="nearest", truncate=3.0) for one in evidence[:, 0]]
    assert np.allclose(smooth(evidence, 2.0)[:, 0].numpy(), expected, atol=1e-5)
    assert smooth(evidence, 0.0) is evidence
    assert torch.allclose(smooth(torch.full((1, 1, 8, 8), 0.3), 5.0), torch.tensor(0.3))


def test_percentile_by_hand() -> None:
    # 1 to 20: the 95th percentile is 19, the 19th value; 100 is the maximum.
    evidence = torch.arange(1.0, 21.0).reshape(1, 1, 4, 5)
    assert scale_by_percentile(evidence, 95.0).flatten().tolist() == pytest.approx([n / 19 for n in range(1, 20)] + [1])
    assert torch.allclose(scale_by_percentile(evidence, 100.0), evidence / 20)


def test_percentile_of_zero_gives_way_to_the_maximum_and_no_evidence_stays_none() -> None:
    evidence = torch.zeros(2, 1, 10, 10)
    evidence[0, 0, 3, 4] = 0.2
    scaled = scale_by_percentile(evidence, 95.0)
    assert scaled[0, 0, 3, 4] == 1 and scaled[0].sum() == 1
    assert not scaled[1].any()


def test_percentile_is_a_constant_when_differentiated() -> None:
    evidence = torch.arange(1.0, 5.0).reshape(1, 1, 2, 2).requires_grad_()
    scale_by_percentile(evidence, 75.0).sum().backward()
    assert evidence.grad is not None
    assert torch.allclose(evidence.grad.flatten(), torch.tensor([1 / 3, 1 / 3, 1 / 3, 0.0]))  # the last is clamped


def test_sigma_is_in_px_of_a_frame_of_1024_px() -> None:
    evidence = torch.rand(1, 1, 128, 128)
    prepared = StableEvidenceConfig(smoothing=16.0, percentile=90.0).prepare(evidence)
    assert torch.allclose(prepared, scale_by_percentile(smooth(evidence, 2.0), 90.0))


def test_unprepared_evidence_is_not_changed() -> None:
    evidence = torch.rand(1, 1, 8, 8)
    assert UNPREPARED_EVIDENCE.prepare(evidence) is evidence


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"turns": 3}, "turns = 3, expected one of 1, 2, 4, 8"),
        ({"smoothing": -1.0}, "smoothing = -1.0, expected 0 or more"),
        ({"percentile": 0.0}, "percentile = 0.0, expected a percentile above 0, at most 100"),
        ({"percentile": 101.0}, "percentile = 101.0"),
    ],
)
def test_wrong_setting_is_described(settings: dict, words: str) -> None:
    (problem,) = StableEvidenceConfig(**settings).problems()
    assert words in problem
    assert not list(StableEvidenceConfig().problems())


# The network


def frame() -> Tensor:
    torch.manual_seed(3)
    return torch.nn.functional.interpolate(torch.rand(1, 3, 16, 16), scale_factor=4, mode="bilinear")


def test_average_evidence_is_the_mean_of_the_evidence_of_each_turned_frame(model: DeepMTDR) -> None:
    _, averaged = model.predict(frame(), 1, turns=4)
    each = [turn_back(model.predict(turn(frame(), number), 1)[1], number) for number in range(4)]
    # The segmentation is not repeated: lesion maps are turned. An untrained one depends little on the orientation.
    assert torch.allclose(averaged, torch.stack(each).mean(dim=0), atol=0.05)
    assert not torch.allclose(each[0], each[1], atol=0.05)
    assert not averaged.requires_grad


@pytest.mark.parametrize("number", [1, 2, 5])
def test_average_over_eight_turns_turns_with_the_frame(model: DeepMTDR, number: int) -> None:
    model.segmentation.requires_grad_(False)
    with torch.no_grad():
        prediction, _ = model.predict(frame(), 1)
    turned = prediction._replace(
        sr=turn(prediction.sr, number),
        lesions=turn(prediction.lesions, number),
        lesion_region=turn(prediction.lesion_region, number),
    )

    def averaged(one: object) -> Tensor:
        assert isinstance(one, type(prediction))
        graded = model.grade(model.grading.preprocess(one.sr).requires_grad_(), one.lesions)
        first = model.evidence(type(prediction)(one.sr, one.lesions, one.lesion_region, *graded)).detach()
        return model.average_evidence(one, first, 8)

    assert torch.allclose(averaged(turned), turn(averaged(prediction), number), atol=1e-4)


def test_one_turn_is_the_evidence_itself(model: DeepMTDR) -> None:
    prediction, evidence = model.predict(frame(), 1)
    assert torch.equal(model.average_evidence(prediction, evidence, 1), evidence)
