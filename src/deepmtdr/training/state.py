"""State of a training run: everything that a resumed run needs to continue with exactly the same results."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deepmtdr import checkpoint
from deepmtdr.errors import ConfigError, TrainingError
from deepmtdr.model.deepmtdr import DeepMTDR
from deepmtdr.recipe import STAGES, Recipe, RecipeDifference, recipe_differences, recipe_from_dict, to_dict
from deepmtdr.training.optimiser import load_optimiser_state, optimiser_state

RESUME_FILE = "resume.safetensors"


@dataclass
class StageCost:
    """Cost of a stage, for `run.json` and the report."""

    stage: str
    steps: int = 0
    seconds: float = 0.0
    computing: float = 0.0
    """Seconds of computing, which are compared with the limit `minutes` of the stage."""
    photographs: int = 0
    read: int = 0
    """Number of photographs with a cached output."""
    reading: float = 0.0
    """Seconds that the cached outputs took; they count for the stage's `minutes` too."""
    peak_mib: int = 0
    best_step: int | None = None
    ended: str = "whole"
    """Why the stage ended: "whole" (all steps done), "early" (early stopping) or "by the clock" (limit `minutes`)."""
    precision: str = ""
    """Number format of the steps; "bf16, fp32" if the run was continued on another machine; "" in older files."""

    def note_precision(self, precision: str) -> None:
        """Add the number format of the steps to come."""
        formats = self.precision.split(", ") if self.precision else []
        if precision not in formats:
            self.precision = ", ".join([*formats, precision])


@dataclass
class TrainState:
    """The state of a run that changes, besides the weights and the optimiser."""

    stage: str = STAGES[0]
    step: int = 0
    """Number of steps of the stage that are done."""
    average: dict[str, Tensor] = field(default_factory=dict)
    """Exponential moving average of the weights, the result of a stage."""
    best: dict[str, Tensor] = field(default_factory=dict)
    """The average at the best validation, if the stage has a `stop_on` score."""
    best_score: float | None = None
    """Best validation score; None: not validated yet; -inf: the score was always undefined."""
    validations_since_best: int = 0
    """Number of validations since the best validation."""
    costs: list[StageCost] = field(default_factory=list)
    moments: dict[str, Tensor] = field(default_factory=dict)
    """Moments of the optimiser, as read from the file."""

    def start_stage(self, stage: str, model: DeepMTDR) -> None:
        """Begin a stage: the average is the current weights."""
        self.stage, self.step = stage, 0
        self.average = copy_weights(model)
        self.best, self.best_score, self.validations_since_best, self.moments = {}, None, 0, {}
        self.costs = [*(cost for cost in self.costs if cost.stage != stage), StageCost(stage)]

    @property
    def cost(self) -> StageCost:
        """Cost of the current stage."""
        return self.costs[-1]

    def save(
        self, path: Path, model: DeepMTDR, optimiser: torch.optim.Optimizer | None, recipe: Recipe, data: str
    ) -> None:
        """Write the checkpoint to resume from.

        Args:
            path: the file.
            model: the current weights.
            optimiser: None between two stages.
            recipe: the recipe of the run.
            data: fingerprint of photographs, labels and split.

        Raises:
            TrainingError: if the file cannot be written, for example on a full disk; the earlier checkpoint is kept.
        """
        tensors = {f"model/{key}": t for key, t in model.state_dict().items()}
        tensors |= {f"average/{key}": t for key, t in self.average.items()}
        tensors |= {f"best/{key}": t for key, t in self.best.items()}
        tensors |= {f"moments/{key}": t for key, t in optimiser_state(optimiser)}
        card = {"stage": self.stage, "step": self.step, "data": data, "recipe": to_dict(recipe)}
        # JSON has no infinity: a score of null with weights in `best` is read as -inf.
        score = self.best_score if self.best_score is not None and math.isfinite(self.best_score) else None
        card |= {
            "best_score": score,
            "looks_since": self.validations_since_best,
            "costs": [asdict(cost) for cost in self.costs],
        }
        try:
            checkpoint.write(path, tensors, card)
        except OSError as error:
            kept = (
                "the earlier checkpoint is kept; free disk space and continue with --resume"
                if path.exists()
                else "no checkpoint was written before; free disk space and start again"
            )
            raise TrainingError(f"{path}: the checkpoint cannot be written ({error.strerror}); {kept}") from error

    def restore_optimiser(self, optimiser: torch.optim.Optimizer) -> None:
        """Load the moments from the file into the optimiser."""
        if self.step:
            load_optimiser_state(optimiser, self.moments)


def load_train_state(path: Path, model: DeepMTDR, recipe: Recipe, data: str) -> TrainState:
    """Read a checkpoint of `TrainState.save`, and load the weights into `model`.

    Raises:
        TrainingError: if the run has another recipe or other photographs.
        CheckpointError: if there is no checkpoint, or a damaged one.
    """
    tensors, card, _ = checkpoint.read(path)
    if differences := _differences_so_far(path, card, recipe):
        raise TrainingError(
            f"{path}: made by another recipe ({'; '.join(map(str, differences))}); resume with the same recipe, "
            "or start a new run in another folder"
        )
    if card["data"] != data:
        raise TrainingError(
            f"{path}: made from other photographs, labels or splits than those found now; "
            f"expected those of {path.parent / 'split.csv'}"
        )
    model.load_state_dict(_tensors_of("model", tensors))
    device = next(model.parameters()).device
    average, best, moments = (
        {name: tensor.to(device) for name, tensor in _tensors_of(part, tensors).items()}
        for part in ("average", "best", "moments")
    )
    return TrainState(
        stage=card["stage"],
        step=card["step"],
        average=average,
        best=best,
        best_score=-math.inf if best and card["best_score"] is None else card["best_score"],
        validations_since_best=card["looks_since"],
        costs=[StageCost(**cost) for cost in card["costs"]],
        moments=moments,
    )


def copy_weights(model: DeepMTDR) -> dict[str, Tensor]:
    """Copy the current weights."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def grading_stage_changed(path: Path, recipe: Recipe) -> bool:
    """Whether the recipe's grading stage differs from that of the stopped run."""
    return _recipe_of(path, checkpoint.read(path)[1]).grading != recipe.grading


def _recipe_of(path: Path, card: Mapping[str, Any]) -> Recipe:
    try:
        return recipe_from_dict(card["recipe"], str(path))
    except ConfigError as error:
        raise TrainingError(f"made by another recipe: {error}; start a new run in another folder") from error


def _differences_so_far(path: Path, card: Mapping[str, Any], recipe: Recipe) -> list[RecipeDifference]:
    """List the differences in settings that had an effect already: stages that have not begun may be changed."""
    place = STAGES.index(card["stage"]) if card["stage"] in STAGES else len(STAGES)
    to_come = STAGES[place + (card["step"] > 0) :]
    differences = recipe_differences(_recipe_of(path, card), recipe)
    return [difference for difference in differences if difference.key.split(".")[0] not in to_come]


def _tensors_of(part: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(f"{part}/"): t for name, t in tensors.items() if name.startswith(f"{part}/")}
