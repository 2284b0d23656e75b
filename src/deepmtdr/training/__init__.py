"""The two-stage training (Sec. IV-C); `run` is the door."""

from deepmtdr.training.two_stages import run

__all__ = ["run"]
