"""DDR: the paper's main data set, with grades, an ungradable class, and lesion masks for some photographs (Sec. V-A).

Who made it: T. Li et al., Nankai University, Tianjin, with 147 hospitals in 23 provinces of China; 42 kinds of cameras,
    JPEG of many sizes.
Licence: none is stated; taken as research only. Weights trained on it are for research, as their card states.
Citation: T. Li et al., "Diagnostic assessment of deep learning algorithms for diabetic retinopathy screening",
    Information Sciences 501:511-522, 2019, doi:10.1016/j.ins.2019.06.011.
How to get it: https://github.com/nkicsl/DDR-dataset (Google Drive or Baidu); unpack DDR-dataset.zip.* so that
    DR_grading and lesion_segmentation are in ROOT. Either of the two is enough; lesion_detection is not read.
Counts: grading 6835 + 2733 + 4105 photographs, of which 575, 230 and 346 are ungradable; segmentation 383 + 149 + 225.
    Grades 0-4 by part: `EXPECTED_GRADING`. Some publications count one photograph of grade 0 less (4385 for train and
    valid together); the authors' table has 4386.

Known errors and gaps:
    * Label 5 is not a grade (interpretation R17): the sample is `ungradable`, and its grade is None.
    * HE means haemorrhages and EX hard exudates, unlike in the paper (interpretation R20).
    * The masks of the valid part are in "segmentation label", those of the others in "label"; both names are accepted.
    * Each photograph has four masks, black if the annotators saw no such lesion; some are black although there is one.
      A missing mask file means no such lesion, as in IDRiD; `catalogue.count_parts` shows how many there are.
    * The annotated photographs were chosen from the others: a name that is in both parts is one sample here. It is not
      known whether both parts were split alike. A photograph that is in two splits is assigned to test rather than
      validation, and to validation rather than train. So no photograph of either official test split is used for
      training, and the split "test" may have more graded or annotated photographs than that part's own test split,
      which `read_ddr_grading` and `read_ddr_segmentation` give exactly. We could not check how many there are.
    * No patient numbers: 13,673 photographs are of 9,598 patients, but names such as 007-0004-000 and 20170413102628830
      do not identify the patient. Each photograph counts as a patient; use the official splits.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

from deepmtdr.csv_tables import add_once
from deepmtdr.datasets.layout import (
    DatasetPart,
    LabelCounts,
    check_labels_match,
    check_unique_names,
    find_files,
    find_masks,
    photograph_name,
    read_lines,
)
from deepmtdr.datasets.sample import Sample, SplitName
from deepmtdr.errors import DataError
from deepmtdr.terms import Grade, Lesion

Folder = Literal["train", "valid", "test"]

SPLITS: dict[Folder, SplitName] = {"train": "train", "valid": "validation", "test": "test"}
"""Folder name, in both parts -> split. If a photograph is in several splits, the last of them is used."""

EXPECTED_GRADING: dict[Folder, LabelCounts] = {
    "train": LabelCounts(6835, (3133, 315, 2238, 118, 456), ungradable=575),
    "valid": LabelCounts(2733, (1253, 126, 895, 47, 182), ungradable=230),
    "test": LabelCounts(4105, (1880, 189, 1344, 71, 275), ungradable=346),
}
EXPECTED_SEGMENTATION: dict[Folder, LabelCounts] = {
    "train": LabelCounts(383, None, (383, 383, 383, 383)),
    "valid": LabelCounts(149, None, (149, 149, 149, 149)),
    "test": LabelCounts(225, None, (225, 225, 225, 225)),
}

_STRICTNESS: list[SplitName | None] = [*SPLITS.values()]
_UNGRADABLE = "5"
_LABELS = frozenset({*(str(grade.value) for grade in Grade), _UNGRADABLE})


def read_ddr(root: Path) -> list[Sample]:
    """Read every photograph once: the annotated ones with masks and, if known, the grade; then those only graded.

    Raises:
        DataError: if neither part is present, or as `read_ddr_grading` and `read_ddr_segmentation`.
    """
    graded = _all(root / "DR_grading", partial(read_ddr_grading, root))
    annotated = _all(root / "lesion_segmentation", partial(read_ddr_segmentation, root))
    if not (graded or annotated):
        raise DataError(f"{root}: expected DR_grading or lesion_segmentation with photographs, found neither")
    grades = {sample.name: sample for sample in graded}
    joined = [_join(sample, grades.pop(sample.name, None)) for sample in annotated]
    return joined + list(grades.values())


def read_ddr_grading(root: Path, folder: Folder) -> list[Sample]:
    """Read one official part of the grading: ROOT/DR_grading/train/*.jpg with train.txt, one name and label per line.

    Raises:
        DataError: if folder or list is missing, a label is not 0-5, or photographs and lines do not match.
    """
    photographs, table = find_files(root / "DR_grading" / folder), root / "DR_grading" / f"{folder}.txt"
    labels: dict[str, str] = {}
    for where, line in read_lines(table):
        cells = line.rsplit(maxsplit=1)
        if len(cells) != 2 or cells[1] not in _LABELS:
            raise DataError(f"{where}: expected a name and a label 0-5, found {line!r}")
        add_once(labels, photograph_name(cells[0]), cells[1], where)
    check_labels_match(photographs, labels, root / "DR_grading" / folder, table)
    return [
        Sample(
            photograph=path,
            name=name,
            patient=f"ddr/{name}",
            dataset="ddr",
            grade=None if labels[name] == _UNGRADABLE else Grade(int(labels[name])),
            ungradable=labels[name] == _UNGRADABLE,
            official_split=SPLITS[folder],
        )
        for name, path in photographs.items()
    ]


def read_ddr_segmentation(root: Path, folder: Folder) -> list[Sample]:
    """Read one official part of the segmentation: ROOT/lesion_segmentation/train/image/*.jpg, label/MA/*.tif and so on.

    Raises:
        DataError: if a folder is missing or a mask has no photograph.
    """
    base = root / "lesion_segmentation" / folder
    photographs = find_files(base / "image")
    labels = base / "segmentation label"
    labels = labels if labels.is_dir() else base / "label"
    masks = {lesion: find_masks(labels / lesion, lesion, photographs) for lesion in Lesion}
    return [
        Sample(
            photograph=path,
            name=name,
            patient=f"ddr/{name}",
            dataset="ddr",
            official_split=SPLITS[folder],
            lesion_masks={lesion: masks[lesion].get(name) for lesion in Lesion},
        )
        for name, path in photographs.items()
    ]


PARTS = (
    *(
        DatasetPart(f"grading, {folder}", partial(read_ddr_grading, folder=folder), counts, f"DR_grading/{folder}")
        for folder, counts in EXPECTED_GRADING.items()
    ),
    *(
        DatasetPart(
            f"segmentation, {folder}",
            partial(read_ddr_segmentation, folder=folder),
            counts,
            f"lesion_segmentation/{folder}",
        )
        for folder, counts in EXPECTED_SEGMENTATION.items()
    ),
)
"""The official parts; each is one split."""


def _all(base: Path, read: partial[list[Sample]]) -> list[Sample]:
    """The three splits of one part, each photograph once; nothing if the part is absent."""
    samples = [sample for folder in SPLITS for sample in read(folder)] if base.exists() else []
    check_unique_names(samples)
    return samples


def _join(annotated: Sample, graded: Sample | None) -> Sample:
    """One sample for a photograph that is in both parts, in the stricter of its two splits."""
    if graded is None:
        return annotated
    split = max((annotated.official_split, graded.official_split), key=_STRICTNESS.index)
    return replace(annotated, grade=graded.grade, ungradable=graded.ungradable, official_split=split)
