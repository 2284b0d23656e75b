"""The meaning of the scores and of the entries of a protocol, for the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deepmtdr.evaluation.grading import auc_name
from deepmtdr.labels import LabelSet
from deepmtdr.terms import FRAME

PROTOCOL_LABELS = {
    "version": "version of deepmtdr",
    "weights_sha256": "weights, SHA-256",
    "temperature": "temperature of the grade probabilities",
    "biases": "prior correction: number added to the logit of each grade",
    "grade_thresholds": "thresholds of the expected grade that decide the grade",
    "failed": "photographs without prediction",
    "lesion_truth_coverage": "a pixel is a true lesion if the mask covers at least this fraction of it",
    "dice_threshold": "Dice: a pixel is a predicted lesion above this probability",
    "asked": "task",
    "grades_alone": "photographs with a predicted grade but no probabilities",
    "without_grade": "photographs without a true grade",
}
"""Key of a protocol entry -> its name in words; an entry that is missing here is shown by its key."""

_MEANINGS = {
    "psnr_fov": "PSNR in the field of view, dB",
    "psnr_fov_eroded": "PSNR in the field of view without its rim, 8 px of a frame of 1024 px, dB",
    "psnr_whole": "PSNR of the whole frame with its black border, dB",
    "ssim_fov": "SSIM in the field of view",
    "ssim_fov_eroded": "SSIM in the field of view without its rim",
    "ssim_whole": "SSIM of the whole frame with its black border",
    "ms_ssim_fov": "SSIM over five scales, in the field of view",
    "same_grade_as_hr": "fraction of photographs with the same predicted grade as on the HR frame",
    "seen_per_photograph": "detected lesions per photograph on this image",
    "invented_share": "fraction of these lesions without a lesion near them on the HR frame, or in the annotation",
    "lost_share": "fraction of the lesions on the HR frame, or in the annotation, without one near them on this image",
    "aupr_mean": "area under the precision-recall curve of all pixels, mean over the lesion types",
    "aupr_pooled": "area under the precision-recall curve of all pixels; a random guess reaches the prevalence",
    "ap_per_image": "area under the precision-recall curve of one image, mean over the images with such a lesion (R15)",
    "prevalence": "fraction of the pixels that are lesion",
    "auc_pooled": "area under the ROC curve of all pixels",
    "auc_per_image": "the same for each image, mean over the photographs with such a lesion",
    "dice_pooled": "Dice coefficient of all pixels; above a probability of one half a pixel is a predicted lesion",
    "dice_per_image": "the same for each image, mean over the photographs",
    "iou_pooled": "intersection over union of all pixels; above one half a pixel is a predicted lesion",
    "iou_per_image": "the same for each image, mean over the photographs",
    "froc_cpm": "fraction of the lesions found, mean at 1/8, 1/4, 1/2, 1, 2, 4 and 8 false alarms per image",
    "froc_sensitivity_at_1": "fraction of the lesions found at one false alarm per image",
    "froc_sensitivity_at_8": "fraction of the lesions found at eight false alarms per image",
    "evidence_auc": "area under the ROC curve of the evidence as a score for the pixels of this region, mean",
    "pointing_game": "fraction of photographs whose maximum of the evidence is within 15 px of the region",
    "pointing_chance": "the same for a random pixel",
    "patch_precision_top_1": "fraction of photographs whose patch with the most evidence touches the region; the frame "
    "has 16 x 16 patches",
    "patch_precision_top_12": "fraction of the 12 patches with the most evidence that touch the region, mean",
    "patch_precision_mean": "the same, mean over the 1, 2, ... 12 patches with the most evidence",
    "patch_chance": "the same for a random patch of the field of view",
    "area_deletion": "mean probability while pixels are blurred, highest evidence first; low if it depends on them",
    "area_insertion": "mean probability while pixels are restored, highest evidence first; high if they are sufficient",
    "area_random": "the same with pixels in random order, for comparison with both",
    "same_grade_all_turns": "fraction of photographs with the same grade in all eight turns (mirrored, quarter turns)",
    "agrees_with_upright": "fraction of the other turns with the grade of the upright photograph, mean",
    "p_referable_difference": "absolute difference of P(referable) between a turned and the upright photograph, mean",
    "accuracy": "fraction of photographs with the right prediction",
    "precision_weighted": "precision, mean over the grades weighted by their number of photographs",
    "precision_macro": "precision, mean over the grades with equal weights",
    "recall_weighted": "recall, mean over the grades weighted by their number of photographs; equal to the accuracy",
    "recall_macro": "recall, mean over the grades with equal weights",
    "f1_weighted": "F1 score, mean over the grades weighted by their number of photographs",
    "f1_macro": "F1 score, mean over the grades with equal weights",
    "kappa_quadratic": "Cohen's kappa with errors weighted by the squared difference of the grades (R14)",
    "kappa_linear": "Cohen's kappa with errors weighted by the difference of the grades",
    "kappa": "Cohen's kappa, every error with the same weight",
    "expected_calibration_error": "mean distance of the highest probability from how often its grade is right; "
    "too high in small samples",
    "debiased_ece": "the same as a root mean square, without the bias of small samples (Kumar et al. 2019)",
    "brier": "mean squared error of the probabilities, from 0 (best) to 2",
    "negative_log_likelihood": "mean of -log of the probability of the true grade",
    "sensitivity_at_specificity_90": "sensitivity at a specificity of 90 %; threshold chosen on these photographs",
    "sensitivity_at_specificity_95": "sensitivity at a specificity of 95 %; threshold chosen on these photographs",
    "sensitivity_at_half": "sensitivity at a threshold of one half",
    "specificity_at_half": "specificity at a threshold of one half",
    "auc": "area under the ROC curve of the probability of a positive photograph",
}

PAPER_SCORES = frozenset(
    {
        # Table IV
        "psnr_whole",
        "ssim_whole",
        # Table III
        "ap_per_image",
        "auc_per_image",
        # Tables I and II
        "accuracy",
        "precision_weighted",
        "f1_weighted",
        "kappa_quadratic",
        # Fig. 4 (c)
        "evidence_auc",
    }
)
"""The scores in the tables and figures of the paper."""


def score_meanings(labels: LabelSet) -> dict[str, str]:
    """Name of a score -> its meaning. Scores that are missing here need no explanation."""
    areas = {
        auc_name(name): f"area under the ROC curve for grade {least} or worse"
        for name, least in labels.thresholds.items()
    }
    return _MEANINGS | areas


def score_source(score: str) -> str:
    """Return where a score comes from: `paper`, or `field` for a score that is common in the field."""
    return "paper" if score in PAPER_SCORES else "field"


def describe_split(protocol: Mapping[str, Any]) -> str:
    """Describe the split, and whether the weights were trained with the same split file; empty without weights."""
    if "weights" not in protocol:
        return ""
    if not (split := protocol.get("split")):
        return "no split file was given"
    file = (
        "the split file of the weights"
        if split.get("of_the_weights")
        else "a split file that is not that of the weights"
    )
    return f"the {split.get('side', '?')} photographs of {file}"


def protocol_rows(protocol: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The entries of a protocol in words, in their order."""
    rows = []
    for key, value in protocol.items():
        if key == "as_lr":
            rows.append(("input size", _input_size(value, protocol.get("frame", FRAME))))
        elif key == "split":
            rows += [("split", describe_split(protocol)), ("split, SHA-256", str(value.get("sha256", "")))]
        elif isinstance(value, Mapping):
            rows.append((PROTOCOL_LABELS.get(key, key), ", ".join(f"{name} {inner}" for name, inner in value.items())))
        else:
            rows.append((PROTOCOL_LABELS.get(key, key.replace("_", " ")), str(value)))
    return rows


def _input_size(as_lr: int | None, frame: int) -> str:
    if as_lr is None:
        return "chosen for each photograph by its size (interpretation R19)"
    return f"each field of view reduced to {as_lr} px, then x{frame // as_lr} to {frame} px"
