"""The page of an evaluation: its numbers, its curves against scikit-learn, and that all text is escaped."""

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
from sklearn import metrics as reference

from deepmtdr import checkpoint
from deepmtdr.datasets.split import write_split
from deepmtdr.errors import DataError
from deepmtdr.evaluation import (
    Bootstrap,
    Evaluation,
    EvaluationConfig,
    InputImage,
    PhotographResult,
    ReportConfig,
    SampleSelection,
    evaluate_folder,
)
from deepmtdr.evaluation.curves import (
    MAX_POINTS,
    CurvePoints,
    lesion_curves,
    precision_recall_curve,
    roc_curve,
    thin_curve,
)
from deepmtdr.evaluation.lesions import PooledCurves
from deepmtdr.evaluation.measure import lesion_result
from deepmtdr.evaluation.page import write_page
from deepmtdr.evaluation.run import score_photographs
from deepmtdr.evaluation.scores import ALL
from deepmtdr.evaluation.worst_cases import MAX_CASES, THUMBNAIL_SIDE, make_thumbnails, worst_cases
from deepmtdr.labels import GradeLabel, LabelSet, LesionType
from deepmtdr.metrics import PooledCurve
from deepmtdr.metrics.calibration import reliability_bins
from deepmtdr.model.deepmtdr import DeepMTDR
from deepmtdr.recipe import load_recipe
from deepmtdr.rendering.plots import BOTTOM, LEFT, RIGHT, TOP, WIDTH
from deepmtdr.synthetic.drawings import write_drawings

PROTOCOL = {
    "weights": "w0",
    "weights_sha256": "5e1f",
    "precision": "fp32",
    "frame": 256,
    "as_lr": 128,
    "bootstrap": {"unit": "patient", "resamples": 50, "seed": 0, "level": 0.95},
    "split": {"side": "test", "sha256": "da7a", "of_the_weights": True},
}
NAME = 'a "<b>" & c'
ESCAPED = "a &quot;&lt;b&gt;&quot; &amp; c"


