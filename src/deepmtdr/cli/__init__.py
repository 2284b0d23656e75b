"""The verbs: each a thin door to a function that Python can call too. Heavy imports stay inside them."""

from deepmtdr.cli import screening, clinic, data, training, evaluation  # isort: skip  (the order of the help)
from deepmtdr.cli.door import app

__all__ = ["app", "clinic", "data", "evaluation", "screening", "training"]
