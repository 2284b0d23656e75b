"""e-ophtha: photographs of a screening network in which exudates or microaneurysms were drawn.

Who made it: E. Decenciere et al., from the French screening network OPHDIAT (TeleOphta project); several cameras, JPEG
    of four sizes.
Licence: research and education, no redistribution. Weights trained on it are for research, as their card states.
Citation: E. Decenciere et al., "TeleOphta: machine learning and image processing methods for teleophthalmology", IRBM
    34(2):196-203, 2013, doi:10.1016/j.irbm.2013.01.010.
How to get it: https://www.adcis.net/en/third-party/e-ophtha/ (form); unpack e_optha_EX.zip and e_optha_MA.zip (their
    spelling) so that the folders e_optha_EX and e_optha_MA are in ROOT. Either of the two is enough.
Counts: EX: 47 photographs with exudates, 35 healthy; MA: 148 with microaneurysms or small red lesions, 233 healthy.

Official split: none.

Known errors and gaps:
    * In each part only one lesion type was annotated. The other types are not keys of `lesion_masks`. A healthy
      photograph has None for the type of its part only.
    * Some photographs are in both parts: each is one sample with both types. A photograph that is healthy in one part
      may have the lesion of the other. `dr_present` is True if a lesion was annotated, and False only if the photograph
      is healthy in every part that has it.
    * Masks of the EX part are called NAME_EX.png, those of the MA part NAME.png.
    * No patient numbers: the folder of the case, such as E0000404, counts as the patient. We could not check whether
      one person has several cases. Two cases may have the same file name, so a sample's name is CASE_NAME.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from deepmtdr.datasets.layout import DatasetPart, LabelCounts, check_unique_names, find_files, find_masks, list_folder
from deepmtdr.datasets.sample import Sample
from deepmtdr.errors import DataError
from deepmtdr.labels import DIABETIC_RETINOPATHY
from deepmtdr.terms import Lesion

EXPECTED = {
    Lesion.EX: LabelCounts(82, None, (0, 0, 47, 0)),
    Lesion.MA: LabelCounts(381, None, (148, 0, 0, 0)),
}


def read_e_ophtha(root: Path) -> list[Sample]:
    """Read the parts that are present, each photograph once.

    Raises:
        DataError: if neither part is present, or as `read_e_ophtha_part`.
    """
    parts = [lesion for lesion in EXPECTED if (root / _folder(lesion)).exists()]
    if not parts:
        raise DataError(f"{root}: expected the folders e_optha_EX or e_optha_MA, found neither")
    joined: dict[str, Sample] = {}
    for sample in (sample for lesion in parts for sample in read_e_ophtha_part(root, lesion)):
        other = joined.get(sample.name)
        joined[sample.name] = sample if other is None else _with_masks(other, sample.lesion_masks)
    return list(joined.values())


def read_e_ophtha_part(root: Path, lesion: Lesion) -> list[Sample]:
    """Read one part: ROOT/e_optha_EX/EX/CASE/NAME.jpg, Annotation_EX/CASE/NAME_EX.png and healthy/CASE/NAME.jpg.

    Args:
        root: folder with the part.
        lesion: EX or MA.

    Raises:
        DataError: if a folder is missing, a photograph with lesions has no mask, a mask has no photograph, or a
            photograph is among the healthy ones and among those with lesions.
    """
    base = root / _folder(lesion)
    samples = []
    for case, photographs in _find_cases(base / lesion).items():
        folder = base / f"Annotation_{lesion}" / case
        masks = find_masks(folder, lesion, photographs, (f"_{lesion}", ""))
        if unmasked := sorted(photographs.keys() - masks.keys()):
            raise DataError(f"{folder}: expected a mask of {photographs[unmasked[0]]}, found none")
        samples += [_sample(case, path, lesion, masks[name]) for name, path in photographs.items()]
    for case, photographs in _find_cases(base / "healthy").items():
        samples += [_sample(case, path, lesion, None) for path in photographs.values()]
    check_unique_names(samples)
    _refuse_masks_without_case(base, lesion)
    return samples


def _folder(lesion: Lesion) -> str:
    return f"e_optha_{lesion}"


PARTS = tuple(
    DatasetPart(
        DIABETIC_RETINOPATHY.lesion(lesion).name, partial(read_e_ophtha_part, lesion=lesion), counts, _folder(lesion)
    )
    for lesion, counts in EXPECTED.items()
)
"""The two parts, which are not splits."""


def _sample(case: str, path: Path, lesion: Lesion, mask: Path | None) -> Sample:
    name = f"{case}_{path.stem}" if case else path.stem
    bare = Sample(photograph=path, name=name, patient=f"e_ophtha/{case or name}", dataset="e_ophtha")
    return _with_masks(bare, {lesion: mask})


def _with_masks(sample: Sample, masks: Mapping[str, Path | None]) -> Sample:
    """The sample with further masks; retinopathy is present if any of its masks is."""
    masks = {**sample.lesion_masks, **masks}
    return replace(sample, lesion_masks=masks, dr_present=any(mask is not None for mask in masks.values()))


def _find_cases(folder: Path) -> dict[str, dict[str, Path]]:
    """Photographs by case; photographs outside the folders of cases have the case ""."""
    cases = {case: find_files(folder / case) for case in ["", *_subfolders(folder)]}
    return {case: files for case, files in cases.items() if files}


def _subfolders(folder: Path) -> list[str]:
    return [name for name in list_folder(folder) if name[0] != "." and (folder / name).is_dir()]


def _refuse_masks_without_case(base: Path, lesion: Lesion) -> None:
    annotations = base / f"Annotation_{lesion}"
    for case in sorted(set(_subfolders(annotations)) - set(_subfolders(base / lesion))):
        if masks := find_files(annotations / case):
            mask = next(iter(masks.values()))
            raise DataError(
                f"{mask}: there is no photograph for this mask; expected one in the folder {base / lesion / case}"
            )
