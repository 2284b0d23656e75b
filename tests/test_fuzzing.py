"""A short, seeded run of the fuzzer (`benchmarks/fuzz.py`): files are read or refused with a documented error."""

from __future__ import annotations

import random
import warnings
from pathlib import Path

import pytest
from benchmarks.fuzzing import picture_seeds, targets
from benchmarks.fuzzing.engine import mutate, read

from deepmtdr.photographs.decode import read_photograph

FILES = {"dicom": 20, "checkpoints": 10, "tables": 25, "reports": 15}
"""Number of files of the targets that take more than some milliseconds for each."""


@pytest.mark.parametrize("name", targets.TARGETS)
def test_changed_files_are_read_or_refused(name: str, tmp_path: Path) -> None:
    target, chance = targets.TARGETS[name], random.Random(name)
    seeds = list(target.seeds())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number in range(FILES.get(name, 60)):
            content = mutate(target, chance.choice(seeds), chance)
            assert read(target, content, tmp_path / target.file) is None, f"{name}, file {number}"


@pytest.mark.parametrize("seeds", [picture_seeds.pictures, picture_seeds.tiffs, picture_seeds.dicoms])
def test_every_sound_photograph_is_read(seeds: targets.Seeds, tmp_path: Path) -> None:
    for content in seeds():
        (tmp_path / "a").write_bytes(content)
        assert read_photograph(tmp_path / "a").pixels.shape == (78, 98, 3)
