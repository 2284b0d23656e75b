"""Every score against scikit-learn, torchmetrics and scikit-image on random cases, and where definitions differ."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.special import expit, softmax
from scipy.stats import bootstrap
from sklearn import metrics as sklearn
from torchmetrics.functional import classification, image

from deepmtdr.metrics import (
    PooledCurve,
    auc,
    average_precision,
    dice,
    iou,
    kappa_linear,
    kappa_quadratic,
    ms_ssim,
    precision_recall_f1,
    ssim,
)
from deepmtdr.metrics import image as our_image
from deepmtdr.metrics.calibration import expected_calibration_error, negative_log_likelihood
from deepmtdr.metrics.intervals import bootstrap_interval
from metric_references import (
    GRADE_CHECKS,
    GRADES,
    IMAGE_CHECKS,
    INSIDE,
    PIXEL_CHECKS,
    PROBABILITY_CHECKS,
    SCORE_CHECKS,
    nchw,
    t,
)

SEEDS = range(4)
TABLES = {**GRADE_CHECKS, **PROBABILITY_CHECKS, **SCORE_CHECKS, **PIXEL_CHECKS, **IMAGE_CHECKS}


def agree(score: str, *case: np.ndarray) -> None:
    check = TABLES[score]
    found = check.differences(*case)
    assert max(found.values()) <= check.tolerance, f"{score}: {found}"


def grades(rng: np.random.Generator, number: int = 300) -> tuple[np.ndarray, np.ndarray]:
    truth = rng.choice(GRADES, number, p=[0.5, 0.05, 0.3, 0.05, 0.1])
    return np.where(rng.random(number) < 0.6, truth, rng.integers(0, GRADES, number)), truth


FEW_GRADES = {
    "all right": ([0, 1, 2, 3, 4], [0, 1, 2, 3, 4]),
    "all wrong": ([4, 3, 0, 1, 2], [0, 1, 2, 3, 4]),
    "a grade that does not occur": ([0, 1, 3, 3, 1, 4], [0, 0, 1, 3, 1, 4]),
    "a grade that is only predicted": ([0, 2, 1, 1], [0, 0, 1, 1]),
    "a grade that is never predicted": ([0, 0, 1, 1], [0, 2, 1, 1]),
    "one true grade": ([0, 1, 3, 3], [2, 2, 2, 2]),
    "one grade throughout": ([2, 2, 2], [2, 2, 2]),
    "one photograph, wrong": ([1], [3]),
    "two photographs": ([1, 0], [3, 0]),
}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.UndefinedMetricWarning")  # nan in both
@pytest.mark.parametrize("score", GRADE_CHECKS)
def test_scores_of_grades_agree_with_references(score: str) -> None:
    for seed in SEEDS:
        for number in (7, 40, 300):
            agree(score, *grades(np.random.default_rng(seed), number))
    for case in FEW_GRADES.values():
        agree(score, *map(np.array, case))


@pytest.mark.parametrize("score", PROBABILITY_CHECKS)
def test_scores_of_probabilities_agree_with_references(score: str) -> None:
    for seed in SEEDS:
        for number, sharpness in ((3, 1), (50, 0.3), (400, 1), (400, 3)):
            rng = np.random.default_rng(seed)
            _, truth = grades(rng, number)
            logits = rng.normal(2.0 * np.eye(GRADES)[truth], 1.5)
            agree(score, softmax(sharpness * logits, axis=1), truth)


@pytest.mark.parametrize("levels", [None, 20, 3])  # 3: almost all are ties
@pytest.mark.parametrize("score", SCORE_CHECKS)
def test_scores_of_rankings_agree_with_references(score: str, levels: int | None) -> None:
    for seed in SEEDS:
        for number in (4, 30, 500):
            rng = np.random.default_rng(seed)
            positive = rng.random(number) < 0.25
            positive[:2] = True, False
            scores = expit(rng.normal(positive, 1))
            agree(score, scores if levels is None else np.round(scores * levels) / levels, positive)


@pytest.mark.parametrize("score", PIXEL_CHECKS)
def test_scores_of_pixels_agree_with_references(score: str) -> None:
    for seed in SEEDS:
        for shift in (-6, -2, 0):  # -6: almost no pixel above one half
            rng = np.random.default_rng(seed)
            truth = rng.random((3, 4000)) < 0.02
            truth[0], truth[1, 0] = False, True  # one photograph without lesions
            agree(score, expit(rng.normal(3 * truth + shift, 1.5)).astype(np.float32), truth)


def pair() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    hr = np.clip(gaussian_filter(rng.normal(0.5, 1.5, (177, 190, 3)), (3, 3, 0)), 0, 1)
    return np.clip(hr + rng.normal(0, 0.1, hr.shape), 0, 1), hr


@pytest.mark.parametrize("score", IMAGE_CHECKS)
def test_scores_of_images_agree_with_references(score: str) -> None:
    noisy, hr = pair()
    for sr in (noisy, gaussian_filter(hr, (2, 2, 0)), np.full_like(hr, 0.5)):
        agree(score, sr, hr)


# Where the ready-made number of a reference differs.


def test_scikit_learn_kappa_without_labels_leaves_out_grades_that_do_not_occur() -> None:
    predicted, truth = np.array([0, 3, 0, 3, 0]), np.array([0, 0, 0, 3, 1])  # grade 2 is neither true nor predicted
    # The errors are 3 and 1 grades; without grade 2 they are 2 and 1.
    assert kappa_quadratic(predicted, truth) != pytest.approx(
        sklearn.cohen_kappa_score(truth, predicted, weights="quadratic"), abs=0.01
    )
    squeezed = {0: 0, 1: 1, 3: 2}
    packed = tuple(np.array([squeezed[grade] for grade in side.tolist()]) for side in (predicted, truth))
    for ours, weights in ((kappa_linear, "linear"), (kappa_quadratic, "quadratic")):
        assert ours(packed[0], packed[1]) == pytest.approx(sklearn.cohen_kappa_score(truth, predicted, weights=weights))


def test_macro_averages_of_references_include_grades_that_are_only_predicted() -> None:
    predicted, truth = np.array([0, 2, 1, 1]), np.array([0, 0, 1, 1])
    # Recalls 1/2 and 1; the references add 0 for grade 2, which has no photograph.
    assert precision_recall_f1(predicted, truth, "macro").recall == 3 / 4
    assert sklearn.recall_score(truth, predicted, average="macro", zero_division=0) == 1 / 2
    theirs = classification.multiclass_recall(t(predicted), t(truth), GRADES, average="macro")
    assert float(theirs) == pytest.approx(1 / 2)


def test_torchmetrics_ece_assigns_a_probability_on_a_border_to_the_upper_bin() -> None:
    probs, truth = np.array([[0.45, 0.3, 0.25], [0.5, 0.25, 0.25]]), np.array([0, 1])
    # (0, 1/2] contains both: |(0.45 - 1) + (0.5 - 0)| / 2. With [1/2, 1) as the other bin: (0.55 + 0.5) / 2.
    assert expected_calibration_error(probs, truth, bins=2) == pytest.approx(0.025)
    assert float(classification.multiclass_calibration_error(t(probs), t(truth), 3, n_bins=2)) == pytest.approx(0.525)


def test_scikit_learn_log_loss_is_at_most_36_and_ours_can_be_infinite() -> None:
    probs, truth = np.array([[1.0, 0.0], [1e-30, 1.0]]), np.array([1, 0])
    clipped = -math.log(np.finfo(np.float64).eps)  # probabilities below 2.2e-16 count as 2.2e-16
    assert sklearn.log_loss(truth, probs) == pytest.approx(clipped)
    assert negative_log_likelihood(probs, truth) == math.inf
    assert negative_log_likelihood(probs[1:], truth[1:]) == pytest.approx(30 * math.log(10))


@pytest.mark.filterwarnings("ignore:No (negative|positive) samples")
def test_undefined_scores_are_0_in_torchmetrics_and_nan_in_ours() -> None:
    scores, all_ill, nothing = np.array([0.1, 0.2]), np.array([True, True]), np.zeros(4, bool)
    assert float(classification.binary_auroc(t(scores), t(all_ill).long())) == 0
    assert float(classification.binary_average_precision(t(scores), t(~all_ill).long())) == 0
    assert float(classification.binary_f1_score(t(nothing).long(), t(nothing).long())) == 0
    assert float(classification.binary_jaccard_index(t(nothing).long(), t(nothing).long())) == 0
    ours = auc(scores, all_ill), average_precision(scores, ~all_ill), dice(nothing, nothing), iou(nothing, nothing)
    assert np.isnan(ours).all()


def test_torchmetrics_aupr_with_100_thresholds_is_inaccurate_for_small_probabilities(
    rng: np.random.Generator,
) -> None:
    truth = rng.random(200_000) < 0.003
    probability = expit(rng.normal(4 * truth - 9, 1.5)).astype(np.float32)  # well ranked, all below 0.5
    exact = sklearn.average_precision_score(truth, probability)
    curve = PooledCurve()
    curve.update(probability, truth)
    binned = classification.binary_average_precision(t(probability), t(truth).long(), thresholds=100)
    assert abs(float(binned) - exact) > 0.02
    assert curve.average_precision() == pytest.approx(exact, abs=1e-4)


def mirrored(picture: np.ndarray) -> np.ndarray:
    return np.pad(picture, ((5, 5), (5, 5), (0, 0)), mode="reflect")


def test_torchmetrics_ssim_is_ours_of_the_image_with_mirrored_border() -> None:
    """torchmetrics also counts windows across the border, filled with the mirror image."""
    sr, hr = pair()
    ready = float(image.structural_similarity_index_measure(nchw(sr), nchw(hr), data_range=1.0))
    assert ssim(mirrored(sr), mirrored(hr)) == pytest.approx(ready, abs=1e-9)
    assert 1e-4 < abs(ssim(sr, hr) - ready) < 0.01


def test_torchmetrics_ms_ssim_differs_only_at_the_border_of_the_coarsest_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its four finer scales leave the border out too. One channel, because it averages channels before the powers."""
    sr, hr = (np.repeat(picture[..., :1], 3, axis=2) for picture in pair())
    theirs: Callable[..., object] = image.multiscale_structural_similarity_index_measure
    whole = float(theirs(nchw(sr), nchw(hr), data_range=1.0))  # type: ignore[arg-type]
    assert 1e-6 < abs(ms_ssim(sr, hr) - whole) < 0.01
    finer = (*our_image.SCALE_WEIGHTS[:4], 0.0)
    monkeypatch.setattr(our_image, "SCALE_WEIGHTS", finer)
    four = float(theirs(nchw(sr), nchw(hr), data_range=1.0, betas=finer))  # type: ignore[arg-type]
    assert ms_ssim(sr, hr) == pytest.approx(four, abs=1e-6)


def test_torchmetrics_ssim_map_without_the_border_equals_ours_at_each_pixel() -> None:
    sr, hr = pair()
    _, theirs = image.structural_similarity_index_measure(nchw(sr), nchw(hr), data_range=1.0, return_full_image=True)
    ours = our_image.ssim_map(sr, hr)[INSIDE, INSIDE]
    assert ours == pytest.approx(theirs[0, :, INSIDE, INSIDE].mean(dim=0).numpy(), abs=1e-9)


def test_interval_with_one_photograph_per_patient_agrees_with_scipy(rng: np.random.Generator) -> None:
    positive = rng.random(200) < 0.4
    scores = rng.normal(positive, 1)
    ours = bootstrap_interval(auc, range(200), scores, positive, resamples=4000)

    def of_rows(rows: np.ndarray) -> float:
        return auc(scores[rows], positive[rows])

    drawn = bootstrap((np.arange(200),), of_rows, n_resamples=4000, vectorized=False, method="percentile", rng=1)
    theirs = drawn.confidence_interval
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.005)  # a tenth of an SD is .0035
