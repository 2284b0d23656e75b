"""Checkpoints: what is saved comes back, whatever is wrong with a file is said, nothing is ever unpickled."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from deepmtdr import checkpoint
from deepmtdr.errors import CheckpointError
from deepmtdr.model.deepmtdr import DeepMTDR
from deepmtdr.recipe import Recipe, load_recipe, to_dict

TINY = [
    *("model.isr.width=2", "model.isr.blocks=1", "model.segmentation.width=2"),
    *("model.grading.width=1", "model.grading.hidden=2"),
]


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return load_recipe("smoke", TINY)


@pytest.fixture(scope="module")
def model(recipe: Recipe) -> DeepMTDR:
    """Every number is its own: a mixed-up tensor would show."""
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


def test_what_is_saved_comes_back_to_the_last_bit(saved: Path, model: DeepMTDR, recipe: Recipe) -> None:
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


def test_channels_last_weights_come_back_the_same(tmp_path: Path, recipe: Recipe) -> None:
    path = tmp_path / "weights.safetensors"
    model = DeepMTDR(recipe.model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    checkpoint.save(path, model, recipe)
    for name, tensor in checkpoint.load(path).model.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name])


def test_the_card_lies_beside_the_weights_for_people(saved: Path, recipe: Recipe) -> None:
    card = json.loads(saved.with_suffix(".json").read_text(encoding="utf-8"))
    assert card["recipe"] == to_dict(recipe)
    assert (card["stage"], card["step"], card["scores"]) == ("joint", 7, {"auc": 0.5})


def test_the_digest_is_that_of_card_and_weights(tmp_path: Path, model: DeepMTDR, recipe: Recipe) -> None:
    def digest(weights: DeepMTDR, step: int) -> str:
        checkpoint.save(tmp_path / "w.safetensors", weights, recipe, step=step)
        return checkpoint.load(tmp_path / "w.safetensors").digest

    other = DeepMTDR(recipe.model)
    assert digest(model, 1) == digest(model, 1)
    assert len({digest(model, 1), digest(model, 2), digest(other, 1)}) == 3


def test_an_entry_is_added_to_the_card_and_every_tensor_stays(tmp_path: Path, model: DeepMTDR, recipe: Recipe) -> None:
    path, out = tmp_path / "half.safetensors", tmp_path / "new" / "more.safetensors"
    checkpoint.save(path, model, recipe, half=True, step=7, note="old")
    digest = checkpoint.load(path).digest
    checkpoint.update_card(path, out, digest=digest, note="new", more=1)
    assert out.read_bytes()[header_size(out) :] == path.read_bytes()[header_size(path) :]
    assert checkpoint.load(out).card == {"step": 7, "note": "new", "more": 1}
    assert json.loads(out.with_suffix(".json").read_text())["recipe"] == to_dict(recipe)
    with pytest.raises(CheckpointError, match=r"half\.safetensors: SHA-256 .*, expected 0000.*in the meantime"):
        checkpoint.update_card(path, path, digest="0" * 64, note="lost")
    assert checkpoint.load(path).card["note"] == "old"


def test_nothing_is_left_beside_the_files(saved: Path) -> None:
    checkpoint.save(saved, checkpoint.load(saved).model, checkpoint.load(saved).recipe)  # over the old one
    assert sorted(path.name for path in saved.parent.iterdir()) == ["weights.json", "weights.safetensors"]


def test_the_files_can_be_read_by_whoever_may_read_others_of_the_same_user(saved: Path) -> None:
    (saved.parent / "other").touch()
    assert {path.stat().st_mode for path in saved.parent.iterdir()} == {(saved.parent / "other").stat().st_mode}


def test_a_kill_while_writing_leaves_the_old_file(saved: Path, model: DeepMTDR, recipe: Recipe, monkeypatch) -> None:
    write_bytes = Path.write_bytes

    def killed(path: Path, content: bytes) -> None:
        write_bytes(path, content[: len(content) // 2])
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", killed)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(saved, model, recipe, step=8)
    assert checkpoint.load(saved).card["step"] == 7


@pytest.mark.parametrize("bits", [0x01, 0x20, 0xFF])
def test_a_changed_byte_in_any_place_is_found(tmp_path: Path, bits: int) -> None:
    path = tmp_path / "small.safetensors"
    tensors = {"a": torch.arange(3.0), "b": torch.ones(2, 2).half(), "n": torch.tensor(7)}
    checkpoint.write(path, tensors, {"step": 3, "name": 'with "quotes" and é'})
    for position in range(path.stat().st_size):
        with pytest.raises(CheckpointError, match=r"changed\.safetensors"):
            checkpoint.read(changed(path, position, bits))


def test_a_changed_byte_in_a_real_checkpoint_is_found(saved: Path) -> None:
    size, header = saved.stat().st_size, header_size(saved)
    rng = np.random.default_rng(0)
    in_header, in_tensors = rng.integers(0, header, 40), rng.integers(header, size, 40)
    for position in [0, 7, 8, header - 1, header, size - 1, *in_header.tolist(), *in_tensors.tolist()]:
        with pytest.raises(CheckpointError, match=r"changed\.safetensors"):
            checkpoint.load(changed(saved, position, 0x10))


def test_a_changed_weight_is_called_damage_with_both_digests(saved: Path) -> None:
    path = changed(saved, saved.stat().st_size - 1, 0x01)
    expected = checkpoint.load(saved).digest[:12]
    with pytest.raises(CheckpointError, match=rf"damaged: content has SHA-256 [0-9a-f]{{12}}, expected {expected}"):
        checkpoint.load(path)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9999])
def test_a_truncated_file_is_refused(saved: Path, share: float) -> None:
    path = saved.with_name("short.safetensors")
    path.write_bytes(saved.read_bytes()[: int(share * saved.stat().st_size)])
    with pytest.raises(CheckpointError, match=r"short\.safetensors: no safetensors file, or a damaged one"):
        checkpoint.load(path)


def test_bytes_behind_the_end_are_refused(saved: Path) -> None:
    path = saved.with_name("long.safetensors")
    path.write_bytes(saved.read_bytes() + b"\0")
    with pytest.raises(CheckpointError, match=r"long\.safetensors"):
        checkpoint.load(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"none\.safetensors: no such file, expected weights"):
        checkpoint.load(tmp_path / "none.safetensors")
    with pytest.raises(CheckpointError, match=r"none\.safetensors"):
        checkpoint.read_tensors(tmp_path / "none.safetensors")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=tmp_path.name):
        checkpoint.load(tmp_path)


@pytest.mark.parametrize("content", [b"", b"not safetensors at all", bytes(64)], ids=["empty", "text", "zeros"])
def test_another_kind_of_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content)
    for door in (checkpoint.load, checkpoint.read, checkpoint.read_tensors):
        with pytest.raises(CheckpointError, match=r"weights\.safetensors: no safetensors file"):
            door(path)


def test_a_pickle_is_refused_and_never_run(tmp_path: Path, model: DeepMTDR) -> None:
    evil = tmp_path / "evil.safetensors"
    evil.write_bytes(b"cos\nmkdir\n(V" + str(tmp_path / "was_run").encode() + b"\ntR.")  # os.mkdir(...) as a pickle
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    for path in (evil, tmp_path / "weights.pt"):
        with pytest.raises(CheckpointError, match=r"no safetensors file"):
            checkpoint.load(path)
    assert not (tmp_path / "was_run").exists()


def test_somebody_elses_safetensors_is_no_checkpoint_but_can_be_read_plainly(tmp_path: Path) -> None:
    path = tmp_path / "resnet.safetensors"
    save_file({"conv1.weight": torch.ones(2)}, path, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"resnet\.safetensors: safetensors without deepmtdr's card"):
        checkpoint.load(path)
    assert torch.equal(checkpoint.read_tensors(path)["conv1.weight"], torch.ones(2))


def test_another_architecture_is_refused_with_the_first_reason(tmp_path: Path, model: DeepMTDR, recipe: Recipe) -> None:
    wider = load_recipe("smoke", [*TINY, "model.grading.width=2"])
    checkpoint.save(tmp_path / "wider.safetensors", model, wider)
    with pytest.raises(CheckpointError, match=r"wider\.safetensors: not the architecture.*size mismatch.*grading"):
        checkpoint.load(tmp_path / "wider.safetensors")

    tensors = {**model.state_dict(), "isr.extra.weight": torch.ones(1)}
    checkpoint.write(tmp_path / "more.safetensors", tensors, {"recipe": to_dict(recipe)})
    with pytest.raises(CheckpointError, match=r"more\.safetensors: not the architecture.*isr\.extra\.weight"):
        checkpoint.load(tmp_path / "more.safetensors")

    future = to_dict(recipe) | {"diffusion": {"steps": 3}}
    checkpoint.write(tmp_path / "future.safetensors", model.state_dict(), {"recipe": future})
    with pytest.raises(CheckpointError, match=r"future\.safetensors: not the architecture.*unknown key diffusion"):
        checkpoint.load(tmp_path / "future.safetensors")


def test_a_checkpoint_of_a_stage_is_no_set_of_weights(tmp_path: Path, model: DeepMTDR, recipe: Recipe) -> None:
    tensors = {f"model/{name}": tensor for name, tensor in model.state_dict().items()}
    checkpoint.write(tmp_path / "resume.safetensors", tensors, {"recipe": to_dict(recipe)})
    with pytest.raises(CheckpointError, match=r"resume\.safetensors: not the architecture"):
        checkpoint.load(tmp_path / "resume.safetensors")


def test_the_shipped_weights_are_the_default_and_say_so_when_absent(saved: Path, tmp_path: Path, monkeypatch) -> None:
    package = tmp_path / "package"
    monkeypatch.setattr(checkpoint.resources, "files", lambda _: package)
    with pytest.raises(CheckpointError, match=rf"{checkpoint.SHIPPED_WEIGHTS}\.safetensors: no such file"):
        checkpoint.load()
    (package / "weights").mkdir(parents=True)
    shutil.copy(saved, package / "weights" / f"{checkpoint.SHIPPED_WEIGHTS}.safetensors")
    assert checkpoint.load().digest == checkpoint.load(saved).digest


def test_the_same_weights_are_the_same_file(tmp_path: Path) -> None:
    def written() -> bytes:
        checkpoint.write(tmp_path / "a.safetensors", {"b": torch.arange(3.0), "a": torch.ones(2)}, {"stage": "done"})
        return (tmp_path / "a.safetensors").read_bytes()

    assert len({written() for _ in range(20)}) == 1
    assert (int.from_bytes(written()[:8], "little")) % 8 == 0  # the tensors stay aligned
