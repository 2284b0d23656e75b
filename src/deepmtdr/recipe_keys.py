"""Recipe keys that were renamed, and keys that a stage does not have: errors in TOML, accepted in old checkpoints.

In the first checkpoints, among them the shipped v0, every stage has the keys of all three.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from deepmtdr.recipe_stages import STAGE_TYPES, StageName

RENAMED_DATA_KEYS = {
    "looked_at": "validation_photographs",
}
"""Old key -> new key of [data]."""

RENAMED_STAGE_KEYS = {
    "epoch": "validate_every",
    "falls_at": "decay_at",
    "falls_by": "decay_factors",
    "per_grade": "max_per_grade",
    "recompute": "activation_checkpointing",
    "small": "small_frame_share",
}
"""Old key -> new key of the three stages."""

EARLIER_VALUES: dict[str, Any] = {
    "model.isr.skip": "bicubic",
    "model.isr.local_difference": False,
    "model.grading.head_norm": False,
    "restoration.loss.task_aware_share": 0.0,
    "restoration.batch_norm_batches": 0,
    "grading.loss.grading_form": "eq10",
    "grading.batch_norm_batches": 0,
    "joint.loss.grading_form": "eq10",
    "joint.loss.task_aware_share": 0.0,
    "joint.balance": 0.0,
    "joint.dropout": False,
    "joint.evidence": {"turns": 1, "smoothing": 0.0, "percentile": 100.0, "create_graph": True},
}
"""Key that the recipe in an old checkpoint does not have yet -> the value that has the effect of that version.

Only for keys whose default has another effect. A key is added where the table that contains it exists.
"""

REASONS = {
    "crop": "the grading stage takes whole frames",
    "annotated": "the grading stage takes photographs with a grade, whether they have lesion masks or not",
    "union_share": "the grading stage takes photographs with a grade, whether they have lesion masks or not",
    "augmentation": "the grading stage uses cached outputs of the ISR and segmentation subnets",
    "end_to_end": "the ISR subnet is frozen in the grading stage",
    "lr_isr": "the ISR subnet is frozen in the grading stage",
    "lr_segmentation": "the segmentation subnet is frozen in the grading stage",
    "lr_grading": "the restoration stage has no grading subnet",
    "balance": "the restoration stage does not draw photographs by grade",
    "dropout": "the first two stages are trained with dropout anyway; its share is model.grading.dropout",
    "evidence": "only the joint stage uses the evidence",
    "batch_norm_batches": "batch normalisation is frozen in the joint stage",
    "max_per_grade": "only the grading stage draws photographs by grade",
    "small_frame_share": "only the grading stage begins on small frames",
    "hide_image": "only the grading stage uses cached lesion maps beside the image",
    "rotation": "the other stages have augmentation.rotation",
    "zoom": "the other stages have augmentation.zoom",
}
"""Key that only some stages have -> why the other stages do not have it."""


def find_wrong_keys(values: Mapping[str, Any]) -> Iterator[str]:
    """Describe renamed keys, and keys of another stage, in the tables of a recipe file.

    Other unknown keys are left to `toml_config.from_dict`.
    """
    yield from _renamed("data", _table(values, "data"), RENAMED_DATA_KEYS)
    for name in STAGE_TYPES:
        table = _table(values, name)
        yield from _renamed(name, table, RENAMED_STAGE_KEYS)
        for key in table:
            if key in REASONS and key not in stage_keys(name):
                others = ", ".join(other for other in STAGE_TYPES if key in stage_keys(other))
                yield f"{name}.{key}: not a key of this stage: {REASONS[key]}. Remove it; it is a key of: {others}"


def translate_old_keys(values: Mapping[str, Any]) -> dict[str, Any]:
    """Translate a recipe of an earlier version to the present keys.

    Keys without effect in their stage are dropped. Keys that were not known yet get the values of `EARLIER_VALUES`.
    """
    recipe = dict(values)
    if _table(values, "data"):
        recipe["data"] = _rename(_table(values, "data"), RENAMED_DATA_KEYS)
    for name in STAGE_TYPES:
        if table := _rename(_table(values, name), RENAMED_STAGE_KEYS):
            unused = REASONS.keys() - stage_keys(name)
            recipe[name] = {key: value for key, value in table.items() if key not in unused}
    if "dropout" not in (joint := _table(recipe, "joint")):  # then `balance` had no effect there
        recipe |= {"joint": {key: value for key, value in joint.items() if key != "balance"}} if joint else {}
    for key, value in EARLIER_VALUES.items():
        recipe = _add_if_absent(recipe, key.split("."), value)
    return recipe


def _add_if_absent(table: Mapping[str, Any], path: Sequence[str], value: Any) -> dict[str, Any]:
    """Return a copy of nested tables with a value at a path, if the innermost table exists and lacks the key."""
    key, *rest = path
    if not rest:
        return {key: value, **table}
    inner = table.get(key)
    return {**table, key: _add_if_absent(inner, rest, value)} if isinstance(inner, Mapping) else dict(table)


def stage_keys(name: StageName) -> set[str]:
    """Return the keys of a stage."""
    return {field.name for field in dataclasses.fields(STAGE_TYPES[name])}


def _renamed(name: str, table: Mapping[str, Any], renamed: Mapping[str, str]) -> Iterator[str]:
    for key in table:
        if key in renamed:
            yield f"{name}.{key}: this key was renamed; expected {name}.{renamed[key]}"


def _rename(table: Mapping[str, Any], renamed: Mapping[str, str]) -> dict[str, Any]:
    return {renamed.get(key, key): value for key, value in table.items()}


def _table(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return a table of the recipe; other values are left to `from_dict`."""
    table = values.get(name)
    return table if isinstance(table, Mapping) else {}
