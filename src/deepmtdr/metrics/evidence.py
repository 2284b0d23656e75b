"""Where evidence lies, and what rests on it: AUC by region (Finding 3), pointing game, area under a removal curve."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import distance_transform_edt

from deepmtdr.metrics.ranking import auc

Map = Float[np.ndarray, "h w"]
Mask = Bool[np.ndarray, "h w"]

POINTING_TOLERANCE = 15.0
"""Pixels. The margin of Zhang et al. 2016 by TorchRay's account, on everyday photographs about half as wide as the
frame of 1024 px; here it is 1.5 % of the field of view."""


def evidence_auc(evidence: Map, region: Mask, inside: Mask) -> float:
    """AUC of the evidence as a score for "this pixel lies in the region", Fig. 4 (c).

    The others are all other pixels of the field of view, those of another lesion type among them. The background is a
    region like any other, everything inside that is no lesion: its AUC and that of all lesions together add to 1.

    Args:
        evidence: of the grade, higher is more.
        region: an annotated lesion type, all lesions, or the background.
        inside: the field of view; nothing else counts.

    Returns:
        In [0, 1]; one half for evidence that knows nothing or is the same everywhere. Nan if the region has no pixel
        inside, or all.

    Raises:
        ValueError: if the shapes differ, or evidence inside is nan.
    """
    _same_shape(evidence, region=region, inside=inside)
    return auc(evidence[inside], region[inside])


def pointing_game(evidence: Map, region: Mask, inside: Mask, tolerance: float = POINTING_TOLERANCE) -> float:
    """Whether the evidence, at its highest, points at the region (Zhang et al. 2016).

    Where several pixels share the maximum, all of them must hit: evidence that is the same everywhere points at
    nothing in particular, and no order of pixels decides. Evidence that is nowhere above 0 misses: were it left out,
    showing nothing would be the way to never be wrong.

    Args:
        evidence: of the grade, 0 for none.
        region: an annotated lesion type, or all lesions.
        inside: the field of view; a maximum outside does not count, nor does a region outside.
        tolerance: distance from the region, in pixels, that still hits; 0 asks for a pixel of the region itself.

    Returns:
        1 for a hit, 0 for a miss; nan if the region has no pixel inside: there is nothing to point at.

    Raises:
        ValueError: if the shapes differ, or evidence inside is nan.
    """
    _same_shape(evidence, region=region, inside=inside)
    if np.isnan(evidence[inside]).any():
        raise ValueError(f"{int(np.isnan(evidence[inside]).sum())} pixels of evidence are nan, expected numbers")
    if not (region & inside).any():
        return float("nan")
    peak = evidence[inside].max()
    return float(peak > 0 and _near(region & inside, tolerance)[inside & (evidence == peak)].all())


def pointing_chance(region: Mask, inside: Mask, tolerance: float = POINTING_TOLERANCE) -> float:
    """How often a pixel of the field of view drawn at random would hit in `pointing_game`.

    Lesions that lie scattered are hit by chance far more often than one of their area: a rate of hits means little
    without this one beside it.

    Args:
        region: as in `pointing_game`.
        inside: the field of view.
        tolerance: in pixels.

    Returns:
        In [0, 1]; nan if the region has no pixel inside.

    Raises:
        ValueError: if the shapes differ.
    """
    _same_shape(inside, region=region)
    if not (region & inside).any():
        return float("nan")
    return float(_near(region & inside, tolerance)[inside].mean())


def area_under_curve(curve: Float[np.ndarray, " n"]) -> float:
    """Area under a deletion or an insertion curve (Petsiuk et al. 2018), by trapezia.

    Args:
        curve: the probability after equal shares of the pixels, from none to all of them.

    Returns:
        In [0, 1]: the mean probability on the way. Deletion should be low, insertion high.

    Raises:
        ValueError: if there are fewer than two points.
    """
    if curve.size < 2:
        raise ValueError(f"a curve of {curve.size} points, expected at least 2: no pixel and all of them")
    return float(np.trapezoid(curve, dx=1 / (curve.size - 1)))


def _near(region: Mask, tolerance: float) -> Mask:
    """Pixels at most so far, centre to centre, from one of the region, which has at least one."""
    return np.asarray(distance_transform_edt(~region)) <= tolerance


def _same_shape(first: np.ndarray, **others: np.ndarray) -> None:
    for name, array in others.items():
        if array.shape != first.shape:
            raise ValueError(f"{name} has the shape {array.shape}, expected {first.shape}")
