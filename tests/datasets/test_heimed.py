"""HEI-MED: exudates as a union label, other bright regions as ignored pixels."""

from __future__ import annotations

from pathlib import Path

import pytest

import dataset_trees
from deepmtdr.datasets.heimed import EXUDATES, read_heimed, read_region_counts
from deepmtdr.datasets.layout import LabelCounts, count_labels
from deepmtdr.errors import DataError
from deepmtdr.labels import DIABETIC_RETINOPATHY, union_codes


def test_exudates_are_a_union_label_and_other_types_are_not_annotated(tmp_path: Path) -> None:
    samples = read_heimed(dataset_trees.make_heimed(tmp_path, ["a.jpg,4,9,0,0", "b.jpg,0,0,7,1"]))
    assert union_codes(EXUDATES) == ("EX", "SE")
    assert [s.union_masks for s in samples] == [{"EX+SE": tmp_path / "exudates/a.png"}, {"EX+SE": None}]
    assert not any(any(s.annotated(DIABETIC_RETINOPATHY)) for s in samples), "microaneurysms were counted, not drawn"
    assert [s.ignored_mask for s in samples] == [tmp_path / "other_bright/a.png", None]
    assert [(s.name, s.patient, s.dataset, s.grade, s.has_dr) for s in samples] == [
        ("a", "heimed/a", "heimed", None, None),
        ("b", "heimed/b", "heimed", None, None),
    ]


def test_counts_of_regions_are_read(tmp_path: Path) -> None:
    root = dataset_trees.make_heimed(tmp_path, ["a.jpg,4,9,2,1"])
    assert read_region_counts(root) == {"a": {"exudates": 4, "other_bright": 9, "microaneurysms": 2, "haemorrhages": 1}}


def test_contradictions_are_errors_that_name_the_place(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"labels\.csv, row 2, column haemorrhages: expected a number, found '-1'"):
        read_heimed(dataset_trees.make_heimed(tmp_path / "cell", ["a.jpg,0,0,0,-1"]))
    root = dataset_trees.make_heimed(tmp_path / "absent", ["a.jpg,4,0,0,0"])
    (root / "exudates/a.png").unlink()
    with pytest.raises(DataError, match=r"exudates: found no mask of a; labels\.csv has 4 regions"):
        read_heimed(root)
    root = dataset_trees.make_heimed(tmp_path / "extra", ["a.jpg,0,0,0,0"])
    dataset_trees.touch(root / "other_bright", "a.png")
    with pytest.raises(DataError, match=r"other_bright: found a mask of a; labels\.csv has 0 regions"):
        read_heimed(root)
    dataset_trees.touch(root / "exudates", "z.png")
    with pytest.raises(DataError, match=r"z\.png: there is no photograph for this mask"):
        read_heimed(root)
    dataset_trees.touch(root / "photographs", "b.jpg")
    with pytest.raises(DataError, match=r"no row for 1 photographs, the first is .*b\.jpg"):
        read_heimed(root)


@pytest.mark.data
def test_real_copy_has_the_described_counts(real_data: Path) -> None:
    samples = read_heimed(real_data / "heimed")
    assert count_labels(samples) == LabelCounts(99, unions={"EX+SE": 30})
    assert sum(s.ignored_mask is not None for s in samples) == 45
    assert len({s.patient for s in samples}) == 99
