"""A recipe: every setting of a training run (Sec. IV-C), read from TOML."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from deepmtdr.errors import ConfigError, RecipeError
from deepmtdr.labels import DIABETIC_RETINOPATHY, LabelSet, label_set_from_dict, load_label_set
from deepmtdr.model.deepmtdr import ModelConfig
from deepmtdr.recipe_keys import find_wrong_keys, translate_old_keys
from deepmtdr.recipe_stages import (
    STAGES,
    VALIDATION_SCORES,
    Augmentation,
    GradingStage,
    ImageStage,
    JointStage,
    RestorationStage,
    StageName,
    TrainingStage,
)
from deepmtdr.systems import PartNames, find_unknown_names
from deepmtdr.terms import FRAME, PRECISIONS
from deepmtdr.toml_config import from_dict, parse_toml, read_toml, shorten

__all__ = [
    "STAGES",
    "VALIDATION_SCORES",
    "Augmentation",
    "DataRecipe",
    "GradingStage",
    "ImageStage",
    "JointStage",
    "Recipe",
    "RecipeDifference",
    "RestorationStage",
    "StageName",
    "TrainingStage",
    "find_split_file",
    "list_recipes",
    "load_recipe",
    "recipe_differences",
    "recipe_from_dict",
    "to_dict",
]


MAX_FRAME = 4096
"""Side of the largest HR frame, px."""


@dataclass(frozen=True, kw_only=True)
class DataRecipe:
    """Settings of the photographs, and of their split into train, validation and test."""

    datasets: tuple[str, ...] = ("idrid",)
    """Names of `deepmtdr.datasets.catalogue.DATASETS`; each is in the folder of its name under `--data`."""
    held_out: float = 0.2
    """Share of the patients in the test split."""
    validation: float = 0.0
    """Share of the patients in the validation split: scores while training, early stopping, contact sheets."""
    validation_photographs: int = 24
    """Largest number of photographs of a data set in one validation, first those with lesion masks; 0: all."""
    split_seed: int = 0
    """Seed of the random split."""
    split: str = ""
    """A fixed split: the name of a shipped one, or the path of its CSV file; "": a random split by `split_seed`."""
    folds: int = 0
    """Number k of folds of a cross-validation, instead of `held_out`; 0: no cross-validation."""
    fold: int = 0
    """The fold that is the test split, from 0."""
    supervision: float = 1.0
    """Share of the photographs with lesion masks whose masks are used (Sec. V-D)."""
    frame: int = FRAME
    """Side of the HR frame, px. Another size than 1024 is for studies and tests (interpretation R19)."""

    def frame_problems(self) -> Iterator[str]:
        """Describe a frame that is out of range."""
        if not 16 <= self.frame <= MAX_FRAME or self.frame % 16:
            yield f"frame = {self.frame}, expected a multiple of 16 from 16 to {MAX_FRAME}"

    def problems(self) -> Iterator[str]:
        """Describe each setting but the frame that is out of range, and what was expected."""
        if min(self.held_out, self.validation) < 0 or self.held_out + self.validation >= 1:
            found = f"held_out = {self.held_out}, validation = {self.validation}"
            yield f"{found}, expected shares from 0 that leave photographs for training"
        if not 0 <= self.supervision <= 1:
            yield f"supervision = {self.supervision}, expected a share from 0 to 1"
        if self.folds and not (self.folds > 1 and 0 <= self.fold < self.folds):
            yield (
                f"fold = {self.fold}, folds = {self.folds}; expected at least 2 folds, and a fold from 0 to folds - 1"
            )


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All settings of `deepmtdr train` but the paths and the machine."""

    name: str = "default"
    seed: int = 0
    """Seed of the initial weights, the batches and the dropout."""
    precision: str = "auto"
    """Number format: `bf16` (mixed precision), `fp32`, or `auto`: bf16 where the device has instructions for it. The
    format that was used is in `run.json`.
    """
    checkpoint_minutes: float = 3.0
    """Time between two checkpoints, minutes."""
    labels: LabelSet = DIABETIC_RETINOPATHY
    """Lesion types and grades. In TOML the name of a file, relative to the recipe's, or a table."""
    system: str = "DeepMT-DR"
    """The network that is trained: a name of `deepmtdr.systems.SYSTEMS`."""
    parts: PartNames = field(default_factory=PartNames)
    """Parts that replace those of the system (Finding 2)."""
    data: DataRecipe = field(default_factory=DataRecipe)
    model: ModelConfig = field(default_factory=ModelConfig)
    restoration: RestorationStage = field(default_factory=RestorationStage)
    grading: GradingStage = field(default_factory=GradingStage)
    joint: JointStage = field(default_factory=JointStage)

    @property
    def stages(self) -> tuple[TrainingStage, ...]:
        """The three stages in the order of training."""
        return self.restoration, self.grading, self.joint

    def stage(self, name: str) -> TrainingStage:
        """Return the stage with a name.

        Raises:
            RecipeError: if there is none.
        """
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise RecipeError(f"stage {name!r}, expected one of {', '.join(STAGES)}")

    def network_problems(self) -> Iterator[str]:
        """Describe each setting that is out of range and that the network or its frame depends on."""
        yield from find_unknown_names(self.system, self.parts)
        yield from (f"data.{problem}" for problem in self.data.frame_problems())
        yield from (f"model.{problem}" for problem in self.model.problems())

    def problems(self) -> Iterator[str]:
        """Describe each setting that is out of range: its key, and what was expected."""
        yield from self.network_problems()
        if self.precision not in PRECISIONS:
            yield f"precision = {self.precision!r}, expected one of {', '.join(PRECISIONS)}"
        yield from (f"data.{problem}" for problem in self.data.problems())
        for stage in self.stages:
            yield from (f"{stage.name}.{problem}" for problem in stage.problems())
            classes = stage.loss.class_weights
            if classes and (len(classes) != len(self.labels.grades) or min(classes) < 0):
                expected = f"{len(self.labels.grades)} weights of 0 or more, or none"
                yield f"{stage.name}.loss.class_weights = {classes}, expected {expected}"
        if self.grading.small_frame_share and self.data.frame < 128:
            found = f"grading.small_frame_share = {self.grading.small_frame_share} in a frame of {self.data.frame} px"
            yield f"{found}, expected a frame of at least 128 px"


