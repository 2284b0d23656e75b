"""The results folder: one run at a time, resumed, overwritten or refused; a folder of its own for each photograph."""

from __future__ import annotations

import csv
import errno
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from deepmtdr.errors import DataError, ResultsError
from deepmtdr.files import same_name_key
from deepmtdr.screening import report_files
from deepmtdr.screening.batch import grade_photographs
from deepmtdr.screening.engine import ScreeningEngine
from deepmtdr.screening.inputs import InputFile
from deepmtdr.screening.report import ScreeningReport
from deepmtdr.screening.results_folder import LOCK_NAME, RUN_FILE, ExistingResults, unique_folder_names
from fake_predictor import FakePredictor
from tiny_model import save_photograph


class Counting(ScreeningEngine):
    """An engine that records the photographs that it grades."""

    def __init__(self) -> None:
        super().__init__(FakePredictor())
        self.graded: list[str] = []

    def predict(self, path: Path | str, as_lr: int | None = None) -> ScreeningReport:
        self.graded.append(Path(path).name)
        return super().predict(path, as_lr)


@pytest.fixture
def engine() -> Counting:
    return Counting()


@pytest.fixture
def photographs(tmp_path: Path) -> list[Path]:
    return [save_photograph(tmp_path / name, 200 + 20 * n) for n, name in enumerate(("a.png", "b.png", "c.png"))]


def run(
    engine: ScreeningEngine, paths: list[Path], out: Path, existing: str = "refuse", as_lr: int | None = None
) -> list[ScreeningReport]:
    inputs = [InputFile(path, "" if path.exists() else "no such file or folder") for path in paths]
    return list(grade_photographs(engine, inputs, out, as_lr, existing=ExistingResults(existing)))


def rows_of(out: Path) -> dict[str, dict[str, str]]:
    with (out / "results.csv").open(newline="", encoding="utf-8") as file:
        return {Path(row["path"]).name: row for row in csv.DictReader(file)}


def content_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_second_run_into_a_used_folder_is_refused_and_changes_no_byte(
    engine: Counting, photographs: list[Path], tmp_path: Path
) -> None:
    run(engine, photographs[:2], tmp_path / "out")
    before = content_of(tmp_path / "out")
    with pytest.raises(ResultsError, match=r"found results of an earlier run.* --resume .* --overwrite "):
        run(engine, photographs[2:], tmp_path / "out")
    assert content_of(tmp_path / "out") == before


def test_a_run_that_failed_before_its_first_photograph_does_not_count(engine: Counting, tmp_path: Path) -> None:
    run(engine, [], tmp_path / "out")
    assert run(engine, [], tmp_path / "out") == []


def test_a_folder_with_reports_is_used_also_without_its_table(
    engine: Counting, photographs: list[Path], tmp_path: Path
) -> None:
    run(engine, photographs[:1], tmp_path / "out")
    (tmp_path / "out" / "results.csv").unlink()
    with pytest.raises(ResultsError, match="results of an earlier run"):
        run(engine, photographs[:1], tmp_path / "out")


