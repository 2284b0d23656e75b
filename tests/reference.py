"""Eqs. (1)-(11) and Algorithm 1 in plain NumPy loops, written from the paper and docs/paper.md.

Nothing is shared with `deepmtdr`: one pixel at a time, float64, so that each line can be compared with the printed
equation. An image is `[channel, row, column]`, a batch `[image, channel, row, column]`. "Rn" is the interpretation used
where the paper is silent or contradicts itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

GRADES = 5  # C of Eq. (10)


def upsample(plane: np.ndarray, height: int, width: int) -> np.ndarray:
    """UP of Eqs. (1), (2) and Algorithm 1: bilinear (R3), pixels as areas, the border value continued outwards."""
    rows, columns = plane.shape
    out = np.zeros((height, width))
    for y in range(height):
        v = min(max((y + 0.5) * rows / height - 0.5, 0), rows - 1)
        top = int(v)
        below = min(top + 1, rows - 1)
        for x in range(width):
            u = min(max((x + 0.5) * columns / width - 0.5, 0), columns - 1)
            left = int(u)
            right = min(left + 1, columns - 1)
            upper = plane[top, left] * (1 - (u - left)) + plane[top, right] * (u - left)
            lower = plane[below, left] * (1 - (u - left)) + plane[below, right] * (u - left)
            out[y, x] = upper * (1 - (v - top)) + lower * (v - top)
    return out


def fuse_scales(maps: Sequence[np.ndarray], gamma: Sequence[float]) -> np.ndarray:
    """Eq. (1): softmax over channels of the sum of gamma_i UP(S_i, 2^(5-i)), i from coarse to fine (R3).

    `maps` are `[channel, row, column]` at strides 16, 8, 4, 2, 1.
    """
    channels, height, width = maps[-1].shape
    total = np.zeros((channels, height, width))
    for i, (plane_stack, weight) in enumerate(zip(maps, gamma, strict=True), start=1):
        times = 2 ** (5 - i)
        for c in range(channels):
            rows, columns = plane_stack[c].shape
            total[c] += weight * upsample(plane_stack[c], rows * times, columns * times)
    out = np.zeros_like(total)
    for y in range(height):
        for x in range(width):
            powers = [np.exp(total[c, y, x] - total[:, y, x].max()) for c in range(channels)]
            for c in range(channels):
                out[c, y, x] = powers[c] / sum(powers)
    return out


def iou(mask: np.ndarray, region: np.ndarray) -> float:
    """The IoU of Eq. (2), E[A and B] / E[A or B].

    For a region with values between 0 and 1, "and" is the product and "or" the sum minus the product. An empty union
    gives 0.
    """
    intersection = union = 0.0
    for y in range(mask.shape[0]):
        for x in range(mask.shape[1]):
            both = float(mask[y, x]) * float(region[y, x])
            intersection += both
            union += float(mask[y, x]) + float(region[y, x]) - both
    return intersection / union if union > 0 else 0.0


def normalise(feature: np.ndarray) -> np.ndarray:
    """A feature divided by its maximum before it is compared with xi (R6); one without positive values has no mask."""
    peak = feature.max()
    return feature / peak if peak > 0 else np.zeros_like(feature)


def select(ious: Sequence[float], theta_seg: float) -> np.ndarray:
    """U of Eq. (2): channels with IoU > theta_seg max(IoU); all of them if none has any overlap (R6)."""
    best = max(ious)
    if best == 0:
        return np.ones(len(ious), dtype=bool)
    return np.array([value > theta_seg * best for value in ious])


def selection_literal(features: np.ndarray, xi: np.ndarray, region: np.ndarray, theta_seg: float) -> np.ndarray:
    """Eq. (2) as printed: every channel `[channel, row, column]` enlarged to the 4H x 4W grid of the lesion region."""
    ious = []
    for feature, threshold in zip(features, xi, strict=True):
        enlarged = upsample(normalise(feature), *region.shape)
        ious.append(iou(enlarged > threshold, region))
    return select(ious, theta_seg)


def area_reduce(region: np.ndarray, height: int, width: int) -> np.ndarray:
    """The lesion region on a layer's own grid (R6): the mean over the pixels that each of its cells covers."""
    tall, wide = region.shape[0] // height, region.shape[1] // width
    out = np.zeros((height, width))
    for y in range(height):
        for x in range(width):
            out[y, x] = region[y * tall : (y + 1) * tall, x * wide : (x + 1) * wide].mean()
    return out


def selection_own_grid(features: np.ndarray, xi: np.ndarray, region: np.ndarray, theta_seg: float) -> np.ndarray:
    """Eq. (2) on the layer's own grid (R6), which is fast enough; tests compare it with `selection_literal`."""
    reduced = area_reduce(region, *features.shape[1:])
    ious = []
    for feature, threshold in zip(features, xi, strict=True):
        ious.append(iou(normalise(feature) > threshold, reduced))
    return select(ious, theta_seg)


