"""Random changes of the header of a safetensors file, and of the card of deepmtdr in it."""

from __future__ import annotations

import hashlib
import json
import random
from typing import Any

from benchmarks.fuzzing.byte_mutations import change_bytes, change_json, pack

_TYPES = ("F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8",
          "BOOL", "F8_E4M3", "F8_E5M2", "U64", "C64", "F4", "")  # fmt: skip
_TORCH = {"F64": "torch.float64", "F32": "torch.float32", "F16": "torch.float16", "I64": "torch.int64"}


def change_checkpoint(content: bytes, chance: random.Random) -> bytes:
    """Change the header; half of the time the card in it. The length of the header mostly stays right."""
    size = int.from_bytes(content[:8], "little")
    body = content[8 + size :]
    try:
        header = json.loads(content[8 : 8 + size])
        metadata = header.get("__metadata__", {})
        match chance.randrange(8):
            case 0 | 1 | 2 | 3:
                card = json.dumps(change_json(json.loads(metadata["card"]), chance))
                header["__metadata__"] = {**metadata, "card": card, "digest": _digest(header, body, card)}
            case 4:
                name = chance.choice([name for name in header if name != "__metadata__"])
                header[name] = {**header[name], "dtype": chance.choice(_TYPES)}
            case 5:
                return change_bytes(content, chance)
            case _:
                header = change_json(header, chance)
        changed = json.dumps(header).encode()
    except (ValueError, KeyError, AttributeError, TypeError, IndexError, RecursionError):
        return change_bytes(content, chance)
    length = (
        pack(chance.randrange(1 << 63), 8, chance) if chance.random() < 0.02 else len(changed).to_bytes(8, "little")
    )
    return length + changed + body


def _digest(header: dict[str, dict[str, Any]], body: bytes, card: str) -> str:
    """The digest of card and tensors, as `checkpoint_file` computes it."""
    sha = hashlib.sha256(card.encode())
    for name in sorted(name for name in header if name != "__metadata__"):
        entry = header[name]
        start, end = entry["data_offsets"]
        sha.update(f"{name} {_TORCH[entry['dtype']]} {tuple(entry['shape'])}".encode())
        sha.update(body[start:end])
    return sha.hexdigest()
