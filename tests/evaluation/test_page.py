"""The page of an evaluation: its numbers are the evaluation's, its curves the judge's, and nothing of it is HTML."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn import metrics as judge

from deepmtdr import checkpoint
from deepmtdr.datasets.split import write_split
from deepmtdr.evaluation import Bootstrap, Evaluation, PhotographResult, evaluate_folder
from deepmtdr.evaluation.curves import (
    MAX_POINTS,
    CurvePoints,
    lesion_curves,
    precision_recall_curve,
    reliability_bins,
    roc_curve,
    thin_curve,
)
from deepmtdr.evaluation.lesions import PooledCurves
from deepmtdr.evaluation.measure import SR, lesion_result
from deepmtdr.evaluation.page import write_page
from deepmtdr.evaluation.run import score_photographs
from deepmtdr.evaluation.scores import ALL
from deepmtdr.evaluation.worst_cases import MAX_CASES, THUMBNAIL_SIDE, make_thumbnails, worst_cases
from deepmtdr.metrics import PooledCurve
from deepmtdr.metrics.calibration import expected_calibration_error
from deepmtdr.model.deepmtdr import DeepMTDR
from deepmtdr.recipe import load_recipe
from deepmtdr.rendering.plots import BOTTOM, LEFT, RIGHT, TOP, WIDTH
from deepmtdr.synthetic.drawings import write_drawings
from deepmtdr.terms import Lesion

PROTOCOL = {
    "weights": "w0",
    "weights_sha256": "5e1f",
    "precision": "fp32",
    "frame": 256,
    "as_lr": 512,
    "bootstrap": {"unit": "patient", "resamples": 50, "seed": 0, "level": 0.95},
    "split": {"side": "test", "sha256": "da7a", "of_the_weights": True},
}
NAME = 'a "<b>" & c'
ESCAPED = "a &quot;&lt;b&gt;&quot; &amp; c"


class Page(HTMLParser):
    """Words and tags of a page, its plots and the cells of its tables."""

    def __init__(self, done: Evaluation, folder: Path) -> None:
        super().__init__()
        self.text = write_page(done, folder).read_text(encoding="utf-8")
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.said: list[str] = []
        self.feed(self.text)
        self.words = " ".join(self.said)
        self.cells = [cell.replace("\xa0", " ") for cell in re.findall(r"<td>([^<]*)</td>", self.text)]
        self.headings = re.findall("<h2>(.*?)</h2>", self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.said.append(data)

    def plot(self, title: str) -> ElementTree.Element:
        found = [ElementTree.fromstring(svg) for svg in re.findall(r'<svg class="curve".*?</svg>', self.text)]
        (plot,) = (svg for svg in found if str(svg.get("aria-label")).startswith(f"{title}: "))
        return plot


def line(plot: ElementTree.Element, kind: str) -> np.ndarray:
    """The points of a line of a square plot, back on axes from 0 to 1."""
    (found,) = (part for part in plot if part.get("class") == kind)
    pixels = np.array([pair.split(",") for pair in str(found.get("points")).split()], float)
    side = WIDTH - LEFT - RIGHT
    assert float(str(plot.get("viewBox")).split()[3]) == side + TOP + BOTTOM
    return np.stack([(pixels[:, 0] - LEFT) / side, 1 - (pixels[:, 1] - TOP) / side])


def graded(count: int = 60, dataset: str = "one", **more: Any) -> list[PhotographResult]:
    rng = np.random.default_rng(count)
    probs, truth = rng.dirichlet(np.ones(5) * 0.7, count), rng.integers(0, 5, count)
    return [
        PhotographResult(dataset=dataset, name=f"n{i}", patient=f"p{i}", grade=int(g), probs=tuple(p.tolist()), **more)
        for i, (p, g) in enumerate(zip(probs, truth, strict=True))
    ]


def pixels(seed: int, lesions: bool = True) -> tuple[np.ndarray, np.ndarray, PooledCurve]:
    rng = np.random.default_rng(seed)
    truth = rng.random(120) < 0.3 * lesions
    probability = np.clip(rng.normal(0.3 + 0.3 * truth, 0.2), 0, 1).astype(np.float32)
    curve = PooledCurve()
    curve.update(probability, truth)
    return probability, truth, curve


def annotated(curves: Sequence[PooledCurve], lesion: Lesion = Lesion.EX) -> tuple[list[PhotographResult], PooledCurves]:
    """A photograph for each of the curves, and all of them pooled."""
    total, measured = PooledCurve(), []
    for number, curve in enumerate(curves):
        total.merge(curve)
        own = {lesion: lesion_result(curve)}
        measured.append(PhotographResult(dataset="one", name=f"n{number}", patient=f"p{number}", lesions=own))
    return measured, {("one", lesion): total}


def evaluation(measured: Sequence[PhotographResult], pooled: PooledCurves | None = None, **more: Any) -> Evaluation:
    return score_photographs(measured, {SR: pooled or {}}, Bootstrap(resamples=50), {**PROTOCOL, **more})


def test_every_score_stands_on_the_page_with_its_interval(tmp_path: Path) -> None:
    image = {f"{s}_{place}_{what}": 30.0 + len(what) for s in ("psnr", "ssim") for place in ("fov", "whole")
             for what in ("sr", "bicubic")}  # fmt: skip
    curves = [pixels(seed)[2] for seed in range(3)]
    lesions, pooled = annotated(curves)
    done = evaluation([*graded(image=image), *lesions], pooled)
    page = Page(done, tmp_path)
    assert len(done.scores) > 25
    for one in done.scores:
        interval = f" [{one.low:.3g}, {one.high:.3g}]" if one.low == one.low else ""
        said = f"{one.value:.4g}{interval}" if one.value == one.value else f"undefined: {one.note}"
        assert said in page.cells, one
    assert page.headings == ["In short", "one", "Worst cases", "Protocol", "What the scores mean"]
    assert not {"script", "link"} & {tag for tag, _ in page.tags} and "http" not in page.text


def test_the_confusion_matrix_has_its_counts_and_the_shares_of_the_row(tmp_path: Path) -> None:
    done = evaluation(graded())
    cells = re.findall(
        r'<td[^>]*--share:([\d.]+)"[^>]*>(\d+)(?:<small>(\d+)%</small>)?</td>', Page(done, tmp_path).text
    )
    counts = np.array([[int(count) for _, count, _ in cells[5 * row : 5 * row + 5]] for row in range(5)])
    assert counts.tolist() == done.confusion["one"]
    shares = counts / counts.sum(axis=1, keepdims=True)
    assert [float(share) for share, _, _ in cells] == pytest.approx(shares.ravel(), abs=0.0051)
    assert [int(percent or 0) for _, _, percent in cells] == pytest.approx(100 * shares.ravel(), abs=0.51)


def test_roc_points_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    scores, positive = rng.random(150).round(2), rng.random(150) < 0.4  # rounded: ties
    alarms, found, _ = judge.roc_curve(positive, scores, drop_intermediate=False)
    points = roc_curve(scores, positive)
    assert points.x == pytest.approx(alarms) and points.y == pytest.approx(found)


def test_the_drawn_roc_is_that_of_the_probabilities_with_its_area_in_the_legend(tmp_path: Path) -> None:
    done = evaluation(graded())
    probs, truth = np.array([m.probs for m in done.results]), np.array([m.grade for m in done.results])
    page = Page(done, tmp_path)
    for number, (least, name) in enumerate([(1, "any"), (2, "referable"), (3, "sight_threatening")]):
        x, y = line(page.plot("ROC"), f"c{number}")
        positive, scores = truth >= least, probs[:, least:].sum(axis=1)
        area = judge.roc_auc_score(positive, scores)
        assert np.trapezoid(y, x) == pytest.approx(area, abs=2e-3)
        (said,) = (s for s in done.scores if s.score == f"auc_{name}")
        assert f"grade {least} or worse: AUC {area:.4g} [{said.low:.3g}, {said.high:.3g}]" in page.words
    assert line(page.plot("ROC"), "even").tolist() == [[0, 1], [0, 1]]


def test_precision_and_recall_are_those_of_scikit_learn(tmp_path: Path) -> None:
    probability, truth, curve = pixels(0)
    precision, recall, _ = judge.precision_recall_curve(truth, probability)
    points = precision_recall_curve(curve)
    assert points.x == pytest.approx(recall[-2::-1]) and points.y == pytest.approx(precision[-2::-1])
    page = Page(evaluation(*annotated([curve])), tmp_path)
    plot = page.plot("Lesions, pixel by pixel")
    assert line(plot, "c0") == pytest.approx(np.stack(points), abs=1e-3)
    assert line(plot, "c0 level")[1] == pytest.approx([truth.mean()] * 2, abs=1e-3)
    area = judge.average_precision_score(truth, probability)
    assert f"hard exudates: AUPR {area:.4g}, prevalence {truth.mean():.2g}" in page.words


def test_pixels_of_several_data_sets_are_drawn_together_too() -> None:
    _, _, one = pixels(0)
    _, _, other = pixels(1)
    curves = lesion_curves({("one", Lesion.MA): one, ("two", Lesion.MA): other, ("two", Lesion.SE): other})
    both = PooledCurve()
    both.merge(one)
    both.merge(other)
    assert curves[ALL, Lesion.MA].y == pytest.approx(thin_curve(precision_recall_curve(both)).y)
    assert curves[ALL, Lesion.SE].y == pytest.approx(curves["two", Lesion.SE].y)


def test_thinning_keeps_the_ends_and_moves_the_area_little() -> None:
    rng = np.random.default_rng(0)
    positive = rng.random(50_000) < 0.2
    whole = roc_curve(rng.normal(positive, 1), positive)
    few = thin_curve(whole)
    assert MAX_POINTS / 2 < few.x.size <= MAX_POINTS
    assert (few.x[0], few.y[0], few.x[-1], few.y[-1]) == (0, 0, 1, 1)
    assert np.trapezoid(few.y, few.x) == pytest.approx(np.trapezoid(whole.y, whole.x), abs=1e-3)
    short = CurvePoints(np.array([0.0, 1]), np.array([0.0, 1]))
    assert thin_curve(short) is short


def test_reliability_bins_are_those_of_the_calibration_error(tmp_path: Path) -> None:
    done = evaluation(graded(500))
    probs, truth = np.array([m.probs for m in done.results]), np.array([m.grade for m in done.results])
    bins = reliability_bins(probs, truth)
    assert sum(one.photographs for one in bins) == 500
    error = sum(one.photographs * abs(one.confidence - one.accuracy) for one in bins) / 500
    assert error == pytest.approx(expected_calibration_error(probs, truth))
    plot = Page(done, tmp_path).plot("Reliability")
    assert line(plot, "smooth") == pytest.approx(np.array([(b.confidence, b.accuracy) for b in bins]).T, abs=1e-3)
    assert [int(str(t.text)) for t in plot if t.get("class") == "count"] == [one.photographs for one in bins]


def test_the_border_of_a_bin_belongs_to_the_lower_one() -> None:
    bins = reliability_bins(np.array([[0.6, 0.4], [0.601, 0.399]]), np.array([0, 1]))
    assert [(one.photographs, one.accuracy) for one in bins] == [(1, 1), (1, 0)]


def test_the_gain_of_every_photograph_is_in_the_histogram(tmp_path: Path) -> None:
    gains = np.random.default_rng(0).normal(1, 1, 40)
    measured = [
        replace(one, image={f"{s}_{place}_{what}": 30 + gain * (what == "sr") for s in ("psnr", "ssim")
                            for place in ("fov", "whole") for what in ("sr", "bicubic")})
        for one, gain in zip(graded(40), gains.tolist(), strict=True)
    ]  # fmt: skip
    page = Page(evaluation(measured), tmp_path)
    plot = page.plot("PSNR gain")
    assert sum(int(str(text.text)) for text in plot if text.get("class") == "count") == 40
    assert f"{(gains > 0).sum()} of 40 photographs gain" in page.words
    assert f"mean {gains.mean():.4g} [" in page.words


def test_an_undefined_score_says_why_and_draws_no_line(tmp_path: Path) -> None:
    healthy = [replace(one, grade=0) for one in graded(8)]
    lesions, pooled = annotated([pixels(0, lesions=False)[2]])
    page = Page(evaluation([*healthy, *lesions], pooled), tmp_path)
    assert "referable, grade 2 or worse: AUC undefined: needs photographs of both kinds, found one" in page.words
    assert "hard exudates: AUPR undefined: no hard exudates on these photographs" in page.words
    for title in ("ROC", "Lesions, pixel by pixel"):
        assert not [part for part in page.plot(title) if str(part.get("class")).startswith("c0")]


def test_a_value_without_an_interval_says_why(tmp_path: Path) -> None:
    alone = [replace(one, patient="p") for one in graded(6)]
    assert "No interval for" in (words := Page(evaluation(alone), tmp_path).words)
    assert re.search(r"accuracy of grade.*: fewer than two patients", words)


def test_worst_cases_are_the_furthest_off_then_the_least_probable() -> None:
    def case(name: str, grade: int, *probs: float) -> PhotographResult:
        return PhotographResult(dataset="one", name=name, patient=name, grade=grade, probs=tuple(map(float, probs)))

    near, far = case("near", 1, 0.6, 0.4, 0, 0, 0), case("far", 4, 0.6, 0, 0, 0, 0.4)
    less, right = case("less", 1, 0.9, 0.1, 0, 0, 0), case("right", 2, 0.1, 0.2, 0.3, 0.2, 0.2)
    failed = PhotographResult(dataset="one", name="failed", patient="f", grade=3, failure="why")
    assert [m.name for m in worst_cases([near, right, less, failed, far])] == ["far", "less", "near"]
    assert len(worst_cases(graded(60))) == MAX_CASES


def test_the_worst_cases_stand_in_a_table_with_their_probabilities(tmp_path: Path) -> None:
    done = evaluation(graded())
    page, worst = Page(done, tmp_path), worst_cases(done.results)
    table = page.text.split("<h2>Worst cases")[1].split("</table>")[0]
    rows = table.split("<tr>")[2:]
    assert [re.findall(r"<br>(.*?)</td>", row) for row in rows] == [[m.name] for m in worst]
    for row, m in zip(rows, worst, strict=True):
        assert re.findall(r">(\d+)%", row) == [f"{p:.0%}"[:-1] for p in m.probs]
        assert re.search(rf"<td>{m.grade}</td><td>{int(np.argmax(m.probs))}</td>", row)
    assert not any(tag == "img" for tag, _ in page.tags)


def test_names_and_reasons_are_shown_as_they_are(tmp_path: Path) -> None:
    odd = [replace(one, dataset=NAME, name=NAME + one.name) for one in graded()]
    failed = PhotographResult(dataset=NAME, name=NAME, patient="p", failure=f"{NAME}: not read")
    done = evaluation([*odd, failed], weights=NAME)
    done.thumbnails[NAME, worst_cases(odd)[0].name] = b"jpeg"
    page = Page(done, tmp_path)
    assert NAME not in page.text and ESCAPED in page.text
    assert "b" not in {tag for tag, _ in page.tags}
    assert f"{NAME}: not read" in page.said and f"{NAME}: evaluation" in page.said
    assert f"<h2>{ESCAPED}</h2>" in page.text


@pytest.mark.parametrize("kind", ["failures", "lesions", "grades", "images", "grades alone", "positive", "nothing"])
def test_what_is_absent_makes_the_page_shorter(kind: str, tmp_path: Path) -> None:
    lesions, pooled = annotated([pixels(0)[2], pixels(1)[2]])
    nothing = PhotographResult(dataset="one", name="n", patient="p")
    image = {f"{s}_{place}_{what}": 1.0 for s in ("psnr", "ssim") for place in ("fov", "whole")
             for what in ("sr", "bicubic")}  # fmt: skip
    alone = [replace(m, grade_only=True, probs=tuple(np.eye(5)[np.argmax(m.probs)].tolist())) for m in graded(20)]
    done = {
        "failures": evaluation([replace(nothing, failure="it is no photograph")]),
        "lesions": evaluation(lesions, pooled),
        "grades": evaluation(graded(20)),
        "images": evaluation([replace(nothing, image=image)]),
        "grades alone": evaluation(alone),
        "positive": evaluation([replace(nothing, positive=n % 3 > 0, p_positive=n / 9) for n in range(9)]),
        "nothing": evaluation([nothing]),
    }[kind]
    page = Page(done, tmp_path)
    plots = [str(a.get("aria-label")).split(":")[0] for _, a in page.tags if a.get("class") == "curve"]
    assert plots == {
        "lesions": ["Lesions, pixel by pixel"],
        "grades": ["ROC", "Reliability"],
        "images": ["PSNR gain"],
        "positive": ["ROC"],
    }.get(kind, [])
    assert ("one" in page.headings) == (kind not in ("failures", "nothing"))
    assert ("Failures" in page.headings) == (kind == "failures") == ("it is no photograph" in page.cells)
    assert ("Worst cases" in page.headings) == ("grades" in kind) == ("true \\ predicted" in page.words)
    assert ("a grade alone" in page.words) == (kind == "grades alone")


def test_the_page_says_what_was_done_and_whether_the_split_is_the_weights_own(tmp_path: Path) -> None:
    done = evaluation([*graded(8), PhotographResult(dataset="two", name="n", patient="p", failure="why")])
    page = Page(done, tmp_path)
    assert "9 photographs of one, two, of which 1 could not be read; the test side of the split that" in page.words
    assert "each field of view reduced to 128 px, then x2 into 256 px" in page.cells
    assert {"fp32", "5e1f", "da7a"} <= set(page.cells)
    assert "It is not known" not in page.words
    del done.protocol["split"]
    assert "no split was given" in (bare := Page(done, tmp_path).words) and "It is not known" in bare
    done.protocol["split"] = {"side": "test", "sha256": "0", "of_the_weights": False}
    assert "a split other than the weights'" in (other := Page(done, tmp_path).words) and "It is not known" in other


def test_evaluate_leaves_a_page_with_pictures_of_the_worst_cases(tmp_path: Path) -> None:
    torch.manual_seed(0)
    recipe, weights, table = load_recipe("smoke"), tmp_path / "weights.safetensors", tmp_path / "split.csv"
    samples = write_drawings(tmp_path / "drawings", [2, 3, 10], size=280)
    write_split(table, {"test": samples})
    checkpoint.save(weights, DeepMTDR(recipe.model).eval(), recipe, weights="own")
    few = Bootstrap(resamples=20)
    done = evaluate_folder(tmp_path, weights=weights, split=table, bootstrap=few, out=tmp_path / "out")
    wrong = worst_cases(done.results)
    assert wrong and set(done.thumbnails) == {(m.dataset, m.name) for m in wrong}
    for picture in done.thumbnails.values():
        image = Image.open(io.BytesIO(picture))
        assert (image.format, image.size) == ("JPEG", (THUMBNAIL_SIDE, THUMBNAIL_SIDE))
        assert np.asarray(image)[THUMBNAIL_SIDE // 2, THUMBNAIL_SIDE // 2, 0] > 60, (
            "the field of view, not the dark around it"
        )
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/jpeg;base64,") == len(wrong)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["evaluation.json", "predictions.csv", "report.html"]
    evaluate_folder(tmp_path, weights=weights, split=table, bootstrap=few, out=tmp_path / "bare", pictures=False)
    assert "<img" not in (tmp_path / "bare" / "report.html").read_text(encoding="utf-8")


def test_a_photograph_that_is_gone_has_no_picture_and_stops_nothing(tmp_path: Path) -> None:
    first, second = write_drawings(tmp_path / "drawings", [2, 10], size=280)
    first.photograph.unlink()
    cases = [PhotographResult(dataset=s.dataset, name=s.name, patient=s.patient) for s in (first, second)]
    assert set(make_thumbnails([first, second], cases)) == {(second.dataset, second.name)}
