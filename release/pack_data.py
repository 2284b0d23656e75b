"""Pack prepared data sets into few small files, to train on another machine, such as one with a GPU.

    python release/pack_data.py pack DATA PACK [NAME ...]
    python release/pack_data.py unpack PACK DATA

DATA is a folder of prepared data sets. PACK gets `pack.tar.000`, `pack.tar.001`, ... Photographs are stored as WebP of
quality 85, which is lossy: 1,900 frames of 1024 px and 2,500 smaller photographs take 81 MiB instead of 5.6 GiB. Masks
are stored without loss. LR files are computed again from the HR frames. `release/train_packed.sh` trains from a pack.
"""

from __future__ import annotations

import io
import sys
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from deepmtdr.datasets.frames import write_tiff
from deepmtdr.datasets.prepared import MANIFEST, SETTINGS, is_prepared, read_prepared_settings
from deepmtdr.photographs.resize import resize

QUALITY = 85
PART_BYTES = 50 * 2**20
"""Largest size of a file of the pack."""
PHOTOGRAPHS = ("hr", "lr")
"""Folders with photographs; all other folders of a set contain masks."""


def pack(data: Path, folder: Path, names: Sequence[str] = (), part_bytes: int = PART_BYTES) -> list[Path]:
    """Pack prepared data sets.

    Args:
        data: folder of prepared data sets.
        folder: folder of the pack; earlier parts in it are removed.
        names: the data sets; empty: all prepared ones.
        part_bytes: largest size of a part.

    Returns:
        The parts.

    Raises:
        SystemExit: if there is no such prepared set.
    """
    sets = [data / name for name in names] or sorted(path for path in data.iterdir() if is_prepared(path))
    if missing := [path for path in sets if not is_prepared(path)] or ([] if sets else [data]):
        raise SystemExit(f"{missing[0]}: found no prepared data set; make one with `deepmtdr prepare`")
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for root in sets:
            for name, packed in _members(root):
                member = tarfile.TarInfo(f"{root.name}/{name}")
                member.size = len(packed)
                tar.addfile(member, io.BytesIO(packed))
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("pack.tar.*"):
        old.unlink()
    view, parts = content.getbuffer(), []
    for number, start in enumerate(range(0, len(view), part_bytes)):
        parts.append(folder / f"pack.tar.{number:03}")
        parts[-1].write_bytes(view[start : start + part_bytes])
    return parts


def _members(root: Path) -> Iterator[tuple[str, bytes]]:
    """Names in a set and contents of its files, compressed."""
    for name in (MANIFEST, SETTINGS):
        yield name, (root / name).read_bytes()
    for file in sorted(root.glob("*/*.tif")):
        folder = file.parent.name
        if folder == "lr" and (root / "hr" / file.name).exists():
            continue
        image, content = Image.open(file), io.BytesIO()
        if folder in PHOTOGRAPHS:
            image.save(content, "WEBP", quality=QUALITY, method=4)
        else:
            image.save(content, "PNG", optimize=True)
        yield f"{folder}/{file.stem}", content.getvalue()


def unpack(folder: Path, data: Path) -> list[Path]:
    """Restore the prepared data sets of a pack; the manifest of each is written last.

    Args:
        folder: folder of the pack.
        data: folder that gets a folder for each data set.

    Returns:
        The folders of the data sets.

    Raises:
        SystemExit: if there is no pack in the folder.
    """
    parts = sorted(folder.glob("pack.tar.*"))
    if not parts:
        raise SystemExit(f"{folder}: found no pack.tar.000, expected the output of `pack`")
    manifests: dict[Path, bytes] = {}
    with tarfile.open(fileobj=io.BytesIO(b"".join(part.read_bytes() for part in parts))) as tar:
        for member in tar:
            file = tar.extractfile(member)
            assert file is not None
            path, content = data / member.name, file.read()
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.name == MANIFEST:
                manifests[path] = content
            elif path.name == SETTINGS:
                path.write_bytes(content)
            else:
                _restore(path, content)
    for path, content in manifests.items():
        path.write_bytes(content)
    return [path.parent for path in manifests]


def _restore(path: Path, content: bytes) -> None:
    pixels = np.asarray(Image.open(io.BytesIO(content)))
    name, root = f"{path.name}.tif", path.parents[1]
    write_tiff(path.with_name(name), pixels)
    if path.parent.name == "hr":
        (root / "lr").mkdir(exist_ok=True)
        write_tiff(root / "lr" / name, resize(pixels, pixels.shape[0] // read_prepared_settings(root / SETTINGS).scale))


def main(arguments: Sequence[str]) -> None:
    """Run one of the two commands."""
    match arguments:
        case ["pack", data, folder, *names]:
            for part in pack(Path(data), Path(folder), names):
                print(f"{part}: {part.stat().st_size:,} bytes")
        case ["unpack", folder, data]:
            print(*unpack(Path(folder), Path(data)), sep="\n")
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
