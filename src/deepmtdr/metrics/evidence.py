"""Scores of evidence maps: AUC by region (Finding 3), pointing game, top patches, area under a removal curve."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Shaped
from scipy.ndimage import distance_transform_edt

from deepmtdr.metrics.ranking import auc

Map = Float[np.ndarray, "h w"]
Mask = Bool[np.ndarray, "h w"]

POINTING_TOLERANCE = 15.0
"""The margin of Zhang et al. 2016 according to TorchRay, px. Their photographs are about half as wide as the frame of
1024 px; here it is 1.5 % of the field of view."""


PATCHES_PER_SIDE = 16
"""Patches along a side of the frame."""
MIN_SIDE = 4
"""Smallest side of a map that has patches, px; below `PATCHES_PER_SIDE` px a patch is one pixel."""
TOP_PATCHES = 12
"""Largest number of patches whose precision is computed."""


def evidence_auc(evidence: Map, region: Mask, inside: Mask) -> float:
    """Area under the ROC curve of the evidence as a score for "this pixel lies in the region", Fig. 4 (c).

    The negative pixels are all others of the field of view, also those of another lesion type. The background, which
    is every pixel without a lesion, is a region too: its AUC and the AUC of all lesions together add to 1.

    Args:
        evidence: evidence for the disease; higher is more.
        region: an annotated lesion type, all lesions, or the background.
        inside: the field of view; other pixels do not count.

    Returns:
        In [0, 1]; one half for evidence that is random or constant. Nan if the region has no pixel inside, or all.

    Raises:
        ValueError: if the shapes differ, or evidence inside is nan.
    """
    _same_shape(evidence, region=region, inside=inside)
    return auc(evidence[inside], region[inside])


def pointing_game(evidence: Map, region: Mask, inside: Mask, tolerance: float = POINTING_TOLERANCE) -> float:
    """Whether the maximum of the evidence lies in the region (Zhang et al. 2016).

    If several pixels share the maximum, all of them must hit; so constant evidence misses, and the order of the pixels
    does not matter. Evidence that is nowhere above 0 is a miss too; otherwise an empty map would never be wrong.

    Args:
        evidence: evidence for the disease; 0 is none.
        region: an annotated lesion type, or all lesions.
        inside: the field of view; evidence and region outside it do not count.
        tolerance: largest distance from the region that is a hit, px; 0 requires a pixel of the region.

    Returns:
        1 for a hit, 0 for a miss; nan if the region has no pixel inside.

    Raises:
        ValueError: if the shapes differ, or evidence inside is nan.
    """
    _same_shape(evidence, region=region, inside=inside)
    if np.isnan(evidence[inside]).any():
        raise ValueError(
            f"found {int(np.isnan(evidence[inside]).sum())} pixels of evidence that are nan, expected numbers"
        )
    if not (region & inside).any():
        return float("nan")
    peak = evidence[inside].max()
    return float(peak > 0 and _near(region & inside, tolerance)[inside & (evidence == peak)].all())


def pointing_chance(region: Mask, inside: Mask, tolerance: float = POINTING_TOLERANCE) -> float:
    """Probability that a random pixel of the field of view is a hit in `pointing_game`.

    Compare hit rates with it: many scattered lesions are hit by chance far more often than one of the same area.

    Args:
        region: as in `pointing_game`.
        inside: the field of view.
        tolerance: as in `pointing_game`.

    Returns:
        In [0, 1]; nan if the region has no pixel inside.

    Raises:
        ValueError: if the shapes differ.
    """
    _same_shape(inside, region=region)
    if not (region & inside).any():
        return float("nan")
    return float(_near(region & inside, tolerance)[inside].mean())


def top_patch_precision(evidence: Map, region: Mask, inside: Mask) -> Float[np.ndarray, " k"]:
    """Fraction of the k patches with the most evidence that touch the region, for k = 1 ... `TOP_PATCHES`.

    This is the measure of Dual-IFM for the lesions of IDRiD. The frame is divided into `PATCHES_PER_SIDE` squared
    patches, 16 x 16 px of a map of 256 px; a patch has the sum of the evidence of its pixels in the field of view. A
    patch without evidence is a miss, as in `pointing_game`. Of patches with equal evidence at the limit, each counts in
    proportion, so the order of the patches does not matter.

    Args:
        evidence: evidence for the disease; 0 is none.
        region: an annotated lesion type, or all lesions.
        inside: the field of view; evidence and region outside it do not count.

    Returns:
        In [0, 1], for each k; all nan if the region has no pixel inside.

    Raises:
        ValueError: if the shapes differ, or a side of the map is below `MIN_SIDE`.
    """
    _same_shape(evidence, region=region, inside=inside)
    sums, touched = _patch_sums(np.where(inside, evidence, 0.0)), _patch_sums(region & inside) > 0
    if not touched.any():
        return np.full(TOP_PATCHES, np.nan)
    hits = np.empty(TOP_PATCHES)
    for k in range(1, TOP_PATCHES + 1):
        limit = np.sort(sums)[::-1][k - 1]
        if limit <= 0:
            hits[k - 1] = touched[sums > 0].sum()
            continue
        above, equal = sums > limit, sums == limit
        hits[k - 1] = touched[above].sum() + (k - above.sum()) * touched[equal].mean()
    return hits / np.arange(1, TOP_PATCHES + 1)


def patch_chance(region: Mask, inside: Mask) -> float:
    """Probability that a random patch of the field of view touches the region: the chance of `top_patch_precision`.

    Args:
        region: as in `top_patch_precision`.
        inside: the field of view.

    Returns:
        In [0, 1]; nan if the region has no pixel inside.

    Raises:
        ValueError: as `top_patch_precision`.
    """
    _same_shape(inside, region=region)
    touched, seen = _patch_sums(region & inside) > 0, _patch_sums(inside) > 0
    return float(touched[seen].mean()) if touched.any() else float("nan")


def _patch_sums(values: Shaped[np.ndarray, "h w"]) -> Float[np.ndarray, " p"]:
    """Sum of the values in each patch, row by row; patches of a map that cannot be divided evenly differ by a pixel."""
    if min(values.shape) < MIN_SIDE:
        raise ValueError(f"found a map of {values.shape} px, expected at least {MIN_SIDE} px per side")
    counts = (min(PATCHES_PER_SIDE, side) for side in values.shape)
    rows, columns = (np.arange(n) * side // n for n, side in zip(counts, values.shape, strict=True))
    return np.add.reduceat(np.add.reduceat(values.astype(np.float64), rows, axis=0), columns, axis=1).ravel()


def area_under_curve(curve: Float[np.ndarray, " n"]) -> float:
    """Area under a deletion or an insertion curve (Petsiuk et al. 2018), by the trapezoidal rule.

    Args:
        curve: the probability after equal fractions of the pixels, from none to all of them.

    Returns:
        In [0, 1]: the mean probability along the curve. Deletion should be low, insertion high.

    Raises:
        ValueError: if there are fewer than two points.
    """
    if curve.size < 2:
        raise ValueError(f"found a curve of {curve.size} points, expected at least 2: for no pixel and for all pixels")
    return float(np.trapezoid(curve, dx=1 / (curve.size - 1)))


def _near(region: Mask, tolerance: float) -> Mask:
    """Pixels whose centre is within the tolerance of a pixel of the region; the region must not be empty."""
    return np.asarray(distance_transform_edt(~region)) <= tolerance


def _same_shape(first: np.ndarray, **others: np.ndarray) -> None:
    for name, array in others.items():
        if array.shape != first.shape:
            raise ValueError(f"{name} has the shape {array.shape}, expected {first.shape}")
