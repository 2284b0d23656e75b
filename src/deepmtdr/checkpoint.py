"""Checkpoints: weights and how they were made, in one safetensors file. Pickle is never used.

The header holds the card as JSON, and a SHA-256 digest of the card and every tensor, so that damage is found.
The digest is not a signature: it does not protect against a deliberate change.
Files are written atomically: after a kill there is either the old file or the new file.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from deepmtdr.errors import CheckpointError, ConfigError
from deepmtdr.files import write_atomically
from deepmtdr.grade_decision import GradeDecision
from deepmtdr.labels import LabelSet
from deepmtdr.model.deepmtdr import DeepMTDR
from deepmtdr.recipe import Recipe, recipe_from_dict, to_dict
from deepmtdr.systems import build_system
from deepmtdr.terms import ReferralThreshold

SHIPPED_WEIGHTS = "v0"
"""Name of the weights in the package's `weights/` folder that are loaded by default."""

REFERRAL_SENSITIVITY = 0.9
"""Target sensitivity of the operating point that is used, if several were calibrated."""


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
    def temperature(self) -> float:
        """Divisor of the grade logits before the softmax, as `calibrate` wrote it; 1 if the card has none."""
        return _number(_calibration(self.card).get("temperature", 1.0), "temperature", math.inf)

    @property
    def decision(self) -> GradeDecision:
        """How the grade logits become probabilities and a grade, as `calibrate` wrote it; else the most probable."""
        found = _calibration(self.card)
        biases, thresholds = (_numbers(found.get(name) or (), name) for name in ("biases", "grade_thresholds"))
        try:
            decision = GradeDecision(temperature=self.temperature, biases=biases, thresholds=thresholds)
            decision.check_grades(len(self.labels.grades))
        except ValueError as error:
            raise CheckpointError(f"card: calibration: {error}") from error
        return decision

    @property
    def operating_point(self) -> ReferralThreshold | None:
        """The threshold of P(referable) with a sensitivity nearest to `REFERRAL_SENSITIVITY`; None: not calibrated."""
        points = _calibration(self.card).get("operating_points") or {}
        try:
            found = [(point["wanted"], point["threshold"]) for point in points.get("referable", ())]
        except (AttributeError, KeyError, TypeError) as error:
            expected = "expected lists of wanted and threshold"
            raise CheckpointError(f"card: operating_points {points!r}, {expected}") from error
        calibrated = [
            ReferralThreshold(_number(wanted, "wanted", 1.0), _number(value, "threshold", 1.0))
            for wanted, value in found
        ]
        return min(calibrated, key=lambda threshold: abs(threshold.sensitivity - REFERRAL_SENSITIVITY), default=None)


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
    write_atomically(path.with_suffix(".json"), (json.dumps(card, indent=2) + "\n").encode())


def load(path: Path | None = None) -> Checkpoint:
    """Read a checkpoint; without a path, the weights shipped with the package.

    Raises:
        CheckpointError: if the file is missing or damaged, is not a checkpoint, or has another architecture.
    """
    if path is None:
        with resources.as_file(resources.files("deepmtdr") / "weights" / f"{SHIPPED_WEIGHTS}.safetensors") as shipped:
            return load(shipped)
    tensors, card, digest = read(path)
    try:
        recipe = recipe_from_dict(card.pop("recipe"), str(path))
        model = build_system(recipe.system, recipe.parts, recipe.model, labels=recipe.labels)
        model.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    except (ConfigError, KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{path}: the weights do not fit the architecture of this version: {reason}") from error
    return Checkpoint(model.eval(), recipe, card, digest)


def write(path: Path, tensors: Mapping[str, Tensor], card: Mapping[str, Any]) -> None:
    """Write tensors and card as one file, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(card)
    # Not safetensors' own save_file: only the owner could read its files.
    write_atomically(path, _sort_header(to_bytes(tensors, metadata={"card": text, "digest": _digest(tensors, text)})))


def _sort_header(file: bytes) -> bytes:
    """Sort the keys of the header of a safetensors file, so that equal weights give equal files."""
    end = 8 + int.from_bytes(file[:8], "little")
    header = json.dumps(json.loads(file[8:end]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + file[end:]


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any], str]:
    """Read tensors, card and digest of a file made by `write`.

    Raises:
        CheckpointError: if the file is missing or damaged, or was not written by deepmtdr.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: found no such file, expected weights (.safetensors)") from error
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not a safetensors file, or a damaged one: {error}") from error
    if "card" not in metadata or "digest" not in metadata:
        raise CheckpointError(
            f"{path}: found safetensors without the card of deepmtdr, expected a checkpoint of deepmtdr"
        )
    found = _digest(tensors, metadata["card"])
    if found != metadata["digest"]:
        raise CheckpointError(f"{path}: damaged: content has SHA-256 {found[:12]}, expected {metadata['digest'][:12]}")
    return tensors, json.loads(metadata["card"]), found


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read the tensors of any safetensors file, such as published ImageNet weights.

    Raises:
        CheckpointError: if the file is missing, or is not a safetensors file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not a safetensors file: {error}") from error


def _calibration(card: Mapping[str, Any]) -> Mapping[str, Any]:
    found = card.get("calibration") or {}
    if not isinstance(found, Mapping):
        raise CheckpointError(f"card: calibration {found!r}, expected temperature and operating_points")
    return found


def _number(value: Any, name: str, most: float) -> float:
    """Return a number of the card after checking its range."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not (is_number and 0 < value <= most):
        expected = "a finite number above 0" + (f", at most {most:g}" if math.isfinite(most) else "")
        raise CheckpointError(f"card: calibration has {name} {value!r}, expected {expected}")
    return float(value)


def _numbers(values: Any, name: str) -> tuple[float, ...]:
    """Return a list of numbers of the card after checking its type."""
    is_list = isinstance(values, list | tuple)
    if not (is_list and all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)):
        raise CheckpointError(f"card: calibration has {name} {values!r}, expected a list of numbers")
    return tuple(map(float, values))


def _digest(tensors: Mapping[str, Tensor], card: str) -> str:
    sha = hashlib.sha256(card.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        sha.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()