def gradient(score: Callable[[np.ndarray], float], features: np.ndarray, step: float = 1e-5) -> np.ndarray:
    """A of Eq. (3), d y_DR / d F, by central differences: one pixel of one channel at a time."""
    out = np.zeros_like(features)
    for index in np.ndindex(features.shape):
        up, down = features.copy(), features.copy()
        up[index] += step
        down[index] -= step
        out[index] = (score(up) - score(down)) / (2 * step)
    return out


def importance(gradients: np.ndarray) -> np.ndarray:
    """Eq. (3): w of each channel, the mean of its gradient over the M x N pixels."""
    channels, rows, columns = gradients.shape
    out = np.zeros(channels)
    for i in range(channels):
        for m in range(rows):
            for n in range(columns):
                out[i] += gradients[i, m, n] / (rows * columns)
    return out


def combine(features: Sequence[np.ndarray], weights: Sequence[np.ndarray], height: int, width: int) -> np.ndarray:
    """Algorithm 1: from the deepest layer J to layer 1, then ReLU, division by the maximum, UP to 4H x 4W (R8).

    `weights[j]` is w of Eq. (3), 0 for a channel outside the selected set.
    """
    layers = len(features)
    evidence = np.zeros((1, 1))
    for j in range(layers - 1, -1, -1):  # lines 1, 8
        rows, columns = features[j].shape[1:]
        here = np.zeros((rows, columns))
        layer_weight = 0.0
        for feature, weight in zip(features[j], weights[j], strict=True):
            here += weight * feature  # line 2
            layer_weight += weight  # line 4
        # Line 6; R8: the layer weight is multiplied a second time, as printed.
        evidence = here if j == layers - 1 else upsample(evidence, rows, columns) + layer_weight * here
    for index in np.ndindex(evidence.shape):
        evidence[index] = max(evidence[index], 0.0)
    if evidence.max() > 0:
        evidence = evidence / evidence.max()
    return upsample(evidence, height, width)


def dr_score(grade_logits: np.ndarray) -> float:
    """y_DR of footnote 2: the sum of the logits of grades 1 to 4, for any predicted grade (R5)."""
    return float(sum(grade_logits[grade] for grade in range(1, GRADES)))


def selection_loss(features: np.ndarray, xi: np.ndarray, region: np.ndarray, tau: float) -> float:
    """The loss of xi (R7): 1 - IoU of the mask sigmoid((F - xi) / tau) with the region, mean over channels."""
    reduced = area_reduce(region, *features.shape[1:])
    total = 0.0
    for feature, threshold in zip(features, xi, strict=True):
        soft = 1 / (1 + np.exp(-(normalise(feature) - threshold) / tau))
        total += 1 - iou(soft, reduced)
    return total / len(features)


def _mean_square(one: np.ndarray, other: np.ndarray) -> float:
    """A squared l2 norm as the mean over every element (R13)."""
    total = 0.0
    for index in np.ndindex(one.shape):
        total += (float(one[index]) - float(other[index])) ** 2
    return total / one.size


def segmentation_aware_loss(lesions_sr: np.ndarray, lesions_hr: np.ndarray) -> float:
    """Eq. (4): MSE between the lesions of the super-resolved and of the HR image."""
    return _mean_square(lesions_sr, lesions_hr)


def classification_aware_loss(evidence_sr: np.ndarray, evidence_hr: np.ndarray, phi_vis: float) -> float:
    """Eq. (5): MSE between the two evidence masks, with the threshold phi_vis."""
    return _mean_square(evidence_sr > phi_vis, evidence_hr > phi_vis)


def image_loss(sr: np.ndarray, hr: np.ndarray) -> float:
    """Eq. (6): mean absolute difference (R13)."""
    total = 0.0
    for index in np.ndindex(sr.shape):
        total += abs(sr[index] - hr[index])
    return total / sr.size


def total_variation_loss(sr: np.ndarray) -> float:
    """Eq. (7): squared vertical and horizontal differences, each the mean over all pairs of neighbours (R13)."""
    images, channels, height, width = sr.shape
    down = right = 0.0
    for b, c in np.ndindex(images, channels):
        for h in range(height):
            for w in range(width):
                if h + 1 < height:
                    down += (sr[b, c, h + 1, w] - sr[b, c, h, w]) ** 2
                if w + 1 < width:
                    right += (sr[b, c, h, w + 1] - sr[b, c, h, w]) ** 2
    return down / (images * channels * (height - 1) * width) + right / (images * channels * height * (width - 1))


def dice_loss(
    lesions: np.ndarray,
    lesion_masks: np.ndarray,
    annotated: np.ndarray,
    ignored: np.ndarray | None = None,
    union_masks: np.ndarray | None = None,
    unions: np.ndarray | None = None,
) -> float:
    """Eq. (8) with R11: per lesion type over the images annotated for it, then the mean over the annotated types.

    `annotated[image, type]` is True where a mask exists. Without any annotation: 0. R32: pixels with
    `ignored[image, 0]` do not count; a union label (types where `unions[image, label]`) is one more type.
    """
    if union_masks is not None and unions is not None:
        lesions, lesion_masks, annotated = _append_unions(lesions, lesion_masks, annotated, union_masks, unions)
    losses = []
    for kind in range(lesions.shape[1]):
        if not annotated[:, kind].any():
            continue
        overlap = area = 0.0
        for image in range(lesions.shape[0]):
            if not annotated[image, kind]:
                continue
            for index in np.ndindex(lesions.shape[2:]):
                if ignored is not None and ignored[(image, 0, *index)]:
                    continue
                p, s = lesions[(image, kind, *index)], lesion_masks[(image, kind, *index)]
                overlap += p * s
                area += p + s
        losses.append(1 - 2 * overlap / area if area > 0 else 0.0)
    return sum(losses) / len(losses) if losses else 0.0


