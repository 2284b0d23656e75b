"""DRIVE: photographs of a real low-resolution camera, a part of the paper's Real-LR set (Sec. V-A).

Who made it: J. Staal, M. D. Abramoff, M. Niemeijer, M. A. Viergever and B. van Ginneken, from a screening programme in
    the Netherlands; Canon CR5 non-mydriatic, 45 degrees, 565 x 584 TIFF.
Licence: research and education only; no redistribution.
Citation: J. Staal et al., "Ridge-based vessel segmentation in color images of the retina", IEEE Trans. Med. Imaging
    23(4):501-509, 2004, doi:10.1109/TMI.2004.825627.
How to get it: https://drive.grand-challenge.org (account); unpack training.zip and test.zip into ROOT.
Counts: 20 + 20 photographs, each with a mask of the field of view.

Known dirt:
    * No grades. Of the training half its notes say: background diabetic retinopathy in 26 and 32 (`SHOWS_DR`), pigment
      changes without it in 25, none in the others. "Background" is no grade of the five: these two have the grade None,
      the other eighteen 0. Of the test half nothing is stated here: None.
    * No patient numbers: the photograph is the patient. Vessels are annotated, lesions are not.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from deepmtdr.data.layout import Counts, find_files
from deepmtdr.data.sample import Sample
from deepmtdr.errors import DataError
from deepmtdr.terms import Grade

EXPECTED = Counts(20, (18, 0, 0, 0, 0))

SHOWS_DR = frozenset({"26_training", "32_training"})
"""Training photographs with background diabetic retinopathy, of no stated grade."""


def read_drive(root: Path, part: Literal["training", "test"] = "training") -> list[Sample]:
    """One half: ROOT/training/images/21_training.tif and so on.

    Raises:
        DataError: if the folder is missing, or holds a photograph of another name.
    """
    samples = []
    for name, path in find_files(root / part / "images").items():
        number = name.removesuffix(f"_{part}")
        if not number.isdecimal():
            raise DataError(f"{path}: expected a name such as 21_{part}, found {name!r}")
        grade = Grade.NEGATIVE if part == "training" and name not in SHOWS_DR else None
        samples.append(Sample(photograph=path, name=name, patient=f"drive/{number}", dataset="drive", grade=grade))
    return samples


def fov_mask_path(sample: Sample) -> Path:
    """File of the data set's own mask of the field of view: 255 inside, 0 outside.

    Raises:
        DataError: if the file is missing.
    """
    path = sample.photograph.parent.parent / "mask" / f"{sample.name}_mask.gif"
    if not path.is_file():
        raise DataError(f"{path}: expected the field of view of {sample.photograph}, found no such file")
    return path
