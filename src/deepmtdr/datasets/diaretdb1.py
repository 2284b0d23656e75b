"""DIARETDB1: photographs in which four experts marked the four lesion types, each with a confidence.

Who made it: T. Kauppi et al., Lappeenranta and Kuopio, Finland (ImageRet); one camera, 50 degrees, 1500 x 1152 PNG.
Licence: free for research; no redistribution. Weights that saw it are for research and say so.
Citation: T. Kauppi et al., "The DIARETDB1 diabetic retinopathy database and evaluation protocol", BMVC 2007.
How to get it: https://www.it.lut.fi/project/imageret/diaretdb1/, version 1.1; unpack diaretdb1_v_1_1.zip so that its
    folder `resources` lies in ROOT. Version 2.1 has the same photographs, but the experts' outlines as XML instead of
    masks: it is not read.
Counts: 28 training and 61 testing photographs, each with four masks. Positive at a confidence of 0.75 are by the paper
    MA 19 + 20, HE 21 + 18, EX 18 + 20, SE 6 + 9.

Known dirt:
    * Masks are grey levels of the experts' mean confidence, 252 for certainty. The makers' own evaluation takes a pixel
      with 0.75 or more for lesion; so does `mask_threshold`. A mask without such a pixel is black here too.
    * Outlines are coarse: circles, ellipses and polygons around lesions or groups of them.
    * "Red small dots" are taken for microaneurysms; small haemorrhages are among them.
    * No grades. Five photographs show no retinopathy, but which is said nowhere but by their black masks.
    * No patient numbers and no eye: the photograph is the patient. Whether one is in DIARETDB0 too could not
      be seen.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from deepmtdr.datasets.layout import (
    DatasetPart,
    LabelCounts,
    check_labels_match,
    find_files,
    find_masks,
    photograph_name,
)
from deepmtdr.datasets.sample import Sample, SplitName
from deepmtdr.errors import DataError
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


def read_diaretdb1(root: Path, side: SplitName | None = None) -> list[Sample]:
    """ROOT/resources/images/ddb1_fundusimages with masks beside it, divided as trainset.txt and testset.txt say.

    Args:
        root: folder with `resources`.
        side: only the photographs of this side; None: all.

    Raises:
        DataError: if a folder or list is missing, a mask has no photograph, or photographs and lists do not match.
    """
    photographs = find_files(root / _IMAGES)
    sides = _read_sides(root)
    check_labels_match(photographs, sides, root / _IMAGES, root / "resources")
    base = root / "resources/images/ddb1_groundtruth"
    masks = {lesion: find_masks(base / folder, lesion, photographs) for lesion, folder in _MASK_FOLDERS.items()}
    return [
        Sample(
            photograph=path,
            name=name,
            patient=f"diaretdb1/{name}",
            dataset="diaretdb1",
            official_split=sides[name],
            lesion_masks={lesion: masks[lesion].get(name) for lesion in Lesion},
            mask_threshold=MASK_THRESHOLD,
        )
        for name, path in photographs.items()
        if side in {None, sides[name]}
    ]


PARTS = (
    DatasetPart("training", partial(read_diaretdb1, side="train"), EXPECTED_TRAINING, _IMAGES),
    DatasetPart("testing", partial(read_diaretdb1, side="test"), EXPECTED_TESTING, _IMAGES),
)
"""The official sides."""


def _read_sides(root: Path) -> dict[str, SplitName]:
    """Side by photograph, from two lists with a file name to the line."""
    sides: dict[str, SplitName] = {}
    for side, name in _LISTS.items():
        path = root / name
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path}: expected a list of photographs, found none that can be read ({error})") from error
        for number, line in enumerate(lines, start=1):
            if not (found := photograph_name(line)):
                continue
            if found in sides:
                raise DataError(f"{path}, row {number}: {found} for the second time; expected it in one list, once")
            sides[found] = side
    return sides