def _append_unions(
    lesions: np.ndarray, lesion_masks: np.ndarray, annotated: np.ndarray, union_masks: np.ndarray, unions: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """R32: the probability of a union label is the sum over its types."""
    sums = np.zeros(union_masks.shape)
    for image, label, kind in np.ndindex(unions.shape):
        if unions[image, label, kind]:
            sums[image, label] += lesions[image, kind]
    return (
        np.concatenate([lesions, sums], axis=1),
        np.concatenate([lesion_masks, union_masks], axis=1),
        np.concatenate([annotated, unions.any(axis=2)], axis=1),
    )


def lesion_cross_entropy_loss(
    lesions: np.ndarray,
    lesion_masks: np.ndarray,
    annotated: np.ndarray,
    ignored: np.ndarray,
    union_masks: np.ndarray,
    unions: np.ndarray,
) -> float:
    """Cross-entropy with R32, for masks of 0 and 1 without overlap: mean over pixels, then over photographs.

    A photograph with all types annotated has one class for each type and the background. A photograph with union labels
    has one class for each of them and each annotated type, and one for everything else.
    """
    lesions, lesion_masks, known = _append_unions(lesions, lesion_masks, annotated, union_masks, unions)
    of_photographs = []
    for image in range(lesions.shape[0]):
        if not (annotated[image].all() or unions[image].any()):
            continue
        surprises = []
        for index in np.ndindex(lesions.shape[2:]):
            if ignored[(image, 0, *index)]:
                continue
            rest, surprise = 1.0, None
            for kind in np.flatnonzero(known[image]):
                rest -= lesions[(image, kind, *index)]
                if lesion_masks[(image, kind, *index)] == 1:
                    surprise = -np.log(lesions[(image, kind, *index)])
            surprises.append(-np.log(rest) if surprise is None else surprise)
        if surprises:
            of_photographs.append(sum(surprises) / len(surprises))
    return sum(of_photographs) / len(of_photographs) if of_photographs else 0.0


def unsupervised_segmentation_loss(
    lesion_region: np.ndarray, evidence: np.ndarray, phi_vis: float, ignored: np.ndarray | None = None
) -> float:
    """Eq. (9): the lesion region against one evidence mask (R9), without ignored pixels (R32)."""
    if ignored is None:
        return _mean_square(lesion_region, evidence > phi_vis)
    total = 0.0
    for image in range(lesion_region.shape[0]):
        squares = []
        for index in np.ndindex(lesion_region.shape[2:]):
            at = (image, 0, *index)
            if not ignored[at]:
                squares.append((lesion_region[at] - float(evidence[at] > phi_vis)) ** 2)
        total += sum(squares) / len(squares) if squares else 0.0
    return total / lesion_region.shape[0]


def _grading_weight(predicted: int, grade: int, extra: int) -> float:
    """The distance weight of Eq. (10): (|l~ - l| + extra) / sum_i (|i - l| + 1)."""
    denominator = 0
    for i in range(GRADES):
        denominator += abs(i - grade) + 1
    return (abs(predicted - grade) + extra) / denominator


def grading_loss(grade_logits: np.ndarray, grades: Sequence[int], *, literal: bool = False) -> float:
    """Eq. (10), mean over the batch: `literal` as printed; otherwise R12, the "+1" in the numerator too."""
    total = 0.0
    for logits, grade in zip(grade_logits, grades, strict=True):
        denominator = 0.0
        for logit in logits:
            denominator += np.exp(logit - logits.max())
        predicted = int(np.argmax(logits))
        for j in range(GRADES):
            if j == grade:
                log_p = logits[j] - logits.max() - np.log(denominator)
                total -= _grading_weight(predicted, grade, extra=0 if literal else 1) * log_p
    return total / len(grades)


def ordinal_loss(grade_logits: np.ndarray, grades: Sequence[int]) -> float:
    """R26: -log of the probability of the true side of each of the C-1 thresholds, mean over thresholds and batch."""
    total = 0.0
    for logits, grade in zip(grade_logits, grades, strict=True):
        powers = [np.exp(logit - logits.max()) for logit in logits]
        for k in range(GRADES - 1):
            above = 0.0
            for j in range(k + 1, GRADES):
                above += powers[j] / sum(powers)
            total -= np.log(above if grade > k else 1 - above)
    return total / (len(grades) * (GRADES - 1))


def isr_loss(terms: Sequence[float], weights: Sequence[float]) -> float:
    """Eq. (11): the lambda-weighted sum of image, total variation, segmentation-aware and classification-aware loss."""
    total = 0.0
    for term, weight in zip(terms, weights, strict=True):
        total += weight * term
    return total
