"""Batches: frequencies of the photographs, known labels, augmentation, one random generator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from array_frame import ArrayFrame
from deepmtdr.datasets.frames import Frame
from deepmtdr.datasets.sample import Sample
from deepmtdr.errors import DataError
from deepmtdr.labels import DIABETIC_RETINOPATHY, GradeLabel, LabelSet, LesionType
from deepmtdr.model.preprocessing import image_to_tensor, local_contrast
from deepmtdr.recipe import Augmentation
from deepmtdr.terms import Grade, Lesion
from deepmtdr.training.batches import (
    LOCAL_CONTRAST,
    SCALED_RGB,
    CachedOutput,
    GradingAugmentation,
    InputKind,
    PhotographSampler,
    known_lesions,
    make_crop_batch,
    make_grading_batch,
    scale_brightness,
)

CAMERA = Augmentation(gain=0.2, gamma=0.2, blur=0.6, noise=0.01, jpeg=45, zoom=1.0)
NO_CAMERA = Augmentation(gain=0.0, gamma=0.0, blur=0.0, noise=0.0, jpeg=100, zoom=1.0)
ALL, NONE = (True,) * 4, (False,) * 4
MA = DIABETIC_RETINOPATHY.channel(Lesion.MA)


def frame(
    dataset: str = "a", grade: int | None = None, types: tuple[Lesion, ...] = (), side: int = 32, value: int = 100
) -> Frame:
    """A frame of one value, the given types annotated: MA is everywhere, the other types nowhere."""
    sample = Sample(
        photograph=Path("x.png"),
        name="x",
        patient="p",
        dataset=dataset,
        grade=None if grade is None else Grade(grade),
        lesion_masks={lesion: Path("m.png") if lesion is Lesion.MA else None for lesion in types},
    )
    masks = np.zeros((4, side, side), np.uint8)
    masks[MA] = 255 * (Lesion.MA in types)
    return ArrayFrame(sample, np.full((side, side, 3), value, np.uint8), masks if types else None)


def cached(dataset: str, grade: int, value: int = 100) -> CachedOutput:
    return CachedOutput(
        frame(dataset, grade), np.full((3, 16, 16), value, np.uint8), np.full((4, 16, 16), value, np.uint8)
    )


# Which photographs are drawn


@pytest.mark.parametrize("share", [0.0, 0.3, 0.8, 1.0])
def test_share_of_annotated_photographs_is_as_set(share: float, rng: np.random.Generator) -> None:
    frames = [frame(types=(Lesion.MA,)), *(frame() for _ in range(9))]
    drawn = PhotographSampler(frames).draw(500, share, rng)
    assert np.mean([f.lesion_masks is not None for f in drawn]) == pytest.approx(share, abs=0.06 * (0 < share < 1))


def test_unannotated_photographs_come_evenly_from_each_data_set(rng: np.random.Generator) -> None:
    frames = [frame("a", types=(Lesion.MA,)), frame("b"), *(frame("c") for _ in range(50))]
    drawn = [f.sample.dataset for f in PhotographSampler(frames).draw(600, 0.0, rng)]
    assert set(drawn) == {"b", "c"}
    assert drawn.count("b") == pytest.approx(300, abs=50)


@pytest.mark.parametrize("types", [(), (Lesion.MA,)], ids=["unannotated", "annotated"])
def test_photographs_are_drawn_by_grade_as_balance_sets(types: tuple[Lesion, ...], rng: np.random.Generator) -> None:
    frames = [frame(grade=4, types=types), *(frame(grade=0, types=types) for _ in range(16))]
    frames += [frame(types=types) for _ in range(4)]
    share = 1.0 if types else 0.0

    def drawn(balance: float) -> list[float]:
        grades = [f.sample.grade for f in PhotographSampler(frames).draw(900, share, rng, balance=balance)]
        return [grades.count(grade) / 900 for grade in (4, 0, None)]

    assert drawn(0.0) == pytest.approx([1 / 21, 16 / 21, 4 / 21], abs=0.05)
    assert drawn(0.5) == pytest.approx([1 / 7, 4 / 7, 2 / 7], abs=0.06)  # 1, 16 and 4 times 1, 1/4 and 1/2
    assert drawn(1.0) == pytest.approx([1 / 3, 1 / 3, 1 / 3], abs=0.06)


def test_batch_is_filled_if_one_kind_of_photograph_is_missing(rng: np.random.Generator) -> None:
    annotated, other = frame(types=(Lesion.MA,)), frame()
    assert PhotographSampler([annotated]).draw(3, 0.0, rng) == [annotated] * 3
    assert PhotographSampler([other]).draw(3, 1.0, rng) == [other] * 3


def test_sampler_without_photographs_is_an_error() -> None:
    with pytest.raises(DataError, match="no photograph to draw from"):
        PhotographSampler([])


# Known labels


def test_annotated_types_are_known() -> None:
    assert known_lesions(frame(types=tuple(Lesion))) == ALL
    assert known_lesions(frame(types=(Lesion.HE, Lesion.SE))) == (False, True, False, True)
    assert known_lesions(frame()) == NONE


def test_all_types_of_a_photograph_with_grade_0_are_known() -> None:
    assert known_lesions(frame(grade=0)) == ALL
    assert [known_lesions(frame(grade=grade)) for grade in (1, 2, 3, 4)] == [NONE] * 4


def test_annotation_counts_more_than_grade_0() -> None:
    assert known_lesions(frame(grade=0, types=(Lesion.MA,))) == (True, False, False, False)


# Batches of crops


def test_crop_batch_has_the_known_labels_of_each_photograph(rng: np.random.Generator) -> None:
    frames = [frame(grade=2, types=tuple(Lesion)), frame(grade=0), frame(), frame(grade=4), frame(types=(Lesion.MA,))]
    batch = make_crop_batch(frames, 16, replace(CAMERA, zoom=1.2), rng.spawn(5))
    assert batch.hr.shape == (5, 3, 16, 16) and batch.lesion_masks.shape == (5, 4, 16, 16)
    assert batch.annotated.tolist() == [[*ALL], [*ALL], [*NONE], [*NONE], [True, False, False, False]]
    assert batch.graded.tolist() == [True, True, False, True, False]
    assert batch.grade[batch.graded].tolist() == [2, 0, 4]
    assert torch.allclose(batch.lesion_masks[[0, 4], MA], torch.tensor(1.0))
    assert not batch.lesion_masks[:, 1:].any() and not batch.lesion_masks[1:4].any()


def test_side_0_takes_whole_frames_without_zoom(rng: np.random.Generator) -> None:
    pixels = np.arange(32 * 32 * 3, dtype=np.uint32).reshape(32, 32, 3).astype(np.uint8)
    whole = ArrayFrame(frame().sample, pixels)
    hr = make_crop_batch([whole], 0, replace(NO_CAMERA, zoom=3.0), [rng]).hr
    assert hr.shape == (1, 3, 32, 32)
    assert sorted((255 * hr).round().flatten().tolist()) == sorted(pixels.flatten().tolist())


def test_masks_and_images_stay_in_range() -> None:
    for seed in range(10):
        noisy = np.random.default_rng(seed).integers(0, 256, (64, 64, 3), np.uint8)
        masked = frame(types=tuple(Lesion), side=64)
        batch = make_crop_batch(
            [ArrayFrame(masked.sample, noisy, masked.lesion_masks)],
            32,
            replace(CAMERA, zoom=1.5),
            [np.random.default_rng(seed)],
        )
        for values in (batch.hr, batch.lesion_masks):
            assert values.min() >= 0 and values.max() <= 1 + 1e-6


def test_rotated_crops_turn_masks_with_the_image(rng: np.random.Generator) -> None:
    masks = rng.integers(0, 256, (4, 64, 64), np.uint8)
    twin = ArrayFrame(frame(types=tuple(Lesion)).sample, np.ascontiguousarray(masks[:3].transpose(1, 2, 0)), masks)
    for seed in range(6):
        batch = make_crop_batch([twin], 16, replace(NO_CAMERA, rotation=40.0), [np.random.default_rng(seed)])
        assert torch.allclose(batch.hr[0], batch.lesion_masks[0, :3], atol=1e-6)
        straight = make_crop_batch([twin], 16, NO_CAMERA, [np.random.default_rng(seed)])
        assert not torch.allclose(batch.hr, straight.hr)


# Local means of crops (interpretation R30)


def ramps(side: int = 256) -> Frame:
    """A frame with x in red and y in green, which tell where a pixel of a crop comes from, and waves in blue."""
    ramp = np.linspace(0, 255, side)
    x, y = np.meshgrid(ramp, ramp)
    blue = 130 + 60 * np.sin(x / 15) * np.sin(y / 20)
    return ArrayFrame(frame().sample, np.stack([x, y, blue], axis=2).round().astype(np.uint8))


@pytest.mark.parametrize("changes", [{}, {"zoom": 1.35}, {"zoom": 1.35, "rotation": 30.0}], ids=str)
@pytest.mark.parametrize("seed", range(4))
def test_contrast_of_a_crop_is_the_crop_of_the_contrast_of_its_frame(seed: int, changes: dict[str, float]) -> None:
    # Without the local means of the frame, the contrast of crops of 256 px differed by 15 % of the mean contrast on 8
    # drawings, and by 24 % on 16 photographs; with them by 2 and 3 %.
    whole, camera = ramps(), replace(NO_CAMERA, **changes)
    batch = make_crop_batch([whole], 96, camera, [np.random.default_rng(seed)])
    assert batch.local_mean is not None
    of_frame = local_contrast(image_to_tensor(whole.pixels)[None])
    places = 2 * batch.hr[:, :2].permute(0, 2, 3, 1) - 1
    expected = torch.nn.functional.grid_sample(of_frame, places, align_corners=True)[:, 2]
    contrast = local_contrast(batch.hr, batch.local_mean)[:, 2]
    assert (contrast - expected).abs().mean() < 0.05 * expected.abs().mean()
    alone = local_contrast(batch.hr)[:, 2]
    assert (alone - expected).abs().mean() > 0.3 * expected.abs().mean()


@pytest.mark.parametrize("seed", range(4))
def test_local_mean_follows_the_tone_and_not_the_damage(seed: int) -> None:
    camera = Augmentation(gain=0.3, gamma=0.3, zoom=1.0, blur=2.0, noise=0.05, jpeg=20, vignetting=0.5)
    batch = make_crop_batch([ramps()], 256, camera, [np.random.default_rng(seed)])  # a crop of the whole frame
    assert batch.local_mean is not None
    expected = local_contrast(batch.hr)
    assert torch.allclose(local_contrast(batch.hr, batch.local_mean), expected, atol=0.02)
    another = make_crop_batch([ramps()], 256, camera, [np.random.default_rng(seed)], [np.random.default_rng(99)])
    assert not torch.allclose(local_contrast(batch.hr, another.local_mean), expected, atol=0.1)


def test_whole_frames_have_no_local_mean(rng: np.random.Generator) -> None:
    assert make_crop_batch([frame()], 0, CAMERA, [rng]).local_mean is None


def test_another_camera_seed_keeps_the_crops(rng: np.random.Generator) -> None:
    noisy = ArrayFrame(frame().sample, rng.integers(0, 256, (64, 64, 3), np.uint8))

    def degraded_and_hr(seed: int, camera: Augmentation) -> tuple[torch.Tensor, torch.Tensor]:
        batch = make_crop_batch([noisy], 32, camera, [np.random.default_rng(1)], [np.random.default_rng(seed)])
        return batch.degraded, batch.hr

    (one, _), (other, _), (again, _) = (degraded_and_hr(seed, CAMERA) for seed in (5, 6, 5))
    assert torch.equal(one, again) and not torch.allclose(one, other)
    (_, one), (_, other) = (degraded_and_hr(seed, replace(NO_CAMERA, noise=0.001)) for seed in (5, 6))
    assert torch.equal(one, other)


def crops(seed: int) -> Sequence[torch.Tensor]:
    rng = np.random.default_rng(seed)
    frames = [frame(value=v, grade=2, types=tuple(Lesion)) for v in (50, 100)] + [frame(value=v) for v in (150, 200)]
    drawn = PhotographSampler(frames).draw(6, 0.5, rng)
    batch = make_crop_batch(drawn, 16, replace(CAMERA, zoom=1.4), rng.spawn(6))
    return [field for field in batch if field is not None]


def grades(seed: int) -> Sequence[torch.Tensor]:
    cached_outputs = [cached("ab"[v % 2], v % 5, 20 * v) for v in range(1, 10)]
    return make_grading_batch(
        cached_outputs, 0.5, np.random.default_rng(seed).spawn(6), GradingAugmentation(0.5, 20.0, 1.2)
    )


@pytest.mark.parametrize("batch", [crops, grades])
def test_batch_depends_on_its_generator_alone(batch: Callable[[int], Sequence[torch.Tensor]]) -> None:
    torch.manual_seed(1)
    first = batch(3)
    torch.manual_seed(2)
    assert all(torch.equal(one, other) for one, other in zip(first, batch(3), strict=True))
    assert any(not torch.equal(one, other) for one, other in zip(first, batch(4), strict=True))


# Batches for grading


def test_balance_draws_grades_as_they_are_or_equally_often() -> None:
    cached_outputs = [cached("a", 0) for _ in range(16)] + [cached("a", 2) for _ in range(4)]

    def share(balance: float) -> float:
        batch = make_grading_batch(cached_outputs, balance, np.random.default_rng(0).spawn(600))
        return (batch.grade == 2).float().mean().item()

    assert share(0.0) == pytest.approx(0.2, abs=0.05)
    assert share(0.5) == pytest.approx(1 / 3, abs=0.05)  # 16 * 16 ** -.5 : 4 * 4 ** -.5 = 4 : 2
    assert share(1.0) == pytest.approx(0.5, abs=0.05)


def test_data_sets_are_drawn_equally_often_whatever_their_size(rng: np.random.Generator) -> None:
    cached_outputs = [cached("a", 1), *(cached("b", 3) for _ in range(40))]
    assert (make_grading_batch(cached_outputs, 0.5, rng.spawn(400)).grade == 1).float().mean() == pytest.approx(
        0.5, abs=0.08
    )


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_image_is_hidden_as_often_as_set_and_lesion_maps_never(share: float, rng: np.random.Generator) -> None:
    batch = make_grading_batch([cached("a", 1, 200)], 0.5, rng.spawn(400), GradingAugmentation(hide_image=share))
    hidden = [not image.any() for image in batch.image]
    assert np.mean(hidden) == pytest.approx(share, abs=0.08 * (0 < share < 1))
    assert all(maps.any() for maps in batch.lesions)


def test_image_and_lesion_maps_are_turned_together(rng: np.random.Generator) -> None:
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    whole = CachedOutput(frame(grade=1), np.stack([ramp] * 3), np.stack([ramp] * 4))
    batch = make_grading_batch([whole], 0.5, rng.spawn(8))
    assert (batch.image.flatten(2).argsort(2)[:, :1] == batch.lesions.flatten(2).argsort(2)).all()
    assert batch.lesions.min() == 0 and batch.lesions.max() == 1  # a power keeps 0 and 1


def square(side: int = 64, half: int = 8) -> CachedOutput:
    """A white square in the middle of image and lesion maps; outside, an image of mid-grey and no lesion."""
    middle = slice(side // 2 - half, side // 2 + half)
    image, lesions = np.full((3, side, side), 128, np.uint8), np.zeros((4, side, side), np.uint8)
    image[:, middle, middle], lesions[:, middle, middle] = 255, 255
    return CachedOutput(frame(grade=1), image, lesions)


def test_zoom_enlarges_image_and_lesion_maps_alike_within_its_range(rng: np.random.Generator) -> None:
    batch = make_grading_batch([square()], 0.5, rng.spawn(200), GradingAugmentation(zoom=1.5))
    areas = (batch.lesions[:, 0] > 0.5).float().mean(dim=(1, 2)) * 64**2 / 16**2
    assert 1 / 1.5**2 - 0.1 <= areas.min() < 0.6 and 1.8 < areas.max() <= 1.5**2 + 0.1
    same = (batch.image[:, 0] > 1) == (batch.lesions[:, 0] > 0.5)
    assert same.float().mean() > 0.97


def test_rotation_turns_image_and_lesion_maps_alike(rng: np.random.Generator) -> None:
    batch = make_grading_batch([square()], 0.5, rng.spawn(50), GradingAugmentation(rotation=45.0))
    rotated = batch.lesions[:, 0] > 0.5
    widths = rotated.any(dim=1).sum(dim=1).float()  # 16 px upright, 16 * 2 ** .5 at 45 degrees
    assert widths.min() < 18 and 21 < widths.max() <= 24
    assert ((batch.image[:, 0] > 1) == rotated).float().mean() > 0.97


@pytest.mark.parametrize(("kind", "outside"), [(LOCAL_CONTRAST, 0.0), (SCALED_RGB, -3.0)])
def test_corners_that_rotation_leaves_empty_are_outside_the_field_of_view(
    kind: InputKind, outside: float, rng: np.random.Generator
) -> None:
    whole = CachedOutput(frame(grade=1), np.full((3, 32, 32), 255, np.uint8), np.full((4, 32, 32), 255, np.uint8))
    batch = make_grading_batch([whole], 0.5, rng.spawn(30), GradingAugmentation(rotation=45.0), kind)
    empty = batch.lesions[:, 0] == 0
    assert empty.any() and torch.allclose(batch.image[:, 0][empty], torch.tensor(outside), atol=0.02)


def test_grading_input_is_the_cached_local_contrast_scaled(rng: np.random.Generator) -> None:
    seen = np.stack([np.full((16, 16), value, np.uint8) for value in (0, 127, 255)])
    image = make_grading_batch(
        [CachedOutput(frame(grade=1), seen, np.zeros((4, 16, 16), np.uint8))], 0.5, rng.spawn(50)
    ).image
    strength = image[:, 2, 0, 0] / 3  # another factor for each photograph
    assert strength.min() >= 0.7 and strength.max() <= 1.4 and strength.std() > 0.1
    assert torch.allclose(image[:, 0, 0, 0], -3 * strength)
    assert image[:, 1].abs().max() < 0.02


def test_brightness_is_scaled_and_stays_in_range() -> None:
    rgb = torch.tensor([0.0, 0.5, 0.9, 1.0])
    seen = (6 * rgb - 3).expand(3, 4, 4)
    for factor in (0.7, 1.4):
        assert torch.allclose((scale_brightness(seen, factor) + 3) / 6, (factor * rgb).clamp(max=1).expand(3, 4, 4))


def test_downsampled_output_keeps_the_mean_of_the_image_and_every_lesion() -> None:
    seen, lesions = np.zeros((3, 16, 16), np.uint8), np.zeros((4, 16, 16), np.uint8)
    seen[:, :2, :2], lesions[MA, 5, 6] = 160, 99
    small = CachedOutput(frame(grade=1), seen, lesions).downsampled(4)
    assert small.image.shape == (3, 4, 4) and small.lesions.shape == (4, 4, 4)
    assert small.image[:, 0, 0].tolist() == [40] * 3 and small.image.sum() == 120
    assert small.lesions[MA, 1, 1] == 99 == small.lesions.sum()


# Another label set


def test_batches_follow_the_label_set(rng: np.random.Generator) -> None:
    labels = LabelSet(
        name="two",
        disease="cataract",
        lesions=(LesionType(code="A", name="as"), LesionType(code="B", name="bs")),
        grades=(GradeLabel(name="none"), GradeLabel(name="early"), GradeLabel(name="late")),
    )
    masks = np.stack([np.zeros((32, 32), np.uint8), np.full((32, 32), 255, np.uint8)])
    samples = [replace(frame(grade=grade).sample, lesion_masks=known) for grade, known in ((2, {"B": None}), (0, {}))]
    frames = [
        ArrayFrame(sample, np.full((32, 32, 3), 100, np.uint8), masks if sample.lesion_masks else None, labels)
        for sample in samples
    ]
    batch = make_crop_batch(frames, 16, CAMERA, rng.spawn(2))
    assert batch.lesion_masks.shape == (2, 2, 16, 16)
    assert batch.annotated.tolist() == [[False, True], [True, True]]
    assert batch.lesion_masks[0].mean(dim=(1, 2)).tolist() == [0, 1] and not batch.lesion_masks[1].any()
    outputs = [CachedOutput(f, np.zeros((3, 16, 16), np.uint8), np.full((2, 16, 16), 9, np.uint8)) for f in frames]
    assert make_grading_batch(outputs, 0.5, rng.spawn(3)).lesions.shape == (3, 2, 16, 16)
