"""Two-stage training (Sec. IV-C): `run`."""

from deepmtdr.training.two_stages import run

__all__ = ["run"]
