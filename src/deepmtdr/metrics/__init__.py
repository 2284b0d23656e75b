"""Scores of grades, lesions, images and evidence (Sec. V-B): NumPy arrays in, a float out.

A score is nan where it is undefined, such as without a positive case; its docstring gives the conditions. Input that
makes no sense, such as nan or a class out of range, raises ValueError.
"""

from __future__ import annotations

from deepmtdr.metrics.evidence import area_under_curve, evidence_auc, pointing_chance, pointing_game
from deepmtdr.metrics.froc import FALSE_POSITIVES_PER_IMAGE, FrocCounts, count_froc, label_components
from deepmtdr.metrics.grading import (
    PrecisionRecallF1,
    SensitivitySpecificity,
    accuracy,
    confusion_matrix,
    kappa,
    kappa_linear,
    kappa_quadratic,
    precision_recall_f1,
    sensitivity_specificity,
)
from deepmtdr.metrics.image import MS_SSIM_MIN_SIDE, erode_field, mean_ssim, ms_ssim, psnr, ssim, ssim_map
from deepmtdr.metrics.lesions import PooledCurve, dice, iou
from deepmtdr.metrics.ranking import OperatingPoint, auc, average_precision, sensitivity_at_specificity

__all__ = [
    "FALSE_POSITIVES_PER_IMAGE",
    "MS_SSIM_MIN_SIDE",
    "FrocCounts",
    "OperatingPoint",
    "PooledCurve",
    "PrecisionRecallF1",
    "SensitivitySpecificity",
    "accuracy",
    "area_under_curve",
    "auc",
    "average_precision",
    "confusion_matrix",
    "count_froc",
    "dice",
    "erode_field",
    "evidence_auc",
    "iou",
    "kappa",
    "kappa_linear",
    "kappa_quadratic",
    "label_components",
    "mean_ssim",
    "ms_ssim",
    "pointing_chance",
    "pointing_game",
    "precision_recall_f1",
    "psnr",
    "sensitivity_at_specificity",
    "sensitivity_specificity",
    "ssim",
    "ssim_map",
]
