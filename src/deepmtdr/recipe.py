"""A recipe: everything that decides what a training run gives (Sec. IV-C); TOML in, an unknown key is an error."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from deepmtdr.errors import RecipeError
from deepmtdr.losses import LossWeights
from deepmtdr.model.deepmtdr import ModelConfig
from deepmtdr.systems import PartNames, find_unknown_names
from deepmtdr.terms import FRAME, SCALES, Grade
from deepmtdr.toml_config import from_dict


@dataclass(frozen=True, kw_only=True)
class DataRecipe:
    """Which photographs, and who is held out."""

    datasets: tuple[str, ...] = ("idrid",)
    """Names of `deepmtdr.datasets.catalogue.DATASETS`; each lies in the folder of its name under `--data`."""
    held_out: float = 0.2
    """Share of the patients that no training step sees."""
    validation: float = 0.0
    """Share of the patients that are looked at while training: scores, early stopping, contact sheets."""
    looked_at: int = 24
    """Most validation photographs of a data set in one look, those with lesion masks first; 0 takes all."""
    split_seed: int = 0
    split: str = ""
    """A split that is written down: the name of a shipped one, or the path of its CSV; "" draws one by the seed."""
    folds: int = 0
    """k of a k-fold cross-validation, in place of `held_out`; 0: none."""
    fold: int = 0
    """The fold that is held out, from 0."""
    supervision: float = 1.0
    """Share of the annotated photographs whose masks are used; the others count as unannotated (Sec. V-D)."""
    frame: int = FRAME
    """Side of the HR frame, px. Another size than 1024 is for studies and tests (reading R19)."""


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What a photograph goes through before its LR is derived: a camera is one draw from these ranges."""

    zoom: float = 1.35
    """A crop's side is multiplied by a factor in [1/zoom, zoom]: fields of view of 35 to 60 degrees."""
    gain: float = 0.25
    """Log of each channel's gain, standard deviation: illumination and colour cast."""
    gamma: float = 0.25
    """Log of the common gamma, standard deviation: tone curves."""
    blur: float = 0.6
    """Largest Gaussian blur, standard deviation in px of the frame; half of the crops stay sharp."""
    noise: float = 0.01
    """Largest standard deviation of the sensor noise."""
    jpeg: int = 45
    """Lowest JPEG quality; half of the crops are not compressed; 100 compresses none."""
    vignetting: float = 0.0
    """Largest loss of light at a crop's corners, as a share."""
    rotation: float = 0.0
    """Largest angle by which a crop is turned, degrees, beside the eight flips and quarter turns."""
    seed: int = 0
    """Of the camera alone: another one, and the same crops are taken by other cameras."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of the two-stage training."""

    steps: int = 0
    """Optimiser steps; 0 leaves the stage out."""
    minutes: float = 0.0
    """Of computing, after which the stage is at its end whatever its steps, for a comparison under one equal cap; the
    schedule then follows the time, and a run is not the same twice. On a CPU the time that the training thread itself
    was at work, so that a busy machine takes nothing away. Up to half of the grading stage's may go to reading the
    photographs, those of each data set and grade in turn. 0: no such cap."""
    batch: int = 8
    """Photographs a pass, over all processes together."""
    accumulate: int = 1
    """Passes whose gradients are averaged before the optimiser steps."""
    crop: int = 256
    """Side of the HR crop in px; 0 takes whole frames."""
    lr_isr: float = 5e-4
    """Largest learning rate of the ISR subnet (AdamW; without weight decay that is Adam); 0 freezes it."""
    lr_segmentation: float = 2e-3
    lr_grading: float = 1e-3
    weight_decay: float = 1e-4
    schedule: str = "cosine"
    """Of the learning rates: "cosine", down to 1 % of the largest; or "step", one fall at a given time."""
    warm_up: float = 0.1
    """Share of the steps on the way up to the largest learning rate."""
    falls_at: float = 0.8
    """Share of the steps at which a "step" schedule falls."""
    falls_by: dict[str, float] = field(default_factory=lambda: {"isr": 5.0, "segmentation": 2.0, "grading": 5.0})
    """What each subnet's learning rate is then divided by (the authors' 5, 2 and 5)."""
    ema: float = 0.995
    """Decay of the averaged weights, which are the ones kept."""
    clip: float = 1.0
    """Largest norm of each subnet's gradient."""
    recompute: bool = False
    """Whether features of the paper's subnets are computed again on the way back, not kept: less memory, more time."""
    epoch: int = 0
    """Steps after which the validation side is looked at, again and again; 0: at the end of the stage alone."""
    stop_on: str = ""
    """A score of the looks, higher is better, by which the best weights are kept; "": the last ones are."""
    patience: int = 0
    """Looks without a better score after which the stage ends early; 0: it never does."""
    scales: dict[str, float] = field(default_factory=lambda: {"1": 0.25, "2": 0.15, "4": 0.5, "8": 0.1})
    """How often a step comes into the frame by x2, x4, x8; "1" is the HR frame itself (reading R19)."""
    annotated: float = 1.0
    """Share of a batch with pixel-wise annotation (the others feed Eqs. 4-6 and 9)."""
    end_to_end: bool = False
    """Whether the segmentation and grading losses also reach the ISR subnet (reading R10: the joint stage)."""
    balance: float = 0.5
    """Grades are drawn with frequency ** -balance: 0 as they are, 1 all alike."""
    per_grade: int = 0
    """Most photographs of one grade and data set in the grading stage, the first by name; 0 takes all."""
    small: float = 0.0
    """Share of the grading stage's steps, the first ones, on frames a quarter the size: a cheap beginning."""
    hide_image: float = 0.0
    """How often the grading subnet is shown the lesion maps without the image, so that it learns to read them; never
    where nothing segments, or where a compared method looks at the photograph alone."""
    loss: LossWeights = field(default_factory=LossWeights)
    augmentation: Augmentation = field(default_factory=Augmentation)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All that `deepmtdr train` needs besides the photographs."""

    name: str = "default"
    seed: int = 0
    precision: str = "bf16"
    """`bf16` (mixed) or `fp32`."""
    checkpoint_minutes: float = 3.0
    """Time between checkpoints."""
    system: str = "DeepMT-DR"
    """What is trained: a name of `deepmtdr.systems.SYSTEMS`, as the paper has it."""
    parts: PartNames = field(default_factory=PartNames)
    """Parts that take the place of the system's own (Finding 2)."""
    data: DataRecipe = field(default_factory=DataRecipe)
    model: ModelConfig = field(default_factory=ModelConfig)
    restoration: Stage = field(default_factory=Stage)
    """Stage 1a: ISR and lesion segmentation on crops."""
    grading: Stage = field(default_factory=lambda: Stage(crop=0))
    """Stage 1b: grading on whole frames, before a standing ISR and segmentation subnet."""
    joint: Stage = field(default_factory=lambda: Stage(crop=0, batch=1, end_to_end=True))
    """Stage 2: all three, on annotated and unannotated photographs together."""


