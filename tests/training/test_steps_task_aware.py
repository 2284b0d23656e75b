"""Task-aware losses of a network of linear parts: stable evidence (R28), gradients at the SR image (R27), dropout."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from deepmtdr.baselines.wang_et_al import GMSVWithoutSelection
from deepmtdr.losses import LossWeights
from deepmtdr.model.deepmtdr import DeepMTDR
from deepmtdr.model.gmsv import GMSVConfig
from deepmtdr.model.stable_evidence import StableEvidenceConfig
from deepmtdr.training.backward import backward_by_subnet
from deepmtdr.training.batches import Batch
from deepmtdr.training.step_losses import joint_losses, restoration_losses
from linear_network import (
    GRADE,
    WEIGHTS,
    batch,
    eq10,
    evidence,
    hr_images,
    network,
    read,
    super_resolved,
)


def scaled(values: np.ndarray, percentile: float) -> np.ndarray:
    """The smallest value that at least `percentile` per cent of the pixels do not exceed is 1."""
    return np.minimum(values / np.sort(values.ravel())[int(np.ceil(percentile / 100 * values.size)) - 1], 1)


def test_eq5_compares_one_orientation_and_eq9_takes_the_average_over_turns_each_scaled_for_the_threshold() -> None:
    asked, average = [], np.arange(48.0).reshape(3, 1, 4, 4) % 7
    model = network()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "average_evidence", lambda _, evidence, turns: asked.append((evidence, turns)) or given)
        given = torch.tensor(average).float()
        config = StableEvidenceConfig(turns=4, smoothing=0.0, percentile=80.0)
        terms = joint_losses(model, batch(), 2, WEIGHTS, evidence=config).terms
    pairs = list(zip(super_resolved(), hr_images(), strict=True))
    masks = [[scaled(evidence(image), 80.0) > WEIGHTS.phi_vis for image in pair] for pair in pairs]
    assert terms["cls_aware"] == pytest.approx(np.mean([one != other for one, other in masks]), rel=1e-4)
    pseudo = [scaled(one, 80.0) > WEIGHTS.phi_vis for one in average]
    expected = np.mean([(read(pairs[n][0]).region - pseudo[n]) ** 2 for n in (1, 2)])
    assert terms["unsupervised"] == pytest.approx(expected, rel=1e-4)
    ((first, turns),) = asked
    assert turns == 4 and np.allclose(first[:, 0].numpy(), [evidence(hr) for _, hr in pairs], atol=1e-5)


@pytest.mark.parametrize("create_graph", [False, True])
def test_gradient_weights_of_eq3_are_differentiated_as_set(create_graph: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model, asked = network(), []
    compute = model.evidence
    monkeypatch.setattr(model, "evidence", lambda one, **how: asked.append(how) or compute(one, **how))
    joint_losses(model, batch(), 2, WEIGHTS, evidence=StableEvidenceConfig(turns=1, create_graph=create_graph))
    assert asked == [{}, {"create_graph": create_graph}]  # HR, SR
    model.evidence_method = GMSVWithoutSelection()
    joint_losses(model, batch(), 2, WEIGHTS, evidence=StableEvidenceConfig(turns=1, create_graph=create_graph))
    assert asked[-1] == {"create_graph": True}


@pytest.mark.parametrize("weight", [0.0, 11.0])
def test_average_is_not_computed_if_eq9_does_not_need_it(weight: float) -> None:
    model, known = network(), batch()
    annotated = known._replace(annotated=torch.ones_like(known.annotated)) if weight else known
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "average_evidence", lambda *_: pytest.fail("was computed"))
        joint_losses(model, annotated, 2, replace(WEIGHTS, unsupervised=weight))


def test_task_aware_losses_are_0_if_the_super_resolved_image_is_the_hr_image() -> None:
    same = batch()._replace(hr=torch.tensor(super_resolved()).float())
    terms = joint_losses(network(), same, 2, WEIGHTS).terms
    assert terms["cls_aware"] == 0 and terms["seg_aware"] == pytest.approx(0, abs=1e-10)


# Interpretation R27: gradients at the SR image. The pattern is added to it, so that with one photograph the gradient of
# the pattern is that of the SR image.

NOTHING = replace(WEIGHTS, **dict.fromkeys(("lambda_img", "lambda_tv", "lambda_sa", "lambda_ca"), 0.0))


def first_photograph() -> Batch:
    return Batch(*(field if field is None else field[:1] for field in batch()))


def gradients(weights: LossWeights, *, end_to_end: bool = False) -> DeepMTDR:
    """The network after the backward pass of a joint step."""
    model = network()
    backward_by_subnet(joint_losses(model, first_photograph(), 2, weights), model, end_to_end=end_to_end)
    return model


def pattern_gradient(weights: LossWeights, *, end_to_end: bool = False) -> Tensor:
    found = gradients(weights, end_to_end=end_to_end).isr.get_parameter("pattern").grad
    assert found is not None
    return found


def test_task_aware_gradients_are_limited_to_a_share_of_that_of_the_image_losses() -> None:
    image = pattern_gradient(replace(NOTHING, lambda_img=2.0, lambda_tv=3.0))
    seg_aware = pattern_gradient(replace(NOTHING, lambda_sa=5.0))
    cls_aware = pattern_gradient(replace(NOTHING, lambda_ca=7.0))
    limit = 0.3 * image.norm()
    assert seg_aware.norm() > limit and cls_aware.norm() > limit
    expected = image + limit * seg_aware / seg_aware.norm() + limit * cls_aware / cls_aware.norm()
    assert torch.allclose(pattern_gradient(replace(WEIGHTS, task_aware_share=0.3)), expected, atol=1e-6)
    assert torch.allclose(pattern_gradient(WEIGHTS), image + seg_aware + cls_aware, atol=1e-6), "0 is no limit"


def test_restoration_step_limits_the_gradient_of_eq4() -> None:
    found = []
    for weights in (replace(NOTHING, lambda_img=2.0), replace(NOTHING, lambda_sa=5.0), None):
        model, own = network(), weights or replace(NOTHING, lambda_img=2.0, lambda_sa=5.0, task_aware_share=0.1)
        backward_by_subnet(restoration_losses(model, first_photograph(), 2, own), model, end_to_end=False)
        found.append(model.isr.get_parameter("pattern").grad)
    image, seg_aware, both = found
    assert torch.allclose(both, image + 0.1 * image.norm() * seg_aware / seg_aware.norm(), atol=1e-6)


def test_shares_and_cosines_of_the_gradients_before_the_limit_are_returned_for_the_log() -> None:
    model = network()
    weights = replace(WEIGHTS, task_aware_share=0.3)
    logged = backward_by_subnet(joint_losses(model, first_photograph(), 2, weights), model, end_to_end=False)
    image = pattern_gradient(replace(NOTHING, lambda_img=2.0, lambda_tv=3.0)).flatten()
    for name, key, weight in (("sa", "lambda_sa", 5.0), ("ca", "lambda_ca", 7.0)):
        term = pattern_gradient(replace(NOTHING, **{key: weight})).flatten()
        assert logged[f"share_{name}"] == pytest.approx((term.norm() / image.norm()).item(), rel=1e-4)
        cosine = F.cosine_similarity(term, image, dim=0).item()
        assert logged[f"cosine_{name}"] == pytest.approx(cosine, abs=1e-4)
    assert backward_by_subnet(joint_losses(model, first_photograph(), 2, WEIGHTS), model, end_to_end=False) == {}


def test_eq5_changes_the_image_through_the_lesion_maps_too() -> None:
    # The grading network sees red, blue and the lesion maps; green reaches it only as the second lesion type. Every
    # channel is selected, also the one with this type.
    model = network()
    model.gmsv.config = GMSVConfig(theta_seg=-1.0)
    backward_by_subnet(joint_losses(model, batch(), 2, replace(NOTHING, lambda_ca=7.0)), model, end_to_end=False)
    pattern = model.isr.get_parameter("pattern").grad
    assert pattern is not None and pattern[1].any()


def test_grading_loss_trains_neither_the_segmentation_nor_unless_end_to_end_the_isr_subnet() -> None:
    silent = replace(NOTHING, dice=0.0, lesion_cross_entropy=0.0, unsupervised=0.0)
    for end_to_end in (False, True):
        model = gradients(silent, end_to_end=end_to_end)
        assert model.grading.get_parameter("fine").grad is not None
        segmentation = model.segmentation.get_parameter("factors").grad
        assert segmentation is None or not segmentation.any()
        pattern = model.isr.get_parameter("pattern").grad
        assert (pattern is not None and bool(pattern[1].any())) is end_to_end  # green: through the lesion maps


def test_grading_loss_of_the_joint_step_gets_logits_with_dropout() -> None:
    model = network()
    model.grading.training_logits = lambda graded: 2 * graded.logits  # pyright: ignore[reportAttributeAccessIssue]
    expected = [
        np.mean([eq10(factor * read(super_resolved()[n]).logits, GRADE[n]) for n in (0, 1)]) for factor in (1, 2)
    ]
    for dropout in (False, True):
        found = joint_losses(model, batch(), 2, WEIGHTS, dropout=dropout).terms["grading"]
        assert found == pytest.approx(expected[dropout], rel=1e-4)
