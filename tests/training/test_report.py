"""Report of a training run: every number in its place, from the files that exist, with their text escaped."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from deepmtdr.errors import DataError
from deepmtdr.recipe import Recipe, load_recipe, to_dict
from deepmtdr.rendering.step_curve import POINTS
from deepmtdr.training.report import write_report

RUN = {
    "recipe": to_dict(load_recipe("smoke", ["joint.loss.lambda_tv=0.25"])),
    "data": "da7a" * 16,
    "machine": {"device": "a GPU"},
    "parameters": {"isr": 1_500_000, "grading": 2_500_000},
    "stages": [
        {"stage": "grading", "steps": 1200, "seconds": 60.0, "photographs": 9600, "peak_mib": 4096, "best_step": 800,
         "ended": "early"},
        {"stage": "joint", "steps": 60, "seconds": 5400.0, "photographs": 60, "peak_mib": 8192, "best_step": None,
         "ended": "whole"},
    ],
    "weights": "5e1f" * 16,
}  # fmt: skip


class Page(HTMLParser):
    """Text, tags and curves of a report."""

    def __init__(self, out: Path) -> None:
        super().__init__()
        self.text = write_report(out).read_text(encoding="utf-8")
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(self.text)
        self.words = " ".join(self.texts)
        self.curves = [ElementTree.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", self.text, re.DOTALL)]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def named(self, label: str) -> ElementTree.Element:
        (curve,) = (curve for curve in self.curves if str(curve.get("aria-label")).startswith(f"{label}: "))
        return curve


def points(curve: ElementTree.Element, kind: str) -> np.ndarray:
    (line,) = (part for part in curve if part.get("class") == kind)
    return np.array([pair.split(",") for pair in str(line.get("points")).split()], float)


def write_losses(out: Path, rows: Iterable[tuple[Any, ...]], name: str = "metrics.csv", column: str = "term") -> Path:
    out.mkdir(parents=True, exist_ok=True)
    lines = [f"stage,step,{column},value", *(",".join(map(str, row)) for row in rows)]
    (out / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return out


def a_run(out: Path) -> Path:
    """A folder with the losses of three stages, validations, contact sheets and run.json."""
    losses = [("joint", n, term, 1 / (n + 1)) for n in range(60) for term in ("image", "tv")]
    losses += [("restoration", n, "dice", n) for n in range(2)]
    write_losses(out, [*losses, *(("grading", n, "grading", 1.5 - n / 100) for n in range(60))])
    validations = [(400, 48, 0.2), (800, 48, 0.6), (1200, 48, 0.5)]
    rows = [
        ("grading", step, *pair) for step, n, k in validations for pair in (("photographs", n), ("kappa_quadratic", k))
    ]
    write_losses(out, rows, "validation.csv", "score")
    (out / "run.json").write_text(json.dumps(RUN))
    (out / "sheets").mkdir()
    for name in ("grading_000400", "grading_001200", "grading_000800", "joint_000060", "notes"):
        (out / "sheets" / f"{name}.png").write_bytes(b"png")
    return out


def test_curves_are_by_stage_in_the_order_of_training(tmp_path: Path) -> None:
    page = Page(a_run(tmp_path))
    losses = page.words.split("Losses", 1)[1]
    order = [losses.index(text) for text in ("restoration", "grading", "joint", "image loss, Eq. (6)")]
    assert order == sorted(order)
    assert [str(c.get("aria-label")).split(":")[0] for c in page.curves] == [
        "kappa_quadratic", "dice", "grading", "image", "tv",
    ]  # fmt: skip
    labels = {text.text for text in page.named("grading").iter("text")}
    assert {"step", "grading", "1", "1.2", "1.4", "0", "20"} <= labels


def test_a_curve_runs_from_its_first_value_to_its_last(tmp_path: Path) -> None:
    line = points(Page(a_run(tmp_path)).named("grading"), "raw")
    assert len(line) == 60
    assert (np.diff(line[:, 0]) > 0).all() and np.ptp(np.diff(line[:, 0])) <= 0.11, "steps at even distances"
    assert (np.diff(line[:, 1]) > 0).all(), "y grows downwards while the loss falls"


def test_best_validation_has_a_ring_and_is_named(tmp_path: Path) -> None:
    page = Page(a_run(tmp_path))
    curve = page.named("kappa_quadratic")
    (ring,) = (part for part in curve if part.get("class") == "best")
    dots = [part for part in curve if part.get("class") == "dot"]
    assert (ring.get("cx"), ring.get("cy")) == (dots[1].get("cx"), dots[1].get("cy"))
    assert "best 0.6 at step 800, last 0.5" in page.words and "48 photographs" in page.words


def test_cost_parameters_and_fingerprints_are_shown(tmp_path: Path) -> None:
    page = Page(a_run(tmp_path))
    cells = re.findall(r"<td>([^<]*)", page.text)
    grading = ["grading", "1,200", "9,600", "160.00", "60 s", "4,096", "of step 800", "early"]
    joint = ["joint", "60", "60", "0.01", "90 min", "8,192", "the last", "whole"]
    assert cells[:16] == [*grading, *joint]
    assert "4.0 million parameters" in page.words and "1 h" not in page.words.split("in all")[0].split("million")[0]
    for fact in ("a GPU", "da7a" * 16, "5e1f" * 16, "1,500,000"):
        assert fact in cells


def test_settings_that_differ_from_the_default_are_shown(tmp_path: Path) -> None:
    rows = re.findall(r"<tr><td>([^<]*)</td><td>([^<]*)</td><td>([^<]*)</td></tr>", Page(a_run(tmp_path)).text)
    assert ("joint.loss.lambda_tv", str(Recipe().joint.loss.lambda_tv), "0.25") in rows
    assert ("data.frame", "1024", "256") in rows
    assert ("data.datasets", escape("('idrid',)"), escape("('drawings',)")) in rows
    assert not [row for row in rows if row[0] == "restoration.clip"]


def test_values_with_any_text_keep_their_cells(tmp_path: Path) -> None:
    out = a_run(tmp_path)
    recipe = to_dict(load_recipe("smoke", ["data.split=a was b, is c"]))
    (out / "run.json").write_text(json.dumps({**RUN, "recipe": recipe}))
    rows = re.findall(r"<tr><td>([^<]*)</td><td>([^<]*)</td><td>([^<]*)</td></tr>", Page(out).text)
    assert ("data.split", escape("''"), escape("'a was b, is c'")) in rows


def test_recipe_that_cannot_be_read_is_reported(tmp_path: Path) -> None:
    out = a_run(tmp_path)
    (out / "run.json").write_text(json.dumps({**RUN, "recipe": {"name": "future", "diffusion": 3}}))
    page = Page(out)
    assert "The recipe cannot be read: run.json: unknown key diffusion" in page.words
    assert "future: training" in page.words


def test_last_contact_sheet_of_each_stage_is_shown_and_the_others_are_linked(tmp_path: Path) -> None:
    page = Page(a_run(tmp_path))
    shown = [attrs["src"] for tag, attrs in page.tags if tag == "img"]
    assert shown == ["sheets/grading_001200.png", "sheets/joint_000060.png"]
    links = [attrs["href"] for tag, attrs in page.tags if tag == "a"]
    assert links.index("sheets/grading_000400.png") < links.index("sheets/grading_000800.png")
    assert "sheets/notes.png" not in links
    assert {"metrics.csv", "validation.csv", "run.json"} <= set(links)
    assert [link for link in links if not (tmp_path / str(link)).is_file()] == []


def test_report_needs_nothing_from_the_network(tmp_path: Path) -> None:
    page = Page(a_run(tmp_path))
    assert not {"script", "link", "iframe"} & {tag for tag, _ in page.tags}
    assert not re.findall(r"https?://|@import|url\(", page.text)
    assert "prefers-color-scheme: dark" in page.text and "color-scheme: light dark" in page.text
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_losses_alone_give_a_shorter_report(tmp_path: Path) -> None:
    page = Page(write_losses(tmp_path / "my run", [("joint", 0, "image", 0.5), ("joint", 1, "image", 0.4)]))
    assert "my run: training" in page.words and len(page.curves) == 1
    for heading in ("Cost", "Validation", "Contact sheets", "What differs", "Parameters", "Machine"):
        assert heading not in page.words


HUGE = {"stages": [{"seconds": 10**400}], "parameters": {"isr": 10**400}}


@pytest.mark.parametrize("run", [{}, {"stages": [{}], "recipe": None, "parameters": []}, {"stages": None}, HUGE])
def test_parts_missing_in_run_json_are_left_out(tmp_path: Path, run: dict[str, Any]) -> None:
    write_losses(tmp_path, [("joint", 0, "image", 0.5), ("joint", 1, "image", 0.4)])
    (tmp_path / "run.json").write_text(json.dumps(run))
    assert len(Page(tmp_path).curves) == 1


def test_report_of_a_run_without_a_step_has_a_note(tmp_path: Path) -> None:
    assert "No step has been logged." in Page(write_losses(tmp_path, [])).words


def test_missing_losses_are_an_error_that_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"metrics\.csv"):
        write_report(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("row", [("joint", "x", "image", 1), ("joint", 1, "image", "much"), ("joint", 1)])
def test_damaged_row_is_named(tmp_path: Path, row: tuple[Any, ...]) -> None:
    with pytest.raises(DataError, match=r"metrics\.csv, row 3"):
        write_report(write_losses(tmp_path, [("joint", 0, "image", 0.5), row]))


@pytest.mark.parametrize("text", ["{", "[]"])
def test_damaged_run_json_is_named(tmp_path: Path, text: str) -> None:
    write_losses(tmp_path, [])
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(DataError, match=r"run\.json"):
        write_report(tmp_path)


def test_text_from_the_files_is_escaped(tmp_path: Path) -> None:
    bad = "<script>x</script>&\"'"
    out = write_losses(tmp_path, [(bad, n, f"{bad[:-2]}{k}", k * n) for n in range(3) for k in (0, 1)])
    write_losses(out, [(bad, 1, "<b>score", 1)], "validation.csv", "score")
    stage = {"stage": bad, "steps": 1, "seconds": 1, "photographs": 1, "peak_mib": 1, "ended": bad}
    run = {"recipe": {"name": bad, bad: bad}, "machine": {bad: bad}, "parameters": {bad: 1}, "weights": bad}
    (out / "run.json").write_text(json.dumps({**run, "data": bad, "stages": [stage]}))
    (out / "<i>&.txt").write_text("")
    (out / "sheets").mkdir()
    (out / "sheets" / "<u>'&_1.png").write_bytes(b"")
    page = Page(out)
    assert not {"script", "b", "i", "u"} & {tag for tag, _ in page.tags}
    assert page.words.count("<script>x</script>") > 8
    assert "sheets/%3Cu%3E%27%26_1.png" in [attrs.get("src") for _, attrs in page.tags]


def test_long_series_is_thinned_and_keeps_its_peak(tmp_path: Path) -> None:
    values = 1 + 0.1 * np.random.default_rng(0).random(20_000)
    values[12_360] = 9
    page = Page(write_losses(tmp_path, ((("joint"), n, "image", f"{v:.4f}") for n, v in enumerate(values))))
    curve = page.named("image")
    raw, smooth = points(curve, "raw"), points(curve, "smooth")
    assert POINTS // 2 < len(raw) <= POINTS and len(smooth) == POINTS
    peak = raw[:, 1].argmin()
    assert raw[peak, 0] == pytest.approx(raw[0, 0] + 0.618 * (raw[-1, 0] - raw[0, 0]), abs=1)
    assert raw[peak, 1] < np.sort(raw[:, 1])[1] - 100 and len(page.text) < 40_000


def test_constant_value_is_given_in_words(tmp_path: Path) -> None:
    rows = [("joint", n, term, v) for n in range(5) for term, v in (("seg_aware", 0), ("xi", "nan"), ("tv", n))]
    page = Page(write_losses(tmp_path, rows))
    assert "Constant over all steps: seg_aware 0, xi undefined." in page.words
    assert len(page.curves) == 1


def test_zeros_on_a_logarithmic_axis_are_counted(tmp_path: Path) -> None:
    values = [1.0, 0.0, 0.1, 0.0, 0.001]
    page = Page(write_losses(tmp_path, [("joint", n, "unsupervised", v) for n, v in enumerate(values)]))
    assert "logarithmic; 2 steps of 0 count only in the mean" in page.words
