"""DIARETDB1: photographs in which four experts marked the four lesion types, each with a confidence.

Who made it: T. Kauppi et al., Lappeenranta and Kuopio, Finland (ImageRet); one camera, 50 degrees, 1500 x 1152 PNG.
Licence: free for research; no redistribution. Weights trained on it are for research, as their card states.
Citation: T. Kauppi et al., "The DIARETDB1 diabetic retinopathy database and evaluation protocol", BMVC 2007.
How to get it: https://www.it.lut.fi/project/imageret/diaretdb1/, version 1.1; unpack diaretdb1_v_1_1.zip so that its
    folder `resources` lies in ROOT. Version 2.1 has the same photographs, but the experts' outlines as XML instead of
    masks: it is not read.
Counts: 28 training and 61 testing photographs, each with four masks. At a confidence of 0.75 the paper counts as
    positive MA 19 + 20, HE 21 + 18, EX 18 + 20, SE 6 + 9.

Known errors and gaps:
    * Masks are grey levels of the experts' mean confidence, 252 for certainty. The authors' evaluation counts a pixel
      with 0.75 or more as lesion; so does `mask_threshold`. A mask without such a pixel has no lesion here.
    * Outlines are coarse: circles, ellipses and polygons around lesions or groups of them.
    * "Red small dots" are taken as microaneurysms; small haemorrhages are among them.
    * No grades. Five photographs show no retinopathy; only their black masks show which.
    * No patient numbers, and not known which eye: each photograph counts as a patient. We could not check whether one
      is in DIARETDB0 too.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from deepmtdr.csv_tables import add_once
from deepmtdr.datasets.layout import (
    DatasetPart,
    LabelCounts,
    check_labels_match,
    find_files,
    find_masks,
    photograph_name,
    read_lines,
)
from deepmtdr.datasets.sample import Sample, SplitName
from deepmtdr.terms import Lesion

EXPECTED_TRAINING = LabelCounts(28, None, (28, 28, 28, 28))
EXPECTED_TESTING = LabelCounts(61, None, (61, 61, 61, 61))

FULL_CONFIDENCE = 252
"""Grey level of a pixel that all experts marked with full confidence."""

MASK_THRESHOLD = int(0.75 * FULL_CONFIDENCE) - 1
"""A pixel above this has a confidence of at least 0.75."""

_IMAGES = "resources/images/ddb1_fundusimages"
_LISTS: dict[SplitName, str] = {
    "train": "resources/traindatasets/trainset.txt",
    "test": "resources/testdatasets/testset.txt",
}
_MASK_FOLDERS = {
    Lesion.MA: "redsmalldots",
    Lesion.HE: "hemorrhages",
    Lesion.EX: "hardexudates",
    Lesion.SE: "softexudates",
}


def read_diaretdb1(root: Path, split: SplitName | None = None) -> list[Sample]:
    """Read ROOT/resources/images/ddb1_fundusimages with its masks, split as in trainset.txt and testset.txt.

    Args:
        root: folder with `resources`.
        split: only the photographs of this split; None: all.

    Raises:
        DataError: if a folder or list is missing, a mask has no photograph, or photographs and lists do not match.
    """
    photographs = find_files(root / _IMAGES)
    splits = _read_splits(root)
    check_labels_match(photographs, splits, root / _IMAGES, root / "resources")
    base = root / "resources/images/ddb1_groundtruth"
    masks = {lesion: find_masks(base / folder, lesion, photographs) for lesion, folder in _MASK_FOLDERS.items()}
    return [
        Sample(
            photograph=path,
            name=name,
            patient=f"diaretdb1/{name}",
            dataset="diaretdb1",
            official_split=splits[name],
            lesion_masks={lesion: masks[lesion].get(name) for lesion in Lesion},
            mask_threshold=MASK_THRESHOLD,
        )
        for name, path in photographs.items()
        if split in {None, splits[name]}
    ]


PARTS = (
    DatasetPart("training", partial(read_diaretdb1, split="train"), EXPECTED_TRAINING, _IMAGES),
    DatasetPart("testing", partial(read_diaretdb1, split="test"), EXPECTED_TESTING, _IMAGES),
)
"""The official splits."""


def _read_splits(root: Path) -> dict[str, SplitName]:
    """Photograph -> split, from two lists with one file name per line."""
    splits: dict[str, SplitName] = {}
    for split, name in _LISTS.items():
        for where, line in read_lines(root / name):
            add_once(splits, photograph_name(line), split, where, "it in one list, once")
    return splits