STAGES = ("restoration", "grading", "joint")
SCHEDULES = ("cosine", "step")
VALIDATION_SCORES = ("psnr_gain", "aupr_mean", "kappa_quadratic", "auc_referable")
"""Scores of a look at the validation side: gain over bicubic in the field of view (dB), AUPR of the types, grading."""


def load_recipe(name_or_path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a shipped preset by name, or a TOML file, and apply `--set key=value` overrides.

    Args:
        name_or_path: `small`, `smoke`, ... (see `list_recipes`), or the path of a `.toml` file.
        overrides: `a.b=value` with a TOML value: `joint.loss.lambda_tv=0`, `data.datasets=["idrid"]`.

    Raises:
        RecipeError: if there is no such preset or file, it is no TOML, or a key or value is wrong.
    """
    values = _read(name_or_path)
    for override in overrides:
        _apply(values, override)
    recipe = from_dict(Recipe, values, f"recipe {name_or_path}")
    for wrong in _out_of_range(recipe):
        raise RecipeError(f"recipe {name_or_path}: {wrong}")
    return recipe


def find_split_file(name: str) -> Path:
    """The CSV that a recipe's `data.split` means.

    Raises:
        RecipeError: if it is neither a file nor the name of a shipped split.
    """
    for path in (Path(name), Path(str(_presets())) / f"{name}.split.csv"):
        if path.is_file():
            return path
    raise RecipeError(f"data.split = {name!r}: no such file, and no split of that name is shipped")


def list_recipes() -> list[str]:
    """The presets shipped with the package."""
    return sorted(file.name.removesuffix(".toml") for file in _presets().iterdir() if file.name.endswith(".toml"))


def _presets() -> Any:
    return resources.files("deepmtdr") / "recipes"


def _read(name_or_path: str | Path) -> dict[str, Any]:
    path = Path(name_or_path)
    preset = _presets() / f"{name_or_path}.toml"
    try:
        text = (path if path.suffix == ".toml" else preset).read_text(encoding="utf-8")
        return {"name": path.stem, **tomllib.loads(text)}
    except OSError as error:
        known = f"expected a .toml file or one of {', '.join(list_recipes())}"
        raise RecipeError(f"recipe {name_or_path}: not found ({error.strerror}); {known}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"recipe {name_or_path}: no valid TOML: {error}") from error


def _apply(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals:
        raise RecipeError(f"--set {override}: expected key=value")
    try:
        value = tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        value = text  # a bare word is a string
    *path, last = key.strip().split(".")
    for part in path:
        values = values.setdefault(part, {})
        if not isinstance(values, dict):
            raise RecipeError(f"--set {override}: {part} is {values!r}, which has no keys")
    values[last] = value


def to_dict(recipe: Recipe) -> dict[str, Any]:
    """As plain dicts and lists, to be kept beside the weights as JSON."""
    return json.loads(json.dumps(dataclasses.asdict(recipe)))


def recipe_differences(was: Mapping[str, Any], now: Mapping[str, Any], inside: str = "") -> Iterator[str]:
    """What differs between two recipes (`to_dict`), as "joint.steps was 3, is 5"."""
    for key in sorted({*was, *now}):
        one, other = was.get(key), now.get(key)
        if isinstance(one, dict) and isinstance(other, dict):
            yield from recipe_differences(one, other, f"{inside}{key}.")
        elif one != other:
            yield f"{inside}{key} was {one!r}, is {other!r}"


def _out_of_range(recipe: Recipe) -> Iterator[str]:
    """What is wrong with the values of a recipe whose types are right."""
    known = ("1", *map(str, SCALES))
    yield from find_unknown_names(recipe.system, recipe.parts)
    if recipe.precision not in ("bf16", "fp32"):
        yield f"precision = {recipe.precision!r}, expected bf16 or fp32"
    if recipe.data.frame < 16 or recipe.data.frame % 16:
        yield f"data.frame = {recipe.data.frame}, expected a multiple of 16"
    if (
        not 0 <= recipe.data.held_out + recipe.data.validation < 1
        or min(recipe.data.held_out, recipe.data.validation) < 0
    ):
        found = f"data.held_out = {recipe.data.held_out}, data.validation = {recipe.data.validation}"
        yield f"{found}, expected shares from 0 that leave something to learn from"
    if not 0 <= recipe.data.supervision <= 1:
        yield f"data.supervision = {recipe.data.supervision}, expected a share from 0 to 1"
    if recipe.data.folds and not (recipe.data.folds > 1 and 0 <= recipe.data.fold < recipe.data.folds):
        yield f"data.fold = {recipe.data.fold} of {recipe.data.folds}, expected one from 0 of at least 2"
    for name in STAGES:
        stage: Stage = getattr(recipe, name)
        if stage.steps < 0 or stage.batch < 1:
            yield f"{name}: {stage.steps} steps of {stage.batch} photographs, expected at least 0 of 1"
        if stage.crop < 0 or stage.crop % 16:
            yield f"{name}.crop = {stage.crop}, expected a multiple of 16, or 0 for whole frames"
        if stage.small and recipe.data.frame < 128:
            yield f"{name}.small = {stage.small} in a frame of {recipe.data.frame} px, expected at least 128 px"
        odds = stage.scales.values()
        if not any(odds) or min(odds) < 0 or not set(known).issuperset(stage.scales):
            yield f"{name}.scales = {stage.scales}, expected shares of {', '.join(known)}"
        yield from _wrong_course(name, stage)
        for share in ("annotated", "small", "hide_image", "warm_up", "falls_at"):
            if not 0 <= getattr(stage, share) <= 1:
                yield f"{name}.{share} = {getattr(stage, share)}, expected a share from 0 to 1"


def _wrong_course(name: str, stage: Stage) -> Iterator[str]:
    """What is wrong with how a stage goes on and ends."""
    if stage.minutes < 0:
        yield f"{name}.minutes = {stage.minutes}, expected a time from 0"
    if stage.accumulate < 1:
        yield f"{name}.accumulate = {stage.accumulate}, expected at least 1"
    if stage.schedule not in SCHEDULES:
        yield f"{name}.schedule = {stage.schedule!r}, expected one of {', '.join(SCHEDULES)}"
    if (
        not {"isr", "segmentation", "grading"}.issuperset(stage.falls_by)
        or min(stage.falls_by.values(), default=1) <= 0
    ):
        yield f"{name}.falls_by = {stage.falls_by}, expected positive divisors of isr, segmentation, grading"
    classes = stage.loss.class_weights
    if classes and (len(classes) != len(Grade) or min(classes) < 0):
        yield f"{name}.loss.class_weights = {classes}, expected {len(Grade)} weights from 0, or none"
    if min(stage.epoch, stage.patience) < 0 or (stage.patience and not stage.stop_on):
        yield f"{name}: epoch {stage.epoch}, patience {stage.patience}, expected from 0 on, and patience with a stop_on"
    if stage.stop_on not in ("", *VALIDATION_SCORES):
        yield f"{name}.stop_on = {stage.stop_on!r}, expected one of {', '.join(VALIDATION_SCORES)}, or nothing"
