"""What the keys of an evaluation mean to people: its protocol and its scores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deepmtdr.terms import FRAME

WORDS = {
    "version": "deepmtdr",
    "weights_sha256": "weights, SHA-256",
    "photographs": "photographs",
    "failed": "of these not read",
    "lesion_truth_coverage": "a pixel is truly a lesion where covered to at least",
    "dice_threshold": "Dice of the pixels above",
}
"""What the protocol's keys mean; one that is missing here is shown by its name alone."""
MEANINGS = {
    "psnr_fov": "PSNR inside the field of view, dB; psnr_whole: of the whole frame",
    "ssim_fov": "SSIM inside the field of view; ssim_whole: of the whole frame",
    "aupr_pooled": "area under precision over recall of all pixels together; a guess reaches the prevalence",
    "ap_per_image": "the same image by image, mean over the photographs that show the lesion (reading R15)",
    "prevalence": "share of the pixels that are lesion",
    "auc_pooled": "area under the ROC curve of all pixels together",
    "dice_pooled": "Dice of all pixels together, those above one half called lesion",
    "kappa_quadratic": "agreement beyond chance, the squared distance of the grades counted (reading R14)",
    "kappa_linear": "agreement beyond chance, the distance of the grades counted",
    "kappa": "agreement beyond chance, every wrong grade as wrong",
    "precision_weighted": "precision by grade, weighted by photographs; f1_weighted: F1; f1_macro: F1, grades alike",
    "auc_any": "area under the ROC curve for grade 1 or worse",
    "auc_referable": "for grade 2 or worse",
    "auc_sight_threatening": "for grade 3 or worse",
    "expected_calibration_error": "how far the probability of the predicted grade is from how often it is right",
    "brier": "mean squared distance of the probabilities from the truth, 0 to 2",
}
"""What the scores of the tables mean; one that is missing here stands in the tables alone."""


def split_in_words(protocol: Mapping[str, Any]) -> str:
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
            rows += [("split", split_in_words(protocol)), ("split, SHA-256", str(value.get("sha256", "")))]
        elif isinstance(value, Mapping):
            rows.append((WORDS.get(key, key), ", ".join(f"{name} {inner}" for name, inner in value.items())))
        else:
            rows.append((WORDS.get(key, key.replace("_", " ")), str(value)))
    return rows


def _way(as_lr: int | None, frame: int) -> str:
    if as_lr is None:
        return "by the photograph's own size (reading R19)"
    scale = FRAME // as_lr
    return f"each field of view reduced to {frame // scale} px, then x{scale} into {frame} px"
