"""Checkpoints: saved values come back, damaged files are errors, pickles are never loaded."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from deepmtdr import checkpoint
from deepmtdr.errors import CheckpointError
from deepmtdr.labels import DIABETIC_RETINOPATHY, GradeLabel, LabelSet, LesionType
from deepmtdr.model.deepmtdr import DeepMTDR
from deepmtdr.recipe import Recipe, load_recipe, to_dict
from deepmtdr.recipe_keys import REASONS, RENAMED_STAGE_KEYS

TINY = (
    "model.isr.width=2",
    "model.isr.blocks=1",
    "model.segmentation.width=2",
    "model.grading.width=1",
    "model.grading.hidden=2",
)


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return load_recipe("smoke", TINY)


@pytest.fixture(scope="module")
def model(recipe: Recipe) -> DeepMTDR:
    """Random weights, so that two tensors are never equal."""
    torch.manual_seed(1)
    model = DeepMTDR(recipe.model)
    for tensor in model.state_dict().values():
        tensor.copy_(torch.randn(tensor.shape) if tensor.is_floating_point() else torch.tensor(3))
    return model


@pytest.fixture
def saved(tmp_path: Path, model: DeepMTDR, recipe: Recipe) -> Path:
    path = tmp_path / "weights.safetensors"
    checkpoint.save(path, model, recipe, stage="joint", step=7, scores={"auc": 0.5})
    return path


def changed(path: Path, position: int, bits: int) -> Path:
    """A copy with one byte changed."""
    content = bytearray(path.read_bytes())
    content[position] ^= bits
    copy = path.with_name("changed.safetensors")
    copy.write_bytes(content)
    return copy


def header_size(path: Path) -> int:
    return 8 + int.from_bytes(path.read_bytes()[:8], "little")


def test_saved_weights_and_card_come_back_unchanged(saved: Path, model: DeepMTDR, recipe: Recipe) -> None:
    found = checkpoint.load(saved)
    assert found.recipe == recipe
    assert found.card == {"stage": "joint", "step": 7, "scores": {"auc": 0.5}}
    assert len(found.digest) == 64
    assert not found.model.training
    ours, theirs = model.state_dict(), found.model.state_dict()
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.equal(theirs[name], tensor) and theirs[name].dtype == tensor.dtype, name


def test_half_comes_back_as_float32_rounded_to_float16(tmp_path: Path, model: DeepMTDR, recipe: Recipe) -> None:
    whole, half = tmp_path / "whole.safetensors", tmp_path / "half.safetensors"
    checkpoint.save(whole, model, recipe)
    checkpoint.save(half, model, recipe, half=True)
    assert half.stat().st_size < 0.8 * whole.stat().st_size
    found = checkpoint.load(half).model.state_dict()
    for name, tensor in model.state_dict().items():
        expected = tensor.half().float() if tensor.is_floating_point() else tensor
        assert torch.equal(found[name], expected) and found[name].dtype == tensor.dtype, name


def test_channels_last_weights_come_back_unchanged(tmp_path: Path, recipe: Recipe) -> None:
    path = tmp_path / "weights.safetensors"
    model = DeepMTDR(recipe.model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    checkpoint.save(path, model, recipe)
    for name, tensor in checkpoint.load(path).model.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name])


def test_card_is_written_as_json_beside_the_weights(saved: Path, recipe: Recipe) -> None:
    card = json.loads(saved.with_suffix(".json").read_text(encoding="utf-8"))
    assert card["recipe"] == to_dict(recipe)
    assert (card["stage"], card["step"], card["scores"]) == ("joint", 7, {"auc": 0.5})


def test_digest_depends_on_card_and_weights(tmp_path: Path, model: DeepMTDR, recipe: Recipe) -> None:
    def digest(weights: DeepMTDR, step: int) -> str:
        checkpoint.save(tmp_path / "w.safetensors", weights, recipe, step=step)
        return checkpoint.load(tmp_path / "w.safetensors").digest

    other = DeepMTDR(recipe.model)
    assert digest(model, 1) == digest(model, 1)
    assert len({digest(model, 1), digest(model, 2), digest(other, 1)}) == 3


def test_update_card_adds_an_entry_and_keeps_every_tensor(tmp_path: Path, model: DeepMTDR, recipe: Recipe) -> None:
    path, out = tmp_path / "half.safetensors", tmp_path / "new" / "more.safetensors"
    checkpoint.save(path, model, recipe, half=True, step=7, note="old")
    digest = checkpoint.load(path).digest
    checkpoint.update_card(path, out, digest=digest, note="new", more=1)
    assert out.read_bytes()[header_size(out) :] == path.read_bytes()[header_size(path) :]
    assert checkpoint.load(out).card == {"step": 7, "note": "new", "more": 1}
    assert json.loads(out.with_suffix(".json").read_text())["recipe"] == to_dict(recipe)
    with pytest.raises(CheckpointError, match=r"half\.safetensors: found SHA-256 .*, expected 0000.*in the meantime"):
        checkpoint.update_card(path, path, digest="0" * 64, note="lost")
    assert checkpoint.load(path).card["note"] == "old"


def test_no_temporary_file_is_left(saved: Path) -> None:
    checkpoint.save(saved, checkpoint.load(saved).model, checkpoint.load(saved).recipe)  # over the old one
    assert sorted(path.name for path in saved.parent.iterdir()) == ["weights.json", "weights.safetensors"]


def test_files_have_the_usual_permissions(saved: Path) -> None:
    (saved.parent / "other").touch()
    assert {path.stat().st_mode for path in saved.parent.iterdir()} == {(saved.parent / "other").stat().st_mode}


def test_interrupted_write_keeps_the_old_file(saved: Path, model: DeepMTDR, recipe: Recipe, monkeypatch) -> None:
    def killed(path: Path, target: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(saved, model, recipe, step=8)
    assert checkpoint.load(saved).card["step"] == 7


@pytest.mark.parametrize("bits", [0x01, 0x20, 0xFF])
def test_changed_byte_anywhere_is_an_error(tmp_path: Path, bits: int) -> None:
    path = tmp_path / "small.safetensors"
    tensors = {"a": torch.arange(3.0), "b": torch.ones(2, 2).half(), "n": torch.tensor(7)}
    checkpoint.write(path, tensors, {"step": 3, "name": 'with "quotes" and é'})
    for position in range(path.stat().st_size):
        with pytest.raises(CheckpointError, match=r"changed\.safetensors"):
            checkpoint.read(changed(path, position, bits))


def test_changed_byte_in_a_network_checkpoint_is_an_error(saved: Path) -> None:
    size, header = saved.stat().st_size, header_size(saved)
    rng = np.random.default_rng(0)
    in_header, in_tensors = rng.integers(0, header, 40), rng.integers(header, size, 40)
    for position in [0, 7, 8, header - 1, header, size - 1, *in_header.tolist(), *in_tensors.tolist()]:
        with pytest.raises(CheckpointError, match=r"changed\.safetensors"):
            checkpoint.load(changed(saved, position, 0x10))


def test_changed_weight_is_an_error_with_both_digests(saved: Path) -> None:
    path = changed(saved, saved.stat().st_size - 1, 0x01)
    expected = checkpoint.load(saved).digest[:12]
    with pytest.raises(CheckpointError, match=rf"damaged: content has SHA-256 [0-9a-f]{{12}}, expected {expected}"):
        checkpoint.load(path)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9999])
def test_truncated_file_is_an_error(saved: Path, share: float) -> None:
    path = saved.with_name("short.safetensors")
    path.write_bytes(saved.read_bytes()[: int(share * saved.stat().st_size)])
    with pytest.raises(CheckpointError, match=r"short\.safetensors: not a safetensors file, or a damaged one"):
        checkpoint.load(path)


def test_bytes_after_the_end_are_an_error(saved: Path) -> None:
    path = saved.with_name("long.safetensors")
    path.write_bytes(saved.read_bytes() + b"\0")
    with pytest.raises(CheckpointError, match=r"long\.safetensors"):
        checkpoint.load(path)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"none\.safetensors: found no such file, expected weights"):
        checkpoint.load(tmp_path / "none.safetensors")
    with pytest.raises(CheckpointError, match=r"none\.safetensors"):
        checkpoint.read_tensors(tmp_path / "none.safetensors")


def test_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=tmp_path.name):
        checkpoint.load(tmp_path)


@pytest.mark.parametrize("content", [b"", b"not safetensors at all", bytes(64)], ids=["empty", "text", "zeros"])
def test_other_kind_of_file_is_an_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content)
    for read in (checkpoint.load, checkpoint.read, checkpoint.read_tensors):
        with pytest.raises(CheckpointError, match=r"weights\.safetensors: not a safetensors file"):
            read(path)


def test_pickle_is_an_error_and_never_run(tmp_path: Path, model: DeepMTDR) -> None:
    evil = tmp_path / "evil.safetensors"
    evil.write_bytes(b"cos\nmkdir\n(V" + str(tmp_path / "was_run").encode() + b"\ntR.")  # os.mkdir(...) as a pickle
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    for path in (evil, tmp_path / "weights.pt"):
        with pytest.raises(CheckpointError, match=r"not a safetensors file"):
            checkpoint.load(path)
    assert not (tmp_path / "was_run").exists()


def test_safetensors_of_another_program_are_no_checkpoint_but_their_tensors_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "resnet.safetensors"
    save_file({"conv1.weight": torch.ones(2)}, path, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"resnet\.safetensors: found safetensors without the card of deepmtdr"):
        checkpoint.load(path)
    assert torch.equal(checkpoint.read_tensors(path)["conv1.weight"], torch.ones(2))


def test_other_architecture_is_an_error_with_the_first_reason(tmp_path: Path, model: DeepMTDR, recipe: Recipe) -> None:
    wider = load_recipe("smoke", [*TINY, "model.grading.width=2"])
    checkpoint.save(tmp_path / "wider.safetensors", model, wider)
    with pytest.raises(
        CheckpointError, match=r"wider\.safetensors: the weights do not fit the architecture.*found grading\..* of"
    ):
        checkpoint.load(tmp_path / "wider.safetensors")

    tensors = {**model.state_dict(), "isr.extra.weight": torch.ones(1)}
    checkpoint.write(tmp_path / "more.safetensors", tensors, {"recipe": to_dict(recipe)})
    with pytest.raises(
        CheckpointError, match=r"more\.safetensors: the weights do not fit the architecture.*isr\.extra\.weight"
    ):
        checkpoint.load(tmp_path / "more.safetensors")

    future = to_dict(recipe) | {"diffusion": {"steps": 3}}
    checkpoint.write(tmp_path / "future.safetensors", model.state_dict(), {"recipe": future})
    with pytest.raises(
        CheckpointError, match=r"future\.safetensors: the weights do not fit the architecture.*unknown key diffusion"
    ):
        checkpoint.load(tmp_path / "future.safetensors")


def test_checkpoint_to_resume_from_cannot_be_loaded_as_weights(tmp_path: Path, model: DeepMTDR, recipe: Recipe) -> None:
    tensors = {f"model/{name}": tensor for name, tensor in model.state_dict().items()}
    checkpoint.write(tmp_path / "resume.safetensors", tensors, {"recipe": to_dict(recipe)})
    with pytest.raises(CheckpointError, match=r"resume\.safetensors: the weights do not fit the architecture"):
        checkpoint.load(tmp_path / "resume.safetensors")


def test_shipped_weights_are_the_default_and_an_error_if_absent(saved: Path, tmp_path: Path, monkeypatch) -> None:
    package = tmp_path / "package"
    monkeypatch.setattr(checkpoint.resources, "files", lambda _: package)
    with pytest.raises(CheckpointError, match=rf"{checkpoint.SHIPPED_WEIGHTS}\.safetensors: found no such file"):
        checkpoint.load()
    (package / "weights").mkdir(parents=True)
    shutil.copy(saved, package / "weights" / f"{checkpoint.SHIPPED_WEIGHTS}.safetensors")
    assert checkpoint.load().digest == checkpoint.load(saved).digest


def test_same_weights_give_the_same_file(tmp_path: Path) -> None:
    def written() -> bytes:
        checkpoint.write(tmp_path / "a.safetensors", {"b": torch.arange(3.0), "a": torch.ones(2)}, {"stage": "done"})
        return (tmp_path / "a.safetensors").read_bytes()

    assert len({written() for _ in range(20)}) == 1
    assert (int.from_bytes(written()[:8], "little")) % 8 == 0  # the tensors stay aligned


# Cards of the first version, label sets


def test_shipped_weights_of_the_first_version_load() -> None:
    found = checkpoint.load()
    assert found.recipe == load_recipe("small-on")
    assert found.labels is DIABETIC_RETINOPATHY
    assert (found.temperature, found.operating_point) == (1.0, None)


def test_card_of_the_first_version_loads(saved: Path, model: DeepMTDR, recipe: Recipe) -> None:
    card = {"recipe": to_dict(recipe)}
    old_names = {new: old for old, new in RENAMED_STAGE_KEYS.items()}
    for stage in ("restoration", "grading", "joint"):
        every = dict.fromkeys(REASONS, 1) | card["recipe"][stage]
        card["recipe"][stage] = {old_names.get(key, key): value for key, value in every.items()}
    checkpoint.write(saved, model.state_dict(), card)
    assert checkpoint.load(saved).recipe == recipe


def test_label_set_of_the_recipe_comes_back_and_shapes_the_network(tmp_path: Path) -> None:
    labels = LabelSet(
        name="drusen",
        disease="macular degeneration",
        lesions=(
            LesionType(code="DR", name="drusen", coding=("SCT", "1", "Drusen")),
            LesionType(code="GA", name="atrophies"),
        ),
        grades=tuple(GradeLabel(name=f"grade {n}") for n in range(3)),
    )
    recipe = dataclasses.replace(load_recipe("smoke", TINY), labels=labels)
    checkpoint.save(tmp_path / "weights.safetensors", DeepMTDR(recipe.model, labels=labels), recipe)
    found = checkpoint.load(tmp_path / "weights.safetensors")
    assert found.labels == found.model.labels == labels
    prediction = found.model.segment_and_grade(torch.rand(1, 3, 64, 64))
    assert (prediction.lesions.shape[1], prediction.grade_logits.shape[1]) == (2, 3)


def test_unreadable_label_set_is_an_error(tmp_path: Path, model: DeepMTDR, recipe: Recipe) -> None:
    card = {"recipe": {**to_dict(recipe), "labels": {"name": "drusen"}}}
    checkpoint.write(tmp_path / "w.safetensors", model.state_dict(), card)
    with pytest.raises(
        CheckpointError, match=r"the weights do not fit the architecture of this version: .*labels: missing key disease"
    ):
        checkpoint.load(tmp_path / "w.safetensors")