def load_recipe(name_or_path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a shipped recipe by name, or a TOML file, and apply `--set key=value` overrides.

    Args:
        name_or_path: `small`, `smoke`, ... (see `list_recipes`), or the path of a `.toml` file.
        overrides: `a.b=value` with a TOML value: `joint.loss.lambda_tv=0`, `data.datasets=["idrid"]`.

    Raises:
        RecipeError: if there is no such recipe or file, it is not TOML, or a key or value is wrong.
        LabelSetError: if its label set is wrong.
    """
    where, values = f"recipe {name_or_path}", _read(name_or_path)
    for override in overrides:
        _apply(values, override)
    for problem in find_wrong_keys(values):
        raise RecipeError(f"{where}: {problem}")
    recipe = _build(values, where)
    for problem in recipe.problems():
        raise RecipeError(f"{where}: {problem}")
    return recipe


def recipe_from_dict(values: Mapping[str, Any], where: str) -> Recipe:
    """Read a recipe that `to_dict` wrote, in this version or an earlier one; an absent key has its default.

    Args:
        values: the recipe in a checkpoint's card or in `run.json`.
        where: name of the file, for the error message.

    Raises:
        RecipeError: if a key is unknown or a value has another type.
        LabelSetError: if its label set is wrong.
    """
    if isinstance(values.get("labels"), str):  # in TOML it is the name of a file; a card must not name one
        raise RecipeError(f"{where}: labels = {shorten(repr(values['labels']))}, expected a table")
    return _build(translate_old_keys(values), where)


def to_dict(recipe: Recipe) -> dict[str, Any]:
    """Convert a recipe to dicts and lists, for JSON. The default label set is left out."""
    values = json.loads(json.dumps(dataclasses.asdict(recipe), allow_nan=False))
    if recipe.labels == DIABETIC_RETINOPATHY:
        del values["labels"]
    return values


class RecipeDifference(NamedTuple):
    """A setting in which two recipes differ."""

    key: str
    """Key of the setting, with its tables: "joint.steps"."""
    was: object
    now: object

    def __str__(self) -> str:
        return f"{self.key} was {self.was!r}, is {self.now!r}"


def recipe_differences(was: Recipe, now: Recipe) -> list[RecipeDifference]:
    """List the settings in which two recipes differ; two label sets with different names are one difference."""
    before, after = dict(_settings(was)), dict(_settings(now))
    differences = [
        RecipeDifference(key, before[key], after[key]) for key in sorted(before) if before[key] != after[key]
    ]
    if was.labels.name == now.labels.name:
        return differences
    others = [difference for difference in differences if not difference.key.startswith("labels.")]
    return sorted([*others, RecipeDifference("labels", was.labels.name, now.labels.name)])


def find_split_file(name: str) -> Path:
    """Find the CSV file of `data.split`.

    Raises:
        RecipeError: if `data.split` is neither a file nor the name of a shipped split.
    """
    for path in (Path(name), Path(str(_recipes())) / f"{name}.split.csv"):
        if path.is_file():
            return path
    raise RecipeError(f"data.split = {name!r}: no such file, and no split of that name is shipped")


def list_recipes() -> list[str]:
    """List the names of the recipes in the package."""
    return sorted(file.name.removesuffix(".toml") for file in _recipes().iterdir() if file.name.endswith(".toml"))


def _recipes() -> Any:
    return resources.files("deepmtdr") / "recipes"


def _read(name_or_path: str | Path) -> dict[str, Any]:
    path = Path(name_or_path)
    shipped = _recipes() / f"{name_or_path}.toml"
    try:
        found = read_toml(path) if path.suffix == ".toml" else parse_toml(shipped.read_text(encoding="utf-8"))
    except OSError as error:
        known = f"expected a .toml file or one of {', '.join(list_recipes())}"
        raise RecipeError(f"recipe {name_or_path}: not found ({error.strerror}); {known}") from error
    except ValueError as error:
        raise RecipeError(f"recipe {name_or_path}: not valid TOML: {error}") from error
    values = {"name": path.stem, **found}
    if isinstance(values.get("labels"), str):
        values["labels"] = str(path.parent / values["labels"])
    return values


def _apply(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals:
        raise RecipeError(f"--set {override}: expected key=value")
    try:
        value = parse_toml(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        value = text  # a bare word is a string
    except ValueError as error:
        raise RecipeError(f"--set {shorten(override)}: {error}") from error
    *path, last = key.strip().split(".")
    for part in path:
        values = values.setdefault(part, {})
        if not isinstance(values, dict):
            raise RecipeError(f"--set {override}: {part} is {values!r}, which has no keys")
    values[last] = value


def _build(values: Mapping[str, Any], where: str) -> Recipe:
    labels = values.get("labels")
    if isinstance(labels, str):
        values = {**values, "labels": load_label_set(Path(labels))}
    elif isinstance(labels, Mapping):  # not from_dict, which would fill in the lesions of the default
        values = {**values, "labels": label_set_from_dict(labels, f"{where}: labels")}
    try:
        return from_dict(Recipe, values, where)
    except ConfigError as error:
        raise RecipeError(str(error)) from error


def _settings(config: Any, inside: str = "") -> Iterator[tuple[str, object]]:
    """Yield every setting of a dataclass and its nested dataclasses, with its dotted key."""
    for entry in dataclasses.fields(config):
        value = getattr(config, entry.name)
        if dataclasses.is_dataclass(value):
            yield from _settings(value, f"{inside}{entry.name}.")
        else:
            yield f"{inside}{entry.name}", value
