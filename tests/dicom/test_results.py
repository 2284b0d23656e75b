"""From a DICOM file to a folder of results, and from many files to `results.csv`."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from jaxtyping import UInt8
from PIL import Image, ImageDraw
from pydicom import dcmread
from typer.testing import CliRunner

from deepmtdr.cli import app
from deepmtdr.dicom import results
from deepmtdr.dicom.examination import ungradable_reason
from deepmtdr.dicom.results import write_results
from deepmtdr.errors import DicomError
from deepmtdr.screening.engine import ScreeningEngine
from deepmtdr.screening.predictor import Findings, PredictorInfo
from dicom_objects import make_photograph, make_report, save_dicom
from dicom_reports import GLAUCOMA_LABELS, ungradable_report
from fundus import draw_fundus
from tiny_model import save_tiny_weights

GRADED = {"sr", "lesions", "probabilities", "report", "overlay", "document"}
EXAMPLE = Path(__file__).parents[2] / "examples" / "dicom" / "drawing_2.dcm"
KEY = b"0123456789abcdef0123456789abcdef"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_weights(tmp_path_factory.mktemp("weights") / "tiny.safetensors")


@pytest.fixture(scope="module")
def engine(weights: Path) -> ScreeningEngine:
    return ScreeningEngine.load(weights)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_example_gives_all_files_and_a_repeat_gives_the_same_bytes(engine: ScreeningEngine, tmp_path: Path) -> None:
    report = write_results(engine, EXAMPLE, tmp_path / "once")
    assert report.status == "ok"
    assert {path.stem for path in (tmp_path / "once").glob("*.dcm")} == GRADED
    written = json.loads((tmp_path / "once" / "report.json").read_text(encoding="utf-8"))
    assert (written["path"], written["status"], written["grade"]) == ("Left eye, image 3", "ok", report.grade)
    write_results(engine, EXAMPLE, tmp_path / "again")
    assert files(tmp_path / "once") == files(tmp_path / "again")


def test_an_ungradable_photograph_gives_report_overlay_and_document(engine: ScreeningEngine, tmp_path: Path) -> None:
    black = save_dicom(tmp_path / "a.dcm", make_photograph(pixels=np.zeros((300, 320, 3), np.uint8)))
    report = write_results(engine, black, tmp_path / "out")
    assert report.status == "ungradable"
    assert {path.stem for path in (tmp_path / "out").glob("*.dcm")} == {"report", "overlay", "document"}
    assert "no field of view" in json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))["message"]


def test_damaged_pixels_are_an_error_without_results(engine: ScreeningEngine, tmp_path: Path) -> None:
    path = save_dicom(tmp_path / "a.dcm", make_photograph())
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(DicomError, match=r"^\S+a\.dcm: this DICOM file cannot be decoded") as caught:
        write_results(engine, path, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []
    assert "Yamada" not in str(caught.value) and "P-17" not in str(caught.value)


def test_only_the_dicom_objects_contain_the_patients_name(engine: ScreeningEngine, tmp_path: Path) -> None:
    path = save_dicom(tmp_path / "Yamada_P-17.dcm", make_photograph())
    write_results(engine, path, tmp_path / "out")
    for name, content in files(tmp_path / "out").items():
        assert "Yamada" not in name
        if not name.endswith(".dcm"):
            assert b"Yamada" not in content
    assert b"Yamada_P-17" not in b"".join(files(tmp_path / "out").values())


def test_deidentified_results_contain_no_patient_data(engine: ScreeningEngine, tmp_path: Path) -> None:
    path = save_dicom(
        tmp_path / "Yamada.dcm", make_photograph(PatientComments="confidential", AccessionNumber="ACC-778123")
    )
    write_results(engine, path, tmp_path / "out", key=KEY)
    everything = b"".join(files(tmp_path / "out").values())
    for word in ("Yamada", "山田", "P-17", "19500101", "20240102", "ACC-778123", "confidential"):
        assert word.encode() not in everything, word
    assert not re.search(rb"2\.25\.123(?!\d)", everything)  # a new identifier may begin so
    original = dcmread(tmp_path / "out" / "original.dcm")
    assert original.PatientIdentityRemoved == "YES"
    made = dcmread(tmp_path / "out" / "sr.dcm")
    assert made.SourceImageSequence[0].ReferencedSOPInstanceUID == original.SOPInstanceUID
    assert (made.StudyInstanceUID, made.PatientID) == (original.StudyInstanceUID, original.PatientID)


def photograph_with_name() -> UInt8[np.ndarray, "h w 3"]:
    """A drawn photograph with text in a corner."""
    picture = Image.fromarray(draw_fundus(300, 320, (160, 150), 140))
    ImageDraw.Draw(picture).text((2, 2), "DOE JANE", fill="white")
    return np.asarray(picture)


@pytest.mark.parametrize("declared", ["NO", None])
@pytest.mark.parametrize("named", [False, True])
def test_a_deidentified_photograph_with_possible_text_says_so(
    engine: ScreeningEngine, tmp_path: Path, declared: str | None, named: bool
) -> None:
    pixels = photograph_with_name() if named else None
    path = save_dicom(tmp_path / "a.dcm", make_photograph(pixels=pixels, BurnedInAnnotation=declared))
    report = write_results(engine, path, tmp_path / "out", key=KEY)
    expected = (
        ["the header does not state that there is none (Burned In Annotation is not NO)"] if declared is None else []
    )
    expected += ["there are bright marks beside the field of view"] if named else []
    found = [reason for reason in report.review_reasons if "text" in reason]
    assert found == [f"the pixels may contain text: {one}" for one in expected]
    method = dcmread(tmp_path / "out" / "original.dcm").DeidentificationMethod
    assert ("pixels not cleaned, they may contain text" in method) == bool(expected)


def test_a_deidentified_batch_with_possible_text_ends_with_a_warning(weights: Path, tmp_path: Path) -> None:
    save_dicom(tmp_path / "a.dcm", make_photograph())
    save_dicom(tmp_path / "b.dcm", make_photograph("2.25.124", BurnedInAnnotation=None))
    out = ("--out", tmp_path / "out", "--weights", weights)
    _, output = dicom(tmp_path / "a.dcm", tmp_path / "b.dcm", *out, "--deidentify", tmp_path / "key")
    assert "WARNING: 1 of 2 de-identified photographs may show the patient's name" in output


def dicom(*arguments: object) -> tuple[int, str]:
    mask = os.umask(0o022)
    try:
        result = CliRunner().invoke(app, ["dicom", *map(str, arguments)], env={"COLUMNS": "160"})
    finally:
        os.umask(mask)
    return result.exit_code, result.output


def test_a_folder_gives_a_row_for_each_file_also_for_an_unreadable_one(weights: Path, tmp_path: Path) -> None:
    given = tmp_path / "in"
    given.mkdir()
    save_dicom(given / "good.dcm", make_photograph())
    save_dicom(given / "both.dcm", make_photograph("2.25.124", Laterality="L"))
    (given / "text.dcm").write_text("no DICOM")
    code, _ = dicom(given, tmp_path / "gone.dcm", "--out", tmp_path / "out", "--weights", weights)
    assert code == 1
    with (tmp_path / "out" / "results.csv").open(encoding="utf-8", newline="") as file:
        rows = {Path(row["path"]).name: row for row in csv.DictReader(file)}
    assert {name: row["status"] for name, row in rows.items()} == {
        "good.dcm": "ok",
        "both.dcm": "error",
        "text.dcm": "error",
        "gone.dcm": "error",
    }
    assert "found the sides L, R" in rows["both.dcm"]["message"]
    for path in (tmp_path / "out").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_a_deidentified_batch_has_numbers_for_names(weights: Path, tmp_path: Path) -> None:
    save_dicom(tmp_path / "Yamada.dcm", make_photograph())
    (tmp_path / "Tarou.dcm").write_text("no DICOM")
    key = ("--deidentify", tmp_path / "key")
    code, output = dicom(*tmp_path.glob("*.dcm"), "--out", tmp_path / "out", "--weights", weights, *key)
    assert code == 1 and "Yamada" not in output and "Tarou" not in output
    assert "Yamada" not in (tmp_path / "out" / "results.csv").read_text(encoding="utf-8")
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {"results.csv"}
    assert all(path.name.isdigit() for path in (tmp_path / "out").iterdir() if path.is_dir())
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600


def test_invalid_codes_are_refused_in_one_line(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "codes.toml").write_text("[lesion]\nXX = 1\n", encoding="utf-8")
    code, output = dicom(EXAMPLE, "--out", tmp_path / "out", "--weights", weights, "--codes", tmp_path / "codes.toml")
    assert code == 2 and "unknown code lesion.XX" in output


ONE_BIT = {
    "SamplesPerPixel": 1,
    "PlanarConfiguration": None,
    "PhotometricInterpretation": "MONOCHROME2",
    "BitsAllocated": 1,
    "BitsStored": 1,
    "HighBit": 0,
    "PixelData": bytes(300 * 320 // 8),
}


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({"NumberOfFrames": 3}, "found 3 frames, expected one photograph"),
        ({"Rows": 60_000, "Columns": 60_000}, "header declares 60000x60000 px"),
        ({"Rows": 0}, "found 320x0 px"),
        (
            {"BitsAllocated": 64, "BitsStored": 64, "HighBit": 63},
            "found Bits Allocated 64",
        ),
        ({"PhotometricInterpretation": "CMYK"}, "found colours as ..., expected one of RGB"),
        ({"PixelData": b""}, "the file is damaged, or its encoding is not supported"),
    ],
)
def test_the_error_for_an_object_that_is_not_one_photograph_gives_the_reason(
    engine: ScreeningEngine, tmp_path: Path, tags: dict[str, object], reason: str
) -> None:
    path = save_dicom(tmp_path / "a.dcm", make_photograph(**tags))
    with pytest.raises(DicomError, match=reason):
        write_results(engine, path, tmp_path / "out")


def test_a_picture_of_one_bit_per_pixel_is_ungradable(engine: ScreeningEngine, tmp_path: Path) -> None:
    assert (
        write_results(engine, save_dicom(tmp_path / "a.dcm", make_photograph(**ONE_BIT)), tmp_path / "out").grade
        is None
    )


def test_results_of_an_earlier_photograph_are_removed(engine: ScreeningEngine, tmp_path: Path) -> None:
    path = save_dicom(tmp_path / "eye.dcm", make_photograph())
    write_results(engine, path, tmp_path / "out")
    black = make_photograph("2.25.77", pixels=np.zeros((300, 320, 3), np.uint8), PatientName="Other", PatientID="P-18")
    write_results(engine, save_dicom(path, black), tmp_path / "out")
    assert not (tmp_path / "out" / "lesions.dcm").exists()
    assert {dcmread(one).PatientID for one in (tmp_path / "out").glob("*.dcm")} == {"P-18"}
    path.write_bytes(b"nothing")
    with pytest.raises(DicomError):
        write_results(engine, path, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_an_unexpected_error_does_not_end_the_batch_and_is_not_quoted(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def surprise(*_: object) -> None:
        raise ValueError("Yamada^Tarou is no name")

    for name in ("a.dcm", "b.dcm"):
        save_dicom(tmp_path / name, make_photograph())
    monkeypatch.setattr(results, "create_structured_report", surprise)
    code, output = dicom(tmp_path, "--out", tmp_path / "out", "--weights", weights)
    rows = (tmp_path / "out" / "results.csv").read_text(encoding="utf-8")
    assert code == 1 and rows.count("no results could be written (ValueError at test_results.py:") == 2
    assert "Yamada" not in rows + output


def test_an_unreadable_file_is_not_named_in_a_deidentified_batch(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    save_dicom(tmp_path / "Yamada.dcm", make_photograph())
    (tmp_path / "Suzuki_notes.txt").write_text("no photograph")
    monkeypatch.setattr(results, "read_source", refused)
    code, output = dicom(tmp_path, "--out", tmp_path / "out", "--weights", weights, "--deidentify", tmp_path / "key")
    rows = (tmp_path / "out" / "results.csv").read_text(encoding="utf-8")
    assert code == 1 and "Permission denied" in rows
    assert "Yamada" not in rows + output and "Suzuki" not in output


@pytest.mark.parametrize("name", ["3", "dark", "8"])
def test_a_short_file_name_does_not_garble_the_reason(name: str) -> None:
    report = ungradable_report()
    report = replace(report, path=Path("/media/DICOM", name), message=f"/media/DICOM/{name}: {report.reason}")
    assert ungradable_reason(report) == "too dark: median brightness 3 of 255, expected at least 8"


def test_the_path_and_the_file_name_are_removed_from_the_reason() -> None:
    report = make_report("ungradable", path=Path("/media/Yamada.dcm"), message="cannot decode /media/Yamada.dcm: bad")
    assert ungradable_reason(report) == "cannot decode the photograph: bad"
    assert ungradable_reason(replace(report, message="Yamada.dcm is bad")) == "the photograph is bad"
    assert ungradable_reason(replace(report, message="not Yamada.dcm2")) == "not Yamada.dcm2"


def test_the_room_does_not_import_pytorch_or_training() -> None:
    program = (
        "import sys, deepmtdr.dicom.batch\n"
        "print(sorted({'torch', 'deepmtdr.checkpoint', 'deepmtdr.baselines', 'deepmtdr.training'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[]"


class SquarePredictor:
    """A predictor that marks the same square for every lesion type and always gives the last grade."""

    info = PredictorInfo(weights="square-0", precision="fp32", labels=GLAUCOMA_LABELS, frame=128)

    def predict(self, lr: UInt8[np.ndarray, "h h 3"], scale: int) -> Findings:
        lesions = np.zeros((2, 128, 128), np.float32)
        lesions[:, 60:70, 60:70] = 1
        sr = np.full((128, 128, 3), 100, np.uint8)
        return Findings(sr=sr, lesions=lesions, grade_logits=np.array([0, 1, 2], np.float32), evidence=lesions[0])


def test_every_result_follows_the_label_set_of_the_predictor(tmp_path: Path) -> None:
    path = save_dicom(tmp_path / "eye.dcm", make_photograph())
    report = write_results(ScreeningEngine(SquarePredictor()), path, tmp_path / "out")
    assert (report.status, report.grade, report.grade_name) == ("ok", 2, "manifest")
    everything = files(tmp_path / "out")
    segments = dcmread(io.BytesIO(everything["lesions.dcm"])).SegmentSequence
    assert [segment.SegmentLabel for segment in segments] == ["Disc haemorrhages", "RNFL defects"]
    assert b"Right eye: severity of glaucoma" in everything["report.dcm"]
    assert "Manifest, grade 2 of 0 to 2" in everything["fhir.json"].decode()
    assert not [name for name, content in everything.items() if b"etinopathy" in content]
