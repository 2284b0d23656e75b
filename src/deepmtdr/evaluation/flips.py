"""Does the prediction change if the photograph is mirrored or turned? Nothing on the retina does.

Each photograph is predicted in its eight turns. Agreement needs no labels, so photographs without a grade count too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from deepmtdr.evaluation.framed_photograph import to_batch
from deepmtdr.evaluation.measure import predict_frame
from deepmtdr.evaluation.photograph_result import FlipResult, PhotographResult
from deepmtdr.evaluation.scores import Bootstrap, Score, ScoreKey, ScoreTable, group_for_grades, score_row
from deepmtdr.grade_decision import MOST_PROBABLE, GradeDecision
from deepmtdr.metrics.intervals import mean_or_nan
from deepmtdr.model.deepmtdr import DeepMTDR
from deepmtdr.photographs.turns import TURNS, turn

SUBJECT = "grade"


class _Values(NamedTuple):
    """Values of one photograph, whose means are the scores."""

    same_grade_all_turns: float
    agrees_with_upright: float
    p_referable_difference: float


def predict_turns(
    model: DeepMTDR,
    lr: UInt8[np.ndarray, "s s 3"],
    scale: int,
    *,
    bf16: bool = False,
    decision: GradeDecision = MOST_PROBABLE,
) -> FlipResult:
    """Predict the eight turns of a photograph.

    Args:
        model: the network, in evaluation mode.
        lr: input of the network, RGB.
        scale: factor by which it is enlarged to the frame.
        bf16: compute convolutions in bfloat16.
        decision: see `Checkpoint.decision`.

    Raises:
        CheckpointError: if the network returns a value that is not finite.
    """
    grades, referable = [], []
    for number in range(TURNS):
        prediction = predict_frame(model, to_batch(turn(lr, number)), scale, bf16=bf16, decision=decision)
        probs = prediction.grade_logits[0].cpu().double().softmax(dim=0).numpy()
        grades.append(decision.grade(probs))
        referable.append(float(probs[model.labels.referable_from :].sum()))
    return FlipResult(tuple(grades), tuple(referable))


def flip_scores(measured: Sequence[PhotographResult], bootstrap: Bootstrap) -> list[Score]:
    """Compute the scores of flip consistency for each data set, and their means.

    Args:
        measured: photographs; those with `flips` are used.
        bootstrap: how intervals are computed.

    Returns:
        `same_grade_all_turns`: fraction of photographs with the same grade in all eight turns. `agrees_with_upright`:
        fraction of the seven other turns with the grade of the upright photograph, mean. `p_referable_difference`: mean
        absolute difference of P(referable) between these turns and the upright photograph.
    """
    rows = []
    for dataset, group in group_for_grades([m for m in measured if m.flips is not None]):
        values = np.array([_values(m.flips) for m in group if m.flips is not None])
        key = ScoreKey(ScoreTable.FLIPS, dataset, SUBJECT)
        for name, of_photographs in zip(_Values._fields, values.T, strict=True):
            rows.append(score_row(key, name, mean_or_nan, group, [of_photographs], bootstrap, ""))
    return rows


def _values(flips: FlipResult) -> _Values:
    grades, referable = np.array(flips.grades), np.array(flips.p_referable)
    same = grades[1:] == grades[0]
    return _Values(float(same.all()), float(same.mean()), float(np.abs(referable[1:] - referable[0]).mean()))
