"""Lin et al.: an anti-noise lesion detector, and attention between photograph and lesion maps."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from deepmtdr.baselines.lin_et_al import PATCH, PRIOR, AntiNoiseDetector, AttentionFusion
from deepmtdr.baselines.resnet18 import ResNet18
from deepmtdr.losses import GradeLabels, LesionLabels
from deepmtdr.model.preprocessing import rgb_to_input
from deepmtdr.synthetic.drawings import draw_photograph
from deepmtdr.terms import Grade

NARROW = (4, 8, 8, 16)
ALL, NONE = torch.ones(1, 4, dtype=torch.bool), torch.zeros(1, 4, dtype=torch.bool)


class SmallFusion(AttentionFusion):
    size = 64


def drawings(grades: tuple[int, ...], side: int = 96) -> tuple[Tensor, Tensor]:
    """Network inputs from drawings, and their lesion masks."""
    drawn = [draw_photograph(2 * seed, Grade(g), 96) for seed, g in enumerate(grades)]
    frames = [torch.from_numpy(d.photograph).permute(2, 0, 1) / 255 for d in drawn]
    masks = [torch.from_numpy(d.lesion_masks).float() for d in drawn]
    network_input = torch.cat([F.interpolate(f[None], (side, side), mode="area") for f in frames])
    small_masks = torch.cat([F.adaptive_max_pool2d(m[None], (side, side)) for m in masks])
    return rgb_to_input(network_input), small_masks


def patches(*scores: list[float]) -> Tensor:
    """One row of patches with these probabilities of MA, HE, EX, SE, background."""
    row = torch.tensor(scores).T[None, :, None]
    return row.repeat_interleave(PATCH, 2).repeat_interleave(PATCH, 3)


def detector_loss(classes: Tensor, masks: Tensor, annotated: Tensor = ALL) -> float:
    return AntiNoiseDetector(widths=NARROW).loss(classes, LesionLabels(masks, annotated)).item()


def test_all_pixels_of_a_patch_have_the_same_probabilities() -> None:
    torch.manual_seed(0)
    classes = AntiNoiseDetector(widths=NARROW).eval()(drawings((3,), 64)[0])
    assert classes.shape == (1, 5, 64, 64)
    torch.testing.assert_close(classes.sum(dim=1), torch.ones(1, 64, 64))
    tiles = classes.unfold(2, PATCH, PATCH).unfold(3, PATCH, PATCH)
    assert torch.equal(tiles, tiles[..., :1, :1].expand_as(tiles))


def test_untrained_detector_finds_no_missed_lesion() -> None:
    torch.manual_seed(0)
    classes = AntiNoiseDetector().eval()(drawings((3,), 64)[0])
    assert (1 - classes[:, -1]).max() < 3 * PRIOR


def test_frame_that_is_no_multiple_of_the_patch_size_is_an_error() -> None:
    with pytest.raises(ValueError, match="frame of 64x60 px, expected multiples of 8"):
        AntiNoiseDetector(widths=NARROW)(torch.zeros(1, 3, 64, 60))


def test_patches_with_and_without_a_lesion_are_weighted_1_to_3() -> None:
    """One EX patch predicted with 0.5, three background patches with 0.9: (-log 0.5 - 3 log 0.9) / 4."""
    masks = torch.zeros(1, 4, 8, 32)
    masks[0, 2, 3, 3] = 1  # one annotated pixel is enough for the patch
    clean = [0.025, 0.025, 0.025, 0.025, 0.9]
    loss = detector_loss(patches([0.1, 0.1, 0.5, 0.1, 0.2], clean, clean, clean), masks)
    assert loss == pytest.approx((-math.log(0.5) - 3 * math.log(0.9)) / 4, abs=1e-6)


def test_patches_with_an_ignored_pixel_do_not_count() -> None:
    """Of an EX patch and three background patches, the EX patch and one background patch are ignored."""
    masks, ignored = torch.zeros(1, 4, 8, 32), torch.zeros(1, 1, 8, 32, dtype=torch.bool)
    masks[0, 2, 3, 3] = 1
    ignored[0, 0, 0, [7, 8]] = True
    clean = [0.025, 0.025, 0.025, 0.025, 0.9]
    classes = patches([0.1, 0.1, 0.5, 0.1, 0.2], [0.6, 0.1, 0.1, 0.1, 0.1], clean, clean)
    loss = AntiNoiseDetector(widths=NARROW).loss(classes, LesionLabels(masks, ALL, ignored=ignored)).item()
    assert loss == pytest.approx(-3 / 4 * math.log(0.9), abs=1e-6)


def test_probably_missed_lesion_is_weighted_by_1_minus_its_probability() -> None:
    """Not annotated, lesion probability 0.9: weight 0.1. With 0.4, below the threshold: weight 1."""
    suspicious, doubtful = [0.9, 0.0, 0.0, 0.0, 0.1], [0.4, 0.0, 0.0, 0.0, 0.6]
    loss = detector_loss(patches(suspicious, doubtful), torch.zeros(1, 4, 8, 16))
    assert loss == pytest.approx(3 / 4 * (-0.1 * math.log(0.1) - math.log(0.6)) / 2, abs=1e-6)


def test_weight_of_a_missed_lesion_has_no_gradient() -> None:
    """The loss still pulls a probably missed lesion towards the background, only more weakly."""
    pulls = []
    for lesion in (0.45, 0.95):
        classes = patches([lesion, 0.0, 0.0, 0.0, 1 - lesion]).requires_grad_()
        AntiNoiseDetector(widths=NARROW).loss(classes, LesionLabels(torch.zeros(1, 4, 8, 8), ALL)).backward()
        assert classes.grad is not None
        pulls.append(
            classes.grad[0, -1].sum().item() * (1 - lesion)
        )  # with respect to the logit, up to a common factor
    assert pulls[0] < pulls[1] < 0


def test_annotated_lesion_has_full_weight_for_any_prediction() -> None:
    masks = torch.ones(1, 4, 8, 8) * torch.tensor([0.0, 1.0, 0.0, 0.0])[:, None, None]
    loss = detector_loss(patches([0.0, 0.001, 0.0, 0.0, 0.999]), masks)
    assert loss == pytest.approx(-math.log(0.001) / 4, abs=1e-4)


def test_background_is_known_only_where_all_types_are_annotated() -> None:
    classes = patches([0.1, 0.1, 0.5, 0.1, 0.2], [0.1, 0.1, 0.1, 0.1, 0.6])
    masks = torch.zeros(1, 4, 8, 16)
    masks[0, 2, 0, 0] = 1
    only_ex = torch.tensor([[False, False, True, False]])
    assert detector_loss(classes, masks, only_ex) == pytest.approx(-math.log(0.5) / 4, abs=1e-6)
    assert detector_loss(classes, masks, NONE) == 0


def test_every_parameter_of_the_detector_gets_a_finite_gradient() -> None:
    torch.manual_seed(0)
    detector, (network_input, masks) = AntiNoiseDetector(widths=NARROW).train(), drawings((3, 4), 64)
    for dtype in (torch.float32, torch.bfloat16):
        detector.zero_grad()
        with torch.autocast("cpu", dtype, enabled=dtype is torch.bfloat16):
            classes = detector(network_input)
        detector.loss(classes, LesionLabels(masks, ALL.expand(2, 4))).backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in detector.parameters())


def test_detector_learns_the_lesions_of_two_drawn_photographs() -> None:
    torch.manual_seed(0)
    detector, (network_input, masks) = AntiNoiseDetector(widths=(16, 16, 32, 32)).train(), drawings((3, 4))
    classes = masks
    optimiser = torch.optim.Adam(detector.parameters(), 3e-3)
    for _ in range(80):
        optimiser.zero_grad()
        classes = detector(network_input)
        detector.loss(classes, LesionLabels(masks, ALL.expand(2, 4))).backward()
        optimiser.step()
    found = (1 - classes[:, -1, ::PATCH, ::PATCH]) > 0.5
    present = F.max_pool2d(masks, PATCH).amax(dim=1) > 0
    assert (found & present).sum() / present.sum() > 0.9
    assert (found & present).sum() / found.sum() > 0.7


@pytest.mark.parametrize(("suspect", "ends"), [(0.5, 1.0), (1.0, 4 / 7)])
def test_missed_half_of_similar_lesions_does_not_prevent_learning_the_annotated_half(
    monkeypatch: pytest.MonkeyPatch, suspect: float, ends: float
) -> None:
    """Sixteen similar patches, half of them annotated, and 24 clean ones, predicted with p and 0.

    The annotated half pulls up with 1, the missed half down with 3 x 8 / 32 = 0.75: p = 1 / 1.75 without anti-noise.
    With it the missed ones count 1 - p: p = 1 / (1 + 0.75 (1 - p)), so p = 1.
    """
    monkeypatch.setattr("deepmtdr.baselines.lin_et_al.MISSED_LESION_THRESHOLD", suspect)
    masks = torch.zeros(1, 4, 8, 8 * 40)
    masks[:, 2, :, : 8 * 8] = 1
    detector, logit, p = AntiNoiseDetector(widths=NARROW), torch.zeros((), requires_grad=True), torch.zeros(())
    for _ in range(300):
        p = logit.sigmoid()
        alike = torch.stack([p * 0, p * 0, p, p * 0, 1 - p])
        row = torch.cat([alike.repeat(16, 1), torch.tensor([[0.0, 0, 0, 0, 1]]).repeat(24, 1)]).T[None, :, None]
        classes = row.repeat_interleave(PATCH, 2).repeat_interleave(PATCH, 3)
        (slope,) = torch.autograd.grad(detector.loss(classes, LesionLabels(masks, ALL)), logit)
        logit = (logit.detach() - 5 * slope).requires_grad_()
    assert p.item() == pytest.approx(ends, abs=0.03)


@pytest.fixture(scope="module")
def fusion() -> SmallFusion:
    torch.manual_seed(0)
    return SmallFusion()


def test_fusion_weights_the_two_sources_logits_grade_by_grade(fusion: SmallFusion) -> None:
    """All attention on the photograph for grades 0-2, and on the maps for 3 and 4."""
    (network_input, masks), state = drawings((1, 4), 64), fusion.state_dict()
    torch.manual_seed(0)
    chosen = SmallFusion().eval()
    chosen.load_state_dict(state)
    with torch.no_grad():
        chosen.attention.weight.zero_()
        chosen.attention.bias.copy_(torch.tensor([50.0, 50, 50, -50, -50, -50, -50, -50, 50, 50]))
        graded = chosen(network_input, masks)
        photograph = chosen.photograph.grade((network_input / 3 + 1) / 2, masks).logits
        maps = chosen.by_lesions(chosen.lesions(masks).mean(dim=(2, 3)))
    expected = torch.cat([photograph[:, :3], maps[:, 3:]], dim=1)
    torch.testing.assert_close(graded.logits, expected - expected.mean(dim=1, keepdim=True))


def test_attention_of_each_grade_sums_to_one_and_maps_influence_the_grade(fusion: SmallFusion) -> None:
    network_input, masks = drawings((1, 4), 64)
    with torch.no_grad():
        with_maps, without = (fusion.eval()(network_input, m) for m in (masks, torch.zeros_like(masks)))
    assert with_maps.extra[0].shape == (2, 2, 5)
    torch.testing.assert_close(with_maps.extra[0].sum(dim=1), torch.ones(2, 5))
    assert not torch.allclose(with_maps.logits, without.logits)


def test_every_parameter_of_the_fusion_gets_a_finite_gradient(fusion: SmallFusion) -> None:
    network_input, masks = drawings((1, 4), 64)
    for dtype in (torch.float32, torch.bfloat16):
        fusion.train().zero_grad()
        with torch.autocast("cpu", dtype, enabled=dtype is torch.bfloat16):
            graded = fusion(network_input, masks)
        fusion.loss(graded, GradeLabels(torch.tensor([1, 4]), torch.ones(2, dtype=torch.bool))).backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in fusion.parameters())


def test_features_are_the_photographs_and_have_the_gradient_of_the_grade(fusion: SmallFusion) -> None:
    network_input, masks = drawings((4,), 64)
    graded = fusion.eval()(network_input, masks)
    assert tuple(f.shape[1] for f in graded.features) == fusion.channels
    gradients = torch.autograd.grad(graded.logits[:, 1:].sum(), graded.features)
    assert all(g.any() for g in gradients)


def test_imagenet_weights_load_into_the_photograph_s_network(fusion: SmallFusion) -> None:
    state = {name: torch.full_like(tensor, 0.25) for name, tensor in ResNet18().state_dict().items()}
    other = SmallFusion()
    other.load_imagenet(state)
    assert (other.photograph.conv1.weight == 0.25).all()
    with pytest.raises(ValueError, match=r"bn1\.weight is missing"):
        other.load_imagenet({name: tensor for name, tensor in state.items() if name != "bn1.weight"})


def test_parameter_counts_by_hand() -> None:
    """Fusion: ResNet-18 with five grades (11.179 M) plus 1.233 M; detector: 4.690 M."""
    counts = [sum(p.numel() for p in m.parameters()) for m in (AttentionFusion(), ResNet18(), AntiNoiseDetector())]
    assert counts == [12_412_532, 11_179_077, 4_689_861]


def test_fusion_overfits_four_drawn_photographs_with_their_lesion_maps() -> None:
    torch.manual_seed(0)
    model, (network_input, masks) = SmallFusion().train(), drawings((0, 1, 3, 4), 64)
    optimiser = torch.optim.Adam(model.parameters(), 1e-3)
    grade, logits = torch.tensor([0, 1, 3, 4]), torch.zeros(4, 5)
    for _ in range(15):
        optimiser.zero_grad()
        graded = model(network_input, masks)
        model.loss(graded, GradeLabels(grade, torch.ones(4, dtype=torch.bool))).backward()
        optimiser.step()
        logits = graded.logits
    assert logits.argmax(dim=1).tolist() == grade.tolist()
