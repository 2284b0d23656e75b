"""Each score of the project next to the same score of scikit-learn, torchmetrics and scikit-image.

All functions take the same NumPy arrays. Where a reference defines its score differently, for example with windows that
cross the image border, the score is built from its parts here. `metrics/test_against_references.py` shows how the
ready-made number differs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from skimage import metrics as skimage
from sklearn import metrics as sklearn
from torch import Tensor
from torch.nn import functional
from torchmetrics import functional as tm
from torchmetrics.functional import classification, image, segmentation, text

from deepmtdr import metrics as ours
from deepmtdr.metrics import calibration, ranking
from deepmtdr.metrics.image import SCALE_WEIGHTS, WINDOW_RADIUS

GRADES = 5
INSIDE = slice(WINDOW_RADIUS, -WINDOW_RADIUS)
"""The pixels whose window does not cross the border."""


class ReferenceCheck(NamedTuple):
    """One score of the project and of the references: a number, or one number per class."""

    ours: Callable[..., Any]
    theirs: Mapping[str, Callable[..., Any]]
    tolerance: float = 1e-6
    """torchmetrics mostly computes in float32."""

    def differences(self, *case: np.ndarray) -> dict[str, float]:
        """The largest difference to each reference; nan equals only nan."""
        mine = np.asarray(self.ours(*case), dtype=np.float64)
        theirs = {name: np.asarray(score(*case), dtype=np.float64) for name, score in self.theirs.items()}
        return {name: _distance(mine, value) for name, value in theirs.items()}


def _distance(mine: np.ndarray, theirs: np.ndarray) -> float:
    assert mine.shape == theirs.shape, f"{mine.shape} beside {theirs.shape}"
    if (np.isnan(mine) != np.isnan(theirs)).any():
        return float("inf")
    same = (mine == theirs) | np.isnan(mine)
    return float(np.abs(np.where(same, 0, mine - theirs)).max())


def t(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))


# Grades: predicted, truth.


def _sklearn_averages(average: str) -> Callable[..., Any]:
    def score(predicted: np.ndarray, truth: np.ndarray) -> Any:
        labels = np.unique(truth)  # a class that never occurs has no recall
        return sklearn.precision_recall_fscore_support(
            truth, predicted, labels=labels, average=average, zero_division=0
        )[:3]

    return score


def _torchmetrics_averages(average: str) -> Callable[..., Any]:
    def averages(predicted: np.ndarray, truth: np.ndarray) -> Any:
        counts = np.bincount(truth, minlength=GRADES)
        weights = counts if average == "weighted" else counts > 0
        scores = (
            classification.multiclass_precision,
            classification.multiclass_recall,
            classification.multiclass_f1_score,
        )
        per_class = [score(t(predicted), t(truth), GRADES, average="none").numpy() for score in scores]
        return [np.average(values, weights=weights) for values in per_class]

    return averages


def _recall_of_each(predicted: np.ndarray, truth: np.ndarray, *, others: bool = False) -> list[float]:
    """Recall of each class by scikit-learn; with `others` that of all other classes together, the specificity."""
    sides = [((truth == k) ^ others, (predicted == k) ^ others) for k in range(GRADES)]
    return [sklearn.recall_score(*side, zero_division=np.nan) for side in sides]


def _sensitivity_by_torchmetrics(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    theirs = classification.multiclass_recall(t(predicted), t(truth), GRADES, average="none").numpy()
    return np.where(np.bincount(truth, minlength=GRADES) > 0, theirs, np.nan)  # 0 there in torchmetrics


def _specificity_by_torchmetrics(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    theirs = classification.multiclass_specificity(t(predicted), t(truth), GRADES, average="none").numpy()
    return np.where(np.bincount(truth, minlength=GRADES) < truth.size, theirs, np.nan)


def _kappa(weights: Literal["linear", "quadratic"] | None) -> dict[str, Callable[..., Any]]:
    return {
        # With `labels`: without them scikit-learn leaves out grades that do not occur.
        "scikit-learn": lambda predicted, truth: sklearn.cohen_kappa_score(
            truth, predicted, labels=range(GRADES), weights=weights
        ),
        "torchmetrics": lambda predicted, truth: classification.multiclass_cohen_kappa(
            t(predicted), t(truth), GRADES, weights=weights
        ),
    }


GRADE_CHECKS = {
    "confusion matrix": ReferenceCheck(
        lambda p, y: ours.confusion_matrix(p, y, GRADES),
        {
            "scikit-learn": lambda p, y: sklearn.confusion_matrix(y, p, labels=range(GRADES)),
            "torchmetrics": lambda p, y: classification.multiclass_confusion_matrix(t(p), t(y), GRADES),
        },
        tolerance=0,
    ),
    "accuracy": ReferenceCheck(
        ours.accuracy,
        {
            "scikit-learn": lambda p, y: sklearn.accuracy_score(y, p),
            "torchmetrics": lambda p, y: classification.multiclass_accuracy(t(p), t(y), GRADES, average="micro"),
        },
    ),
    "kappa": ReferenceCheck(ours.kappa, _kappa(None)),
    "kappa_linear": ReferenceCheck(ours.kappa_linear, _kappa("linear")),
    "kappa_quadratic": ReferenceCheck(ours.kappa_quadratic, _kappa("quadratic")),
    "precision, recall, F1, weighted": ReferenceCheck(
        ours.precision_recall_f1,
        {"scikit-learn": _sklearn_averages("weighted"), "torchmetrics": _torchmetrics_averages("weighted")},
    ),
    "precision, recall, F1, macro": ReferenceCheck(
        lambda p, y: ours.precision_recall_f1(p, y, "macro"),
        {"scikit-learn": _sklearn_averages("macro"), "torchmetrics": _torchmetrics_averages("macro")},
    ),
    "sensitivity": ReferenceCheck(
        lambda p, y: ours.sensitivity_specificity(p, y, GRADES).sensitivity,
        {"scikit-learn": _recall_of_each, "torchmetrics": _sensitivity_by_torchmetrics},
    ),
    "specificity": ReferenceCheck(
        lambda p, y: ours.sensitivity_specificity(p, y, GRADES).specificity,
        {
            "scikit-learn": lambda p, y: _recall_of_each(p, y, others=True),
            "torchmetrics": _specificity_by_torchmetrics,
        },
    ),
}

# Probabilities of the grades, truth.

PROBABILITY_CHECKS = {
    "ECE": ReferenceCheck(
        calibration.expected_calibration_error,
        {
            "torchmetrics": lambda probs, y: classification.multiclass_calibration_error(
                t(probs), t(y), probs.shape[1], n_bins=calibration.CALIBRATION_BINS
            )
        },
    ),
    "Brier": ReferenceCheck(
        calibration.brier,
        {
            "scikit-learn": lambda probs, y: sklearn.brier_score_loss(
                y, probs, labels=range(probs.shape[1]), scale_by_half=False
            ),
            # torchmetrics has no Brier score, but the mean squared error that it consists of.
            "torchmetrics": lambda probs, y: (
                probs.shape[1] * tm.mean_squared_error(t(probs), functional.one_hot(t(y), probs.shape[1]).double())
            ),
        },
    ),
    "NLL": ReferenceCheck(
        calibration.negative_log_likelihood,
        {
            "scikit-learn": lambda probs, y: sklearn.log_loss(y, probs, labels=range(probs.shape[1])),
            # torchmetrics has the perplexity exp(NLL) of a text, whose logits may be log p.
            "torchmetrics": lambda probs, y: text.perplexity(t(np.log(probs))[None], t(y)[None]).log(),
        },
    ),
}

# Scores in [0, 1], truth.


def _sensitivity_by_scikit_learn(scores: np.ndarray, positive: np.ndarray) -> float:
    alarms, hits, _ = sklearn.roc_curve(positive, scores, drop_intermediate=False)
    return hits[1 - alarms >= 0.9 - 1e-12].max()


def _threshold_by_scikit_learn(scores: np.ndarray, positive: np.ndarray) -> float:
    _, hits, thresholds = sklearn.roc_curve(positive, scores, drop_intermediate=False)
    return thresholds[hits >= 0.9 - 1e-12].max()


SCORE_CHECKS = {
    "AUC": ReferenceCheck(
        ours.auc,
        {
            "scikit-learn": lambda s, y: sklearn.roc_auc_score(y, s),
            "torchmetrics": lambda s, y: classification.binary_auroc(t(s), t(y).long()),
        },
    ),
    "AP": ReferenceCheck(
        ours.average_precision,
        {
            "scikit-learn": lambda s, y: sklearn.average_precision_score(y, s),
            "torchmetrics": lambda s, y: classification.binary_average_precision(t(s), t(y).long()),
        },
    ),
    "sensitivity at specificity .9": ReferenceCheck(
        lambda s, y: ours.sensitivity_at_specificity(s, y, 0.9).sensitivity,
        {
            "scikit-learn": _sensitivity_by_scikit_learn,
            "torchmetrics": lambda s, y: classification.binary_sensitivity_at_specificity(t(s), t(y).long(), 0.9)[0],
        },
    ),
    "threshold for sensitivity .9": ReferenceCheck(
        lambda s, y: ranking.threshold_for_sensitivity(s, y, 0.9),
        {"scikit-learn": _threshold_by_scikit_learn},
    ),
}

# Probability and truth of each pixel.


def _pooled(score: Callable[[ours.PooledCurve], float]) -> Callable[..., float]:
    def of_photographs(probability: np.ndarray, truth: np.ndarray) -> float:
        curve = ours.PooledCurve()
        for part, annotated in zip(probability, truth, strict=True):  # each row is a photograph
            curve.update(part, annotated)
        return score(curve)

    return of_photographs


def _above_one_half(score: Callable[..., Any]) -> Callable[..., Any]:
    return lambda p, y: score(p > 0.5, y)


DICE = {
    "scikit-learn": lambda p, y: sklearn.f1_score(y.ravel(), p.ravel() > 0.5),
    "torchmetrics": lambda p, y: segmentation.dice_score(
        t(p.ravel() > 0.5)[None, None], t(y.ravel())[None, None], num_classes=1
    )[0],
}
IOU = {
    "scikit-learn": lambda p, y: sklearn.jaccard_score(y.ravel(), p.ravel() > 0.5),
    "torchmetrics": lambda p, y: classification.binary_jaccard_index(t(p > 0.5).long(), t(y).long()),
}


def _flat(scores: Mapping[str, Callable[..., Any]]) -> dict[str, Callable[..., Any]]:
    return {name: lambda p, y, score=score: score(p.ravel(), y.ravel()) for name, score in scores.items()}


PIXEL_CHECKS = {
    "Dice": ReferenceCheck(_above_one_half(ours.dice), DICE),
    "IoU": ReferenceCheck(_above_one_half(ours.iou), IOU),
    "pooled Dice": ReferenceCheck(_pooled(ours.PooledCurve.dice), DICE),
    "pooled IoU": ReferenceCheck(_pooled(ours.PooledCurve.iou), IOU),
    "pooled AP": ReferenceCheck(
        _pooled(ours.PooledCurve.average_precision), _flat(SCORE_CHECKS["AP"].theirs), tolerance=1e-4
    ),
    "pooled AUC": ReferenceCheck(_pooled(ours.PooledCurve.auc), _flat(SCORE_CHECKS["AUC"].theirs), tolerance=1e-4),
}

# SR and HR image.

WANG = {"data_range": 1, "channel_axis": 2, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
"""Arguments of scikit-image for the SSIM of Wang et al. 2004."""


def nchw(picture: np.ndarray) -> Tensor:
    """An image as torchmetrics takes it, in its own precision."""
    return t(picture.transpose(2, 0, 1))[None]


def ssim_map_by_torchmetrics(sr: Tensor, hr: Tensor) -> Tensor:
    _, windows = image.structural_similarity_index_measure(sr, hr, data_range=1.0, return_full_image=True)
    return windows


def _ssim_by_torchmetrics(sr: np.ndarray, hr: np.ndarray) -> Tensor:
    return ssim_map_by_torchmetrics(nchw(sr), nchw(hr))[..., INSIDE, INSIDE].mean()


def _ms_ssim_by_torchmetrics(sr: np.ndarray, hr: np.ndarray) -> float:
    """MS-SSIM from the contrast and SSIM of torchmetrics, without windows across the border, for R, G and B."""
    x, y = (nchw(picture).transpose(0, 1) for picture in (sr, hr))
    score = torch.ones(3)
    for scale, weight in enumerate(SCALE_WEIGHTS, start=1):
        if scale < len(SCALE_WEIGHTS):
            _, part = image.structural_similarity_index_measure(
                x, y, data_range=1.0, return_contrast_sensitivity=True, reduction="none"
            )
        else:
            part = ssim_map_by_torchmetrics(x, y)[..., INSIDE, INSIDE].mean(dim=(1, 2, 3))
        score = score * part**weight
        x, y = functional.avg_pool2d(x, 2), functional.avg_pool2d(y, 2)
    return float(score.mean())


IMAGE_CHECKS = {
    "PSNR": ReferenceCheck(
        ours.psnr,
        {
            "scikit-image": lambda sr, hr: skimage.peak_signal_noise_ratio(
                hr.astype(float), sr.astype(float), data_range=1
            ),
            "torchmetrics": lambda sr, hr: image.peak_signal_noise_ratio(nchw(sr), nchw(hr), data_range=1.0),
        },
        tolerance=1e-5,
    ),
    "SSIM": ReferenceCheck(
        ours.ssim,
        {
            "scikit-image": lambda sr, hr: skimage.structural_similarity(hr.astype(float), sr.astype(float), **WANG),
            "torchmetrics": _ssim_by_torchmetrics,
        },
        tolerance=1e-5,
    ),
    "MS-SSIM": ReferenceCheck(ours.ms_ssim, {"torchmetrics": _ms_ssim_by_torchmetrics}, tolerance=1e-5),
}
