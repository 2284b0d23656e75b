"""Fit on graded photographs how logits become probabilities, grades and referrals (Sec. V-B, R34)."""

from __future__ import annotations

from deepmtdr.calibration.calibrate import TARGET_SENSITIVITIES, CalibrationConfig, calibrate, calibrate_folder
from deepmtdr.calibration.report import Calibration

__all__ = ["TARGET_SENSITIVITIES", "Calibration", "CalibrationConfig", "calibrate", "calibrate_folder"]
