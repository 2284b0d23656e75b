"""Tiny folders in the layouts of the public data sets: names and tables as published, empty photographs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

MASKS = "A. Segmentation/2. All Segmentation Groundtruths/a. Training Set"
GRADING_PHOTOGRAPHS = "B. Disease Grading/1. Original Images/a. Training Set"
GRADING_TABLE = "B. Disease Grading/2. Groundtruths/a. IDRiD_Disease Grading_Training Labels.csv"
TESTING_TABLE = "B. Disease Grading/2. Groundtruths/b. IDRiD_Disease Grading_Testing Labels.csv"


def touch(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()


def write_table(path: Path, *rows: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")


def make_idrid(root: Path) -> Path:
    """A: 04 (alone), 05 (twin 082), 53 (twin 012). B: 001, 012, 021 = 391 and 082; a table with the real flaws."""
    touch(root / "A. Segmentation/1. Original Images/a. Training Set", "IDRiD_04.jpg", "IDRiD_05.jpg", "IDRiD_53.jpg")
    touch(root / MASKS / "1. Microaneurysms", "IDRiD_04_MA.tif", "IDRiD_05_MA.tif", "IDRiD_53_MA.tif")
    touch(root / MASKS / "2. Haemorrhages", "IDRiD_04_HE.tif", "IDRiD_05_HE.tif")
    touch(root / MASKS / "3. Hard Exudates", "IDRiD_04_EX.tif", "IDRiD_05_EX.tif", "IDRiD_53_EX.tif")
    touch(root / MASKS / "4. Soft Exudates", "IDRiD_53_SE.tif")
    touch(root / MASKS / "5. Optic Disc", "IDRiD_04_OD.tif")
    grades = {"001": 3, "012": 3, "021": 1, "082": 2, "391": 2}
    touch(root / GRADING_PHOTOGRAPHS, *(f"IDRiD_{number}.jpg" for number in grades))
    rows = (f"IDRiD_{number},{grade},2,,,," for number, grade in grades.items())
    write_table(root / GRADING_TABLE, "Image name,Retinopathy grade,Risk of macular edema ,,,,", *rows, ",,,,,,")
    return root


def make_idrid_testing_segmentation(root: Path) -> Path:
    """A's testing part: 55 with all types except soft exudates."""
    touch(root / "A. Segmentation/1. Original Images/b. Testing Set", "IDRiD_55.jpg")
    masks = root / MASKS.replace("a. Training Set", "b. Testing Set")
    touch(masks / "1. Microaneurysms", "IDRiD_55_MA.tif")
    touch(masks / "2. Haemorrhages", "IDRiD_55_HE.tif")
    touch(masks / "3. Hard Exudates", "IDRiD_55_EX.tif")
    touch(masks / "4. Soft Exudates")
    return root


def make_idrid_testing_grading(root: Path) -> Path:
    """B's testing part: 021 and 055, numbers of the other parts too."""
    touch(root / GRADING_PHOTOGRAPHS.replace("a. Training Set", "b. Testing Set"), "IDRiD_021.jpg", "IDRiD_055.jpg")
    rows = ("IDRiD_021,4,0,", "IDRiD_055,0,0,")
    write_table(root / TESTING_TABLE, "Image name,Retinopathy grade,Risk of macular edema ,", *rows)
    return root


def make_eyepacs(root: Path, grades: dict[str, int]) -> Path:
    touch(root / "train", *(f"{name}.jpeg" for name in grades))
    write_table(root / "trainLabels.csv", "image,level", *(f"{name},{grade}" for name, grade in grades.items()))
    return root


def make_eyepacs_testing(root: Path, rows: Iterable[str]) -> Path:
    """Rows such as "2_left,0,Public"."""
    rows = list(rows)
    touch(root / "test", *(f"{row.split(',')[0]}.jpeg" for row in rows))
    write_table(root / "retinopathy_solution.csv", "image,level,Usage", *rows)
    return root


def make_aptos(root: Path, grades: dict[str, int]) -> Path:
    touch(root / "train_images", *(f"{name}.png" for name in grades))
    write_table(root / "train.csv", "id_code,diagnosis", *(f"{name},{grade}" for name, grade in grades.items()))
    return root


def make_diaretdb0(root: Path, rows: Iterable[str]) -> Path:
    rows = list(rows)
    touch(root / "images", *(f"{row.split(',')[0]}.jpg" for row in rows))
    header = "image,redsmalldots,hemorrhages,hardexudates,softexudates,neovascularisation"
    write_table(root / "labels.csv", header, *rows)
    return root


def make_srahim(root: Path, rows: Iterable[str]) -> Path:
    """Rows such as "Patient001_L.jpg,Patient001,L,0,0,"."""
    rows = list(rows)
    touch(root / "photographs", *(row.split(",")[0] for row in rows))
    write_table(root / "labels.csv", "photograph,patient,eye,grade,maculopathy,note", *rows)
    return root


