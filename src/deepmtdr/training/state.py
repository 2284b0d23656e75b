"""How far a run has come: everything that has to be kept so that it goes on bit for bit as if it had never stopped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deepmtdr import checkpoint
from deepmtdr.errors import TrainingError
from deepmtdr.model.deepmtdr import DeepMTDR
from deepmtdr.recipe import STAGES, Recipe, recipe_differences, to_dict
from deepmtdr.training.optimiser import load_optimiser_state, optimiser_state

RESUME_FILE = "resume.safetensors"


@dataclass
class StageCost:
    """What a stage took; `training.page` shows it."""

    stage: str
    steps: int = 0
    seconds: float = 0.0
    computing: float = 0.0
    """Of the seconds, those that count for `Stage.minutes`."""
    photographs: int = 0
    read: int = 0
    """Photographs that the standing subnets had read before the first step."""
    reading: float = 0.0
    """Seconds of that, which count for `Stage.minutes` too."""
    peak_mib: int = 0
    best_step: int | None = None
    ended: str = "whole"
    """Or "early", where the scores no longer rose; or "by the clock"."""


@dataclass
class TrainState:
    """What changes while training, beside the weights and the optimiser's memory."""

    stage: str = STAGES[0]
    step: int = 0
    """Steps of the stage that are done."""
    average: dict[str, Tensor] = field(default_factory=dict)
    """The running average of the weights, which is what is kept of a stage."""
    best: dict[str, Tensor] = field(default_factory=dict)
    """The average at the best look, where the stage names a score."""
    best_score: float | None = None
    looks_since: int = 0
    """Looks since the best one."""
    costs: list[StageCost] = field(default_factory=list)
    moments: dict[str, Tensor] = field(default_factory=dict)
    """Of the optimiser, as they were read."""

    def start_stage(self, stage: str, model: DeepMTDR) -> None:
        """A stage begins: its average starts at the weights as they are."""
        self.stage, self.step = stage, 0
        self.average = copy_weights(model)
        self.best, self.best_score, self.looks_since, self.moments = {}, None, 0, {}
        self.costs = [*(cost for cost in self.costs if cost.stage != stage), StageCost(stage)]

    @property
    def cost(self) -> StageCost:
        """Of the stage that is under way."""
        return self.costs[-1]

    def save(
        self, path: Path, model: DeepMTDR, optimiser: torch.optim.Optimizer | None, recipe: Recipe, data: str
    ) -> None:
        """Write everything needed to go on, atomically.

        Args:
            path: the file.
            model: the weights as they are.
            optimiser: None between two stages.
            recipe: what the run does.
            data: fingerprint of photographs, labels and sides.

        Raises:
            TrainingError: if the file cannot be written, a full disk say; the one before it is still whole.
        """
        tensors = {f"model/{key}": t for key, t in model.state_dict().items()}
        tensors |= {f"average/{key}": t for key, t in self.average.items()}
        tensors |= {f"best/{key}": t for key, t in self.best.items()}
        if optimiser is not None:
            tensors |= {f"moments/{key}": t for key, t in optimiser_state(optimiser)}
        card = {"stage": self.stage, "step": self.step, "data": data, "recipe": to_dict(recipe)}
        looks = {"best_score": self.best_score, "looks_since": self.looks_since}
        try:
            checkpoint.write(path, tensors, {**card, **looks, "costs": [asdict(cost) for cost in self.costs]})
        except OSError as error:
            kept = "the one before is kept; make room and go on with --resume" if path.exists() else "there is none yet"
            raise TrainingError(f"{path}: the checkpoint cannot be written ({error.strerror}); {kept}") from error

    def restore_optimiser(self, optimiser: torch.optim.Optimizer) -> None:
        """Give the optimiser the memory that was read."""
        if self.step:
            load_optimiser_state(optimiser, self.moments)


def load_train_state(path: Path, model: DeepMTDR, recipe: Recipe, data: str) -> TrainState:
    """Take up what `TrainState.save` wrote.

    Raises:
        TrainingError: if it is of another recipe, or of other photographs.
        CheckpointError: if there is no checkpoint, or a damaged one.
    """
    tensors, card, _ = checkpoint.read(path)
    if differing := list(recipe_differences(_begun(card["recipe"], card), _begun(to_dict(recipe), card))):
        raise TrainingError(
            f"{path}: made by another recipe ({'; '.join(differing)}); resume with the same one, "
            "or start anew in another folder"
        )
    if card["data"] != data:
        raise TrainingError(
            f"{path}: made from other photographs, labels or sides than those found now; "
            f"expected those of {path.parent / 'split.csv'}"
        )
    parts = {p: {k[len(p) + 1 :]: t for k, t in tensors.items() if k.startswith(p + "/")} for p in _PARTS}
    model.load_state_dict(parts.pop("model"))
    costs = [StageCost(**cost) for cost in card["costs"]]
    kept: dict[str, Any] = {name: _to_device(part, model) for name, part in parts.items()}
    kept |= {key: card[key] for key in ("stage", "step", "best_score", "looks_since")}
    return TrainState(**kept, costs=costs)


_PARTS = ("model", "average", "best", "moments")


def copy_weights(model: DeepMTDR) -> dict[str, Tensor]:
    """The weights as they are now."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def grading_stage_changed(path: Path, recipe: Recipe) -> bool:
    """Whether the grading stage to come differs from the one that a stopped run had in mind."""
    return checkpoint.read(path)[1]["recipe"]["grading"] != to_dict(recipe)["grading"]


def _to_device(tensors: Mapping[str, Tensor], model: DeepMTDR) -> dict[str, Tensor]:
    device = next(model.parameters()).device
    return {name: tensor.to(device) for name, tensor in tensors.items()}


def _begun(recipe: dict[str, Any], card: Mapping[str, Any]) -> dict[str, Any]:
    """What of a recipe has had an effect already: all but the stages that are still to begin, which may be changed."""
    at = STAGES.index(card["stage"]) if card["stage"] in STAGES else len(STAGES)
    to_come = STAGES[at + (card["step"] > 0) :]
    return {key: value for key, value in recipe.items() if key not in to_come}