def test_overwriting_leaves_nothing_of_the_earlier_run_and_other_files_alone(
    engine: Counting, photographs: list[Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run(engine, photographs[:2], out)
    (out / "b" / "notes.txt").write_text("mine")
    (out / "own").mkdir()
    run(engine, photographs[2:], out, "overwrite")
    assert list(rows_of(out)) == ["c.png"]
    assert {path.name for path in out.iterdir() if path.is_dir()} == {"b", "c", "own"}
    assert [path.name for path in (out / "b").iterdir()] == ["notes.txt"]


def test_a_stopped_run_is_resumed_without_grading_twice_and_gives_the_same_table(
    engine: Counting, photographs: list[Path], tmp_path: Path
) -> None:
    whole = run(engine, photographs, tmp_path / "whole")
    out, inputs = tmp_path / "out", [InputFile(path) for path in photographs]
    running: Iterator[Any] = grade_photographs(engine, inputs, out)
    assert [next(running).path for _ in range(2)] == photographs[:2]
    running.close()  # type: ignore[attr-defined]
    engine.graded.clear()
    resumed = run(engine, photographs, out, "resume")
    assert engine.graded == ["c.png"]
    assert (out / "results.csv").read_bytes() == (tmp_path / "whole" / "results.csv").read_bytes()
    assert [report.to_json() for report in resumed] == [report.to_json() for report in whole]
    assert [report.row() for report in resumed] == [report.row() for report in whole]
    assert [(report.fov, report.way, report.pictures) for report in resumed] == [
        (report.fov, report.way, None) for report in whole
    ]


def test_a_resumed_run_grades_changed_failed_and_new_photographs_and_keeps_rows_of_others(
    engine: Counting, photographs: list[Path], tmp_path: Path
) -> None:
    first, second, third = photographs
    missing, out = tmp_path / "d.png", tmp_path / "out"
    run(engine, [first, second, missing], out)
    save_photograph(second, 300)
    save_photograph(missing, 260)
    engine.graded.clear()
    run(engine, [third, second, missing], out, "resume")
    assert engine.graded == ["c.png", "b.png", "d.png"]
    rows = rows_of(out)
    assert {name: (row["folder"], row["status"]) for name, row in rows.items()} == {
        f"{name}.png": (name, "ok") for name in "abcd"
    }
    assert json.loads((out / "b" / "report.json").read_text())["width"] == int(rows["b.png"]["width"])


def test_a_photograph_whose_row_was_lost_when_the_run_was_killed_is_graded_again(
    engine: Counting, photographs: list[Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run(engine, photographs[:1], out)
    before = (out / "results.csv").read_bytes()
    run(engine, photographs, out, "resume")
    (out / "results.csv").write_bytes(before)
    engine.graded.clear()
    run(engine, [photographs[0], photographs[2]], out, "resume")
    assert engine.graded == ["c.png"] and not (out / "b").exists()


@pytest.mark.parametrize("damage", ["", "{}", None])
def test_a_photograph_whose_report_is_damaged_or_gone_is_graded_again(
    engine: Counting, photographs: list[Path], tmp_path: Path, damage: str | None
) -> None:
    run(engine, photographs[:2], tmp_path / "out")
    report = tmp_path / "out" / "a" / "report.json"
    whole = report.read_bytes()
    if damage is None:
        report.unlink()
    else:
        report.write_text(damage)
    engine.graded.clear()
    run(engine, photographs[:2], tmp_path / "out", "resume")
    assert engine.graded == ["a.png"] and report.read_bytes() == whole


def test_resuming_with_other_settings_is_refused_with_the_difference(
    engine: Counting, photographs: list[Path], tmp_path: Path
) -> None:
    run(engine, photographs[:1], tmp_path / "out")
    with pytest.raises(ResultsError, match=r"other settings \(as_lr None, now 32\)"):
        run(engine, photographs, tmp_path / "out", "resume", as_lr=32)
    (tmp_path / "out" / RUN_FILE).unlink()
    with pytest.raises(ResultsError, match=r"run\.json: cannot be read"):
        run(engine, photographs, tmp_path / "out", "resume")


@pytest.mark.parametrize("folder", ["../elsewhere", "/etc", "..", ""])
def test_a_table_that_names_a_place_outside_is_refused(
    engine: Counting, photographs: list[Path], tmp_path: Path, folder: str
) -> None:
    run(engine, photographs[:1], tmp_path / "out")
    table = tmp_path / "out" / "results.csv"
    table.write_text(table.read_text().replace(",a,", f",{folder},"))
    with pytest.raises(DataError, match=r"results\.csv, row 2: expected the name of a folder"):
        run(engine, photographs, tmp_path / "out", "resume")


@pytest.mark.parametrize("existing", ["refuse", "resume", "overwrite"])
def test_a_folder_in_which_another_run_writes_is_refused(
    engine: Counting, photographs: list[Path], tmp_path: Path, existing: str
) -> None:
    run(engine, photographs[:1], tmp_path / "out")
    before = content_of(tmp_path / "out")
    with FileLock(tmp_path / "out" / LOCK_NAME), pytest.raises(ResultsError, match="another run that writes into this"):
        run(engine, photographs, tmp_path / "out", existing)
    assert content_of(tmp_path / "out") == before


def test_files_are_for_their_owner_only(engine: Counting, photographs: list[Path], tmp_path: Path) -> None:
    run(engine, photographs[:1], tmp_path / "out")
    for path in (tmp_path / "out", *(tmp_path / "out").rglob("*")):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path


def test_a_full_disk_stops_the_run_names_the_file_and_says_how_to_go_on(
    engine: Counting, photographs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = report_files.write_atomically

    def full(path: Path, content: bytes, *, private: bool) -> None:
        if path.parent.name == "b":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write(path, content, private=private)

    monkeypatch.setattr(report_files, "write_atomically", full)
    with pytest.raises(OSError, match=r"No space left on device; results so far are kept.*--resume") as caught:
        run(engine, photographs, tmp_path / "out")
    assert Path(str(caught.value.filename)).parent == tmp_path / "out" / "b"
    assert list(rows_of(tmp_path / "out")) == ["a.png"]


# Names of folders


def test_folders_of_photographs_do_not_collide() -> None:
    names = ("a/eye.png", "b/eye.png", "b/EYE.jpg", "eye-2.png", "results.csv.png", "run.json.png", "..png", ".png")
    given = unique_folder_names([Path(name) for name in names])
    assert len({name.casefold() for name in given}) == len(names)
    assert given[:2] == ["eye", "eye-2"]
    assert not {".", "..", "", "results.csv", "run.json"}.intersection(given)


def test_folders_do_not_collide_where_case_or_unicode_form_is_ignored() -> None:
    given = unique_folder_names([Path(f"{n}/{name}.png") for n, name in enumerate(("caf\u00e9", "cafe\u0301", "CAFÉ"))])
    assert len({same_name_key(name) for name in given}) == 3
    assert unique_folder_names([Path("Eye.png")], taken=["eye"]) == ["Eye-2"]


def test_long_names_are_shortened_and_stay_different() -> None:
    """Two names of 254 bytes without a suffix: with "-2" added the second would be too long for a file."""
    long, other = "x" * 254, "x" * 253 + "y"
    given = unique_folder_names([Path("a", long), Path("b", long), Path("b", other), Path("c", "\udcff" * 250)])
    assert len(set(given)) == 4
    assert all(len(name.encode()) <= 255 for name in given)
    assert unique_folder_names([Path("y" * 236 + ".png")]) == ["y" * 236]


def test_a_name_that_is_a_formula_or_not_utf_8_is_in_the_table_and_can_be_recovered(
    engine: Counting, photographs: list[Path], tmp_path: Path
) -> None:
    formula = photographs[0].rename(tmp_path / "=HYPERLINK(1).png")
    bytes_name = photographs[1].rename(tmp_path / "b\udcff.png")
    run(engine, [Path("=1+1.png"), formula, bytes_name], tmp_path / "out")
    rows = rows_of(tmp_path / "out")
    assert [row["folder"] for row in rows.values()] == ["'=1+1", "'=HYPERLINK(1)", "b\\xff"]
    assert rows["'=1+1.png"]["path"] == "'=1+1.png" and rows["'=1+1.png"]["message"].startswith("'=1+1.png: ")
    assert json.loads((tmp_path / "out" / "=1+1" / "report.json").read_text())["path"] == "=1+1.png"
    engine.graded.clear()
    run(engine, [formula, bytes_name], tmp_path / "out", "resume")
    assert engine.graded == []
