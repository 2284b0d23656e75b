"""DRIVE: photographs of a real low-resolution camera, a part of the paper's Real-LR set (Sec. V-A).

Who made it: J. Staal, M. D. Abramoff, M. Niemeijer, M. A. Viergever and B. van Ginneken, from a screening programme in
    the Netherlands; Canon CR5 non-mydriatic, 45 degrees, 565 x 584 TIFF.
Licence: research and education only; no redistribution.
Citation: J. Staal et al., "Ridge-based vessel segmentation in color images of the retina", IEEE Trans. Med. Imaging
    23(4):501-509, 2004, doi:10.1109/TMI.2004.825627.
How to get it: https://drive.grand-challenge.org (account); unpack training.zip and test.zip into ROOT.
Counts: 20 + 20 photographs, each with a mask of the field of view.

Known errors and gaps:
    * No grades. By the authors' notes, 26 and 32 of the training part and 03, 14 and 17 of the test part show
      background diabetic retinopathy (`SHOWS_DR`), 25 and 08 show pigment changes without it, and the others show no
      sign of it. "Background" is not one of the five grades: these five have no grade but `dr_present`, the others have
      grade 0.
    * No patient numbers: each photograph counts as a patient. Vessels are annotated, lesions are not.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Literal

from deepmtdr.datasets.layout import DatasetPart, LabelCounts, find_files
from deepmtdr.datasets.sample import Sample, SplitName
from deepmtdr.errors import DataError
from deepmtdr.terms import Grade

EXPECTED = LabelCounts(20, (18, 0, 0, 0, 0))
EXPECTED_TEST = LabelCounts(20, (17, 0, 0, 0, 0))

SHOWS_DR = frozenset({"26_training", "32_training", "03_test", "14_test", "17_test"})
"""Photographs with background diabetic retinopathy, without a grade."""

DrivePart = Literal["training", "test"]

_SPLITS: dict[DrivePart, SplitName] = {"training": "train", "test": "test"}


def read_drive(root: Path, part: DrivePart | None = None) -> list[Sample]:
    """Read ROOT/training/images/21_training.tif and so on, ROOT/test/images/01_test.tif and so on.

    Args:
        root: folder with `training` and, if present, `test`.
        part: only this part. None: the training part and, if present, the test part.

    Raises:
        DataError: if the folder is missing, or has a photograph of another name.
    """
    if part is None:
        test = read_drive(root, "test") if (root / "test").exists() else []
        return read_drive(root, "training") + test
    samples = []
    for name, path in find_files(root / part / "images").items():
        number = name.removesuffix(f"_{part}")
        if number == name or not number.isdecimal():
            raise DataError(f"{path}: expected a name such as 21_{part}, found {name!r}")
        samples.append(
            Sample(
                photograph=path,
                name=name,
                patient=f"drive/{number}",
                dataset="drive",
                grade=None if name in SHOWS_DR else Grade.NEGATIVE,
                dr_present=True if name in SHOWS_DR else None,
                official_split=_SPLITS[part],
            )
        )
    return samples


PARTS = (
    DatasetPart("training", partial(read_drive, part="training"), EXPECTED, "training/images"),
    DatasetPart("test", partial(read_drive, part="test"), EXPECTED_TEST, "test/images"),
)
"""The two official parts."""


def fov_mask_path(sample: Sample) -> Path:
    """Path of the data set's mask of the field of view: 255 inside, 0 outside.

    Raises:
        DataError: if the file is missing.
    """
    path = sample.photograph.parent.parent / "mask" / f"{sample.name}_mask.gif"
    if not path.is_file():
        raise DataError(f"{path}: expected the field of view of {sample.photograph}, found no such file")
    return path
