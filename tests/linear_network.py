"""A network of linear parts for tests of the training steps, and the paper's equations for it, written out in NumPy.

The expected values use neither `deepmtdr.losses`, `deepmtdr.model.gmsv` nor `deepmtdr.training.step_losses`. The
network is so small that every number can be followed on paper: frames of 4x4 px, scale 2, two lesion types, three
grades.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepmtdr.labels import GradeLabel, LabelSet, LesionType
from deepmtdr.losses import LesionLabels, LossWeights
from deepmtdr.model.deepmtdr import DeepMTDR, Parts
from deepmtdr.model.grading import GradingSubnet
from deepmtdr.model.interfaces import DEFAULT_WEIGHTS, Grader, GradingOutput, Segmenter, SuperResolver
from deepmtdr.training.batches import Batch

LABELS = LabelSet(
    name="two-lesions",
    disease="a test disease",
    lesions=(LesionType(code="AA", name="first lesions"), LesionType(code="BB", name="second lesions")),
    grades=(GradeLabel(name="none"), GradeLabel(name="some"), GradeLabel(name="much")),
    thresholds={"any": 1, "referable": 2},
)
WEIGHTS = LossWeights(
    lambda_img=2.0,
    lambda_tv=3.0,
    lambda_sa=5.0,
    lambda_ca=7.0,
    task_aware_share=0.0,
    dice=0.5,
    lesion_cross_entropy=0.25,
    unsupervised=11.0,
    grading=13.0,
    grading_form="eq10",
    class_weights=(1.0, 2.0, 4.0),
    phi_vis=0.6,
)

GAIN = 0.9
"""Factor of the enlarged LR image in the super-resolver."""
LESIONS = np.array([0.8, 0.7])
"""Factors of red and green in the probabilities of the two lesion types."""
FROM_IMAGE, FROM_LESIONS = np.array([1.0, 2.0]), np.array([1.0, 0.5])
"""The grader's two channels: red plus the first type's map, and blue plus the second type's."""
FINE = np.array([[3.0, 1.0], [1.0, 2.5], [1.5, 0.5]])
"""Weights of the fine channels' means in the logits of the three grades."""
COARSE = np.array([[1.0, 0.5], [0.5, 2.0], [4.0, 1.0]])
"""Weights of the coarse channels' means."""


def residual() -> np.ndarray:
    """Pattern that the super-resolver adds: a red spot of 2x2 px at the upper left, a blue one at the lower right."""
    pattern = np.zeros((3, 4, 4))
    pattern[0, :2, :2] = 0.2
    pattern[0, 0, 0] = 0.25
    pattern[2, 2:, 2:] = 0.3
    return pattern


COLOURS = np.array([[0.15, 0.1, 0.1], [0.1, 0.05, 0.2], [0.2, 0.1, 0.15]])
"""Each degraded photograph has one colour, so that its LR image has the same colour with any kernel."""


def hr_images() -> np.ndarray:
    """Three HR photographs: each has a lesion (red spot) at another place, and a bright blue corner."""
    images = np.full((3, 3, 4, 4), 0.1)
    images[0, 0, 1:3, :2] = 0.4
    images[1, 0, 2:, :2] = 0.5
    images[2, 0, :2, 2:] = 0.45
    images[:, 1] = 0.05
    images[:, 2, 3, 3] = 0.6
    images[1, 2, 0, :] = 0.5
    return images


def masks() -> np.ndarray:
    """Lesion masks; only the first photograph's count."""
    found = np.zeros((3, 2, 4, 4))
    found[0, 0, :2, :2] = 1
    found[0, 1, 3, 2:] = 1
    found[1:] = 1
    return found


ANNOTATED = np.array([[True, True], [False, False], [False, False]])
GRADE, GRADED = np.array([2, 1, 0]), np.array([True, True, False])


