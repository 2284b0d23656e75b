"""Splits: no patient in two splits, strata in proportion, reproducible by seed, stored as a table."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

import dataset_trees
from deepmtdr.datasets.catalogue import read_datasets
from deepmtdr.datasets.sample import Sample
from deepmtdr.datasets.split import (
    SplitRow,
    apply_split,
    cross_validation_folds,
    read_split,
    reduce_supervision,
    split_by_patient,
    write_split,
)
from deepmtdr.errors import DataError, RecipeError
from deepmtdr.labels import DIABETIC_RETINOPATHY
from deepmtdr.terms import Grade, Lesion

FRACTIONS = {"train": 0.7, "validation": 0.15, "test": 0.15}


def _sample(dataset: str, name: str, patient: str, grade: int | None = None, annotated: bool = False) -> Sample:
    return Sample(
        photograph=Path(f"{name}.jpg"),
        name=name,
        patient=patient,
        dataset=dataset,
        grade=None if grade is None else Grade(grade),
        lesion_masks={Lesion.MA: None} if annotated else {},
    )


def _cohort(dataset: str, patients: range, people: str | None = None) -> list[Sample]:
    """Two eyes of each patient; one patient in five has grade 4 in one eye, one in ten is annotated."""
    return [
        _sample(
            dataset, f"{p}_{eye}", f"{people or dataset}/{p}", 4 if p % 5 == 0 and eye == "left" else 0, p % 10 == 3
        )
        for p in patients
        for eye in ("left", "right")
    ]


def _splits(parts: Mapping[str, list[Sample]]) -> dict[tuple[str, str], str]:
    return {(s.dataset, s.name): split for split, samples in parts.items() for s in samples}


def _patients(samples: list[Sample]) -> set[str]:
    return {sample.patient for sample in samples}


def test_every_photograph_is_in_one_split_and_no_patient_in_two() -> None:
    samples = _cohort("a", range(100)) + _cohort("b", range(50, 150), people="a")
    parts = split_by_patient(samples, FRACTIONS, seed=0)
    assert list(parts) == list(FRACTIONS)
    assert Counter(s.name + s.dataset for part in parts.values() for s in part) == Counter(
        s.name + s.dataset for s in samples
    )
    train, validation, test = (_patients(part) for part in parts.values())
    assert not (train & validation or train & test or validation & test)


def test_every_stratum_is_divided_in_proportion() -> None:
    parts = split_by_patient(_cohort("a", range(200)), FRACTIONS, seed=1)
    for side, share in FRACTIONS.items():
        graded_4 = sum(s.grade == 4 for s in parts[side])
        annotated = len(_patients([s for s in parts[side] if any(s.annotated(DIABETIC_RETINOPATHY))]))
        assert len(parts[side]) == pytest.approx(400 * share, abs=2)
        assert graded_4 == pytest.approx(40 * share, abs=2)
        assert annotated == pytest.approx(20 * share, abs=2)


def test_seed_decides_and_the_order_of_the_photographs_does_not() -> None:
    samples = _cohort("a", range(60))
    shuffled = random.Random(0).sample(samples, len(samples))
    assert split_by_patient(samples, FRACTIONS, seed=5) == split_by_patient(shuffled, FRACTIONS, seed=5)
    assert split_by_patient(samples, FRACTIONS, seed=5) != split_by_patient(samples, FRACTIONS, seed=6)


def test_split_of_a_seed_is_that_of_earlier_versions() -> None:
    """Computed once: if this fails, every split of a seed has changed."""
    parts = split_by_patient(_cohort("a", range(12)), {"train": 0.5, "test": 0.5}, seed=0)
    assert sorted(int(p.split("/")[1]) for p in _patients(parts["test"])) == [0, 2, 5, 6, 8, 9]


def test_another_data_set_moves_no_photograph() -> None:
    alone = _splits(split_by_patient(_cohort("b", range(80)), FRACTIONS, seed=0))
    together = _splits(
        split_by_patient(_cohort("b", range(80)) + _cohort("a", range(33)) + _cohort("c", range(7)), FRACTIONS, 0)
    )
    assert alone.items() <= together.items()


def test_copy_of_a_data_set_is_split_like_the_original() -> None:
    first, copy = _cohort("eyepacs", range(40)), _cohort("eyepacs256", range(20, 90), people="eyepacs")
    alone, together = (
        _splits(split_by_patient(first, FRACTIONS, seed=0)),
        _splits(split_by_patient(first + copy, FRACTIONS, seed=0)),
    )
    assert alone.items() <= together.items()
    assert all(together["eyepacs", f"{p}_left"] == together["eyepacs256", f"{p}_right"] for p in range(20, 40))


def test_photograph_under_two_names_in_idrid_is_in_one_split(tmp_path: Path) -> None:
    samples = read_datasets({"idrid": dataset_trees.make_idrid(tmp_path)})
    for seed in range(20):
        splits = _splits(split_by_patient(samples, {"train": 0.5, "test": 0.5}, seed))
        assert splits["idrid", "IDRiD_021"] == splits["idrid", "IDRiD_391"]


def test_existing_split_keeps_its_patients_and_new_ones_are_added() -> None:
    before = split_by_patient(_cohort("a", range(30)), FRACTIONS, seed=0)
    keep = {(s.dataset, s.name): SplitRow(s.patient, s.grade, side) for side, part in before.items() for s in part}
    after = split_by_patient(_cohort("a", range(60)), FRACTIONS, seed=9, existing=keep)
    assert _splits(before).items() <= _splits(after).items()
    assert len(_splits(after)) == 120


@pytest.mark.parametrize("fractions", [{"train": 0.5}, {"train": 1.5, "test": -0.5}, {}])
def test_fractions_that_do_not_sum_to_one_are_an_error(fractions: dict[str, float]) -> None:
    with pytest.raises(RecipeError, match="sum to 1"):
        split_by_patient(_cohort("a", range(3)), fractions, seed=0)


def test_photograph_given_twice_is_an_error() -> None:
    with pytest.raises(DataError, match=r"a/0_left twice: 0_left\.jpg"):
        split_by_patient(_cohort("a", range(3)) + _cohort("a", range(1)), FRACTIONS, seed=0)


def test_written_split_is_read_and_applied_unchanged(tmp_path: Path) -> None:
    samples = [*_cohort("a", range(20)), _sample("drive", "21_training", "drive/21")]
    parts = split_by_patient(samples, FRACTIONS, seed=0)
    write_split(tmp_path / "split.csv", parts)
    table = read_split(tmp_path / "split.csv")
    assert table["drive", "21_training"].grade is None
    assert apply_split(samples, table) == {side: part for side, part in parts.items() if part}
    only_a = apply_split(_cohort("a", range(20)), table)
    assert sum(map(len, only_a.values())) == 40, "rows of a data set that is not given are left out"
    assert [path.name for path in tmp_path.iterdir()] == ["split.csv"]


def test_written_split_is_sorted_and_plain(tmp_path: Path) -> None:
    parts = {"test": [_sample("b", "2", "b/2", 3)], "train": [_sample("a", "9", "a/9"), _sample("a", "1", "a/1", 0)]}
    write_split(tmp_path / "split.csv", parts)
    lines = ["dataset,name,patient,grade,split", "a,1,a/1,0,train", "a,9,a/9,,train", "b,2,b/2,3,test"]
    assert (tmp_path / "split.csv").read_text() == "".join(f"{line}\n" for line in lines)


def test_patient_in_two_splits_of_a_file_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "split.csv"
    dataset_trees.write_table(path, "dataset,name,patient,grade,split", "a,1_left,a/1,0,train", "b,1_right,a/1,0,test")
    with pytest.raises(DataError, match="patient a/1 is in two splits, train and test"):
        read_split(path)
    one = _cohort("a", range(1))
    with pytest.raises(DataError, match="patient a/0 is in two splits"):
        write_split(path, {"train": one[:1], "test": one[1:]})
    table = {("a", s.name): SplitRow(s.patient, s.grade, side) for s, side in zip(one, ("train", "test"), strict=True)}
    with pytest.raises(DataError, match="patient a/0 is in two splits"):
        apply_split(one, table)
    assert "1_left" in path.read_text(), "what stood in the file is not lost"


def test_split_that_does_not_fit_the_photographs_is_an_error() -> None:
    samples = [_sample("a", "1", "a/1", 2), _sample("a", "2", "a/2", 0)]
    table = {("a", s.name): SplitRow(s.patient, s.grade, "train") for s in samples}
    assert apply_split(samples, table) == {"train": samples}
    with pytest.raises(DataError, match="1 photographs of the split are missing in the data set, the first is a/2"):
        apply_split(samples[:1], table)
    with pytest.raises(DataError, match=r"3\.jpg: a/3 is not in the split"):
        apply_split([*samples, _sample("a", "3", "a/3")], table)
    with pytest.raises(DataError, match="found patient a/1, grade 3; the split expects patient a/1, grade 2"):
        apply_split([replace(samples[0], grade=Grade.SEVERE), samples[1]], table)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("a,1,a/1,-1,train", "row 2: expected a grade such as 0, or nothing, found '-1'"),
        ("a,1,a/1,0,", "row 2: expected a patient and a split"),
        ("a,1,a/1,0", "row 2: expected at least 5 cells, found 4"),
    ],
)
def test_damaged_split_names_the_row(tmp_path: Path, row: str, reason: str) -> None:
    dataset_trees.write_table(tmp_path / "split.csv", "dataset,name,patient,grade,split", row)
    with pytest.raises(DataError, match=reason):
        read_split(tmp_path / "split.csv")


def test_name_that_is_not_utf_8_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"split\.csv, row 2: .*cannot be written as UTF-8"):
        write_split(tmp_path / "split.csv", {"train": [_sample("a", "\udcff", "a/1")]})


def test_split_into_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"split\.csv: the split cannot be written"):
        write_split(tmp_path / "nowhere" / "split.csv", {"train": []})


# Official splits


def _official(side: str | None, patients: range, dataset: str = "a") -> list[Sample]:
    return [replace(sample, official_split=side) for sample in _cohort(dataset, patients)]


def test_official_splits_are_kept_and_the_others_drawn_from_the_training_split() -> None:
    training, testing = _official("train", range(80)), _official("test", range(80, 100))
    parts = split_by_patient([*testing, *training, *_cohort("b", range(40))], FRACTIONS, seed=0)
    assert {s.name for s in parts["test"] if s.dataset == "a"} == {s.name for s in testing}
    shares = Counter(
        side for side, part in parts.items() for s in part if s.dataset == "a" and s.official_split == "train"
    )
    assert shares["validation"] == pytest.approx(160 * 0.15 / 0.85, abs=2) and not shares["test"]
    assert Counter(side for side, part in parts.items() for s in part if s.dataset == "b")["test"] == 12


def test_set_with_three_official_splits_is_not_changed() -> None:
    samples = [s for n, side in enumerate(FRACTIONS) for s in _official(side, range(10 * n, 10 * n + 10))]
    assert {s.name: side for side, part in split_by_patient(samples, FRACTIONS, 0).items() for s in part} == {
        s.name: s.official_split for s in samples
    }


def test_copy_with_only_the_training_split_counts_as_not_split() -> None:
    training = _official("train", range(50))
    parts = split_by_patient(training, FRACTIONS, seed=0)
    assert _splits(parts) == _splits(split_by_patient(_cohort("a", range(50)), FRACTIONS, seed=0))
    assert len(parts["test"]) in (14, 16)


def test_set_for_testing_only_is_not_split() -> None:
    parts = split_by_patient(_official("test", range(20)), FRACTIONS, seed=0)
    assert [len(part) for part in parts.values()] == [0, 0, 40]


def test_patient_in_two_official_splits_is_an_error() -> None:
    leaking = [*_official("train", range(5)), *(replace(s, name=f"t{s.name}") for s in _official("test", range(4, 9)))]
    with pytest.raises(DataError, match="patient a/4 is in two splits, train and test"):
        split_by_patient(leaking, FRACTIONS, seed=0)


def test_official_test_photograph_that_is_not_in_the_file_stays_in_test(tmp_path: Path) -> None:
    training, testing = _official("train", range(20)), _official("test", range(20, 25))
    write_split(tmp_path / "split.csv", split_by_patient(training, {"train": 0.8, "test": 0.2}, seed=0))
    parts = apply_split([*training, *testing], read_split(tmp_path / "split.csv"))
    assert {s.name for s in testing} < {s.name for s in parts["test"]}
    with pytest.raises(DataError, match="is not in the split"):
        apply_split([*training, *_official("train", range(20, 25))], read_split(tmp_path / "split.csv"))


# Folds


def test_every_patient_is_tested_in_one_fold_and_trained_on_in_the_others() -> None:
    samples = _cohort("a", range(60)) + _cohort("b", range(30, 60), people="a")
    found = cross_validation_folds(samples, 5, seed=1)
    assert len(found) == 5
    tested = Counter(s.patient for fold in found for s in fold["test"] if s.dataset == "a" and s.name.endswith("left"))
    assert tested == dict.fromkeys((f"a/{p}" for p in range(60)), 1)
    for fold in found:
        assert not _patients(fold["train"]) & _patients(fold["test"])
        assert len(fold["train"]) + len(fold["test"]) == len(samples)
        grades = Counter(s.grade for s in fold["test"] if s.dataset == "a")
        assert grades[Grade.PROLIFERATIVE] in (2, 3) and len(_patients(fold["test"])) == pytest.approx(12, abs=1)


def test_folds_leave_out_the_official_test_split() -> None:
    found = cross_validation_folds([*_official("train", range(30)), *_official("test", range(30, 40))], 3, seed=0)
    assert {s.official_split for fold in found for side in fold.values() for s in side} == {"train"}


def test_folds_depend_on_the_seed_and_not_on_the_order() -> None:
    samples = _cohort("a", range(40))
    shuffled = random.Random(0).sample(samples, len(samples))
    assert [_splits(fold) for fold in cross_validation_folds(samples, 4, 7)] == [
        _splits(fold) for fold in cross_validation_folds(shuffled, 4, 7)
    ]
    assert [_splits(fold) for fold in cross_validation_folds(samples, 4, 7)] != [
        _splits(fold) for fold in cross_validation_folds(samples, 4, 8)
    ]
    with pytest.raises(RecipeError, match="1 folds, expected at least 2"):
        cross_validation_folds(samples, 1, 0)


# Pixel-wise supervision (Sec. V-D)


def _annotated(patients: range) -> list[Sample]:
    """Every second patient has soft exudates."""
    masks = {Lesion.MA: Path("m.png"), Lesion.SE: None}
    samples = [replace(_sample("a", str(p), f"a/{p}", 2), lesion_masks=masks) for p in patients]
    return [replace(s, lesion_masks={**masks, Lesion.SE: Path("s.png")}) if int(s.name) % 2 else s for s in samples]


@pytest.mark.parametrize("share", [1.0, 0.75, 0.5, 0.25, 0.0])
def test_masks_of_a_share_of_the_patients_are_kept_and_all_grades(share: float) -> None:
    samples = _annotated(range(40)) + _cohort("b", range(5))
    left = reduce_supervision(samples, share, seed=3)
    kept = [s for s in left if s.dataset == "a" and s.lesion_masks]
    assert [(s.name, s.grade) for s in left] == [(s.name, s.grade) for s in samples]
    assert len(kept) == 40 * share
    assert sum(s.lesion_masks[Lesion.SE] is not None for s in kept) == pytest.approx(20 * share, abs=1)


def test_union_labels_are_removed_and_divided_like_masks() -> None:
    exudates = {"EX+SE": Path("mask.png")}
    samples = [
        replace(_sample("h", f"{n}", f"h/{n}"), union_masks=exudates if n % 2 else {"EX+SE": None}) for n in range(40)
    ]
    kept = [s for s in reduce_supervision(samples, 0.5, 0) if s.has_masks]
    assert len(kept) == 20 and sum(s.union_masks["EX+SE"] is not None for s in kept) == 10
    parts = split_by_patient(samples, {"train": 0.5, "test": 0.5}, seed=0)
    assert sum(s.union_masks["EX+SE"] is not None for s in parts["test"]) == 10


def test_smaller_share_of_masks_is_part_of_a_larger_one() -> None:
    parts = (reduce_supervision(_annotated(range(40)), share, 3) for share in (0.25, 0.5, 1.0))
    kept = [{sample.name for sample in part if sample.lesion_masks} for part in parts]
    assert kept[0] < kept[1] < kept[2]
    with pytest.raises(RecipeError, match=r"1\.5, expected a share"):
        reduce_supervision([], 1.5, 0)


@pytest.mark.data
def test_real_data_sets_are_split_without_shared_patients(real_data: Path) -> None:
    roots = {name: real_data / name for name in ("idrid", "eyepacs", "eyepacs256_equalised")}
    samples = read_datasets(roots)
    parts = split_by_patient(samples, FRACTIONS, seed=0)
    patients = Counter(patient for part in parts.values() for patient in _patients(part))
    assert set(patients.values()) == {1}
    both = {s.patient for s in samples if s.dataset == "eyepacs"} & {
        s.patient for s in samples if s.dataset == "eyepacs256_equalised"
    }
    assert len(both) == 47
    for side, share in FRACTIONS.items():
        annotated = sum(any(s.annotated(DIABETIC_RETINOPATHY)) for s in parts[side])
        assert annotated == pytest.approx(54 * share, abs=2)
