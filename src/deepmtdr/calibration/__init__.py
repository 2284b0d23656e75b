"""Fit a temperature and decision thresholds on graded photographs, and judge them by cross-fitting."""

from __future__ import annotations

from deepmtdr.calibration.calibrate import calibrate, calibrate_folder
from deepmtdr.calibration.report import Calibration

__all__ = ["Calibration", "calibrate", "calibrate_folder"]