class TinySuperResolver(SuperResolver):
    """Repeats each pixel, multiplies by a gain, adds a pattern."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(GAIN))
        self.pattern = nn.Parameter(torch.tensor(residual()).float())

    def forward(self, lr: Tensor, scale: int = 4) -> Tensor:
        return self.gain * lr.repeat_interleave(scale, dim=2).repeat_interleave(scale, dim=3) + self.pattern

    def loss(self, sr: Tensor, hr: Tensor, weights: LossWeights = DEFAULT_WEIGHTS) -> Tensor:
        return 100 * (sr - hr).square().mean()


class TinySegmenter(Segmenter):
    """The two types are red and green, each times a factor; its input is twice the frame."""

    preprocess = staticmethod(lambda frame, local_mean=None: 2 * frame)

    def __init__(self) -> None:
        super().__init__()
        self.factors = nn.Parameter(torch.tensor(LESIONS).float())

    def forward(self, network_input: Tensor) -> Tensor:
        lesions = network_input[:, :2] * self.factors[:, None, None]
        return torch.cat([lesions, 1 - lesions.sum(dim=1, keepdim=True)], dim=1)

    def loss(self, classes: Tensor, labels: LesionLabels, weights: LossWeights = DEFAULT_WEIGHTS) -> Tensor:
        return 10 * (classes[:, :-1] - labels.masks)[labels.annotated].square().mean()


class TinyGrader(Grader):
    """Two channels, their 2x2 means, and logits that are linear in all means; its input is half the frame."""

    preprocess = staticmethod(lambda frame, local_mean=None: frame / 2)
    channels = (2, 2)

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Parameter(torch.tensor(FINE).float())
        self.coarse = nn.Parameter(torch.tensor(COARSE).float())

    def forward(self, network_input: Tensor, lesions: Tensor) -> GradingOutput:
        image = network_input[:, ::2] * torch.tensor(FROM_IMAGE).float()[:, None, None]
        fine = image + lesions * torch.tensor(FROM_LESIONS).float()[:, None, None]
        coarse = F.avg_pool2d(fine, 2)
        logits = fine.mean(dim=(2, 3)) @ self.fine.T + coarse.mean(dim=(2, 3)) @ self.coarse.T
        return GradingOutput(logits, (fine, coarse))

    loss = GradingSubnet.loss  # in the form of the weights: Eq. (10)


def network(*, task_aware: bool = True) -> DeepMTDR:
    parts = Parts(TinySuperResolver(), TinySegmenter(), TinyGrader(), task_aware=task_aware)
    return DeepMTDR(None, parts, LABELS)


def batch() -> Batch:
    degraded = torch.tensor(COLOURS).float()[:, :, None, None].expand(3, 3, 4, 4).contiguous()
    known = torch.tensor(ANNOTATED), torch.tensor(GRADE), torch.tensor(GRADED)
    return Batch(torch.tensor(hr_images()).float(), degraded, torch.tensor(masks()).float(), *known)


# The same on paper, one photograph at a time


@dataclass
class Read:
    """What the network finds in one image."""

    lesions: np.ndarray
    region: np.ndarray
    fine: np.ndarray
    coarse: np.ndarray
    logits: np.ndarray


def super_resolved() -> np.ndarray:
    return GAIN * COLOURS[:, :, None, None] + residual()


def read(image: np.ndarray) -> Read:
    lesions = 2 * image[:2] * LESIONS[:, None, None]
    fine = image[::2] / 2 * FROM_IMAGE[:, None, None] + lesions * FROM_LESIONS[:, None, None]
    coarse = halved(fine)
    logits = FINE @ fine.mean(axis=(1, 2)) + COARSE @ coarse.mean(axis=(1, 2))
    return Read(lesions, lesions.sum(axis=0), fine, coarse, logits)


def halved(planes: np.ndarray) -> np.ndarray:
    return planes.reshape(-1, 2, 2, 2, 2).mean(axis=(2, 4))


DOUBLE = np.array([[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]])
"""Bilinear enlargement of two values to four: `DOUBLE @ plane @ DOUBLE.T`."""


def overlap(mask: np.ndarray, region: np.ndarray) -> float:
    """IoU, with a region that may cover a part of a pixel."""
    both = (mask * region).sum()
    return both / (mask.sum() + region.sum() - both)


def selected(features: np.ndarray, region: np.ndarray) -> np.ndarray:
    """Eq. (2), xi = theta_seg = 0.5."""
    ious = np.array([overlap((f / f.max() > 0.5).astype(float), region) for f in features])
    return ious > 0.5 * ious.max()


def evidence(image: np.ndarray) -> np.ndarray:
    """Eqs. (2) and (3) and Algorithm 1 for the score y_DR = logits of grade 1 + grade 2.

    The score's gradient in each pixel of a fine channel is (w_fine + w_coarse) / 16, since the coarse channels are
    means of the fine ones; in each pixel of a coarse channel it is w_coarse / 4.
    """
    found = read(image)
    region = (found.region > 0.5).astype(float)
    fine_score, coarse_score = FINE[1:].sum(axis=0), COARSE[1:].sum(axis=0)
    fine = (fine_score + coarse_score) / 16 * selected(found.fine, region)
    coarse = coarse_score / 4 * selected(found.coarse, halved(region[None])[0])
    deep = (coarse[:, None, None] * found.coarse).sum(axis=0)
    shallow = (fine[:, None, None] * found.fine).sum(axis=0)
    total = np.maximum(DOUBLE @ deep @ DOUBLE.T + fine.sum() * shallow, 0)
    return total / total.max()


def evidence_mask(image: np.ndarray) -> np.ndarray:
    return (evidence(image) > WEIGHTS.phi_vis).astype(float)


def eq4() -> float:
    pairs = zip(super_resolved(), hr_images(), strict=True)
    return float(np.mean([(read(sr).lesions - read(hr).lesions) ** 2 for sr, hr in pairs]))


def eq5() -> float:
    pairs = zip(super_resolved(), hr_images(), strict=True)
    return float(np.mean([(evidence_mask(sr) - evidence_mask(hr)) ** 2 for sr, hr in pairs]))


def eq6() -> float:
    return float(np.abs(super_resolved() - hr_images()).mean())


def eq7() -> float:
    sr = super_resolved()
    return float((np.diff(sr, axis=2) ** 2).mean() + (np.diff(sr, axis=3) ** 2).mean())


def eq8() -> float:
    """Over the first photograph, the only one that is annotated."""
    lesions, mask = read(super_resolved()[0]).lesions, masks()[0]
    dice = [2 * (p * s).sum() / (p.sum() + s.sum()) for p, s in zip(lesions, mask, strict=True)]
    return float(np.mean([1 - value for value in dice]))


def cross_entropy() -> float:
    lesions, mask = read(super_resolved()[0]).lesions, masks()[0]
    classes = np.concatenate([lesions, 1 - lesions.sum(axis=0, keepdims=True)])
    truth = np.concatenate([mask, 1 - mask.sum(axis=0, keepdims=True)])
    return float(-(truth * np.log(classes)).sum(axis=0).mean())


def eq9() -> float:
    """Over the second and third photographs, with the evidence mask of their HR images."""
    pairs = zip(super_resolved()[1:], hr_images()[1:], strict=True)
    return float(np.mean([(read(sr).region - evidence_mask(hr)) ** 2 for sr, hr in pairs]))


def eq10(logits: np.ndarray, grade: int) -> float:
    probabilities = np.exp(logits) / np.exp(logits).sum()
    distance = abs(int(logits.argmax()) - grade) + 1
    norm = sum(abs(i - grade) + 1 for i in range(3))
    return float(WEIGHTS.class_weights[grade] * distance / norm * -np.log(probabilities[grade]))


def ordinal(logits: np.ndarray, grade: int) -> float:
    """Interpretation R26: the thresholds "above grade 0" and "above grade 1"."""
    probabilities = np.exp(logits) / np.exp(logits).sum()
    above = probabilities[1] + probabilities[2], probabilities[2]
    each = [-np.log(p if grade > k else 1 - p) for k, p in enumerate(above)]
    return float(WEIGHTS.class_weights[grade] * np.mean(each))


def graded_loss() -> float:
    """Eq. (10) over the first two photographs, whose grades are known."""
    return float(np.mean([eq10(read(super_resolved()[n]).logits, GRADE[n]) for n in (0, 1)]))


def xi_loss() -> float:
    """Interpretation R7: 1 - the mean IoU of each channel's soft mask with the lesion region."""
    misses = []
    for sr in super_resolved():
        found = read(sr)
        region = (found.region > 0.5).astype(float)
        for features, cells in ((found.fine, region), (found.coarse, halved(region[None])[0])):
            soft = [1 / (1 + np.exp(-(f / f.max() - 0.5) / 0.1)) for f in features]
            misses.append(np.mean([1 - overlap(mask, cells) for mask in soft]))
    return float(np.mean(misses))
