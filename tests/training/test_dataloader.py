"""Data loader: the same batches in the same order for any number of workers, in constant memory."""

from __future__ import annotations

import itertools
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from deepmtdr.datasets.frames import write_tiff
from deepmtdr.datasets.manifest import ManifestRow
from deepmtdr.datasets.prepared import PreparedSet
from deepmtdr.errors import DataError
from deepmtdr.recipe import ImageStage, Recipe
from deepmtdr.terms import Grade, Lesion
from deepmtdr.training.batches import CachedOutput, PhotographSampler
from deepmtdr.training.dataloader import GradingBatches, ImageBatches, batch_rng, draw_scale, load_batches, seed_torch
from tiny_runs import small_recipe

SIZE = 64


@pytest.fixture
def folder(tmp_path: Path, rng: np.random.Generator) -> Path:
    """Files of three photographs, "0" to "2"."""
    for kind in ("hr", *(lesion.name for lesion in Lesion)):
        (tmp_path / kind).mkdir()
        for n in range(3):
            shape = (SIZE, SIZE, 3) if kind == "hr" else (SIZE, SIZE)
            write_tiff(tmp_path / kind / f"{n}.tif", rng.integers(0, 256, shape, np.uint8))
    return tmp_path


def prepared(folder: Path, count: int) -> PreparedSet:
    """So many rows over the same three photographs; one in four is annotated."""
    rows = [
        ManifestRow(
            name=f"{n}",
            dataset="ab"[n % 2],
            status="ok",
            source=f"{n}.jpg",
            patient=f"p{n}",
            grade=Grade(n % 5),
            scale=1,
            file=f"{n % 3}",
            areas={"MA": 5.0, "HE": 2.0, "EX": 0.0, "SE": 1.0} if n % 4 == 0 else {},
        )
        for n in range(count)
    ]
    return PreparedSet(folder, SIZE, 4, rows)


def steps(folder: Path, recipe: Recipe, stage: str = "restoration", count: int = 20) -> ImageBatches:
    settings = recipe.stage(stage)
    assert isinstance(settings, ImageStage)
    return ImageBatches(recipe, settings, PhotographSampler(prepared(folder, count).frames()))


def tensors(batches: Iterator[tuple[tuple[Tensor, ...], int]]) -> list[tuple[list[Tensor], int]]:
    return [([field for field in batch if field is not None], scale) for batch, scale in batches]


def are_equal(one: list[tuple[list[Tensor], int]], other: list[tuple[list[Tensor], int]]) -> bool:
    return len(one) == len(other) and all(
        a[1] == b[1] and all(torch.equal(x, y) for x, y in zip(a[0], b[0], strict=True))
        for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("workers", [1, 2])
def test_any_number_of_workers_gives_the_same_batches(folder: Path, workers: int) -> None:
    make = steps(folder, small_recipe("restoration.augmentation.rotation=20"))
    expected = tensors(load_batches(make, range(2, 9)))
    assert len(expected) == 7 and not are_equal(expected[:1], expected[1:2])
    assert are_equal(tensors(load_batches(make, range(2, 9), workers)), expected)


def test_batches_from_a_later_number_are_the_same(folder: Path) -> None:
    make = steps(folder, small_recipe(), "joint")
    assert are_equal(tensors(load_batches(make, range(4, 6))), tensors(load_batches(make, range(6)))[4:])


def test_batches_are_channels_last_also_from_a_worker(folder: Path) -> None:
    for workers in (0, 1):
        ((batch, _),) = load_batches(steps(folder, small_recipe()), range(1), workers)
        assert batch.hr.is_contiguous(memory_format=torch.channels_last) and batch.hr.shape[1] == 3
        assert batch.degraded.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("workers", [0, 1])
def test_missing_file_is_named_also_from_a_worker(folder: Path, workers: int) -> None:
    for n in range(3):
        (folder / f"hr/{n}.tif").unlink()
    with pytest.raises(DataError, match=r"hr/[012]\.tif: expected a prepared file .*No such file"):
        list(load_batches(steps(folder, small_recipe()), range(2), workers))


def test_batches_have_the_set_share_of_annotated_photographs(folder: Path) -> None:
    make = steps(folder, small_recipe("restoration.annotated=0.7", "restoration.batch=50"))
    known = torch.cat([batch.annotated.all(1) & (batch.grade != 0) for batch, _ in load_batches(make, range(5))])
    graded_0 = 0.2  # they count as annotated without lesions (interpretation R22)
    assert known.float().mean() == pytest.approx(0.7 * (1 - graded_0), abs=0.08)


def test_memory_does_not_grow_with_the_set(folder: Path) -> None:
    def peak(count: int) -> int:
        make = steps(folder, small_recipe(), count=count)
        tracemalloc.start()
        for _ in load_batches(make, range(10)):
            pass
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    assert peak(2_000) < peak(50) + 1_000_000  # 81 frames of 64 px take as much


def test_first_grading_batches_have_small_frames(folder: Path) -> None:
    frames = prepared(folder, 10).frames()
    cached_outputs = [CachedOutput(f, np.full((3, 8, 8), 9, np.uint8), np.full((4, 8, 8), 9, np.uint8)) for f in frames]
    recipe = small_recipe("grading.small_frame_share=0.5", "data.frame=128", steps=4)
    make = GradingBatches(recipe, cached_outputs, [output.downsampled(4) for output in cached_outputs])
    assert [tuple(batch.image.shape) for (batch,) in load_batches(make, range(4))] == [(8, 3, 2, 2)] * 2 + [
        (2, 3, 8, 8)
    ] * 2


def test_every_step_has_its_own_random_numbers() -> None:
    recipe, other = small_recipe(), small_recipe("seed=1")
    places = itertools.product((recipe, other), ("restoration", "joint"), (0, 1))
    assert len({batch_rng(*place).random() for place in places}) == 8
    for n, again in itertools.product(range(2), range(2)):
        seed_torch(recipe, "grading", n)
        first = torch.rand(3)
        seed_torch(recipe, "grading", again)
        assert torch.equal(torch.rand(3), first) == (n == again)


def test_scales_are_drawn_as_often_as_set(rng: np.random.Generator) -> None:
    drawn = [draw_scale({"1": 0.2, "4": 0.8, "8": 0.0}, rng) for _ in range(500)]
    assert drawn.count(4) == pytest.approx(400, abs=40) and set(drawn) == {1, 4}
