"""What the keys of an evaluation mean to people: its protocol and its scores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deepmtdr.terms import FRAME

PROTOCOL_LABELS = {
    "version": "deepmtdr",
    "weights_sha256": "weights, SHA-256",
    "temperature": "temperature of the grades' probabilities",
    "photographs": "photographs",
    "failed": "of these not read",
    "lesion_truth_coverage": "a pixel is truly a lesion where covered to at least",
    "dice_threshold": "Dice of the pixels above",
}
"""What the protocol's keys mean; one that is missing here is shown by its name alone."""
SCORE_MEANINGS = {
    "psnr_fov": "PSNR inside the field of view, dB; psnr_whole: of the whole frame, black border included",
    "ssim_fov": "SSIM inside the field of view; ssim_whole: of the whole frame",
    "ms_ssim_fov": "SSIM over five scales, inside the field of view",
    "same_grade_as_hr": "share of the photographs that get the grade that the network gives the HR frame",
    "seen_per_photograph": "lesions that the network sees on this image, mean over the photographs",
    "invented_share": "share of them with no lesion near them on the HR frame",
    "lost_share": "share of the lesions seen on the HR frame with none near them on this image",
    "aupr_pooled": "area under precision over recall of all pixels together; a guess reaches the prevalence",
    "ap_per_image": "the same image by image, mean over the photographs that show the lesion (reading R15)",
    "prevalence": "share of the pixels that are lesion",
    "auc_pooled": "area under the ROC curve of all pixels together; auc_per_image: image by image",
    "dice_pooled": "Dice of all pixels together, those above one half called lesion; dice_per_image: image by image",
    "iou_pooled": "intersection over union of the same; iou_per_image: image by image",
    "froc_cpm": "share of the lesions found, mean at 1/8, 1/4, 1/2, 1, 2, 4 and 8 false alarms per image",
    "froc_sensitivity_at_1": "share of the lesions found at one false alarm per image; froc_sensitivity_at_8: at eight",
    "evidence_auc": "area under the ROC curve of the evidence as a sign of the region's pixels, mean over photographs",
    "pointing_game": "share of the photographs whose highest evidence lies within 15 px of the region",
    "pointing_chance": "the same for a pixel drawn at random",
    "area_deletion": "mean probability as pixels of the highest evidence are blurred first: low if it rests on them",
    "area_insertion": "mean probability as they come back first: high if they suffice",
    "area_random": "the same in random order, for both",
    "accuracy": "share of the photographs graded right",
    "precision_weighted": "precision by grade, weighted by photographs; precision_macro: grades alike",
    "recall_weighted": "recall by grade, weighted by photographs: the accuracy again; recall_macro: grades alike",
    "f1_weighted": "F1 by grade, weighted by photographs; f1_macro: grades alike",
    "kappa_quadratic": "agreement beyond chance, the squared distance of the grades counted (reading R14)",
    "kappa_linear": "agreement beyond chance, the distance of the grades counted",
    "kappa": "agreement beyond chance, every wrong grade as wrong",
    "auc_any": "area under the ROC curve for grade 1 or worse",
    "auc_referable": "for grade 2 or worse",
    "auc_sight_threatening": "for grade 3 or worse",
    "expected_calibration_error": "how far the probability of the predicted grade is from how often it is right",
    "brier": "mean squared distance of the probabilities from the truth, 0 to 2",
    "negative_log_likelihood": "mean of -log of the probability of the true grade",
    "sensitivity_at_specificity_90": "at the threshold, read from these photographs, that leaves out 90 % of others",
    "sensitivity_at_half": "of a probability of at least one half; specificity_at_half: of a lower one",
    "auc": "area under the ROC curve for positive",
}
"""What the scores of the tables mean; one that is missing here stands in the tables alone."""

PAPER_SCORES = frozenset(
    {
        *("psnr_whole", "ssim_whole"),  # Table IV
        *("ap_per_image", "auc_per_image"),  # Table III
        *("accuracy", "precision_weighted", "f1_weighted", "kappa_quadratic"),  # Tables I and II
        "evidence_auc",  # Fig. 4 (c)
    }
)
"""The scores that the paper's tables and figures hold; all others are the field's."""


def score_source(score: str) -> str:
    """Whose score it is: `paper` or `field`."""
    return "paper" if score in PAPER_SCORES else "field"


def describe_split(protocol: Mapping[str, Any]) -> str:
    """Which photographs, and whether the weights were trained by the same split; empty for another system."""
    if "weights" not in protocol:
        return ""
    if not (split := protocol.get("split")):
        return "no split was given"
    own = (
        "the split that the weights were trained by"
        if split.get("of_the_weights")
        else "a split other than the weights'"
    )
    return f"the {split.get('side', '?')} side of {own}"


def protocol_rows(protocol: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The protocol in words, in its own order."""
    rows = []
    for key, value in protocol.items():
        if key == "as_lr":
            rows.append(("way into the frame", _way(value, protocol.get("frame", FRAME))))
        elif key == "split":
            rows += [("split", describe_split(protocol)), ("split, SHA-256", str(value.get("sha256", "")))]
        elif isinstance(value, Mapping):
            rows.append((PROTOCOL_LABELS.get(key, key), ", ".join(f"{name} {inner}" for name, inner in value.items())))
        else:
            rows.append((PROTOCOL_LABELS.get(key, key.replace("_", " ")), str(value)))
    return rows


def _way(as_lr: int | None, frame: int) -> str:
    if as_lr is None:
        return "by the photograph's own size (reading R19)"
    scale = FRAME // as_lr
    return f"each field of view reduced to {frame // scale} px, then x{scale} into {frame} px"
