"""Many DICOM files: a results folder that an earlier run has used, and a full disk."""

from __future__ import annotations

import csv
import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from deepmtdr.dicom import batch
from deepmtdr.dicom.batch import process_paths
from deepmtdr.errors import ResultsError
from deepmtdr.screening.engine import ScreeningEngine
from deepmtdr.screening.report import ScreeningReport
from deepmtdr.screening.results_folder import ExistingResults
from dicom_objects import make_photograph, save_dicom
from tiny_model import save_tiny_weights

REFUSE, RESUME, OVERWRITE = ExistingResults


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> ScreeningEngine:
    return ScreeningEngine.load(save_tiny_weights(tmp_path_factory.mktemp("weights") / "tiny.safetensors"))


@pytest.fixture(autouse=True)
def _umask() -> Iterator[None]:
    mask = os.umask(0o022)
    yield
    os.umask(mask)


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    for number, name in enumerate(("a.dcm", "b.dcm")):
        save_dicom(tmp_path / "in" / name, make_photograph(f"2.25.{124 + number}"))
    return tmp_path / "in"


def run(
    engine: ScreeningEngine, given: Path, out: Path, existing: ExistingResults = REFUSE, key_file: Path | None = None
) -> list[ScreeningReport]:
    return list(process_paths(engine, [given], out, key_file=key_file, existing=existing).reports)


def content_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_used_folder_is_refused_and_changes_no_byte(
    engine: ScreeningEngine, photographs: Path, tmp_path: Path
) -> None:
    run(engine, photographs / "a.dcm", tmp_path / "out")
    before = content_of(tmp_path / "out")
    with pytest.raises(ResultsError, match="found results of an earlier run"):
        run(engine, photographs / "b.dcm", tmp_path / "out")
    assert content_of(tmp_path / "out") == before


def test_a_resumed_run_processes_only_what_is_not_done(
    engine: ScreeningEngine, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    (first,) = run(engine, photographs / "a.dcm", out)
    written, write = list[Path](), batch.write_results

    def counted(engine: ScreeningEngine, photograph: Path, *others: object) -> ScreeningReport:
        written.append(photograph)
        return write(engine, photograph, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(batch, "write_results", counted)
    again, second = run(engine, photographs, out, RESUME)
    assert written == [photographs / "b.dcm"]
    assert again.to_json() == first.to_json() and second.status == "ok"
    with (out / "results.csv").open(newline="", encoding="utf-8") as file:
        assert [row["folder"] for row in csv.DictReader(file)] == ["a", "b"]


def test_overwriting_leaves_nothing_of_the_earlier_run(
    engine: ScreeningEngine, photographs: Path, tmp_path: Path
) -> None:
    run(engine, photographs / "a.dcm", tmp_path / "out")
    run(engine, photographs / "b.dcm", tmp_path / "out", OVERWRITE)
    assert {path.name for path in (tmp_path / "out").iterdir() if path.is_dir()} == {"b"}


def test_a_deidentified_run_cannot_be_resumed_since_no_names_are_kept(
    engine: ScreeningEngine, photographs: Path, tmp_path: Path
) -> None:
    with pytest.raises(ResultsError, match="--resume cannot be used with --deidentify"):
        run(engine, photographs, tmp_path / "out", RESUME, tmp_path / "key")
    assert not (tmp_path / "key").exists()


def test_a_full_disk_stops_the_run_and_names_the_file(
    engine: ScreeningEngine, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(engine: ScreeningEngine, photograph: Path, folder: Path, *others: object) -> ScreeningReport:
        raise OSError(errno.ENOSPC, "No space left on device", str(folder / "sr.dcm"))

    monkeypatch.setattr(batch, "write_results", full)
    with pytest.raises(OSError, match=r"No space left on device.*--resume") as caught:
        run(engine, photographs, tmp_path / "out")
    assert caught.value.filename == str(tmp_path / "out" / "a" / "sr.dcm")


def test_a_file_that_cannot_be_read_is_a_row_and_the_others_are_processed(
    engine: ScreeningEngine, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = batch.write_results

    def unreadable(engine: ScreeningEngine, photograph: Path, *others: object) -> ScreeningReport:
        if photograph.name == "a.dcm":
            raise OSError(errno.EIO, "Input/output error", str(photograph))
        return write(engine, photograph, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(batch, "write_results", unreadable)
    first, second = run(engine, photographs, tmp_path / "out")
    assert (first.status, first.reason, second.status) == ("error", "Input/output error", "ok")
