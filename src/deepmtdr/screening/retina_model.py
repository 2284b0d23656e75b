"""Decide whether a frame shows a retina: a logistic regression model on structure, brightness and colour.

The second model of `quality_model.py` separates fundus photographs from other pictures by brightness, structure and
colour; a plain disc or a ball in the colours of a retina may pass it. This model also has the features of
`quality_structure.py`, which measure vessels, and the squares of all features. `benchmarks/retina_gate.py` fits and
evaluates it; docs/clinic.md has the figures.
"""

from __future__ import annotations

import csv
from functools import cache
from importlib import resources
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.special import expit

from deepmtdr.screening.quality_features import FEATURE_NAMES, MaskedImage, image_features
from deepmtdr.screening.quality_structure import STRUCTURE_NAMES, compute_structure_features

RETINA_FEATURE_NAMES = (*FEATURE_NAMES, *STRUCTURE_NAMES)
"""Names of the model's features."""
CLIP_DEVIATIONS = 4.0
"""Standard deviations at which a feature is clipped, so that no single feature of an unusual picture decides."""
MODEL_FILE = "retina_model.csv"


class RetinaModel(NamedTuple):
    """Coefficients of the model: a value for each feature."""

    mean: Float[np.ndarray, " features"]
    deviation: Float[np.ndarray, " features"]
    weights: Float[np.ndarray, " features"]
    square_weights: Float[np.ndarray, " features"]
    intercept: float

    def probability_of_none(self, features: Float[np.ndarray, " features"]) -> float:
        """Probability of showing no retina, at prior odds of 1:1, for the features of one frame."""
        standard = standardise(features, self.mean, self.deviation)
        return float(expit(self.intercept + standard @ self.weights + standard**2 @ self.square_weights))


def compute_retina_features(image: MaskedImage) -> Float[np.ndarray, " n"]:
    """Compute the features of a reduced frame; one number for each of `RETINA_FEATURE_NAMES`."""
    return np.concatenate([image_features(image), compute_structure_features(image)])


def standardise(features: NDArray, mean: NDArray, deviation: NDArray) -> NDArray:
    """Features in standard deviations from the mean of fundus photographs, clipped at `CLIP_DEVIATIONS`."""
    return ((features - mean) / deviation).clip(-CLIP_DEVIATIONS, CLIP_DEVIATIONS)


@cache
def load_retina_model() -> RetinaModel:
    """Read the coefficients from `MODEL_FILE`; the result is cached.

    Raises:
        ValueError: if its rows do not match the features, or a cell is no number.
    """
    text = resources.files("deepmtdr.screening").joinpath(MODEL_FILE).read_text(encoding="utf-8")
    _, (_, intercept, *_), *rows = csv.reader(text.splitlines())
    if (named := tuple(row[0] for row in rows)) != RETINA_FEATURE_NAMES:
        raise ValueError(f"{MODEL_FILE}: rows {', '.join(named)}; expected {', '.join(RETINA_FEATURE_NAMES)}")
    mean, deviation, weights, square_weights = np.array([[float(cell) for cell in row[1:]] for row in rows]).T
    return RetinaModel(mean, deviation, weights, square_weights, float(intercept))
