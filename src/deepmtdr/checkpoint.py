"""Checkpoints: weights and how they were made, in one safetensors file. Pickle is never used.

`checkpoint_file.py` reads and writes the file, `checkpoint_card.py` its card. A network is built only after the shapes
of its tensors were compared with those of the file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from deepmtdr import checkpoint_card
from deepmtdr.checkpoint_file import check_finite, read, read_tensors, write
from deepmtdr.errors import CheckpointError, ConfigError
from deepmtdr.files import write_atomically
from deepmtdr.grade_decision import GradeDecision
from deepmtdr.labels import LabelSet
from deepmtdr.model.deepmtdr import DeepMTDR
from deepmtdr.recipe import Recipe, recipe_from_dict, to_dict
from deepmtdr.systems import build_system
from deepmtdr.terms import ReferralThreshold
from deepmtdr.toml_config import shorten

__all__ = ["SHIPPED_WEIGHTS", "Checkpoint", "load", "read", "read_tensors", "save", "update_card", "write"]

SHIPPED_WEIGHTS = "v0"
"""Name of the weights in the package's `weights/` folder that are loaded by default."""

FLOAT_TYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""Number formats that weights may have in a file. In memory they are float32."""


class Checkpoint(NamedTuple):
    """A trained network, its recipe and its card."""

    model: DeepMTDR
    """The network, in evaluation mode, float32."""
    recipe: Recipe
    card: dict[str, Any]
    """Description of the weights: name, stage, step, data fingerprint, scores."""
    digest: str
    """SHA-256 of card and tensors."""

    @property
    def labels(self) -> LabelSet:
        """The lesion types and grades of the network's outputs."""
        return self.recipe.labels

    @property
    def name(self) -> str:
        """Name of the weights, for reports."""
        return checkpoint_card.weights_name(self.card, self.recipe.name)

    @property
    def temperature(self) -> float:
        """Divisor of the grade logits before the softmax, as `calibrate` wrote it; 1 if the card has none."""
        return checkpoint_card.temperature(self.card)

    @property
    def decision(self) -> GradeDecision:
        """How the grade logits become probabilities and a grade, as `calibrate` wrote it; else the most probable."""
        return checkpoint_card.grade_decision(self.card, len(self.labels.grades))

    @property
    def operating_point(self) -> ReferralThreshold | None:
        """The calibrated threshold of P(referable), see `checkpoint_card.operating_point`; None: not calibrated."""
        return checkpoint_card.operating_point(self.card)


def save(path: Path, model: DeepMTDR, recipe: Recipe, *, half: bool = False, **card: Any) -> None:
    """Write a checkpoint.

    Args:
        path: the `.safetensors` file; a copy of the card is written beside it as `.json`.
        model: the network.
        recipe: the recipe of its training.
        half: write float16 instead of float32 (for shipping).
        card: further entries of the card, which JSON can hold: stage, step, scores, ...
    """
    tensors = {name: t.half() if half and t.is_floating_point() else t for name, t in model.state_dict().items()}
    card = {"recipe": to_dict(recipe), **card}
    write(path, tensors, card)
    _write_beside(path, card)


def update_card(path: Path, out: Path, *, digest: str, **entries: Any) -> None:
    """Copy a checkpoint with changed entries in its card; the tensors stay the same to the last bit.

    Args:
        path: the `.safetensors` file that is read.
        out: the file that is written, with the copy of the card beside it; may be `path`.
        digest: the digest of `path` when the entries were computed.
        **entries: new entries, which replace those of the same name.

    Raises:
        CheckpointError: if `path` cannot be read, or has changed since.
    """
    tensors, card, found = read(path)
    if found != digest:
        raise CheckpointError(
            f"{path}: found SHA-256 {found[:12]}, expected {digest[:12]}: it was changed in the meantime; start again"
        )
    card |= entries
    write(out, tensors, card)
    _write_beside(out, card)


def _write_beside(path: Path, card: Mapping[str, Any]) -> None:
    """Write a copy of the card as `.json`, for people."""
    write_atomically(path.with_suffix(".json"), (json.dumps(card, indent=2, allow_nan=False) + "\n").encode())


def load(path: Path | None = None) -> Checkpoint:
    """Read a checkpoint; without a path, the weights shipped with the package.

    Raises:
        CheckpointError: if the file is missing or damaged, is not a checkpoint, has another architecture, or contains a
            number that is not finite.
    """
    if path is None:
        with resources.as_file(resources.files("deepmtdr") / "weights" / f"{SHIPPED_WEIGHTS}.safetensors") as shipped:
            return load(shipped)
    tensors, card, digest = read(path)
    recipe = _read_recipe(path, card.pop("recipe", None))
    for problem in _find_differences(_expected_tensors(path, recipe), tensors):
        raise _unfit(path, problem)
    weights = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    check_finite(path, weights)
    model = build_system(recipe.system, recipe.parts, recipe.model, labels=recipe.labels)
    model.load_state_dict(weights)
    return Checkpoint(model.eval(), recipe, card, digest)


def _read_recipe(path: Path, values: object) -> Recipe:
    """Read and check the recipe of a card, as far as it determines the network."""
    if not isinstance(values, Mapping):
        raise _unfit(path, f"the card has the recipe {shorten(repr(values))}, expected a table")
    try:
        recipe = recipe_from_dict(values, "recipe")
    except ConfigError as error:
        raise _unfit(path, str(error)) from error
    for problem in recipe.network_problems():
        raise _unfit(path, f"recipe: {problem}")
    return recipe


def _expected_tensors(path: Path, recipe: Recipe) -> dict[str, Tensor]:
    """Return the tensors of a recipe's network without values: on the device "meta" they take no memory."""
    try:
        with torch.device("meta"), _WithoutValues():
            return build_system(recipe.system, recipe.parts, recipe.model, labels=recipe.labels).state_dict()
    except (ArithmeticError, RuntimeError, TypeError, ValueError) as error:
        raise _unfit(path, f"the network of its recipe cannot be built: {' '.join(str(error).split())}") from error


class _WithoutValues(TorchFunctionMode):
    """Leaves out in-place operations such as `normal_`: on "meta" their only effect is to import PyTorch's compiler."""

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name, kwargs = func.__name__, kwargs or {}
        if name.endswith("_") and not name.endswith("__"):
            return args[0] if args else kwargs["tensor"]  # the functions of `nn.init` pass everything by name
        return func(*args, **kwargs)


def _find_differences(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> Iterator[str]:
    """Describe the first tensor that is missing, is unknown, or has another shape or number format than expected."""
    for name in sorted(expected.keys() - found.keys()):
        yield f"found no tensor {name}"
    for name in sorted(found.keys() - expected.keys()):
        yield f"found a tensor {shorten(name)}, expected none of that name"
    for name, tensor in expected.items():
        shape, wanted = tuple(found[name].shape), tuple(tensor.shape)
        if shape != wanted:
            yield f"found {name} of shape {shorten(shape)}, expected {wanted}"
        if found[name].dtype not in (FLOAT_TYPES if tensor.is_floating_point() else (tensor.dtype,)):
            wanted = "float16, bfloat16 or float32" if tensor.is_floating_point() else tensor.dtype
            yield f"found {name} of {found[name].dtype}, expected {wanted}"


def _unfit(path: Path, reason: str) -> CheckpointError:
    return CheckpointError(f"{path}: the weights do not fit the architecture of this version: {reason[:300]}")