class Page(HTMLParser):
    """Text and tags of a page, its plots and the cells of its tables."""

    def __init__(self, done: Evaluation, folder: Path) -> None:
        super().__init__()
        self.text = write_page(done, folder).read_text(encoding="utf-8")
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(self.text)
        self.words = " ".join(self.texts)
        self.cells = [cell.replace("\xa0", " ") for cell in re.findall(r"<td>([^<]*)</td>", self.text)]
        self.headings = re.findall("<h2>(.*?)</h2>", self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def plot(self, title: str) -> ElementTree.Element:
        found = [ElementTree.fromstring(svg) for svg in re.findall(r'<svg class="curve".*?</svg>', self.text)]
        (plot,) = (svg for svg in found if str(svg.get("aria-label")).startswith(f"{title}: "))
        return plot


def line(plot: ElementTree.Element, kind: str) -> np.ndarray:
    """The points of a line of a square plot, in the coordinates of its axes from 0 to 1."""
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


def annotated(curves: Sequence[PooledCurve], code: str = "EX") -> tuple[list[PhotographResult], PooledCurves]:
    """One photograph for each curve, and all curves pooled."""
    total, measured = PooledCurve(), []
    for number, curve in enumerate(curves):
        total.merge(curve)
        own = {code: lesion_result(curve)}
        measured.append(PhotographResult(dataset="one", name=f"n{number}", patient=f"p{number}", lesions=own))
    return measured, {("one", code): total}


def evaluation(measured: Sequence[PhotographResult], pooled: PooledCurves | None = None, **more: Any) -> Evaluation:
    return score_photographs(measured, {InputImage.SR: pooled or {}}, Bootstrap(resamples=50), {**PROTOCOL, **more})


def test_page_has_every_score_with_its_interval(tmp_path: Path) -> None:
    image = {f"{s}_{place}_{what}": 30.0 + len(what) for s in ("psnr", "ssim") for place in ("fov", "whole")
             for what in ("sr", "bicubic")}  # fmt: skip
    curves = [pixels(seed)[2] for seed in range(3)]
    lesions, pooled = annotated(curves)
    done = evaluation([*graded(image=image), *lesions], pooled)
    page = Page(done, tmp_path)
    assert len(done.scores) > 25
    for one in done.scores:
        interval = f" [{one.low:.3g}, {one.high:.3g}]" if one.low == one.low else ""
        cell = f"{one.value:.4g}{interval}" if one.value == one.value else f"undefined: {one.note}"
        assert cell in page.cells, one
    assert page.headings == ["Summary", "one", "Worst cases", "Protocol", "Meaning of the scores"]
    assert not {"script", "link"} & {tag for tag, _ in page.tags} and "http" not in page.text


def test_confusion_matrix_has_counts_and_row_shares(tmp_path: Path) -> None:
    done = evaluation(graded())
    cells = re.findall(
        r'<td[^>]*--share:([\d.]+)"[^>]*>(\d+)(?:<small>(\d+)%</small>)?</td>', Page(done, tmp_path).text
    )
    counts = np.array([[int(count) for _, count, _ in cells[5 * row : 5 * row + 5]] for row in range(5)])
    assert counts.tolist() == done.confusion["one"]
    shares = counts / counts.sum(axis=1, keepdims=True)
    assert [float(share) for share, _, _ in cells] == pytest.approx(shares.ravel(), abs=0.0051)
    assert [int(percent or 0) for _, _, percent in cells] == pytest.approx(100 * shares.ravel(), abs=0.51)


def test_roc_points_agree_with_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    scores, positive = rng.random(150).round(2), rng.random(150) < 0.4  # rounded: ties
    alarms, found, _ = reference.roc_curve(positive, scores, drop_intermediate=False)
    points = roc_curve(scores, positive)
    assert points.x == pytest.approx(alarms) and points.y == pytest.approx(found)


def test_drawn_roc_curve_has_the_area_of_the_legend(tmp_path: Path) -> None:
    done = evaluation(graded())
    probs, truth = np.array([m.probs for m in done.results]), np.array([m.grade for m in done.results])
    page = Page(done, tmp_path)
    for number, (least, name) in enumerate([(1, "any"), (2, "referable"), (3, "sight_threatening")]):
        x, y = line(page.plot("ROC"), f"c{number}")
        positive, scores = truth >= least, probs[:, least:].sum(axis=1)
        area = reference.roc_auc_score(positive, scores)
        assert np.trapezoid(y, x) == pytest.approx(area, abs=2e-3)
        (found,) = (s for s in done.scores if s.score == f"auc_{name}")
        assert f"grade {least} or worse: AUC {area:.4g} [{found.low:.3g}, {found.high:.3g}]" in page.words
    assert line(page.plot("ROC"), "even").tolist() == [[0, 1], [0, 1]]


def test_precision_and_recall_agree_with_scikit_learn(tmp_path: Path) -> None:
    probability, truth, curve = pixels(0)
    precision, recall, _ = reference.precision_recall_curve(truth, probability)
    points = precision_recall_curve(curve)
    assert points.x == pytest.approx(recall[-2::-1]) and points.y == pytest.approx(precision[-2::-1])
    page = Page(evaluation(*annotated([curve])), tmp_path)
    plot = page.plot("Lesions, pixel by pixel")
    assert line(plot, "c0") == pytest.approx(np.stack(points), abs=1e-3)
    assert line(plot, "c0 level")[1] == pytest.approx([truth.mean()] * 2, abs=1e-3)
    area = reference.average_precision_score(truth, probability)
    assert f"hard exudates: AUPR {area:.4g}, prevalence {truth.mean():.2g}" in page.words


def test_pixels_of_several_data_sets_have_a_common_curve() -> None:
    _, _, one = pixels(0)
    _, _, other = pixels(1)
    curves = lesion_curves({("one", "MA"): one, ("two", "MA"): other, ("two", "SE"): other})
    both = PooledCurve()
    both.merge(one)
    both.merge(other)
    assert curves[ALL, "MA"].y == pytest.approx(thin_curve(precision_recall_curve(both)).y)
    assert curves[ALL, "SE"].y == pytest.approx(curves["two", "SE"].y)


def test_thinning_keeps_the_ends_and_nearly_the_area() -> None:
    rng = np.random.default_rng(0)
    positive = rng.random(50_000) < 0.2
    whole = roc_curve(rng.normal(positive, 1), positive)
    few = thin_curve(whole)
    assert MAX_POINTS / 2 < few.x.size <= MAX_POINTS
    assert (few.x[0], few.y[0], few.x[-1], few.y[-1]) == (0, 0, 1, 1)
    assert np.trapezoid(few.y, few.x) == pytest.approx(np.trapezoid(whole.y, whole.x), abs=1e-3)
    short = CurvePoints(np.array([0.0, 1]), np.array([0.0, 1]))
    assert thin_curve(short) is short


def test_reliability_plot_shows_the_bins(tmp_path: Path) -> None:
    done = evaluation(graded(500))
    probs, truth = np.array([m.probs for m in done.results]), np.array([m.grade for m in done.results])
    bins = reliability_bins(probs, truth)
    plot = Page(done, tmp_path).plot("Reliability")
    assert line(plot, "smooth") == pytest.approx(np.array([(b.confidence, b.accuracy) for b in bins]).T, abs=1e-3)
    assert [int(str(t.text)) for t in plot if t.get("class") == "count"] == [one.photographs for one in bins]


def test_histogram_contains_the_gain_of_every_photograph(tmp_path: Path) -> None:
    gains = np.random.default_rng(0).normal(1, 1, 40)
    measured = [
        replace(one, image={f"{s}_{place}_{what}": 30 + gain * (what == "sr") for s in ("psnr", "ssim")
                            for place in ("fov", "whole") for what in ("sr", "bicubic")})
        for one, gain in zip(graded(40), gains.tolist(), strict=True)
    ]  # fmt: skip
    page = Page(evaluation(measured), tmp_path)
    plot = page.plot("PSNR gain")
    assert sum(int(str(text.text)) for text in plot if text.get("class") == "count") == 40
    assert f"higher than bicubic on {(gains > 0).sum()} of 40 photographs" in page.words
    assert f"mean {gains.mean():.4g} [" in page.words


def test_undefined_score_has_its_reason_and_no_line(tmp_path: Path) -> None:
    healthy = [replace(one, grade=0) for one in graded(8)]
    lesions, pooled = annotated([pixels(0, lesions=False)[2]])
    page = Page(evaluation([*healthy, *lesions], pooled), tmp_path)
    assert (
        "referable, grade 2 or worse: AUC undefined: needs both positive and negative photographs, found one kind only"
        in page.words
    )
    assert "hard exudates: AUPR undefined: no hard exudates on these photographs" in page.words
    for title in ("ROC", "Lesions, pixel by pixel"):
        assert not [part for part in page.plot(title) if str(part.get("class")).startswith("c0")]


def test_value_without_interval_has_its_reason(tmp_path: Path) -> None:
    alone = [replace(one, patient="p") for one in graded(6)]
    assert "No interval for" in (words := Page(evaluation(alone), tmp_path).words)
    assert re.search(r"accuracy of grade.*: fewer than two patients", words)


def test_worst_cases_are_ordered_by_error_then_probability() -> None:
    def case(name: str, grade: int, *probs: float) -> PhotographResult:
        return PhotographResult(dataset="one", name=name, patient=name, grade=grade, probs=tuple(map(float, probs)))

    near, far = case("near", 1, 0.6, 0.4, 0, 0, 0), case("far", 4, 0.6, 0, 0, 0, 0.4)
    less, right = case("less", 1, 0.9, 0.1, 0, 0, 0), case("right", 2, 0.1, 0.2, 0.3, 0.2, 0.2)
    failed = PhotographResult(dataset="one", name="failed", patient="f", grade=3, failure="why")
    assert [m.name for m in worst_cases([near, right, less, failed, far])] == ["far", "less", "near"]
    assert len(worst_cases(graded(60))) == MAX_CASES


def test_worst_cases_are_shown_with_their_probabilities(tmp_path: Path) -> None:
    done = evaluation(graded())
    page, worst = Page(done, tmp_path), worst_cases(done.results)
    table = page.text.split("<h2>Worst cases")[1].split("</table>")[0]
    rows = table.split("<tr>")[2:]
    assert [re.findall(r"<br>(.*?)</td>", row) for row in rows] == [[m.name] for m in worst]
    for row, m in zip(rows, worst, strict=True):
        assert re.findall(r">(\d+)%", row) == [f"{p:.0%}"[:-1] for p in m.probs]
        assert re.search(rf"<td>{m.grade}</td><td>{int(np.argmax(m.probs))}</td>", row)
    assert not any(tag == "img" for tag, _ in page.tags)


def test_names_and_reasons_are_escaped(tmp_path: Path) -> None:
    odd = [replace(one, dataset=NAME, name=NAME + one.name) for one in graded()]
    failed = PhotographResult(dataset=NAME, name=NAME, patient="p", failure=f"{NAME}: damaged")
    done = evaluation([*odd, failed], weights=NAME)
    done.thumbnails[NAME, worst_cases(odd)[0].name] = b"jpeg"
    page = Page(done, tmp_path)
    assert NAME not in page.text and ESCAPED in page.text
    assert "b" not in {tag for tag, _ in page.tags}
    assert f"{NAME}: damaged" in page.texts and f"{NAME}: evaluation" in page.texts
    assert f"<h2>{ESCAPED}</h2>" in page.text


@pytest.mark.parametrize("kind", ["failures", "lesions", "grades", "images", "grades alone", "positive", "nothing"])
def test_page_leaves_out_what_is_absent(kind: str, tmp_path: Path) -> None:
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
    assert ("no probabilities" in page.words) == (kind == "grades alone")


def test_page_shows_the_protocol_and_warns_about_training_photographs(tmp_path: Path) -> None:
    done = evaluation([*graded(8), PhotographResult(dataset="two", name="n", patient="p", failure="why")])
    page = Page(done, tmp_path)
    assert (
        "9 photographs of one, two, 1 of them without prediction; the test photographs of the split file of the"
        in page.words
    )
    assert "each field of view reduced to 128 px, then x2 to 256 px" in page.cells
    assert {"fp32", "5e1f", "da7a"} <= set(page.cells)
    assert "may have been trained" not in page.words
    del done.protocol["split"]
    assert "no split file was given" in (bare := Page(done, tmp_path).words) and "may have been trained" in bare
    done.protocol["split"] = {"side": "test", "sha256": "0", "of_the_weights": False}
    assert "a split file that is not that of" in (other := Page(done, tmp_path).words)
    assert "may have been trained" in other


def test_evaluation_writes_a_page_with_pictures_of_the_worst_cases(tmp_path: Path) -> None:
    torch.manual_seed(0)
    recipe, weights, table = load_recipe("smoke"), tmp_path / "weights.safetensors", tmp_path / "split.csv"
    samples = write_drawings(tmp_path / "drawings", [2, 3, 10], size=280)
    write_split(table, {"test": samples})
    checkpoint.save(weights, DeepMTDR(recipe.model).eval(), recipe, weights="own")
    config = EvaluationConfig(bootstrap=Bootstrap(resamples=20), thorough=False, slow_metrics=False)
    selection, report = SampleSelection(data=tmp_path, split_file=table), ReportConfig(out=tmp_path / "out")
    done = evaluate_folder(selection, weights, config=config, report=report)
    wrong = worst_cases(done.results)
    assert wrong and set(done.thumbnails) == {(m.dataset, m.name) for m in wrong}
    for picture in done.thumbnails.values():
        image = Image.open(io.BytesIO(picture))
        assert (image.format, image.size) == ("JPEG", (THUMBNAIL_SIDE, THUMBNAIL_SIDE))
        assert np.asarray(image)[THUMBNAIL_SIDE // 2, THUMBNAIL_SIDE // 2, 0] > 60, (
            "the field of view fills the picture"
        )
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/jpeg;base64,") == len(wrong)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["evaluation.json", "predictions.csv", "report.html"]
    evaluate_folder(selection, weights, config=config, report=ReportConfig(out=tmp_path / "bare", pictures=False))
    assert "<img" not in (tmp_path / "bare" / "report.html").read_text(encoding="utf-8")


def test_missing_photograph_has_no_picture(tmp_path: Path) -> None:
    first, second = write_drawings(tmp_path / "drawings", [2, 10], size=280)
    first.photograph.unlink()
    cases = [PhotographResult(dataset=s.dataset, name=s.name, patient=s.patient) for s in (first, second)]
    assert set(make_thumbnails([first, second], cases)) == {(second.dataset, second.name)}


def test_page_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file/report\.html: cannot be written"):
        write_page(evaluation(graded(4)), tmp_path / "file")


def test_page_follows_another_label_set(tmp_path: Path) -> None:
    labels = LabelSet(
        name="macula",
        disease="macular degeneration",
        lesions=(LesionType(code="DRU", name="drusen"),),
        grades=(GradeLabel(name="none"), GradeLabel(name="early"), GradeLabel(name="late & <wet>")),
        thresholds={"any": 1, "referable": 2},
    )
    measured, pooled = annotated([pixels(0)[2], pixels(1)[2]], "DRU")
    measured = [
        replace(m, grade=grade, probs=probs)
        for m, grade, probs in zip(measured, (0, 2), ((0.2, 0.7, 0.1), (0.1, 0.2, 0.7)), strict=True)
    ]
    done = score_photographs(measured, {InputImage.SR: pooled}, Bootstrap(resamples=50), PROTOCOL, labels)
    page = Page(done, tmp_path)
    assert "any macular degeneration, grade 1 or worse" in page.words and "drusen: AUPR" in page.words
    assert "2 late &amp; &lt;wet&gt;" in page.text
    assert "<th>p2</th>" in page.text and "<th>p3</th>" not in page.text
