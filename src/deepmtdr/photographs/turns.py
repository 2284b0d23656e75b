"""The eight turns of a square image: quarter turns, each also mirrored.

A photograph has no preferred side for a network, so its grade should be the same for every turn. Evaluation measures
whether it is; a predictor can average over the turns with the same functions.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Shaped

TURNS = 8
"""Number of turns; turn 0 is the image itself."""


def turn(image: Shaped[np.ndarray, "s s *c"], number: int) -> Shaped[np.ndarray, "s s *c"]:
    """Turn an image by `number` modulo 4 quarter turns, counterclockwise; from 4 on it is mirrored first.

    Args:
        image: a square image with the channels last, or a map without channels.
        number: 0 to 7.

    Raises:
        ValueError: if the number is out of range.
    """
    _check(number)
    mirrored = image[:, ::-1] if number >= TURNS // 2 else image
    return np.ascontiguousarray(np.rot90(mirrored, number % 4))


def turn_back(image: Shaped[np.ndarray, "s s *c"], number: int) -> Shaped[np.ndarray, "s s *c"]:
    """Undo `turn` with the same number, for example on the lesion maps of a turned photograph.

    Args:
        image: as in `turn`.
        number: the number of the turn.

    Raises:
        ValueError: if the number is out of range.
    """
    _check(number)
    upright = np.rot90(image, -(number % 4))
    return np.ascontiguousarray(upright[:, ::-1] if number >= TURNS // 2 else upright)


def _check(number: int) -> None:
    if not 0 <= number < TURNS:
        raise ValueError(f"found turn {number}, expected 0 to {TURNS - 1}")
