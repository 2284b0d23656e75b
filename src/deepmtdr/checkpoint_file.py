"""Safetensors files with a card and a digest: reading and writing.

The header holds the card as JSON, and a SHA-256 digest of the card and every tensor, so that damage is found.
The digest is not a signature: it does not protect against a deliberate change. So a file may contain anything: its
header is limited in size, its card in nesting, and every malformed file is a `CheckpointError` of one line.
Files are written atomically: after a kill there is either the old file or the new file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from deepmtdr.errors import CheckpointError
from deepmtdr.files import make_folder, write_atomically
from deepmtdr.toml_config import parse_json, shorten

MAX_HEADER_BYTES = 16 << 20
"""Size of the largest header that is read. Those of resumable checkpoints have less than 1 MiB."""


def write(path: Path, tensors: Mapping[str, Tensor], card: Mapping[str, Any]) -> None:
    """Write tensors and card as one file, atomically.

    Raises:
        OSError: if the file cannot be written.
        ValueError: if a number of the card is not finite, which JSON does not have.
    """
    make_folder(path.parent)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(card, allow_nan=False)
    # Not safetensors' own save_file: only the owner could read its files.
    write_atomically(path, _sort_header(to_bytes(tensors, metadata={"card": text, "digest": _digest(tensors, text)})))


def _sort_header(file: bytes) -> bytes:
    """Sort the keys of the header of a safetensors file, so that equal weights give equal files."""
    end = 8 + int.from_bytes(file[:8], "little")
    header = json.dumps(json.loads(file[8:end]), allow_nan=False, sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + file[end:]


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any], str]:
    """Read tensors, card and digest of a file made by `write`.

    Raises:
        CheckpointError: if the file is missing or damaged, or was not written by deepmtdr.
    """
    tensors, metadata = _read_safetensors(path)
    if "card" not in metadata or "digest" not in metadata:
        raise CheckpointError(
            f"{path}: found safetensors without the card of deepmtdr, expected a checkpoint of deepmtdr"
        )
    found = _digest(tensors, metadata["card"])
    if found != metadata["digest"]:
        expected = shorten(metadata["digest"][:12])
        raise CheckpointError(f"{path}: damaged: content has SHA-256 {found[:12]}, expected {expected}")
    return tensors, _read_card(path, metadata["card"]), found


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read the tensors of any safetensors file, such as published ImageNet weights.

    Raises:
        CheckpointError: if the file is missing, is not a safetensors file, or a number is not finite.
    """
    tensors, _ = _read_safetensors(path)
    check_finite(path, tensors)
    return tensors


def check_finite(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Check that all weights are finite: a network with others grades everything alike.

    Raises:
        CheckpointError: if a number is NaN or infinite.
    """
    for name, tensor in tensors.items():
        if wrong := int((~tensor.isfinite()).sum()):
            where = f"{path}: {shorten(name)}"
            raise CheckpointError(
                f"{where}: {wrong} of {tensor.numel()} numbers are NaN or infinite, expected finite weights"
            )


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read the tensors and the metadata of any safetensors file."""
    if not path.exists():
        raise CheckpointError(f"{path}: found no such file, expected weights (.safetensors)")
    try:
        _check_header_size(path)
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, RuntimeError, TypeError, AttributeError) as error:
        # The last ones: number formats that safetensors knows and PyTorch does not.
        reason = shorten(" ".join(str(error).split()))
        raise CheckpointError(f"{path}: not a safetensors file, or a damaged one: {reason}") from error


def _check_header_size(path: Path) -> None:
    """Check the size that a safetensors file begins with, before anything is allocated for the header."""
    if not path.is_file():
        raise ValueError("found a folder or a device, expected a file")
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
    if size > MAX_HEADER_BYTES:
        raise ValueError(f"found a header of {size} bytes, expected at most {MAX_HEADER_BYTES}")


def _read_card(path: Path, text: str) -> dict[str, Any]:
    try:
        card = parse_json(text)
    except ValueError as error:
        raise CheckpointError(f"{path}: the card is not valid JSON: {error}") from error
    if not isinstance(card, dict):
        raise CheckpointError(f"{path}: the card is {shorten(repr(card))}, expected a table with the key recipe")
    return card


def _digest(tensors: Mapping[str, Tensor], card: str) -> str:
    sha = hashlib.sha256(card.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        sha.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()
