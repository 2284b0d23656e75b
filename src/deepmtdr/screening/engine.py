"""Grade one photograph: from a file to a `ScreeningReport` (Sec. I, Fig. 6)."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, UInt8
from scipy import ndimage

from deepmtdr._version import __version__
from deepmtdr.errors import NoFieldOfViewError, PhotographError, PredictionError, UngradableError
from deepmtdr.files import file_sha256, printable_path
from deepmtdr.grade_decision import GradeDecision
from deepmtdr.labels import LabelSet
from deepmtdr.photographs.decoder_process import read_untrusted
from deepmtdr.photographs.field_of_view import crop_to_frame
from deepmtdr.photographs.geometry import FieldOfView, choose_input_scale, fov_mask
from deepmtdr.screening.needs_review import find_review_reasons
from deepmtdr.screening.predictor import Predictor
from deepmtdr.screening.quality import assess_photograph
from deepmtdr.screening.quality_model import Fault
from deepmtdr.screening.report import Pictures, ScreeningReport, Status
from deepmtdr.screening.turned_copies import TurnedCopies, predict_copies
from deepmtdr.terms import LESION_THRESHOLD

__all__ = ["ScreeningEngine", "ScreeningReport"]

log = logging.getLogger(__name__)


class ScreeningEngine:
    """Grades photographs with one set of weights.

    `ScreeningEngine.load().predict("eye.jpg").grade` is all that most programs need.
    """

    def __init__(self, predictor: Predictor, turned_copies: TurnedCopies = TurnedCopies.NONE) -> None:
        """Use a loaded network.

        Args:
            predictor: the network; `load` makes one that runs with PyTorch.
            turned_copies: which turned copies of each photograph are predicted too. The mirror image takes twice the
                time, all turns eight times.
        """
        self.predictor, self.turned_copies = predictor, turned_copies

    @classmethod
    def load(
        cls,
        weights: Path | None = None,
        *,
        precision: str = "auto",
        threads: int | None = None,
        turned_copies: TurnedCopies = TurnedCopies.NONE,
    ) -> ScreeningEngine:
        """Load the shipped weights, or those of a file, to run with PyTorch.

        Args:
            weights: a `.safetensors` checkpoint of deepmtdr; None: the shipped weights.
            precision: number format of the convolutions, one of `PRECISIONS`.
            threads: number of PyTorch's threads, for the whole process; None: unchanged.
            turned_copies: see the constructor.

        Raises:
            CheckpointError: if the weights are missing, damaged, not finite, of another architecture, or not of all
                three tasks.
            ValueError: if the precision is unknown.
        """
        from deepmtdr.screening.torch_predictor import TorchPredictor

        return cls(TorchPredictor.load(weights, precision=precision, threads=threads), turned_copies)

    @property
    def labels(self) -> LabelSet:
        """Lesion types and grades of the weights."""
        return self.predictor.info.labels

    def predict(self, path: Path | str, as_lr: int | None = None) -> ScreeningReport:
        """Grade one photograph. A photograph that cannot be graded gives a report with the reason, not an exception.

        Args:
            path: JPEG, PNG, TIFF, PPM, BMP, WebP, AVIF, JPEG 2000 or DICOM file.
            as_lr: reduce the field of view to this size first (1/8, 1/4 or 1/2 of the frame; 128, 256 or 512 px for
                the shipped weights). None: the nearest size to its own (interpretation R19).

        Raises:
            InputSizeError: if `as_lr` is none of these sizes.
        """
        frame = self.predictor.info.frame
        choose_input_scale(frame, as_lr, frame)  # raises: a wrong size is an error of the caller, not of the photograph
        path, started = Path(path), time.perf_counter()
        report = self._process(path, as_lr)
        return replace(report, sha256=report.sha256 or _digest(path), seconds=time.perf_counter() - started)

    def report_failure(self, path: Path, reason: str, status: Status = "error") -> ScreeningReport:
        """Make the report of a photograph that was not graded.

        Args:
            path: path of the photograph.
            reason: why it was not graded; the report's message is one line with path and reason.
            status: `error` or `ungradable`.
        """
        return _failed(self._empty_report(path), reason, status)

    def _empty_report(self, path: Path) -> ScreeningReport:
        info = self.predictor.info
        return ScreeningReport(
            path=path,
            status="error",
            labels=info.labels,
            weights=info.weights,
            version=__version__,
            precision=info.precision,
            turned_copies=self.turned_copies,
        )

    def _process(self, path: Path, as_lr: int | None) -> ScreeningReport:
        """Decode, assess and grade a photograph. The report has the results of the steps that succeeded."""
        report = self._empty_report(path)
        try:
            photograph = read_untrusted(path)
            height, width = photograph.pixels.shape[:2]
            report = replace(report, sha256=photograph.sha256, width=width, height=height)
            fov, quality = assess_photograph(photograph.pixels)
            report = replace(report, quality=quality.score, fault=quality.fault)
            if quality.reason is not None:
                raise UngradableError(quality.reason)
            return self._grade(report, photograph.pixels, fov, as_lr)
        except NoFieldOfViewError as error:
            return _failed(replace(report, fault=Fault.NO_FIELD), str(error), "ungradable")
        except UngradableError as error:
            return _failed(report, str(error), "ungradable")
        except (PhotographError, PredictionError, OSError) as error:
            return _failed(report, str(error), "error")
        except Exception as error:  # one photograph must not stop a long batch
            log.debug("grading %s failed", path, exc_info=True)
            return _failed(report, f"{type(error).__name__}: {error}", "error")

    def _grade(
        self, report: ScreeningReport, pixels: UInt8[np.ndarray, "h w 3"], fov: FieldOfView, as_lr: int | None
    ) -> ScreeningReport:
        """Run the network and add its results to the report."""
        info = self.predictor.info
        way = choose_input_scale(fov.side, as_lr, info.frame)
        lr = crop_to_frame(pixels, fov, way.lr_size)
        findings, logits = predict_copies(self.predictor, lr, way.scale, self.turned_copies)
        probabilities = _probabilities(info.decision, findings.grade_logits)
        copies = [info.decision.grade(_probabilities(info.decision, each)) for each in logits]
        counts, areas = measure_lesions(findings.lesions, fov_mask(findings.sr), info.labels.codes)
        photograph = crop_to_frame(pixels, fov, info.frame)
        graded = replace(
            report,
            status="ok",
            grade=info.decision.grade(probabilities),
            probabilities=tuple(float(p) for p in probabilities),
            grade_thresholds=info.decision.thresholds,
            turn_grades=() if self.turned_copies is TurnedCopies.NONE else tuple(copies),
            operating_point=info.operating_point,
            counts=counts,
            areas=areas,
            fov=fov,
            way=way,
            pictures=Pictures(photograph, findings.sr, findings.lesions, findings.evidence),
        )
        return replace(graded, review_reasons=find_review_reasons(graded))


def _probabilities(decision: GradeDecision, logits: Float[np.ndarray, " c"]) -> Float[np.ndarray, " c"]:
    try:
        return decision.probabilities(logits).astype(np.float32)
    except ValueError as error:
        raise PredictionError(f"{error}; do not use these weights") from error


def measure_lesions(
    lesions: Float[np.ndarray, "l s s"], inside: Bool[np.ndarray, "s s"], codes: Sequence[str]
) -> tuple[Mapping[str, int], Mapping[str, float]]:
    """Count and measure the lesions, where their probability is at least `LESION_THRESHOLD`.

    Args:
        lesions: probability of each lesion type.
        inside: the field of view.
        codes: codes of the lesion types, in the order of the channels.

    Returns:
        For each code the number of connected parts (8 neighbours), and their area in per cent of the field of view.
    """
    counts, areas = {}, {}
    for code, probability in zip(codes, lesions, strict=True):
        present = (probability >= LESION_THRESHOLD) & inside
        counts[code] = int(ndimage.label(present, np.ones((3, 3)))[1])  # pyright: ignore[reportIndexIssue]
        areas[code] = 100 * float(present.sum()) / max(int(inside.sum()), 1)
    return counts, areas


def _failed(report: ScreeningReport, reason: str, status: Status) -> ScreeningReport:
    """Add the reason to the report of a photograph that was not graded."""
    for name in (str(report.path), printable_path(report.path)):  # errors of this package are printable
        reason = reason.removeprefix(f"{name}: ")
    reason = " ".join(reason.split())
    failed = replace(report, status=status, message=printable_path(f"{report.path}: {reason}"))
    return replace(failed, review_reasons=find_review_reasons(failed))


def _digest(path: Path) -> str | None:
    """Compute the SHA-256 of a file that could not be decoded; None if the file cannot be read."""
    try:
        return file_sha256(path)
    except OSError:
        return None
