"""Tables of an ablation study: a row for each arm, with its difference to joint training."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from deepmtdr.experiments.study_scores import JOINT, StudyScore
from deepmtdr.rendering.html import Table, table_markdown

DIFFERS = "*"
"""Mark of a difference whose interval does not contain 0."""


def study_tables(scores: Sequence[StudyScore], arms: Sequence[str]) -> Iterator[Table]:
    """Make a table for each task and data set.

    Args:
        scores: result of `StudyScorer.scores`.
        arms: the rows in their order; arms without a score of the table are left out.
    """
    for task, dataset in dict.fromkeys((score.task, score.dataset) for score in scores):
        own = [score for score in scores if (score.task, score.dataset) == (task, dataset)]
        cells = {(score.arm, score.subject, score.score): _cell(score) for score in own}
        columns = list(dict.fromkeys((score.subject, score.score) for score in own))
        rows = [
            (arm, *(cells.get((arm, *column), "") for column in columns))
            for arm in arms
            if any((arm, *column) in cells for column in columns)
        ]
        most = max(own, key=lambda score: score.photographs)
        title = f"{task}, {dataset} ({most.photographs} photographs, {most.patients} patients)"
        yield Table(title, ("arm", *(_head(*column) for column in columns)), rows)


def _head(subject: str, score: str) -> str:
    """Name the score; lesion types have the same score, and are named before it."""
    return score if subject in ("grade", "sr") else f"{subject}, {score}"


def _cell(score: StudyScore) -> str:
    """Format a score: `0.712 (0.701 to 0.723); +0.021 [+0.003, +0.040] *`."""
    values = list(score.values.values())
    if math.isnan(score.mean):
        return "undefined for a seed" if len(values) > 1 else "undefined"
    seeds = f" ({min(values):.3f} to {max(values):.3f})" if len(values) > 1 else ""
    return f"{score.mean:.3f}{seeds}{_difference(score)}"


def _difference(score: StudyScore) -> str:
    found = score.difference
    if found is None or math.isnan(found.value):
        return ""
    bounds = "no interval" if math.isnan(found.low) else f"{found.low:+.3f}, {found.high:+.3f}"
    return f"; {found.value:+.3f} [{bounds}]{' ' + DIFFERS if score.differs else ''}"


def study_markdown(
    recipe: str, seeds: Mapping[str, Sequence[int]], notes: Sequence[str], scores: Sequence[StudyScore]
) -> str:
    """Format the tables in Markdown, after the arms and their seeds.

    Args:
        recipe: name of the recipe.
        seeds: arm -> seeds that are finished; the arms in the order of the rows.
        notes: lines below the first table, such as failures.
        scores: result of `StudyScorer.scores`.
    """
    rows = [(arm, ", ".join(map(str, found))) for arm, found in seeds.items()]
    arms = Table(f"Finished arms of {recipe}", ("arm", "seeds"), rows)
    tables = [table_markdown(table) for table in study_tables(scores, list(seeds))]
    return "\n\n".join([INTRODUCTION, table_markdown(arms), *notes, *tables]) + "\n"


INTRODUCTION = f"""\
Each row is an arm of the study: "{JOINT}" is the recipe, "stage-1" its weights before the joint stage, "separate" the
joint stage without the losses that connect the tasks (Eqs. 4, 5 and 9), the others are ablations
(`deepmtdr.experiments.ablations`). Arms that change only the joint stage start from the same stage-1 weights of their
seed; the others are trained from the start with the same number of steps.

Each cell has the mean over the seeds, in parentheses the lowest and the highest seed, and the difference to "{JOINT}"
(mean over the seeds) with its 95 % interval: a bootstrap that draws patients, the same for both arms and all seeds.
{DIFFERS} marks intervals without 0; where nothing differs, one comparison in twenty is marked by chance. The intervals
describe the choice of photographs; the range describes the seeds. All scored photographs are of held-out patients;
grades are scored within each data set. AUPR is computed from coarse pixel counts, within 0.01 of the exact values in
the `evaluation.json` of each run."""
