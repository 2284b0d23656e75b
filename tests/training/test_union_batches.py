"""Union labels and ignored pixels on their way from a prepared photograph into the losses (interpretation R32)."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from deepmtdr import losses
from deepmtdr.datasets.frames import Frame, mask_channels
from deepmtdr.datasets.sample import Sample
from deepmtdr.losses import LossWeights, dice_loss, lesion_cross_entropy_loss
from deepmtdr.model.deepmtdr import DeepMTDR, ModelConfig
from deepmtdr.model.grading import GradingConfig
from deepmtdr.model.isr import ISRConfig
from deepmtdr.model.segmentation import SegmentationConfig
from deepmtdr.preparation.prepare import prepare
from deepmtdr.recipe import Augmentation, DataRecipe
from deepmtdr.training.backward import StepLosses
from deepmtdr.training.batches import Batch, PhotographSampler, known_lesions, make_crop_batch
from deepmtdr.training.step_losses import joint_losses, restoration_losses
from deepmtdr.training.training_data import select_frames
from deepmtdr.training.validation import validate
from image_files import write_photograph
from segmenter_checks import randomise_lesion_maps
from tiny_model import tiny_recipe

SIZE = 64
PLAIN = Augmentation(gain=0.0, gamma=0.0, blur=0.0, noise=0.0, jpeg=100, zoom=1.0)


def write_square(path: Path, rows: slice, columns: slice) -> Path:
    pixels = np.zeros((100, 120), np.uint8)
    pixels[rows, columns] = 255
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> list[Frame]:
    """Of three sets: "types" with MA and SE annotated one by one; "union" with exudates; "bare" with ignored pixels.

    Green is bright exactly on the exudates, and blue on the ignored pixels, of "union".
    """
    root = tmp_path_factory.mktemp("photographs")
    exudates, other = (slice(30, 45), slice(35, 60)), (slice(55, 75), slice(60, 85))
    with Image.open(write_photograph(root / "x.png")) as image:
        pixels = np.array(image)
    pixels[..., 1:] = 0
    pixels[*exudates, 1] = 255
    pixels[*other, 2] = 255
    Image.fromarray(pixels).save(root / "union.png")
    masks = {"e": write_square(root / "e.png", *exudates), "o": write_square(root / "o.png", *other)}
    samples = [
        Sample(
            photograph=root / "x.png",
            name="x",
            patient="x",
            dataset="types",
            lesion_masks={"MA": None, "SE": masks["e"]},
        ),
        Sample(
            photograph=root / "union.png",
            name="u",
            patient="u",
            dataset="union",
            union_masks={"EX+SE": masks["e"]},
            ignored_mask=masks["o"],
        ),
        Sample(photograph=root / "x.png", name="b", patient="b", dataset="bare", ignored_mask=masks["o"]),
    ]
    return [
        frame
        for sample in samples
        for frame in prepare([sample], root, root / f"out_{sample.name}", size=SIZE, workers=1).frames()
    ]


def crops(frames: list[Frame], augmentation: Augmentation, seed: int = 0, side: int = 32) -> Batch:
    rng = np.random.default_rng(seed)
    return make_crop_batch(frames, side, augmentation, rng.spawn(len(frames)), channels=mask_channels(frames))


# Batches


def test_batch_has_the_labels_of_each_photograph(frames: list[Frame]) -> None:
    batch = crops(frames, PLAIN, side=0)
    assert batch.unions is not None and batch.union_masks is not None and batch.ignored is not None
    exudates = [False, False, True, True]
    assert batch.unions.tolist() == [[[False] * 4], [exudates], [[False] * 4]]
    assert batch.annotated.tolist() == [[True, False, False, True], [False] * 4, [False] * 4]
    assert batch.has_masks.tolist() == [True, True, False]
    assert [bool(mask.any()) for mask in batch.union_masks] == [False, True, False]
    assert [bool(mask.any()) for mask in batch.ignored] == [False, True, True]
    assert batch.lesion_masks.shape == (3, 4, SIZE, SIZE) and not batch.lesion_masks[1:].any()


def test_batch_of_photographs_without_them_has_no_such_masks(frames: list[Frame]) -> None:
    batch = crops(frames[:1], PLAIN)
    assert (batch.ignored, batch.union_masks, batch.unions) == (None, None, None)
    assert batch.has_masks.tolist() == [True]


@pytest.mark.parametrize("augmentation", [PLAIN, replace(PLAIN, zoom=1.5), replace(PLAIN, rotation=40.0)], ids=str)
def test_masks_are_cut_zoomed_and_turned_with_the_image(frames: list[Frame], augmentation: Augmentation) -> None:
    shown = 0
    for seed in range(12):
        batch = crops(frames[1:2], augmentation, seed)
        assert batch.union_masks is not None and batch.ignored is not None
        green, blue = batch.hr[0, 1], batch.hr[0, 2]
        assert (green - batch.union_masks[0, 0]).abs().max() < 0.2
        assert not (blue[~batch.ignored[0, 0]] > 0.2).any() and (blue[batch.ignored[0, 0]] > 0).all()
        shown += bool((green > 0.5).any()) + bool(batch.ignored.any())
    assert shown > 12


def test_crops_are_centred_near_union_labels_and_not_near_ignored_pixels(frames: list[Frame]) -> None:
    drawn = [crops(frames[1:2], PLAIN, seed, side=16) for seed in range(40)]
    exudates = np.mean([bool((batch.hr[0, 1] > 0.5).any()) for batch in drawn])
    others = np.mean([bool((crops(frames[2:], PLAIN, seed, side=16).ignored).any()) for seed in range(40)])  # type: ignore[union-attr]
    assert exudates > 0.7 > others


def test_grade_0_with_a_union_label_is_not_taken_as_annotated(frames: list[Frame]) -> None:
    union, bare = (replace(frame, sample=replace(frame.sample, grade=0)) for frame in frames[1:])
    assert known_lesions(union) == (False,) * 4, "R22 is for photographs without any annotation"
    assert known_lesions(bare) == (True,) * 4


def test_union_share_is_kept_among_the_photographs_with_masks(frames: list[Frame], rng: np.random.Generator) -> None:
    sampler = PhotographSampler(frames)
    drawn = [frame.sample.dataset for frame in sampler.draw(4000, 0.8, rng, 0.25)]
    shares = {name: drawn.count(name) / len(drawn) for name in ("types", "union", "bare")}
    assert shares == pytest.approx({"types": 0.6, "union": 0.2, "bare": 0.2}, abs=0.03)
    assert sampler.channels == (("EX+SE",), True)
    only = PhotographSampler(frames[1:2]).draw(5, 0.0, rng, 0.0)
    assert [frame.sample.dataset for frame in only] == ["union"] * 5
    before, after = (np.random.default_rng(3) for _ in range(2))
    plain = PhotographSampler([frames[0], frames[2]])
    assert plain.draw(50, 0.5, before) == plain.draw(50, 0.5, after, 0.9), "no other photographs without union labels"


def test_masks_that_supervision_removes_are_not_used(frames: list[Frame], tmp_path: Path) -> None:
    done = prepare([replace(frames[1].sample, mask_threshold=127)], tmp_path, tmp_path / "out", size=SIZE, workers=1)
    (sample,) = done.samples()
    (kept,), (bare,) = (select_frames([done], [s]) for s in (sample, sample.without_masks()))
    assert kept.sample.has_masks and kept.sample.ignored_mask is not None
    assert not bare.sample.has_masks and bare.sample.ignored_mask is None


# Steps


@pytest.fixture
def model() -> DeepMTDR:
    torch.manual_seed(0)
    config = ModelConfig(
        isr=ISRConfig(width=4, blocks=1),
        segmentation=SegmentationConfig(width=4),
        grading=GradingConfig(width=4, hidden=8),
    )
    model = DeepMTDR(config).eval()
    randomise_lesion_maps(model)
    return model


@pytest.fixture
def batch() -> Batch:
    """Four photographs of 64 px: all types; exudates together; nothing; nothing. Half of the pixels are ignored."""
    hr = torch.rand(4, 3, SIZE, SIZE)
    annotated, unions = torch.zeros(4, 4, dtype=torch.bool), torch.zeros(4, 1, 4, dtype=torch.bool)
    annotated[0], unions[1, 0, 2:] = True, True
    return Batch(
        hr,
        hr,
        (torch.rand(4, 4, SIZE, SIZE) > 0.9).float(),
        annotated,
        torch.zeros(4, dtype=torch.long),
        torch.zeros(4, dtype=torch.bool),
        ignored=torch.rand(4, 1, SIZE, SIZE) > 0.5,
        union_masks=(torch.rand(4, 1, SIZE, SIZE) > 0.8).float(),
        unions=unions,
    )


@pytest.mark.parametrize("compute", [restoration_losses, joint_losses])
def test_steps_use_every_label(
    model: DeepMTDR, batch: Batch, compute: Callable[[DeepMTDR, Batch, int, LossWeights], StepLosses]
) -> None:
    step = compute(model, batch, 1, LossWeights())
    with torch.no_grad():
        lesions = model.segment(model.preprocess(batch.degraded)[0])[:, :-1]
    masks, annotated = batch.lesion_masks, batch.annotated
    others = {"ignored": batch.ignored, "union_masks": batch.union_masks, "unions": batch.unions}
    found = {"dice": dice_loss, "cross_entropy": lesion_cross_entropy_loss}
    for name, loss in found.items():
        assert step.terms[name] == pytest.approx(loss(lesions, masks, annotated, **others).item(), rel=1e-4)
        without = [{**others, "ignored": None}, {"ignored": batch.ignored}]
        assert all(step.terms[name] != pytest.approx(loss(lesions, masks, annotated, **o).item()) for o in without)


def test_eq9_is_computed_without_ignored_pixels_where_nothing_is_annotated(
    model: DeepMTDR, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = losses.unsupervised_segmentation_loss
    calls: list[dict[str, object]] = []

    def recorded(*args: object, **others: object) -> torch.Tensor:
        calls.append(inspect.signature(real).bind(*args, **others).arguments)
        return real(*args, **others)  # type: ignore[arg-type]

    monkeypatch.setattr(losses, "unsupervised_segmentation_loss", recorded)
    joint_losses(model, batch, 1, LossWeights())
    (call,) = calls
    assert call["ignored"] is batch.ignored
    assert torch.equal(call["unannotated"], torch.tensor([False, False, True, True]))  # type: ignore[arg-type]


# Validation


def test_union_labels_are_in_no_mean_over_the_lesion_types(frames: list[Frame]) -> None:
    recipe = replace(tiny_recipe(), data=DataRecipe(frame=SIZE))
    torch.manual_seed(0)
    model = DeepMTDR(recipe.model).eval()
    alone = validate(model, frames[:1], max_examples=0).scores["aupr_mean"]
    assert validate(model, frames[:2], max_examples=0).scores["aupr_mean"] == alone
    assert "aupr_mean" not in validate(model, frames[1:2], max_examples=0).scores
