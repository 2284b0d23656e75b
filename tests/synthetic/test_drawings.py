"""Drawn photographs: reproducible, with the lesions of their grade, in the layout that the reader expects."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from sklearn.metrics import average_precision_score

from deepmtdr.datasets.drawings import read_drawings
from deepmtdr.datasets.layout import LabelCounts, count_labels
from deepmtdr.errors import DataError
from deepmtdr.labels import DIABETIC_RETINOPATHY
from deepmtdr.losses import dice_loss, lesion_cross_entropy_loss
from deepmtdr.model.preprocessing import local_contrast
from deepmtdr.model.segmentation import LesionSegmentationSubnet, SegmentationConfig
from deepmtdr.photographs.field_of_view import crop_to_frame, find_fov
from deepmtdr.photographs.geometry import fov_mask
from deepmtdr.synthetic import drawings
from deepmtdr.synthetic.drawings import Drawing, draw_photograph, write_drawings, write_examples
from deepmtdr.synthetic.lesions import MAX_MODERATE_HAEMORRHAGES
from deepmtdr.terms import Grade, Lesion

SEEDS = (3, 8, 21)


@cache
def drawn(seed: int, grade: Grade, size: int = 512) -> Drawing:
    return draw_photograph(seed, grade, size)


def haemorrhages_by_quadrant(drawing: Drawing) -> list[int]:
    labels, found = ndimage.label(drawing.mask(Lesion.HE), np.ones((3, 3)))
    middle = np.array([drawing.fov.y, drawing.fov.x]) + drawing.fov.side / 2
    centres = np.array(ndimage.center_of_mass(labels > 0, labels, range(1, found + 1))).reshape(-1, 2)
    quadrants = (centres > middle) @ [2, 1]
    return np.bincount(quadrants.astype(int), minlength=4).tolist()


def test_same_seed_gives_the_same_bytes_and_another_seed_another_drawing() -> None:
    first, again, other = (
        draw_photograph(5, Grade.SEVERE, 256),
        draw_photograph(5, Grade.SEVERE, 256),
        draw_photograph(7, Grade.SEVERE, 256),
    )
    assert first.photograph.tobytes() == again.photograph.tobytes()
    assert first.lesion_masks.tobytes() == again.lesion_masks.tobytes()
    assert first.photograph.shape != other.photograph.shape or (first.photograph != other.photograph).mean() > 0.3


def test_seed_gives_the_same_eye_at_every_grade_and_size() -> None:
    healthy, ill, large = (
        draw_photograph(4, Grade.NEGATIVE, 256),
        draw_photograph(4, Grade.MODERATE, 256),
        draw_photograph(4, Grade.NEGATIVE, 512),
    )
    untouched = ~ndimage.binary_dilation(ill.lesion_masks.any(0), iterations=6)
    np.testing.assert_array_equal(healthy.photograph[untouched], ill.photograph[untouched])
    np.testing.assert_allclose(np.array(large.disc) / 2, healthy.disc, atol=1)
    halved = np.asarray(Image.fromarray(large.photograph).resize(healthy.photograph.shape[1::-1], Image.Resampling.BOX))
    assert np.abs(halved.astype(float) - healthy.photograph).mean() < 6


def test_without_a_grade_all_five_grades_are_drawn() -> None:
    assert {draw_photograph(seed, size=64).grade for seed in range(7)} == set(Grade)


@pytest.mark.parametrize(("seed", "size", "quality"), [(-1, 256, None), (0, 63, None), (0, 256, 0), (0, 256, 96)])
def test_wrong_seed_size_or_quality_is_an_error(seed: int, size: int, quality: int | None) -> None:
    with pytest.raises(ValueError, match=f"seed {seed}, size {size} and JPEG quality {quality} of a drawing; expected"):
        draw_photograph(seed, Grade.MILD, size, quality)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("grade", Grade)
def test_lesions_lie_inside_the_field_of_view_and_off_the_disc(seed: int, grade: Grade) -> None:
    drawing = drawn(seed, grade)
    y, x = np.nonzero(drawing.lesion_masks.any(0))
    fov, disc = drawing.fov, drawing.disc
    radius = fov.side / 2
    assert drawing.lesion_masks.shape[1:] == drawing.photograph.shape[:2]
    assert (np.hypot(x + 0.5 - fov.x - radius, y + 0.5 - fov.y - radius) < radius).all()
    assert (np.hypot(x + 0.5 - disc.x, y + 0.5 - disc.y) > drawing.disc_diameter / 2).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_grade_0_has_no_lesions_and_grade_1_only_microaneurysms(seed: int) -> None:
    assert not drawn(seed, Grade.NEGATIVE).lesion_masks.any()
    mild = drawn(seed, Grade.MILD)
    assert mild.mask(Lesion.MA).any()
    assert not any(mild.mask(lesion).any() for lesion in (Lesion.HE, Lesion.EX, Lesion.SE))


@pytest.mark.parametrize("seed", [*SEEDS, 30, 31, 32])
def test_moderate_has_more_than_microaneurysms_but_is_below_the_4_2_1_rule(seed: int) -> None:
    drawing = drawn(seed, Grade.MODERATE)
    assert any(drawing.mask(lesion).any() for lesion in (Lesion.HE, Lesion.EX, Lesion.SE))
    assert max(haemorrhages_by_quadrant(drawing)) <= MAX_MODERATE_HAEMORRHAGES
    assert not drawing.new_vessels.any()


@pytest.mark.parametrize("seed", [*SEEDS, 30, 31, 32])
def test_severe_has_more_than_20_haemorrhages_in_each_quadrant_and_no_new_vessels(seed: int) -> None:
    drawing = drawn(seed, Grade.SEVERE)
    assert min(haemorrhages_by_quadrant(drawing)) > 20
    assert not drawing.new_vessels.any()


def test_proliferative_has_new_vessels_or_a_preretinal_haemorrhage_each_in_some_eyes() -> None:
    found = set()
    for seed in (*SEEDS, 30, 31, 32):
        drawing = drawn(seed, Grade.PROLIFERATIVE)
        labels, _ = ndimage.label(drawing.mask(Lesion.HE))
        largest = np.bincount(labels.ravel())[1:].max(initial=0)
        # The largest haemorrhage inside the retina has 0.2 DD radius: 0.13 square DD.
        found.add((bool(drawing.new_vessels.any()), bool(largest > 0.15 * drawing.disc_diameter**2)))
    assert (False, False) not in found
    assert len(found) > 1


@pytest.mark.parametrize("seed", SEEDS)
def test_microaneurysms_are_smaller_than_125_micrometres(seed: int) -> None:
    drawing = drawn(seed, Grade.SEVERE, 1024)
    labels, found = ndimage.label(drawing.mask(Lesion.MA), np.ones((3, 3)))
    diameters = 2 * np.sqrt(np.bincount(labels.ravel())[1:] / np.pi)
    assert found > 5
    assert diameters.max() < drawing.disc_diameter / 12


@pytest.mark.parametrize("lesion", Lesion)
def test_in_green_red_lesions_are_darker_and_exudates_brighter_than_their_surroundings(lesion: Lesion) -> None:
    inside, around = [], []
    for seed in range(0, 24, 2):
        drawing = drawn(seed, Grade.SEVERE, 512)
        mask, others = drawing.mask(lesion), drawing.lesion_masks.any(0)
        ring = ndimage.binary_dilation(mask, iterations=5) & ~ndimage.binary_dilation(others, iterations=2)
        if mask.any():
            inside.append(drawing.photograph[mask, 1].mean())
            around.append(drawing.photograph[ring, 1].mean())
    ratio = np.array(inside) / np.array(around)
    assert len(ratio) >= 3
    if lesion in (Lesion.MA, Lesion.HE):
        assert ratio.max() < 0.97
        assert ratio.mean() < 0.9
    else:
        assert ratio.min() > 1.03
        assert ratio.mean() > 1.1


def test_new_vessels_are_darker_than_the_same_eye_without_them() -> None:
    eyes = [(drawn(s, Grade.PROLIFERATIVE), drawn(s, Grade.NEGATIVE)) for s in SEEDS]
    eyes = [(ill, healthy) for ill, healthy in eyes if ill.new_vessels.any()]
    assert eyes
    for ill, healthy in eyes:
        assert ill.photograph[ill.new_vessels, 1].mean() < healthy.photograph[ill.new_vessels, 1].mean() - 3


@pytest.mark.parametrize("seed", range(8))
def test_disc_is_bright_and_nasal_and_the_macula_dark(seed: int) -> None:
    drawing = drawn(seed, Grade.NEGATIVE)
    green = ndimage.gaussian_filter(drawing.photograph[..., 1].astype(float), drawing.disc_diameter / 8)
    at_disc, at_macula = (green[int(p.y), int(p.x)] for p in (drawing.disc, drawing.macula))
    lit = green[drawing.photograph.max(2) > 20]
    assert at_disc > 1.15 * np.median(lit)
    assert at_macula < at_disc / 1.2
    assert (drawing.disc.x < drawing.macula.x) == (drawing.laterality == "L")
    assert drawing.laterality == "LR"[seed % 2]


@pytest.mark.parametrize("seed", range(0, 24, 2))
def test_field_of_view_is_found_where_it_was_drawn(seed: int) -> None:
    drawing = drawn(seed, Grade.NEGATIVE, 512)
    found = find_fov(drawing.photograph)
    assert abs(found.side - drawing.fov.side) <= 10
    assert abs(found.x - drawing.fov.x) <= 8
    assert abs(found.y - drawing.fov.y) <= 8


def test_jpeg_changes_the_photograph_a_little_and_the_masks_not_at_all() -> None:
    sharp, jpeg = draw_photograph(2, Grade.MODERATE, 256), draw_photograph(2, Grade.MODERATE, 256, jpeg_quality=40)
    difference = np.abs(sharp.photograph.astype(float) - jpeg.photograph).mean()
    assert 0.2 < difference < 6
    np.testing.assert_array_equal(sharp.lesion_masks, jpeg.lesion_masks)


def test_written_drawings_are_read_back_with_two_eyes_per_patient(tmp_path: Path) -> None:
    samples = write_drawings(tmp_path, range(4, 8), grade=Grade.MODERATE, size=128)
    assert samples == read_drawings(tmp_path)
    assert [(s.patient, s.laterality) for s in samples] == [
        ("drawings/00002", "L"),
        ("drawings/00002", "R"),
        ("drawings/00003", "L"),
        ("drawings/00003", "R"),
    ]
    for seed, sample in zip(range(4, 8), samples, strict=True):
        drawing = draw_photograph(seed, Grade.MODERATE, 128)
        np.testing.assert_array_equal(np.asarray(Image.open(sample.photograph)), drawing.photograph)
        for lesion, path in sample.lesion_masks.items():
            mask = np.zeros(drawing.photograph.shape[:2], bool) if path is None else np.asarray(Image.open(path))
            np.testing.assert_array_equal(mask != 0, drawing.mask(Lesion(lesion)))
        assert sample.annotated(DIABETIC_RETINOPATHY) == (True, True, True, True)
    assert count_labels(samples)[:2] == LabelCounts(4, (0, 0, 4, 0, 0))[:2]


def test_writing_again_leaves_no_mask_of_an_earlier_drawing(tmp_path: Path) -> None:
    write_drawings(tmp_path, [0], grade=Grade.SEVERE, size=128)
    (healthy,) = write_drawings(tmp_path, [0], grade=Grade.NEGATIVE, size=128)
    assert set(healthy.lesion_masks.values()) == {None}


def test_interrupted_run_leaves_no_table_of_other_drawings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_drawings(tmp_path, [0], grade=Grade.NEGATIVE, size=64)

    def interrupt(*_: object) -> Drawing:
        raise KeyboardInterrupt

    monkeypatch.setattr(drawings, "draw_photograph", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_drawings(tmp_path, [0], grade=Grade.SEVERE, size=64)
    assert not (tmp_path / "photographs.csv").exists()


def test_wrong_eye_in_the_table_is_an_error_that_names_the_row(tmp_path: Path) -> None:
    write_drawings(tmp_path, [0], size=64)
    table = tmp_path / "photographs.csv"
    table.write_text(table.read_text().replace(",L,", ",both,"))
    with pytest.raises(DataError, match=r"photographs\.csv, row 2, column eye: expected L, left.*found 'both'"):
        read_drawings(tmp_path)


def test_bundled_examples_are_drawn_again_the_same(root: Path, tmp_path: Path) -> None:
    bundled = root / "examples" / "drawings"
    for path in write_examples(tmp_path):
        now = np.asarray(Image.open(path)).astype(int)
        then = np.asarray(Image.open(bundled / path.name)).astype(int)
        assert now.shape == then.shape
        # Other versions of the libraries may round differently.
        assert np.abs(now - then).mean() < 0.5
        assert (bundled / path.name).stat().st_size < 150_000
    assert sorted(p.name for p in bundled.glob("*.png")) == [f"drawing_{n}.png" for n in range(5)]


@pytest.mark.slow
def test_small_subnet_learns_to_find_lesions_on_new_drawings() -> None:
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    rng = np.random.default_rng(0)
    grades = (Grade.MODERATE, Grade.SEVERE, Grade.PROLIFERATIVE)
    images, masks = map(torch.stack, zip(*(framed(seed, grades[seed % 3]) for seed in range(36)), strict=True))
    subnet = LesionSegmentationSubnet(config=SegmentationConfig(width=8))
    optimiser = torch.optim.AdamW(subnet.parameters(), lr=3e-3)
    everything = torch.ones(BATCH, 4, dtype=torch.bool)
    for _ in range(STEPS):
        y, x = rng.integers(0, SIDE - CROP, 2)
        chosen = torch.from_numpy(rng.integers(0, 28, BATCH))
        truth = masks[chosen, :, y : y + CROP, x : x + CROP]
        lesions = subnet(images[chosen, :, y : y + CROP, x : x + CROP])[:, :-1]
        loss = dice_loss(lesions, truth, everything) + lesion_cross_entropy_loss(lesions, truth, everything)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    subnet.eval()
    with torch.no_grad():
        found = torch.cat([subnet(image[None])[:, :-1] for image in images[28:]])
    for channel, lesion in enumerate(Lesion):
        truth, probability = masks[28:, channel].flatten() > 0.5, found[:, channel].flatten()
        prevalence = float(truth.float().mean())
        score = average_precision_score(truth.numpy(), probability.numpy())
        assert score > 5 * prevalence, f"{lesion}: AUPR {score:.3f}, prevalence {prevalence:.4f}"


SIDE, CROP, BATCH, STEPS = 384, 96, 6, 180


def framed(seed: int, grade: Grade) -> tuple[torch.Tensor, torch.Tensor]:
    """A drawing as the subnet's input, and its masks."""
    drawing = draw_photograph(seed, grade, SIDE)
    frame = crop_to_frame(drawing.photograph, drawing.fov, SIDE)
    assert fov_mask(frame).mean() > 0.6
    square = np.zeros((4, SIDE, SIDE), np.float32)
    top, left = max(drawing.fov.y, 0), max(drawing.fov.x, 0)
    shown = drawing.lesion_masks[:, top : drawing.fov.y + SIDE, left : drawing.fov.x + SIDE]
    first = max(-drawing.fov.y, 0)
    square[:, first : first + shown.shape[1], : shown.shape[2]] = shown
    image = torch.from_numpy(frame.copy()).permute(2, 0, 1).float() / 255
    return local_contrast(image[None])[0], torch.from_numpy(square)