def make_heimed(root: Path, rows: Iterable[str]) -> Path:
    """Rows such as "a.jpg,4,9,0,0": number of exudates, other bright regions, microaneurysms, haemorrhages."""
    rows = list(rows)
    cells = [row.split(",") for row in rows]
    touch(root / "photographs", *(photograph for photograph, *_ in cells))
    for column, folder in enumerate(("exudates", "other_bright"), start=1):
        touch(root / folder, *(cell[0].replace(".jpg", ".png") for cell in cells if cell[column] != "0"))
    write_table(root / "labels.csv", "photograph,exudates,other_bright,microaneurysms,haemorrhages", *rows)
    return root


def make_drive(root: Path) -> Path:
    touch(root / "training/images", "21_training.tif", "25_training.tif", "26_training.tif")
    touch(root / "training/mask", "21_training_mask.gif", "25_training_mask.gif")
    touch(root / "test/images", "01_test.tif")
    return root


def make_ddr_grading(root: Path, **lists: Iterable[str]) -> Path:
    """Lists such as train=["007-0004-000.jpg 0"]; all three parts are there, the others empty."""
    for folder in ("train", "valid", "test"):
        lines = list(lists.get(folder, ()))
        touch(root / "DR_grading" / folder, *(line.split()[0] for line in lines))
        write_table(root / "DR_grading" / f"{folder}.txt", *lines)
    return root


def make_ddr_segmentation(root: Path, **names: Iterable[str]) -> Path:
    """Names such as train=["007-1782-100"], each with the four masks, in folders as published."""
    for folder in ("train", "valid", "test"):
        base = root / "lesion_segmentation" / folder
        labels = base / ("segmentation label" if folder == "valid" else "label")
        touch(base / "image", *(f"{name}.jpg" for name in names.get(folder, ())))
        for lesion in ("EX", "HE", "MA", "SE"):
            touch(labels / lesion, *(f"{name}.tif" for name in names.get(folder, ())))
    return root


def make_ddr(root: Path) -> Path:
    """Five graded photographs, one of them ungradable; three annotated ones, two of them graded in another split."""
    make_ddr_grading(
        root,
        train=["007-0004-000.jpg 0", "007-0033-000.jpg 5", "20170413102628830.jpg 3"],
        valid=["007-2489-100.jpg 1"],
        test=["007-1789-100.jpg 4"],
    )
    return make_ddr_segmentation(root, train=["007-1789-100"], valid=["007-2846-100"], test=["20170413102628830"])


MESSIDOR2 = (
    "20051020_43808_0100_PP.png,0,0,1",
    "20051020_43832_0100_PP.png,2,1,1",
    "IM000012.jpg,4,0,1",
    "IM000013.jpg,,,0",
)


def make_messidor2(root: Path, rows: Iterable[str] = MESSIDOR2) -> Path:
    """Photographs whose suffix has another case than in the table, as in the real set."""
    rows = list(rows)
    touch(root / "IMAGES", *(row.split(",")[0].replace(".jpg", ".JPG") for row in rows))
    write_table(root / "messidor_data.csv", "image_id,adjudicated_dr_grade,adjudicated_dme,adjudicated_gradable", *rows)
    return root


def make_messidor2_pairs(root: Path) -> Path:
    pairs = ("20051020_43808_0100_PP.png;20051020_43832_0100_PP.png", "IM000013.JPG;IM000012.JPG")
    write_table(root / "messidor-2.csv", "left;right", *pairs)
    return root


def make_diaretdb1(root: Path) -> Path:
    """image001 and image002 for training, image003 for testing; each has the four masks."""
    names = ("image001.png", "image002.png", "image003.png")
    touch(root / "resources/images/ddb1_fundusimages", *names)
    for finding in ("redsmalldots", "hemorrhages", "hardexudates", "softexudates"):
        touch(root / "resources/images/ddb1_groundtruth" / finding, *names)
    write_table(root / "resources/traindatasets/trainset.txt", *names[:2])
    write_table(root / "resources/testdatasets/testset.txt", *names[2:])
    return root


def make_e_ophtha(root: Path) -> Path:
    """C1 in both parts, with exudates and microaneurysms; C2 healthy in EX, not in MA; C3 and C4 in one part each."""
    ex, ma = root / "e_optha_EX", root / "e_optha_MA"
    touch(ex / "EX/E0000404", "C1.jpg", "Thumbs.db")
    touch(ex / "Annotation_EX/E0000404", "C1_EX.png")
    touch(ex / "healthy/E0000405", "C2.jpg")
    touch(ma / "MA/E0000404", "C1.JPG")
    touch(ma / "MA/E0000405", "C2.jpg", "C3.jpg")
    touch(ma / "Annotation_MA/E0000404", "C1.png")
    touch(ma / "Annotation_MA/E0000405", "C2.png", "C3.png")
    touch(ma / "healthy/E0000406", "C3.jpg")
    return root


def make_real_lr(root: Path) -> Path:
    """Four photographs of DRIVE; two of the hospital's, one of each label."""
    make_drive(root / "drive")
    touch(root / "hospital/images", "a.jpg", "b.png")
    write_table(root / "hospital/labels.csv", "image,label,patient,eye", "a.jpg,negative,7,L", "b,positive,,")
    return root


def make_drawings(root: Path) -> Path:
    """One drawing."""
    touch(root / "photographs", "drawing_00000.png")
    write_table(root / "photographs.csv", "path,patient,eye,grade", "photographs/drawing_00000.png,00000,L,2")
    return root
