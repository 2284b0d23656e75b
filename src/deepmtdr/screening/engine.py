"""The door for users: one photograph in, one ScreeningReport out (Sec. I, Fig. 6)."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from scipy import ndimage

from deepmtdr import __version__
from deepmtdr import checkpoint as checkpoints
from deepmtdr.errors import CheckpointError, NoFieldOfViewError, PhotographError, UngradableError
from deepmtdr.files import printable_path
from deepmtdr.photographs.decode import (
    FieldOfView,
    InputScale,
    choose_input_scale,
    crop_to_frame,
    find_fov,
    fov_mask,
    read_photograph,
)
from deepmtdr.screening.needs_review import NOT_GRADED, find_review_reasons
from deepmtdr.screening.quality import Quality, assess_quality
from deepmtdr.screening.quality_features import QUALITY_FRAME_SIDE
from deepmtdr.screening.quality_model import Fault
from deepmtdr.screening.report import Pictures, ScreeningReport, Status
from deepmtdr.terms import FRAME, LESION_THRESHOLD, Grade, Lesion

__all__ = ["PRECISIONS", "ScreeningEngine", "ScreeningReport"]

PRECISIONS = ("auto", "fp32", "bf16")
"""`auto`: bfloat16 where the processor multiplies it natively, float32 elsewhere."""

log = logging.getLogger(__name__)


class ScreeningEngine:
    """Reads photographs with one checkpoint.

    `ScreeningEngine.load().predict("eye.jpg").grade` is all that most need.
    """

    def __init__(self, checkpoint: checkpoints.Checkpoint, precision: str = "auto") -> None:
        """Take a loaded checkpoint.

        Args:
            checkpoint: the network in evaluation mode, with its recipe and card; a calibration in it is used.
            precision: of the convolutions, one of `PRECISIONS`.

        Raises:
            CheckpointError: if the card's calibration makes no sense, or the system has not all three tasks.
            ValueError: if the precision is unknown.
        """
        if precision not in PRECISIONS:
            raise ValueError(f"precision {precision!r}, expected one of {PRECISIONS}")
        if not (checkpoint.model.has_grading and checkpoint.model.has_segmentation):
            does = "grades, but segments no lesions" if checkpoint.model.has_grading else "does not grade"
            raise CheckpointError(
                f"weights of {checkpoint.recipe.system}, which {does}; expected a system of all tasks"
            )
        # Channels-last: on CPUs convolutions take two thirds of the time, in bfloat16 half.
        self.model = checkpoint.model.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.frame = checkpoint.recipe.data.frame
        self.weights = f"{checkpoint.card.get('weights', checkpoint.recipe.name)}-{checkpoint.digest[:12]}"
        self.temperature, self.operating_point = checkpoint.temperature, checkpoint.operating_point
        self.bf16 = supports_bf16() if precision == "auto" else precision == "bf16"

    @classmethod
    def load(
        cls, weights: Path | None = None, *, precision: str = "auto", threads: int | None = None
    ) -> ScreeningEngine:
        """Load the shipped weights, or those of a file.

        Args:
            weights: a `.safetensors` checkpoint of deepmtdr; None for the shipped ones.
            precision: of the convolutions, one of `PRECISIONS`.
            threads: of PyTorch, for the whole process; None leaves them.

        Raises:
            CheckpointError: if the weights are missing, damaged, or of another architecture.
        """
        if threads is not None:
            torch.set_num_threads(threads)
        return cls(checkpoints.load(weights), precision)

    def predict(self, path: Path | str, as_lr: int | None = None) -> ScreeningReport:
        """Read one photograph. A bad photograph is a report that says so, never an exception.

        Args:
            path: JPEG, PNG, TIFF, PPM, BMP or DICOM file.
            as_lr: reduce to this size (128, 256 or 512 px) first, whatever the photograph's own (reading R19).

        Raises:
            ValueError: if `as_lr` is none of these sizes.
        """
        choose_input_scale(FRAME, as_lr)  # a wrong size is the caller's mistake, not the photograph's
        path, started = Path(path), time.perf_counter()
        facts: dict[str, Any] = {}
        try:
            photograph = read_photograph(path)
            height, width = photograph.pixels.shape[:2]
            facts = {"sha256": photograph.sha256, "width": width, "height": height}
            fov, quality = assess_photograph(photograph.pixels)
            facts |= {"quality": quality.score, "fault": quality.fault}
            if quality.reason is not None:
                raise UngradableError(quality.reason)
            facts |= self._see(photograph.pixels, fov, as_lr)
            marks = find_review_reasons(quality.score, facts["probabilities"], self.operating_point)
            return self._report(path, "ok", **facts, review_reasons=marks, seconds=time.perf_counter() - started)
        except UngradableError as error:
            status, reason = "ungradable", str(error)
            if isinstance(error, NoFieldOfViewError):
                facts["fault"] = Fault.NO_FIELD
        except (PhotographError, OSError) as error:
            status, reason = "error", str(error)
        except Exception as error:  # one photograph must not end a night's batch
            log.debug("reading %s failed", path, exc_info=True)
            status, reason = "error", f"{type(error).__name__}: {error}"
        facts.setdefault("sha256", _digest(path))
        return self.report_failure(path, reason, status, **facts, seconds=time.perf_counter() - started)

    def report_failure(self, path: Path, reason: str, status: Status = "error", **facts: Any) -> ScreeningReport:
        """The report of a photograph that was not graded: its message is one line with path and reason."""
        reason = " ".join(reason.removeprefix(f"{path}: ").split())
        message = printable_path(f"{path}: {reason}")
        return self._report(path, status, message=message, review_reasons=NOT_GRADED, **facts)

    def _report(self, path: Path, status: Status, **facts: Any) -> ScreeningReport:
        said = {"weights": self.weights, "version": __version__, "precision": "bf16" if self.bf16 else "fp32"}
        return ScreeningReport(path=path, status=status, **said, **facts)

    def _see(self, pixels: UInt8[np.ndarray, "h w 3"], fov: FieldOfView, as_lr: int | None) -> dict[str, Any]:
        """Everything that the network says of a photograph."""
        scale = choose_input_scale(fov.side, as_lr).scale
        way = InputScale(self.frame // scale, scale)
        pictures, probabilities = self._predict(pixels, fov, way)
        counts, areas = measure_lesions(pictures.lesions, fov_mask(pictures.sr))
        grade = Grade(int(np.argmax(probabilities)))
        return {
            **{"fov": fov, "way": way, "pictures": pictures, "counts": counts, "areas": areas},
            **{"grade": grade, "probabilities": tuple(float(p) for p in probabilities)},
            "operating_point": self.operating_point,
        }

    def _predict(
        self, pixels: UInt8[np.ndarray, "h w 3"], fov: FieldOfView, way: InputScale
    ) -> tuple[Pictures, Float[np.ndarray, " 5"]]:
        seen = crop_to_frame(pixels, fov, way.lr_size)
        image = torch.from_numpy(seen.copy()).permute(2, 0, 1)[None].float() / 255
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            prediction, evidence = self.model.predict(image, way.scale)
        sr = (255 * prediction.sr[0].float()).round().byte().permute(1, 2, 0).contiguous().numpy()
        lesions = prediction.lesions[0].float().clamp(0, 1).numpy()
        photograph = crop_to_frame(pixels, fov, self.frame)
        probabilities = (prediction.grade_logits[0].double() / self.temperature).softmax(dim=0).float().numpy()
        return Pictures(photograph, sr, lesions, evidence[0, 0].float().clamp(0, 1).numpy()), probabilities


def assess_photograph(pixels: UInt8[np.ndarray, "h w 3"]) -> tuple[FieldOfView, Quality]:
    """Find the field of view and assess what is in it.

    Args:
        pixels: the upright photograph, RGB.

    Raises:
        NoFieldOfViewError: if there is none.
    """
    fov = find_fov(pixels)
    return fov, assess_quality(crop_to_frame(pixels, fov, QUALITY_FRAME_SIDE), fov.side)


def measure_lesions(
    lesions: Float[np.ndarray, "4 s s"], inside: Bool[np.ndarray, "s s"]
) -> tuple[Mapping[Lesion, int], Mapping[Lesion, float]]:
    """Count and measure what is there with probability >= `LESION_THRESHOLD`.

    Args:
        lesions: probabilities of MA, HE, EX, SE.
        inside: the field of view.

    Returns:
        The number of connected parts (8 neighbours) of each type, and their area in per cent of the field of view.
    """
    counts, areas = {}, {}
    for lesion in Lesion:
        present = (lesions[lesion] >= LESION_THRESHOLD) & inside
        counts[lesion] = int(ndimage.label(present, np.ones((3, 3)))[1])  # pyright: ignore[reportIndexIssue]
        areas[lesion] = 100 * float(present.sum()) / max(int(inside.sum()), 1)
    return counts, areas


def supports_bf16() -> bool:
    """Whether this processor has instructions for bfloat16; where it has none, float32 is faster."""
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))


def _digest(path: Path) -> str | None:
    """SHA-256 of a file that could not be decoded; None if it cannot even be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None
