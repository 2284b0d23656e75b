"""Inference with PyTorch on the CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8

from deepmtdr import checkpoint as checkpoints
from deepmtdr.errors import CheckpointError
from deepmtdr.model.precision import resolve_precision
from deepmtdr.model.preprocessing import image_to_tensor, tensor_to_image
from deepmtdr.screening.predictor import Findings, PredictorInfo


class TorchPredictor:
    """A `Predictor` that runs a checkpoint of deepmtdr with PyTorch."""

    def __init__(self, checkpoint: checkpoints.Checkpoint, precision: str = "auto") -> None:
        """Prepare a loaded checkpoint for inference.

        Args:
            checkpoint: the network with its recipe and card; the card's calibration is used.
            precision: number format of the convolutions, one of `PRECISIONS`.

        Raises:
            CheckpointError: if the card's calibration is invalid, or the network lacks segmentation or grading.
            ValueError: if the precision is unknown.
        """
        number_format = resolve_precision(precision)
        _check_tasks(checkpoint)
        # Channels-last memory: on CPUs it saves a third of the time of convolutions, in bfloat16 half.
        self.model = checkpoint.model.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.bf16 = number_format == "bf16"
        self.info = PredictorInfo(
            weights=f"{checkpoint.name}-{checkpoint.digest[:12]}",
            precision=number_format,
            labels=checkpoint.labels,
            frame=checkpoint.recipe.data.frame,
            decision=checkpoint.decision,
            operating_point=checkpoint.operating_point,
        )

    @classmethod
    def load(
        cls, weights: Path | None = None, *, precision: str = "auto", threads: int | None = None
    ) -> TorchPredictor:
        """Load the shipped weights, or those of a file.

        Args:
            weights: a `.safetensors` checkpoint of deepmtdr; None: the shipped weights.
            precision: number format of the convolutions, one of `PRECISIONS`.
            threads: number of PyTorch's threads, for the whole process; None: unchanged.

        Raises:
            CheckpointError: if the weights are missing, damaged, of another architecture, or not of all three tasks.
            ValueError: if the precision is unknown.
        """
        if threads is not None:
            torch.set_num_threads(threads)
        return cls(checkpoints.load(weights), precision)

    def predict(self, lr: UInt8[np.ndarray, "h h 3"], scale: int) -> Findings:
        """Super-resolve, segment and grade one photograph (see `Predictor.predict`)."""
        image = image_to_tensor(lr)[None].to(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            prediction, evidence = self.model.predict(image, scale)
        return Findings(
            sr=tensor_to_image(prediction.sr[0].float()),
            lesions=prediction.lesions[0].float().clamp(0, 1).numpy(),
            grade_logits=prediction.grade_logits[0].float().numpy(),
            evidence=evidence[0, 0].float().clamp(0, 1).numpy(),
        )


def _check_tasks(checkpoint: checkpoints.Checkpoint) -> None:
    model = checkpoint.model
    if not (model.has_grading and model.has_segmentation):
        found = "grades, but does not segment lesions" if model.has_grading else "does not grade"
        raise CheckpointError(
            f"found weights of {checkpoint.recipe.system}, which {found}; expected a system that does both"
        )
