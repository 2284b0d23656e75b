"""Settings of an evaluation: photographs, measurements, files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from deepmtdr.evaluation.scores import DEFAULT_BOOTSTRAP, Bootstrap
from deepmtdr.photographs.geometry import InputScale, choose_input_scale
from deepmtdr.terms import SCALES


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """How photographs are measured and scored.

    Raises:
        ValueError: from the constructor, if `scale` or `removal_steps` is out of range.
    """

    as_lr: int | None = None
    """Size to which each field of view is reduced first, px: 1/8, 1/4 or 1/2 of the frame. None: use `scale`."""
    scale: int | None = 4
    """Scale from the LR image to the frame (2, 4 or 8) if `as_lr` is None; the paper has 4. None: chosen by the size of
    each photograph (interpretation R19), as in `deepmtdr grade`.
    """
    bf16: bool = False
    """Compute convolutions in bfloat16: two to three times as fast on processors with bfloat16 multiplication."""
    thorough: bool = True
    """Predict on the bicubic image and the HR frame too, score lesions on the pixels of the photograph, and score the
    evidence. Takes about three times as long."""
    slow_metrics: bool = True
    """Compute SSIM and FROC, which take longer than all other scores."""
    removal_steps: int = 0
    """Steps of deletion and insertion of the evidence on annotated photographs; each step needs three predictions. 0:
    neither is done.
    """
    flips: bool = False
    """Predict the seven other turns of each photograph too (mirrored, by quarter turns), and score how often the grade
    stays the same. Takes eight more predictions for each photograph."""
    bootstrap: Bootstrap = DEFAULT_BOOTSTRAP
    """How confidence intervals are computed."""

    def __post_init__(self) -> None:
        if self.scale is not None and self.scale not in SCALES:
            raise ValueError(f"found scale {self.scale}, expected 2, 4, 8 or None")
        if self.removal_steps < 0:
            raise ValueError(f"found removal_steps {self.removal_steps}, expected at least 0")

    def input_scale(self, fov_side: int, frame: int) -> InputScale:
        """Return the size of the LR image of a photograph, and the scale from that size to the frame.

        Args:
            fov_side: side of the field of view in pixels of the photograph.
            frame: side of the checkpoint's HR frame, px.

        Raises:
            InputSizeError: if `as_lr` is not a low-resolution size of this frame.
        """
        if self.as_lr is None and self.scale is not None:
            return InputScale(frame // self.scale, self.scale)
        return choose_input_scale(fov_side, self.as_lr, frame)

    def fixed_lr_size(self, frame: int) -> int | None:
        """Return the size of every LR image, px; None if the size depends on the photograph.

        Args:
            frame: side of the checkpoint's HR frame, px.

        Raises:
            InputSizeError: if `as_lr` is not a low-resolution size of this frame.
        """
        return None if self.as_lr is None and self.scale is None else self.input_scale(frame, frame).lr_size


DEFAULT_CONFIG = EvaluationConfig()


@dataclass(frozen=True, kw_only=True)
class SampleSelection:
    """Which photographs are used: those of one split, or whole data sets."""

    data: Path
    """Folder that contains one folder per data set, under its name."""
    split_file: Path | None = None
    """`split.csv`, which training writes beside its weights. None: all photographs of `datasets`."""
    split: str = "test"
    """Which split of `split_file`: train, validation or test."""
    datasets: tuple[str, ...] = ()
    """Names of data sets; empty: the data sets of `split_file`."""


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """Files that an evaluation writes."""

    out: Path | None = None
    """Folder for `evaluation.json`, `predictions.csv` and `report.html`. None: nothing is written."""
    pictures: bool = True
    """Show the photographs of the worst cases in `report.html`. They are pictures of patients."""
    parquet: bool = False
    """Write `predictions.parquet` too."""


NO_REPORT = ReportConfig()
