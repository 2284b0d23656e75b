"""Corrupted files of every format: a decoder may refuse them, but raises no unexpected error. Short and seeded.

`benchmarks/corrupted_files.py` reads ten thousand of them.
"""

from __future__ import annotations

import random
import warnings
from pathlib import Path

import pytest
from benchmarks.corrupted_files import corrupted, seeds

from deepmtdr.dicom.source import read_source
from deepmtdr.errors import DeepMTDRError, PhotographError
from deepmtdr.photographs.decode import read_photograph

FILES = 150


@pytest.fixture(scope="module")
def whole() -> list[bytes]:
    return list(seeds())


def test_every_seed_is_read(whole: list[bytes], tmp_path: Path) -> None:
    for content in whole:
        (tmp_path / "a").write_bytes(content)
        assert read_photograph(tmp_path / "a").pixels.shape == (78, 98, 3)


def test_corrupted_files_are_read_or_refused(whole: list[bytes], tmp_path: Path) -> None:
    path = tmp_path / "corrupted"
    for number in range(FILES):
        path.write_bytes(corrupted(whole, random.Random(number)))
        try:
            read_photograph(path)
        except PhotographError as error:
            assert "\n" not in str(error)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                read_source(path)
            except DeepMTDRError as error:
                assert "\n" not in str(error)
