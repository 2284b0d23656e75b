"""Fit a temperature and decision thresholds on graded photographs (Sec. V-B)."""

from __future__ import annotations

from deepmtdr.calibration.calibrate import TARGET_SENSITIVITIES, CalibrationConfig, calibrate, calibrate_folder
from deepmtdr.calibration.report import Calibration

__all__ = ["TARGET_SENSITIVITIES", "Calibration", "CalibrationConfig", "calibrate", "calibrate_folder"]
