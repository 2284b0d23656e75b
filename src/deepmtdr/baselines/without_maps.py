"""Without maps ("W/O vis"), Table V and Sec. V-C: DR scores are compared instead of evidence.

Published: "removing the GMSV algorithm and directly using DR scores as the classification-aware loss". Assumed: Eq. (5)
is then the squared difference of the scores y_DR of SR and HR, through a sigmoid, so that it lies between 0 and 1
as the difference of two masks does and lambda_ca means the same; no threshold, behind which two scores on the same side
would be equal and teach nothing; no Eq. (9), whose pseudo ground truth was the map.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from deepmtdr.model.deepmtdr import DeepMTDR, Prediction
from deepmtdr.model.grading import dr_score


class WithoutMaps:
    """An `EvidenceMethod` that says how much spoke for DR, and not where."""

    def __call__(
        self, model: DeepMTDR, prediction: Prediction, *, create_graph: bool = False
    ) -> Float[Tensor, "b 1 H W"]:
        """The score, through a sigmoid, in every pixel.

        Args:
            model: not asked again.
            prediction: what it said of the photographs.
            create_graph: nothing depends on it: the score is differentiable as it is.
        """
        return _share(prediction)[:, None, None, None].expand_as(prediction.lesion_region)

    def loss(self, on_sr: Prediction, on_hr: Prediction) -> Float[Tensor, ""]:
        """Eq. (5) without maps: mean squared difference of the scores of the super-resolved and of the HR image.

        Args:
            on_sr: what was said of the SR images.
            on_hr: what was said of the HR images: the target, detached.
        """
        return F.mse_loss(_share(on_sr), _share(on_hr).detach())


def _share(prediction: Prediction) -> Float[Tensor, " b"]:
    return dr_score(prediction.grade_logits).sigmoid()
