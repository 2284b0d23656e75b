"""The command line: output, exit codes and one-line errors."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import pytest
from click.testing import Result
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import deepmtdr
from deepmtdr import checkpoint
from deepmtdr.cli import app
from deepmtdr.datasets.drawings import read_drawings
from deepmtdr.model.deepmtdr import DeepMTDR
from deepmtdr.progress import Progress
from deepmtdr.screening.engine import ScreeningEngine
from deepmtdr.screening.report import ScreeningReport
from tiny_model import save_bad_inputs, save_photograph, save_tiny_weights, tiny_recipe


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_weights(tmp_path_factory.mktemp("weights") / "tiny.safetensors")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "160"})


def is_refused(result: Result, *words: str) -> bool:
    """Whether there is one line on stderr with these words, exit code 2, and no traceback."""
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
    lines = result.stderr.splitlines()
    assert len(lines) == 1 and all(word in lines[0] for word in words), lines
    return True


def test_good_photographs_are_graded_with_exit_code_0(weights: Path, tmp_path: Path) -> None:
    for name in ("left.png", "right.jpg"):
        save_photograph(tmp_path / "eyes" / name)
    result = run("grade", tmp_path / "eyes", "--out", tmp_path / "out", "--weights", weights)
    assert result.exit_code == 0, result.output
    assert "left.png" in result.stdout and "right.jpg" in result.stdout and "referable" in result.stdout
    assert (tmp_path / "out" / "left" / "summary.png").stat().st_size > 10_000
    assert len((tmp_path / "out" / "results.csv").read_text().splitlines()) == 3


def test_each_bad_photograph_has_a_row_and_a_line_and_the_exit_code_is_1(weights: Path, tmp_path: Path) -> None:
    expected = save_bad_inputs(tmp_path / "in" / "bad")
    result = run("grade", tmp_path / "in", tmp_path / "gone.jpg", "--out", tmp_path / "out", "--weights", weights)
    assert result.exit_code == 1, result.output
    with (tmp_path / "out" / "results.csv").open(newline="") as file:
        status = {Path(row["path"]).name: row["status"] for row in csv.DictReader(file)}
    assert status == {**expected, "whole.jpg": "ok", "gone.jpg": "error"}
    complaints = result.stderr.splitlines()
    assert len(complaints) == len(status) - 1
    for name in {*expected, "gone.jpg"}:
        assert sum(f"{name}: " in line for line in complaints) == 1, name


@pytest.mark.parametrize("name", ["black.png", "sky.png"])
def test_an_ungradable_photograph_fails_the_run(weights: Path, tmp_path: Path, name: str) -> None:
    save_bad_inputs(tmp_path / "bad")
    assert run("grade", tmp_path / "bad" / name, "--weights", weights).exit_code == 1


def test_json_on_stdout_is_the_content_of_report_json(weights: Path, tmp_path: Path) -> None:
    good, bad = save_photograph(tmp_path / "eye.png"), tmp_path / "gone.png"
    result = run("grade", good, bad, "--json", "--as-lr", "32", "--out", tmp_path / "out", "--weights", weights)
    first, second = json.loads(result.stdout)
    assert first == json.loads((tmp_path / "out" / "eye" / "report.json").read_text())
    assert first["way"] == "x4 from 32 px" and first["geometry"]["side"] > 0
    assert (second["path"], second["status"], second["grade"]) == (str(bad), "error", None)
    assert result.exit_code == 1


def test_skipped_files_are_named_on_stderr(weights: Path, tmp_path: Path) -> None:
    save_photograph(tmp_path / "eye.png")
    (tmp_path / "labels.csv").touch()
    result = run("grade", tmp_path, "--weights", weights)
    assert result.exit_code == 0
    assert "labels.csv" in result.stderr


def test_a_folder_that_cannot_be_written_is_one_line(weights: Path, tmp_path: Path) -> None:
    photograph = save_photograph(tmp_path / "eye.png")
    result = run("grade", photograph, "--out", photograph / "out", "--weights", weights)
    assert is_refused(result, str(photograph), "found a file, expected a folder")
    assert is_refused(run("grade", photograph, "--out", photograph, "--weights", weights), "expected a folder")


def test_a_used_results_folder_is_refused_resumed_or_overwritten(weights: Path, tmp_path: Path) -> None:
    photograph, out = save_photograph(tmp_path / "eye.png"), tmp_path / "out"
    grade = ("grade", photograph, "--out", out, "--weights", weights)
    assert run(*grade).exit_code == 0
    assert is_refused(run(*grade), str(out), "--resume", "--overwrite")
    before = (out / "eye" / "report.json").stat().st_mtime_ns
    for option, is_kept in (("--resume", True), ("--overwrite", False)):
        result = run(*grade, option)
        assert result.exit_code == 0 and "eye.png" in result.stdout
        assert ((out / "eye" / "report.json").stat().st_mtime_ns == before) is is_kept
    assert run(*grade, "--resume", "--overwrite").exit_code == 2
    assert run("grade", photograph, "--resume", "--weights", weights).exit_code == 2


def test_ctrl_c_says_what_is_done_and_how_to_go_on(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict, graded = ScreeningEngine.predict, list[Path]()

    def interrupted(engine: ScreeningEngine, path: Path, as_lr: int | None = None) -> ScreeningReport:
        graded.append(path)
        if len(graded) == 2:
            raise KeyboardInterrupt
        return predict(engine, path, as_lr)

    monkeypatch.setattr(ScreeningEngine, "predict", interrupted)
    photographs = [save_photograph(tmp_path / name) for name in ("a.png", "b.png", "c.png")]
    result = run("grade", *photographs, "--out", tmp_path / "out", "--weights", weights)
    assert result.exit_code == 130
    (line,) = result.stderr.splitlines()
    assert line == (
        f"deepmtdr: stopped by Ctrl-C after 1 of 3 photographs; results are in {tmp_path / 'out'}: go on with --resume"
    )
    assert len((tmp_path / "out" / "results.csv").read_text().splitlines()) == 2
    assert run("grade", *photographs, "--out", tmp_path / "out", "--weights", weights, "--resume").exit_code == 0
    assert len(graded) == 4


def test_ctrl_c_in_preparation_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("deepmtdr.preparation.report.prepare_and_report", interrupted)
    result = run("prepare", "folder", tmp_path, tmp_path / "out")
    assert result.exit_code == 130
    assert result.stderr.splitlines() == [
        "deepmtdr: stopped by Ctrl-C; finished photographs are kept: run the same command again to go on"
    ]


def test_a_changed_byte_anywhere_in_the_weights_is_one_line(weights: Path, tmp_path: Path) -> None:
    photograph, damaged = save_photograph(tmp_path / "eye.png"), tmp_path / "damaged.safetensors"
    content = weights.read_bytes()
    for place in (4, 200, len(content) // 2, len(content) - 1):
        changed = content[place] ^ 1
        damaged.write_bytes(content[:place] + bytes([changed]) + content[place + 1 :])
        assert is_refused(run("grade", photograph, "--weights", damaged), str(damaged))


def test_weights_of_another_architecture_are_one_line(tmp_path: Path) -> None:
    other, path = DeepMTDR(tiny_recipe(width=8).model), tmp_path / "other.safetensors"
    checkpoint.save(path, other, tiny_recipe(width=4))
    assert is_refused(run("grade", "x.png", "--weights", path), str(path), "architecture")


def test_weights_of_another_program_are_one_line(weights: Path, tmp_path: Path) -> None:
    save_file(load_file(weights), tmp_path / "plain.safetensors")
    assert is_refused(run("grade", "x.png", "--weights", tmp_path / "plain.safetensors"), "card")
    (tmp_path / "pickled.pt").write_bytes(b"\x80\x02cos\nsystem\nq\x00X\x04\x00\x00\x00trueq\x01\x85q\x02Rq\x03.")
    assert is_refused(run("grade", "x.png", "--weights", tmp_path / "pickled.pt"), "pickled.pt")
    assert is_refused(run("grade", "x.png", "--weights", tmp_path / "gone.safetensors"), "gone.safetensors")


def test_an_input_size_that_does_not_fit_the_frame_is_one_line(weights: Path, tmp_path: Path) -> None:
    photograph = save_photograph(tmp_path / "eye.png")
    for verb in (["grade", photograph], ["info"]):
        result = run(*verb, "--as-lr", "256", "--weights", weights)
        assert is_refused(result, "size 256 px, expected one of 16, 32, 64 for a frame of 128 px")


def test_an_unknown_precision_is_refused(tmp_path: Path) -> None:
    result = run("grade", tmp_path, "--precision", "half")
    assert result.exit_code == 2 and "expected auto, fp32 or bf16" in result.stderr


def test_precision_is_that_of_the_option(weights: Path, tmp_path: Path) -> None:
    photograph = save_photograph(tmp_path / "eye.png")
    for precision in ("fp32", "bf16"):
        result = run("grade", photograph, "--json", "--precision", precision, "--threads", 1, "--weights", weights)
        assert json.loads(result.stdout)[0]["precision"] == precision


def test_version_is_printed() -> None:
    result = run("--version")
    assert (result.exit_code, result.stdout) == (0, f"deepmtdr {deepmtdr.__version__}\n")


def test_info_shows_the_card_and_the_cost_of_each_subnet(weights: Path) -> None:
    result = run("info", "--weights", weights)
    assert result.exit_code == 0, result.output
    assert checkpoint.load(weights).digest in result.stdout and "tiny" in result.stdout
    for subnet in ("isr", "segmentation", "grading", "gmsv", "total"):
        assert subnet in result.stdout
    assert "32 px into 128 px" in " ".join(result.stdout.split())
    assert "64 px into 128 px" in " ".join(run("info", "--as-lr", 64, "--weights", weights).stdout.split())


def test_an_unknown_recipe_or_key_is_one_line(tmp_path: Path) -> None:
    assert is_refused(run("train", "no-such-recipe", "--out", tmp_path), "no-such-recipe", "smoke")
    assert is_refused(run("train", "smoke", "--set", "speed=1", "--out", tmp_path), "speed")


def test_evaluation_without_data_is_one_line(weights: Path, tmp_path: Path) -> None:
    assert is_refused(run("evaluate", "--data", tmp_path, "--weights", weights), str(tmp_path), "split")


def test_the_same_seed_gives_the_same_drawings(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        drawn = run("draw", tmp_path / folder, "--count", 2, "--seed", 4, "--grade", 3, "--size", 96)
        assert drawn.exit_code == 0, drawn.output
    samples = read_drawings(tmp_path / "one")
    assert [(sample.name, sample.grade) for sample in samples] == [("drawing_00004", 3), ("drawing_00005", 3)]
    for sample in samples:
        twin = tmp_path / "two" / sample.photograph.relative_to(tmp_path / "one")
        assert twin.read_bytes() == sample.photograph.read_bytes()


def test_a_folder_for_drawings_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert is_refused(
        run("draw", tmp_path / "file" / "x", "--count", 1, "--size", 64), "file", "found a file, expected a folder"
    )


def test_a_verb_without_its_libraries_names_the_extra_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in [name for name in sys.modules if name.startswith(("deepmtdr.dicom", "highdicom"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "highdicom", None)
    result = run("dicom", "examples/dicom", "--out", tmp_path / "out")
    assert is_refused(result, "highdicom is not installed; run pip install 'deepmtdr[clinic]'")


def test_progress_bars_are_not_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("grading", 2) as progress:
        progress.advance({"loss": 0.5})
    assert capsys.readouterr().out == ""


def test_weights_that_are_not_finite_are_refused_before_any_photograph_is_graded(weights: Path, tmp_path: Path) -> None:
    tensors = load_file(weights)
    name = next(n for n, tensor in tensors.items() if n.startswith("grading") and tensor.is_floating_point())
    tensors[name].view(-1)[0] = float("nan")
    model = DeepMTDR(tiny_recipe().model)
    model.load_state_dict(tensors)
    checkpoint.save(tmp_path / "bad.safetensors", model, tiny_recipe())
    result = run("grade", save_photograph(tmp_path / "eye.png"), "--weights", tmp_path / "bad.safetensors", "--json")
    assert is_refused(result, f"{name}: 1 of ", "NaN or infinite, expected finite weights") and result.stdout == ""


@pytest.mark.parametrize(
    ("option", "copies", "number"), [("--tta", "all", 8), ("--check-mirror", "mirror", 2), (None, None, 0)]
)
def test_turned_copies_are_predicted_on_request(
    weights: Path, tmp_path: Path, option: str | None, copies: str | None, number: int
) -> None:
    arguments = ["grade", save_photograph(tmp_path / "eye.png"), "--as-lr", 16, "--weights", weights, "--json"]
    result = run(*arguments, *([option] if option else []))
    assert result.exit_code == 0, result.output
    (report,) = json.loads(result.stdout, parse_constant=lambda name: pytest.fail(name))
    assert report.get("turned_copies") == copies and len(report.get("turn_grades", ())) == number
