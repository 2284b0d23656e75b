"""Two-stage training (Sec. IV-C), by the function `run`."""

from deepmtdr.training.two_stages import Hardware, StartWeights, run

__all__ = ["Hardware", "StartWeights", "run"]
