"""Without maps ("W/O vis"): DR scores are compared instead of evidence maps. Table V and Sec. V-C.

Published: "removing the GMSV algorithm and directly using DR scores as the classification-aware loss".

Assumed: Eq. (5) becomes the squared difference of the scores y_DR of SR and HR, each through a sigmoid, so that it is
between 0 and 1, as the difference of two masks is, and lambda_ca has the same meaning. No threshold: two scores that
are both above or both below it would count as equal and train nothing. No Eq. (9), whose pseudo ground truth was the
map.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from deepmtdr.model.grading import dr_score
from deepmtdr.model.interfaces import Grader, Prediction, ScoreOnlyEvidence


class WithoutMaps(ScoreOnlyEvidence):
    """The DR score as evidence, without a location."""

    def __call__(
        self, grader: Grader, prediction: Prediction, *, create_graph: bool = False
    ) -> Float[Tensor, "b 1 H W"]:
        """Return the score, through a sigmoid, in every pixel; always differentiable."""
        return _sigmoid_score(prediction)[:, None, None, None].expand_as(prediction.lesion_region)

    def loss(self, on_sr: Prediction, on_hr: Prediction) -> Float[Tensor, ""]:
        """Compute Eq. (5) without maps: mean squared difference of the scores of the SR and the HR image (detached)."""
        return F.mse_loss(_sigmoid_score(on_sr), _sigmoid_score(on_hr).detach())


def _sigmoid_score(prediction: Prediction) -> Float[Tensor, " b"]:
    return dr_score(prediction.grade_logits).sigmoid()
