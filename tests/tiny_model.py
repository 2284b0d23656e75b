"""A tiny network with its checkpoint, and bad input files of many kinds, for the tests of screening."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from deepmtdr import checkpoint
from deepmtdr.model.deepmtdr import DeepMTDR, ModelConfig
from deepmtdr.model.grading import GradingConfig
from deepmtdr.model.isr import ISRConfig
from deepmtdr.model.segmentation import SegmentationConfig
from deepmtdr.recipe import DataRecipe, Recipe
from fundus import draw_fundus

FRAME = 128
"""Side of the tiny network's frame."""


def tiny_recipe(width: int = 4) -> Recipe:
    model = ModelConfig(
        isr=ISRConfig(width=4, blocks=1),
        segmentation=SegmentationConfig(width=width),
        grading=GradingConfig(width=4, hidden=8),
    )
    return Recipe(name="tiny", data=DataRecipe(frame=FRAME), model=model)


def save_tiny_weights(path: Path) -> Path:
    torch.manual_seed(0)
    recipe = tiny_recipe()
    checkpoint.save(path, DeepMTDR(recipe.model), recipe, weights="tiny")
    return path


def save_photograph(path: Path, side: int = 280) -> Path:
    """A drawn fundus whose field of view is `side` px wide."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = draw_fundus(side + 20, side + 40, (side / 2 + 20, side / 2 + 10), side / 2)
    Image.fromarray(pixels).save(path)
    return path


def save_bad_inputs(folder: Path) -> dict[str, str]:
    """Write bad input files. Returns the status that each file must get in results.csv, by file name."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = save_photograph(folder.parent / "whole.jpg").read_bytes()
    (folder / "text.jpg").write_text("this is not a photograph\n")
    (folder / "truncated.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.png").touch()
    Image.new("RGB", (1, 1)).save(folder / "one_pixel.png")
    Image.new("RGB", (300, 300)).save(folder / "black.png")
    (folder / "bomb.png").write_bytes(png_header(60_000, 60_000))
    frames = [Image.new("RGB", (200, 200), colour) for colour in ("red", "green", "blue")]
    frames[0].save(folder / "three_frames.tif", save_all=True, append_images=frames[1:])
    sky = np.linspace((90, 150, 250), (210, 230, 255), 300)[:, None].repeat(400, axis=1)
    Image.fromarray(sky.astype(np.uint8)).save(folder / "sky.png")
    (folder / "nowhere.jpg").symlink_to("gone.jpg")
    ungradable = {"black.png", "sky.png"}
    return {file.name: "ungradable" if file.name in ungradable else "error" for file in sorted(folder.iterdir())}


def png_header(width: int, height: int) -> bytes:
    """A PNG of a few bytes that declares width x height px."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(64))) + chunk(b"IEND", b"")
    )
