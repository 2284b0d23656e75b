"""The losses of each stage for a network of linear parts, against the paper's equations written out in NumPy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from deepmtdr.model.stable_evidence import UNPREPARED_EVIDENCE
from deepmtdr.training.batches import GradingBatch
from deepmtdr.training.step_losses import grading_losses, joint_losses, restoration_losses
from linear_network import (
    COLOURS,
    GAIN,
    GRADE,
    WEIGHTS,
    batch,
    cross_entropy,
    eq4,
    eq5,
    eq6,
    eq7,
    eq8,
    eq9,
    eq10,
    evidence,
    evidence_mask,
    graded_loss,
    hr_images,
    masks,
    network,
    ordinal,
    read,
    residual,
    super_resolved,
    xi_loss,
)


def test_the_example_is_no_special_case() -> None:
    """Every part of the equations matters here: else a mistake in the wiring could stay hidden."""
    images = {"sr": super_resolved(), "hr": hr_images()}
    for pictures in images.values():
        for image in pictures:
            found = read(image)
            assert 0 < (found.region > 0.5).mean() < 1 and found.region.max() < 1
            assert 0 < evidence_mask(image).mean() < 1
    assert eq5() > 0 and eq9() > 0
    predicted = [int(read(sr).logits.argmax()) for sr in super_resolved()]
    assert predicted[0] == GRADE[0] and predicted[1] != GRADE[1]


def test_joint_losses_equal_the_equations() -> None:
    step = joint_losses(network(), batch(), 2, WEIGHTS, evidence=UNPREPARED_EVIDENCE)
    expected = {
        "image": eq6(),
        "tv": eq7(),
        "seg_aware": eq4(),
        "cls_aware": eq5(),
        "dice": eq8(),
        "cross_entropy": cross_entropy(),
        "unsupervised": eq9(),
        "grading": graded_loss(),
        "xi": xi_loss(),
    }
    assert step.terms == pytest.approx(expected, rel=1e-4)
    assert step.isr.item() == pytest.approx(2 * eq6() + 3 * eq7() + 5 * eq4() + 7 * eq5(), rel=1e-4)
    assert step.segmentation.item() == pytest.approx(0.5 * eq8() + 0.25 * cross_entropy() + 11 * eq9(), rel=1e-4)
    assert step.grading.item() == pytest.approx(13 * graded_loss(), rel=1e-4)
    assert step.xi.item() == pytest.approx(xi_loss(), rel=1e-4)


def test_restoration_losses_equal_the_equations() -> None:
    step = restoration_losses(network(), batch(), 2, WEIGHTS)
    expected = {"image": eq6(), "tv": eq7(), "seg_aware": eq4(), "dice": eq8(), "cross_entropy": cross_entropy()}
    assert step.terms == pytest.approx(expected, rel=1e-4)
    assert step.isr.item() == pytest.approx(2 * eq6() + 3 * eq7() + 5 * eq4(), rel=1e-4)
    assert step.segmentation.item() == pytest.approx(0.5 * eq8() + 0.25 * cross_entropy(), rel=1e-4)
    assert step.grading.item() == step.xi.item() == 0


def test_grading_losses_equal_the_equations() -> None:
    """Inputs and lesion maps come from the cache; all three photographs are graded."""
    images = [read(image) for image in hr_images()]
    cached = GradingBatch(
        torch.tensor(hr_images() / 2).float(),
        torch.tensor(np.stack([found.lesions for found in images])).float(),
        torch.tensor(GRADE),
    )
    step = grading_losses(network(), cached, WEIGHTS)
    expected = np.mean([eq10(found.logits, grade) for found, grade in zip(images, GRADE, strict=True)])
    right = np.mean([found.logits.argmax() == grade for found, grade in zip(images, GRADE, strict=True)])
    assert step.terms == pytest.approx({"grading": expected, "accuracy": right}, rel=1e-4)
    assert step.grading.item() == pytest.approx(13 * expected, rel=1e-4)
    assert step.isr.item() == step.segmentation.item() == step.xi.item() == 0


def test_form_of_the_grading_loss_is_that_of_the_weights_in_the_grading_and_the_joint_stage() -> None:
    weights = replace(WEIGHTS, grading_form="cumulative")
    logits = [read(sr).logits for sr in super_resolved()]
    expected = np.mean([ordinal(logits[n], GRADE[n]) for n in (0, 1)])
    step = joint_losses(network(), batch(), 2, weights)
    assert step.terms["grading"] == pytest.approx(expected, rel=1e-4)
    assert step.grading.item() == pytest.approx(13 * expected, rel=1e-4)
    images = [read(image) for image in hr_images()]
    lesions = torch.tensor(np.stack([found.lesions for found in images])).float()
    cached = GradingBatch(torch.tensor(hr_images() / 2).float(), lesions, torch.tensor(GRADE))
    expected = np.mean([ordinal(found.logits, grade) for found, grade in zip(images, GRADE, strict=True)])
    assert grading_losses(network(), cached, weights).terms["grading"] == pytest.approx(expected, rel=1e-4)


def test_losses_of_a_compared_system_are_its_parts_own() -> None:
    step = joint_losses(network(task_aware=False), batch(), 2, WEIGHTS)
    isr = 100 * ((super_resolved() - hr_images()) ** 2).mean()
    segmentation = 10 * ((read(super_resolved()[0]).lesions - masks()[0]) ** 2).mean()
    expected = {"image": eq6(), "isr": isr, "segmentation": segmentation, "grading": graded_loss()}
    assert step.terms == pytest.approx(expected, rel=1e-4)
    assert step.isr.item() == pytest.approx(isr, rel=1e-4)
    assert step.segmentation.item() == pytest.approx(segmentation, rel=1e-4)
    assert step.grading.item() == pytest.approx(13 * graded_loss(), rel=1e-4)


def test_first_stage_of_a_compared_system_computes_no_grading_loss() -> None:
    step = restoration_losses(network(task_aware=False), batch(), 2, WEIGHTS)
    assert step.terms.keys() == {"image", "isr", "segmentation"}
    assert step.isr > 0 and step.segmentation > 0 and step.grading.item() == 0


def test_prediction_and_evidence_equal_the_equations() -> None:
    prediction, evidence_map = network().predict(torch.tensor(hr_images()).float(), scale=1)
    for n, image in enumerate(hr_images()):
        found = read(image)
        assert prediction.lesions[n].numpy() == pytest.approx(found.lesions, rel=1e-4)
        assert prediction.lesion_region[n, 0].numpy() == pytest.approx(found.region, rel=1e-4)
        assert prediction.grade_logits[n].numpy() == pytest.approx(found.logits, rel=1e-4)
        assert evidence_map[n, 0].numpy() == pytest.approx(evidence(image), rel=1e-4, abs=1e-6)


def test_eq11_gradient_of_the_gain_equals_finite_differences() -> None:
    """Of Eqs. (4), (6) and (7), through the whole network; the gain of the super-resolver is a single number."""
    model = network()
    step = joint_losses(model, batch(), 2, replace(WEIGHTS, lambda_ca=0.0))
    (gradient,) = torch.autograd.grad(step.isr, model.isr.get_parameter("gain"))

    def total(gain: float) -> float:
        sr, hr = gain * COLOURS[:, :, None, None] + residual(), hr_images()
        lesions = np.mean([(read(a).lesions - read(b).lesions) ** 2 for a, b in zip(sr, hr, strict=True)])
        return float(2 * np.abs(sr - hr).mean() + 3 * eq7() + 5 * lesions)

    assert gradient.item() == pytest.approx((total(GAIN + 1e-6) - total(GAIN - 1e-6)) / 2e-6, rel=1e-3)
