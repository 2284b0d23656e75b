"""Checkpoints that were changed on purpose: each is an error of one line, before any network is built."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save as to_bytes
from torch import Tensor

from deepmtdr import checkpoint, checkpoint_file
from deepmtdr.errors import CheckpointError
from deepmtdr.model.deepmtdr import DeepMTDR
from deepmtdr.recipe import Recipe, to_dict
from deepmtdr.screening.torch_predictor import TorchPredictor
from deepmtdr.systems import SYSTEMS
from tiny_model import tiny_recipe

RECIPE = to_dict(tiny_recipe())


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    return DeepMTDR(tiny_recipe().model).state_dict()


def write(path: Path, tensors: dict[str, Tensor], card: str) -> Path:
    """Write a file with any card and a digest that fits, as an attacker can."""
    metadata = {"card": card, "digest": checkpoint_file._digest(tensors, card)}
    path.write_bytes(to_bytes(tensors, metadata=metadata))
    return path


def recipe_card(**changes: Any) -> str:
    return json.dumps({"recipe": {**RECIPE, **changes}})


def reason(path: Path) -> str:
    """The error of loading a file for screening, without its path."""
    with pytest.raises(CheckpointError) as caught:
        TorchPredictor.load(path)
    message = str(caught.value)
    assert message.isprintable() and len(message) < len(str(path)) + 450
    return message.replace(str(path), "FILE")


WRONG_CARDS = {
    "empty": ("", "the card is not valid JSON: Expecting value"),
    "brace": ("{", "the card is not valid JSON: Expecting property name"),
    "list": ("[]", "the card is [], expected a table with the key recipe"),
    "null": ("null", "the card is None, expected a table"),
    "text": ('"' + "x" * 10_000 + '"', "the card is 'xxx"),
    "deep list": ("[" * 100_000 + "]" * 100_000, "nested more than 32 deep"),
    "deep table": ('{"a":' * 50_000 + "1" + "}" * 50_000, "nested more than 32 deep"),
    "surrogate": (recipe_card(**{"\ud800": 1}), r"unknown key \ud800"),
    "digits": ('{"recipe": ' + "9" * 5000 + "}", "a number of thousands of digits"),
    "not finite": ('{"recipe": {}, "scores": [NaN]}', "found the number NaN, expected a finite number"),
    "no recipe": ("{}", "the card has the recipe None, expected a table"),
    "null recipe": ('{"recipe": null}', "the card has the recipe None, expected a table"),
    "text as recipe": ('{"recipe": "small"}', "the card has the recipe 'small', expected a table"),
    "list as recipe": ('{"recipe": []}', "the card has the recipe [], expected a table"),
    "null model": (recipe_card(model=None), "recipe: model = None, expected ModelConfig"),
    "text as model": (recipe_card(model="x" * 10_000), "recipe: model = 'xxx"),
    "file as labels": (recipe_card(labels="/etc/passwd"), "recipe: labels = '/etc/passwd', expected a table"),
    "unknown system": (recipe_card(system="X"), "recipe: system = 'X', expected one of 'DeepMT-DR'"),
    "unknown part": (recipe_card(parts={"isr": "X"}), "recipe: parts.isr = 'X', expected one of"),
    "unknown key": (recipe_card(**{"k\n" * 999: 1}), r"recipe: unknown key k\nk\n"),
    "huge frame": (recipe_card(data={"frame": 1 << 30}), "data.frame = 1073741824, expected a multiple of 16"),
    "no frame": (recipe_card(data={"frame": 0}), "data.frame = 0, expected a multiple of 16 from 16"),
    "negative width": (recipe_card(model={"grading": {"width": -1}}), "model.grading.width = -1, expected 1 to 4096"),
    "no width": (recipe_card(model={"isr": {"width": 0}}), "model.isr.width = 0, expected 1 to 4096"),
    "huge width": (recipe_card(model={"isr": {"width": 10**30}}), "model.isr.width = 1"),
    "too many blocks": (recipe_card(model={"isr": {"blocks": 10**6}}), "model.isr.blocks = 1000000, expected 1 to"),
    "share above 1": (
        recipe_card(model={"grading": {"dropout": 2.0}}),
        "grading.dropout = 2.0, expected a share",
    ),
    "100,000 grades": (
        recipe_card(
            labels={
                "name": "x",
                "disease": "y",
                "lesions": [{"code": "A", "name": "a"}],
                "grades": [{"name": "g"}] * 100_000,
            }
        ),
        "labels: grades has 100000 values, expected at most 1000",
    ),
    "101 grades": (
        recipe_card(
            labels={
                "name": "x",
                "disease": "y",
                "lesions": [{"code": "A", "name": "a"}],
                "grades": [{"name": "g"}] * 101,
            }
        ),
        "1 lesion types and 101 grades, expected at most 100",
    ),
    "name of two lines": (json.dumps({"recipe": RECIPE, "weights": "a\nb"}), r"the weights have the name 'a\nb'"),
    "list as name": (json.dumps({"recipe": RECIPE, "weights": [1]}), "the weights have the name [1], expected a name"),
    "temperature": (
        '{"calibration": {"temperature": 1' + "0" * 400 + '}, "recipe": ' + json.dumps(RECIPE) + "}",
        "calibration has temperature 1000",
    ),
    "bias": (
        '{"calibration": {"biases": [1' + "0" * 400 + ', 0, 0, 0, 0]}, "recipe": ' + json.dumps(RECIPE) + "}",
        "calibration has biases [1000",
    ),
}


@pytest.mark.parametrize(("card", "expected"), WRONG_CARDS.values(), ids=WRONG_CARDS)
def test_a_wrong_card_is_an_error_of_one_line(
    tmp_path: Path, tensors: dict[str, Tensor], card: str, expected: str
) -> None:
    found = reason(write(tmp_path / "w.safetensors", tensors, card))
    assert found.startswith(("FILE: ", "card: ")) and expected in found, found


@pytest.mark.parametrize("part", ["segmentation", "grading"])
def test_a_small_file_that_asks_for_gigabytes_is_refused_before_they_are_allocated(
    tmp_path: Path, tensors: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    """150 GB for the segmentation subnet. Every network that is built before the error must be on "meta"."""
    build = checkpoint.build_system

    def build_on_meta(*args: Any, **kwargs: Any) -> DeepMTDR:
        assert torch.get_default_device().type == "meta"
        return build(*args, **kwargs)

    monkeypatch.setattr(checkpoint, "build_system", build_on_meta)
    model = {**RECIPE["model"], part: {**RECIPE["model"][part], "width": 4096}}
    found = reason(write(tmp_path / "w.safetensors", tensors, recipe_card(model=model)))
    assert f"found {part}." in found and "of shape (" in found


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_tensors_of_every_system_are_known_without_allocating_them(system: str) -> None:
    expected = checkpoint._expected_tensors(Path("w"), Recipe(system=system))
    assert all(tensor.is_meta for tensor in expected.values())


def test_tensors_without_values_are_those_of_the_network(tensors: dict[str, Tensor]) -> None:
    expected = checkpoint._expected_tensors(Path("w"), tiny_recipe())
    assert {name: (t.shape, t.dtype) for name, t in expected.items()} == {
        name: (t.shape, t.dtype) for name, t in tensors.items()
    }


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("part", ["isr", "segmentation", "grading"])
def test_weights_that_are_not_finite_are_refused(
    tmp_path: Path, tensors: dict[str, Tensor], part: str, wrong: float
) -> None:
    changed = {name: tensor.clone() for name, tensor in tensors.items()}
    name = next(name for name, tensor in changed.items() if name.startswith(part) and tensor.is_floating_point())
    changed[name].view(-1)[-1] = wrong
    path = tmp_path / "w.safetensors"
    checkpoint.write(path, changed, {"recipe": RECIPE})
    assert reason(path) == (
        f"FILE: {name}: 1 of {changed[name].numel()} numbers are NaN or infinite, expected finite weights"
    )
    with pytest.raises(CheckpointError, match="NaN or infinite"):
        checkpoint.read_tensors(path)


def test_running_statistics_that_are_not_finite_are_refused(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    name = next(name for name in tensors if name.endswith("running_var"))
    changed = {**tensors, name: torch.full_like(tensors[name], float("nan"))}
    assert f"FILE: {name}: " in reason(write(tmp_path / "w.safetensors", changed, recipe_card()))


def test_weights_beyond_float32_are_refused(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    changed = {n: t.double() + 1e300 if t.is_floating_point() else t for n, t in tensors.items()}
    assert "are NaN or infinite" in reason(write(tmp_path / "w.safetensors", changed, recipe_card()))


@pytest.mark.parametrize("number_format", [torch.int8, torch.bool, torch.float8_e4m3fn, torch.complex64])
def test_weights_of_another_kind_of_number_are_refused(
    tmp_path: Path, tensors: dict[str, Tensor], number_format: torch.dtype
) -> None:
    changed = {n: t.to(number_format) if t.is_floating_point() else t for n, t in tensors.items()}
    found = reason(write(tmp_path / "w.safetensors", changed, recipe_card()))
    assert f"of {number_format}, expected float16, bfloat16 or float32" in found


def test_a_count_that_is_no_integer_is_refused(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    name = next(name for name in tensors if name.endswith("num_batches_tracked"))
    changed = {**tensors, name: torch.tensor(1.5)}
    found = reason(write(tmp_path / "w.safetensors", changed, recipe_card()))
    assert f"found {name} of torch.float32, expected torch.int64" in found


def test_a_header_that_says_it_is_large_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(struct.pack("<Q", 1 << 26) + b"{")
    assert "found a header of 67108864 bytes, expected at most 16777216" in reason(path)


def test_a_card_that_json_cannot_hold_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        checkpoint.write(tmp_path / "w.safetensors", {}, {"score": float("nan")})
    assert not list(tmp_path.iterdir())


def test_random_changes_of_the_header_are_errors_of_one_line(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    """Entries of the header replaced at random, with the digest of the original file."""
    path = write(tmp_path / "w.safetensors", tensors, recipe_card())
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    header, rng = json.loads(content[8:end]), np.random.default_rng(0)
    values = [None, -1, 0, 1 << 63, 1.5, "", "F4", "F8_E8M0", "C64", [], {}, [1 << 40] * 9, [0, 1 << 62], "\ud800"]
    names = list(header)
    for _ in range(100):
        changed = json.loads(json.dumps(header))
        entry = changed[names[rng.integers(len(names))]]
        entry[list(entry)[rng.integers(len(entry))]] = values[rng.integers(len(values))]
        if changed == header:  # the shape of a number is [] already
            continue
        text = json.dumps(changed).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text + content[end:])
        reason(path)
