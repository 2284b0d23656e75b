"""A data set with the lesion types and grades of another disease: read, prepared, reported and read again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dataset_trees import make_aptos, write_table
from deepmtdr.cli import app
from deepmtdr.datasets.catalogue import read_datasets
from deepmtdr.datasets.folder import read_folder
from deepmtdr.datasets.layout import LabelCounts, count_labels
from deepmtdr.datasets.prepared import MANIFEST, SETTINGS, read_prepared
from deepmtdr.errors import DataError
from deepmtdr.labels import DIABETIC_RETINOPATHY, GradeLabel, LabelSet, LesionType
from deepmtdr.preparation.report import prepare_and_report
from image_files import write_mask, write_photograph

GRADES = (GradeLabel(name="none"), GradeLabel(name="early"), GradeLabel(name="late"))


def label_set(*codes: str) -> LabelSet:
    lesions = tuple(LesionType(code=code, name=f"{code} spots") for code in codes)
    return LabelSet(
        name="spots", disease="spots", lesions=lesions, grades=GRADES, thresholds={"any": 1, "referable": 2}
    )


SPOTS = label_set("RED", "PALE")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Four photographs: two annotated (one with no red spots), grades 0 to 2, one ungradable."""
    root = tmp_path / "spots"
    for n, name in enumerate("abcd"):
        write_photograph(root / f"{name}.png", tint=20 * n)
    write_mask(root / "m.png")
    rows = ("a.png,2,m.png,none", "b.png,0,,none", "c.png,1,none,m.png", "d.png,ungradable,,")
    write_table(root / "photographs.csv", "path,grade,RED,PALE", *rows)
    return root


def test_folder_is_read_with_the_codes_and_grades_of_the_label_set(root: Path) -> None:
    samples = read_folder(root, SPOTS)
    assert [sample.grade for sample in samples] == [2, 0, 1, None]
    assert samples[0].lesion_masks == {"RED": root / "m.png", "PALE": None}
    assert samples[1].annotated(SPOTS) == (False, True)
    assert count_labels(samples, SPOTS) == LabelCounts(4, (1, 1, 1), (1, 1), 1)


def test_grade_above_those_of_the_label_set_is_an_error(root: Path) -> None:
    write_table(root / "photographs.csv", "path,grade", "a.png,3")
    with pytest.raises(DataError, match=r"row 2, column grade: expected a grade 0-2, found '3'"):
        read_folder(root, SPOTS)


def test_mask_column_of_another_disease_is_an_error(root: Path) -> None:
    with pytest.raises(DataError, match=r"unknown column 'RED'; known are path, grade, patient, eye, side, MA, HE"):
        read_folder(root)


def test_prepared_set_keeps_its_label_set(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = prepare_and_report("folder", root, out, size=64, labels=SPOTS, shares={"train": 1.0}, workers=1)
    again = read_prepared(out)
    assert again.labels == done.prepared.labels == SPOTS
    assert again.samples() == done.prepared.samples()
    header = (out / MANIFEST).read_text().splitlines()[0]
    assert ",split,red,pale,overlap," in header and ",ma," not in header
    assert {path.stem for path in (out / "RED").iterdir()} == {"a"}
    assert {path.stem for path in (out / "PALE").iterdir()} == {"c"}
    frame = again.frames()[0]
    masks = frame.lesion_masks
    assert frame.labels == SPOTS and masks is not None and masks.shape == (2, 64, 64)
    assert masks[0].any() and not masks[1].any()


def test_report_has_the_names_and_grades_of_the_label_set(root: Path, tmp_path: Path) -> None:
    done = prepare_and_report("folder", root, tmp_path / "out", size=64, labels=SPOTS, shares={"train": 1.0}, workers=1)
    tables = {table.title: table for table in done.tables}
    assert [row[0] for row in tables["Lesions, in pixels of the HR frame"].rows] == ["RED spots", "PALE spots"]
    assert "grades 0 to 2" in tables["Splits"].columns
    assert tables["Splits"].rows[0][3] == "1  1  1"
    assert not [finding for finding in done.findings if finding.kind in ("black_masks", "lesions_at_grade_0")]


def test_read_data_sets_gives_the_samples_of_that_label_set_only(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepare_and_report("folder", root, out, size=64, labels=SPOTS, shares={"train": 1.0}, workers=1)
    assert len(read_datasets({"folder": out}, SPOTS)) == len(read_datasets({"folder": root}, SPOTS)) == 4
    with pytest.raises(
        DataError, match=r"out: prepared with the label set 'spots' \(lesions RED, PALE; 3 grades\), exp"
    ):
        read_datasets({"folder": out})
    make_aptos(tmp_path / "aptos", {"x": 2})
    with pytest.raises(DataError, match=r"data set aptos with the label set 'diabetic-retinopathy'.*expected 'spots'"):
        read_datasets({"aptos": tmp_path / "aptos"}, SPOTS)


def test_folder_prepared_with_another_label_set_is_an_error(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepare_and_report("folder", root, out, size=64, labels=SPOTS, shares={"train": 1.0}, workers=1)
    (root / "photographs.csv").unlink()
    with pytest.raises(DataError, match=r"prepared with the label set 'spots'.*expected 'diabetic-retinopathy'"):
        prepare_and_report("folder", root, out, size=64, shares={"train": 1.0}, workers=1)


@pytest.mark.parametrize(("code", "message"), [("Grade", "column of photographs.csv"), ("LR", "column or folder")])
def test_code_that_is_the_name_of_another_column_or_folder_is_an_error(
    root: Path, tmp_path: Path, code: str, message: str
) -> None:
    (root / "photographs.csv").unlink()
    write_table(root / "photographs.csv", "path", "a.png")
    with pytest.raises(DataError, match=f"lesion code {code} is .*{message}.*choose another"):
        prepare_and_report(
            "folder", root, tmp_path / "out", size=64, labels=label_set(code), shares={"train": 1.0}, workers=1
        )


def test_diabetic_retinopathy_is_not_written_into_the_settings(root: Path, tmp_path: Path) -> None:
    (root / "photographs.csv").unlink()
    out = tmp_path / "out"
    prepare_and_report("folder", root, out, size=64, shares={"train": 1.0}, workers=1)
    assert json.loads((out / SETTINGS).read_text()) == {"form": 2, "size": 64, "scale": 4}
    assert read_prepared(out).labels == DIABETIC_RETINOPATHY


def test_prepare_takes_the_label_set_of_a_toml_file(root: Path, tmp_path: Path) -> None:
    (tmp_path / "spots.toml").write_text(
        """
disease = "spots"
short_disease = "spots"
thresholds = { any = 1, referable = 2 }
lesions = [{ code = "RED", name = "red spots" }, { code = "PALE", name = "pale spots" }]
grades = [{ name = "none" }, { name = "early" }, { name = "late" }]
"""
    )
    command = ["prepare", "folder", str(root), str(tmp_path / "out"), "--size", "64", "--workers", "1"]
    done = CliRunner().invoke(app, [*command, "--labels", str(tmp_path / "spots.toml")])
    assert done.exit_code == 0, done.output
    assert "pale spots" in done.output
    assert read_prepared(tmp_path / "out").labels.codes == ("RED", "PALE")
    refused = CliRunner().invoke(app, [*command, "--labels", str(tmp_path / "absent.toml")])
    assert refused.exit_code == 2 and "absent.toml" in refused.output
