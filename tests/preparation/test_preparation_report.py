"""The report on a prepared set: counts, findings, HTML page."""

from __future__ import annotations

import csv
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from dataset_trees import MASKS, write_table
from deepmtdr.preparation.report import FINDINGS_NAME, PreparationResult, prepare_and_report
from drawings import draw_idrid
from image_files import write_mask, write_photograph

SHARES = {"train": 0.6, "test": 0.4}


def own_folder(root: Path, *rows: str) -> Path:
    for n, name in enumerate("abcd"):
        write_photograph(root / f"{name}.png", tint=20 * n)
    write_table(root / "photographs.csv", "path,grade,patient,side,MA,SE", *rows)
    return root


def report(root: Path, name: str = "folder") -> PreparationResult:
    return prepare_and_report(name, root, root.parent / "out", size=64, shares=SHARES, workers=1)


def kinds(done: PreparationResult) -> dict[str, int]:
    found = [finding.kind for finding in done.findings]
    return {kind: found.count(kind) for kind in dict.fromkeys(found)}


class Text(HTMLParser):
    """The text of a page."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.words: list[str] = []
        self.feed(page.read_text(encoding="utf-8"))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_counts_are_beside_the_official_ones(tmp_path: Path) -> None:
    done = report(draw_idrid(tmp_path / "idrid"), "idrid")
    counts = next(table for table in done.tables if table.title == "Counts")
    assert [row[:3] for row in counts.rows[:2]] == [("A. Segmentation, training", "official", "54"), ("", "here", "3")]
    assert kinds(done)["counts"] == 2 and kinds(done)["no_fov"] == 1
    assert "A. Segmentation, training: photographs 3, official 54" in done.findings[0].detail
    words = Text(done.page).words
    assert "9 of 9 photographs" not in " ".join(words) and any("8 of 9 photographs prepared" in word for word in words)


def test_page_of_a_folder_without_problems_has_no_finding(tmp_path: Path) -> None:
    write_mask(tmp_path / "m.png")
    root = own_folder(tmp_path / "mine", "a.png,2,P1,,../m.png,none", "b.png,0,P1,,,", "c.png,1,P2,,,")
    root.joinpath("d.png").unlink()
    for n, name in enumerate("abc"):  # the lit circles of the other tests look alike
        pattern = Image.effect_noise((100, 100), 90 + n).resize((140, 120))
        plain = Image.open(root / f"{name}.png").convert("RGB")
        Image.composite(plain, Image.new("RGB", plain.size), plain.getchannel("R").point(lambda v: 255 * (v > 60)))
        Image.blend(plain, Image.merge("RGB", [pattern.resize(plain.size)] * 3), 0.2).save(root / f"{name}.png")
    done = report(root)
    assert kinds(done) == {}
    assert any("no labels contradict" in word for word in Text(done.page).words)


def test_every_finding_is_on_the_page_and_in_the_table(tmp_path: Path) -> None:
    write_mask(tmp_path / "wrong.png", (50, 50))
    write_mask(tmp_path / "black.png", value=0)
    rows = ("a.png,2,P1,train,../black.png,none", "b.png,0,P1,test,,", "c.png,1,P2,train,../wrong.png,", "d.png,,,,,")
    root = own_folder(tmp_path / "mine", *rows)
    (root / "d.png").write_bytes(b"<b>no photograph</b>")
    done = report(root)
    assert kinds(done) == {**dict.fromkeys(("unreadable", "bad_mask", "black_masks"), 1), **kinds(done)}
    assert {"near_duplicate", "conflict", "duplicate_across", "patient_across"} < set(kinds(done))
    with (done.page.parent / FINDINGS_NAME).open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["kind"] for row in table] == [finding.kind for finding in done.findings]
    words = " ".join(Text(done.page).words)
    assert all(finding.detail in words for finding in done.findings)
    assert "<b>no" not in done.page.read_text(encoding="utf-8")


def test_split_of_the_manifest_keeps_patients_together(tmp_path: Path) -> None:
    done = report(draw_idrid(tmp_path / "idrid"), "idrid")
    splits = {row.patient: row.split for row in done.prepared.rows}
    assert set(splits.values()) == {"train", "test"}
    assert all(splits[row.patient] == row.split for row in done.prepared.rows)


@pytest.mark.parametrize("again", [False, True])
def test_report_is_the_same_byte_for_byte(tmp_path: Path, again: bool) -> None:
    root = draw_idrid(tmp_path / "idrid")
    done = report(root, "idrid")
    before = [path.read_bytes() for path in (done.page, done.page.parent / FINDINGS_NAME)]
    if not again:
        (root.parent / "out").rename(tmp_path / "first")
    done = report(root, "idrid")
    assert [path.read_bytes() for path in (done.page, done.page.parent / FINDINGS_NAME)] == before


def test_masks_that_overlap_are_found(tmp_path: Path) -> None:
    root = draw_idrid(tmp_path / "idrid")
    with Image.open(next(root.rglob("IDRiD_04.jpg"))) as image:
        shape = image.height, image.width
    for name in ("2. Haemorrhages/IDRiD_04_HE.tif", "4. Soft Exudates/IDRiD_04_SE.tif"):
        write_mask(root / MASKS / name, shape)
    (found,) = [finding for finding in report(root, "idrid").findings if finding.kind == "overlap"]
    assert found.photographs == ("IDRiD_04",)
