"""FROC: worked by hand, against flood fills in plain loops, and transformations that must not change it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from deepmtdr.metrics import FALSE_POSITIVES_PER_IMAGE, FrocCounts, count_froc
from deepmtdr.metrics.froc import FROC_THRESHOLDS

LEVELS = np.array([0.25, 0.5, 0.75])

PROBABILITY = np.array(
    [
        [0.9, 0.6, 0.0, 0.0, 0.0, 0.8],
        [0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
        [0.0, 0.3, 0.3, 0.0, 0.0, 0.0],
        [0.0, 0.0, 0.0, 0.6, 0.0, 0.0],
        [0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
        [0.6, 0.6, 0.6, 0.6, 0.6, 0.6],
    ]
)
TRUTH = np.array(
    [
        [1, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 1, 0],
        [0, 0, 0, 1, 0, 0],
        [0, 0, 0, 0, 0, 0],
        [1, 0, 0, 0, 0, 0],
    ],
    dtype=bool,
)
"""Three lesions: top left, the two pixels that touch at a corner, bottom left."""


def components(mask: np.ndarray) -> list[set[tuple[int, int]]]:
    """Sets of pixels that touch at a side or a corner, by flood fill."""
    left = {(int(y), int(x)) for y, x in np.argwhere(mask)}
    found = []
    while left:
        reached, todo = set(), [left.pop()]
        while todo:
            y, x = todo.pop()
            reached.add((y, x))
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= near
            todo += near
        found.append(reached)
    return found


def counted_by_loops(probability: np.ndarray, truth: np.ndarray, threshold: float, overlap: float) -> tuple[int, int]:
    lesions, detections = components(truth), components(probability >= threshold)
    annotated = {(int(y), int(x)) for y, x in np.argwhere(truth)}
    right = [detection for detection in detections if len(detection & annotated) > overlap * len(detection)]
    hits = sum(any(lesion & detection for detection in right) for lesion in lesions)
    return hits, len(detections) - len(right)


def blurred(rng: np.random.Generator, side: int = 40) -> tuple[np.ndarray, np.ndarray]:
    truth = np.zeros((side, side), bool)
    for y, x in rng.integers(0, side - 2, (8, 2)):
        truth[y : y + 2, x : x + 2] = True
    return 1 / (1 + np.exp(2 - rng.normal(4 * truth, 2))), truth


def test_froc_worked_by_hand() -> None:
    counts = count_froc(PROBABILITY, TRUTH, thresholds=LEVELS)
    assert (counts.lesions, counts.images) == (3, 1)
    # 0.75: the top left is found, the top right is a false alarm. 0.5: the middle is found too, and the bar, with 1/6
    # lesion, is a false alarm. 0.25: the middle has 3 pixels, 1/3 of them lesion, and is still right.
    assert counts.true_positives.tolist() == [2, 2, 1]
    assert counts.false_positives.tolist() == [2, 2, 1]
    # From (0, 0) to (1, 1/3), to (2, 2/3), level after that.
    assert [counts.sensitivity_at(alarms) for alarms in (0.0, 0.5, 1.0, 1.5, 2.0, 8.0)] == pytest.approx(
        [0, 1 / 6, 1 / 3, 1 / 2, 2 / 3, 2 / 3]
    )
    assert counts.cpm() == pytest.approx((1 / 24 + 1 / 12 + 1 / 6 + 1 / 3 + 2 / 3 + 2 / 3 + 2 / 3) / 7)


def test_froc_of_two_images_worked_by_hand() -> None:
    first = np.zeros((3, 7)), np.zeros((3, 7), bool)
    first[0][0] = [0.9, 0, 0.6, 0, 0.3, 0, 0]
    first[1][0] = [1, 0, 1, 0, 0, 0, 0]
    first[0][2, 6] = 0.6
    second = np.zeros((3, 7)), np.zeros((3, 7), bool)
    second[0][0] = [0.85, 0, 0, 0, 0.3, 0.3, 0.3]
    second[1][0] = [0, 0, 0, 0, 1, 0, 0]
    second[0][2, 2] = 0.25
    second[1][2, 0] = True  # never detected
    counts = count_froc(*first, thresholds=np.array([0.2, 0.5, 0.8])).merge(
        count_froc(*second, thresholds=np.array([0.2, 0.5, 0.8]))
    )
    # threshold   found             false alarms         per image   of 4 lesions
    # 0.8         1 + 0             0 + 1 (0.85)         1/2         1/4
    # 0.5         2 + 0             1 (0.6) + 1          1           1/2
    # 0.2         2 + 1 (one of 3)  2 (0.3) + 2 (0.25)   2           3/4
    assert (counts.images, counts.lesions) == (2, 4)
    assert (counts.true_positives.tolist(), counts.false_positives.tolist()) == ([3, 2, 1], [4, 2, 1])
    # Straight lines from (0, 0); level after two alarms per image.
    sensitivities = [1 / 16, 1 / 8, 1 / 4, 1 / 2, 3 / 4, 3 / 4, 3 / 4]
    assert [counts.sensitivity_at(alarms) for alarms in FALSE_POSITIVES_PER_IMAGE] == pytest.approx(sensitivities)
    assert counts.cpm() == pytest.approx(51 / 112)  # (1 + 2 + 4 + 8 + 12 + 12 + 12) / 16 / 7


def test_with_overlap_0_a_touching_detection_is_right() -> None:
    counts = count_froc(PROBABILITY, TRUTH, thresholds=LEVELS, overlap=0.0)
    assert (counts.true_positives.tolist(), counts.false_positives.tolist()) == ([3, 3, 1], [1, 1, 1])


def test_one_blob_over_the_whole_image_finds_nothing() -> None:
    counts = count_froc(np.ones((6, 6)), TRUTH)
    assert not counts.true_positives.any()
    assert (counts.false_positives == 1).all()
    assert counts.cpm() == 0


@pytest.mark.parametrize("overlap", [0.0, 0.2, 0.6])
@pytest.mark.parametrize("seed", range(4))
def test_froc_agrees_with_flood_fills_in_plain_loops(seed: int, overlap: float) -> None:
    probability, truth = blurred(np.random.default_rng(seed))
    counts = count_froc(probability, truth, overlap=overlap)
    theirs = [counted_by_loops(probability, truth, threshold, overlap) for threshold in FROC_THRESHOLDS]
    assert counts.lesions == len(components(truth))
    assert list(zip(counts.true_positives, counts.false_positives, strict=True)) == theirs


def test_froc_does_not_change_if_the_image_is_rotated_or_shifted(rng: np.random.Generator) -> None:
    probability, truth = blurred(rng)
    upright = count_froc(probability, truth)
    for move in (np.rot90, np.fliplr, np.transpose, lambda z: np.pad(z, ((3, 1), (0, 7)))):
        moved = count_froc(move(probability), move(truth))
        assert (moved.true_positives.tolist(), moved.false_positives.tolist()) == (
            upright.true_positives.tolist(),
            upright.false_positives.tolist(),
        )


def test_froc_counts_only_pixels_of_the_mask(rng: np.random.Generator) -> None:
    (probability, truth), inside = blurred(rng), np.zeros((40, 40), bool)
    inside[:, :20] = True
    half = count_froc(probability[:, :20], truth[:, :20])
    probability[:, 20:] = np.nan
    whole = count_froc(probability, truth, inside)
    assert (whole.true_positives.tolist(), whole.false_positives.tolist()) == (
        half.true_positives.tolist(),
        half.false_positives.tolist(),
    )
    assert whole.lesions == half.lesions


def test_merged_counts_equal_those_of_both_images_side_by_side(rng: np.random.Generator) -> None:
    first, second = blurred(rng), blurred(rng)
    merged = count_froc(*first).merge(count_froc(*second))
    gap = np.zeros((40, 1))
    side_by_side = count_froc(*(np.hstack([a, gap.astype(a.dtype), b]) for a, b in zip(first, second, strict=True)))
    assert merged.images == 2
    assert merged.lesions == side_by_side.lesions
    assert merged.true_positives.tolist() == side_by_side.true_positives.tolist()
    for alarms in (0.1, 1.0, 5.0):  # per image, so twice as many in the joined image
        assert merged.sensitivity_at(alarms) == pytest.approx(side_by_side.sensitivity_at(2 * alarms))


def test_sensitivity_never_falls_with_more_false_alarms(rng: np.random.Generator) -> None:
    counts = count_froc(*blurred(rng))
    assert (np.diff([counts.sensitivity_at(alarms) for alarms in np.linspace(0, 60, 200).tolist()]) >= 0).all()
    assert 0 < counts.cpm() < 1


def test_perfect_map_scores_1_and_empty_map_0() -> None:
    assert count_froc(TRUTH.astype(float), TRUTH).cpm() == 1
    assert count_froc(TRUTH.astype(float), TRUTH).sensitivity_at(0.0) == 1
    assert count_froc(np.zeros((6, 6)), TRUTH).cpm() == 0


def test_best_threshold_of_equal_alarms_counts() -> None:
    counts = FrocCounts(LEVELS, np.array([1, 3, 2]), np.array([4, 2, 2]), lesions=4)
    assert counts.sensitivity_at(2.0) == 3 / 4
    assert counts.sensitivity_at(4.0) == 3 / 4  # the threshold with more alarms finds fewer lesions


def test_image_without_lesions_has_alarms_but_no_sensitivity() -> None:
    counts = count_froc(PROBABILITY, np.zeros((6, 6), bool), thresholds=LEVELS)
    assert counts.false_positives.tolist() == [4, 4, 2]
    assert math.isnan(counts.sensitivity_at(1.0))
    assert math.isnan(counts.cpm())
    assert (
        counts.merge(count_froc(PROBABILITY, TRUTH, thresholds=LEVELS)).sensitivity_at(2.0) > 0
    )  # a healthy image counts


def test_wrong_probabilities_and_thresholds_are_errors() -> None:
    for wrong in (np.nan, 1.1, -0.1):
        with pytest.raises(ValueError, match=r"expected numbers in \[0, 1\]"):
            count_froc(np.full((6, 6), wrong), TRUTH)
    for levels in (LEVELS[::-1].copy(), np.array([0.0, 0.5])):
        with pytest.raises(ValueError, match="expected ascending numbers above 0"):
            count_froc(PROBABILITY, TRUTH, thresholds=levels)
    with pytest.raises(ValueError, match="expected the same thresholds"):
        count_froc(PROBABILITY, TRUTH).merge(count_froc(PROBABILITY, TRUTH, thresholds=LEVELS))
