"""Sound pictures, masks and DICOM files from which fuzzing starts; all are drawings made by code."""

from __future__ import annotations

import io
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image
from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    OphthalmicPhotography8BitImageStorage,
    RLELossless,
)

from deepmtdr.synthetic.drawings import draw_photograph

SIDE = 96
"""Side of the drawings, px."""


def draw() -> np.ndarray:
    """The pixels of every seed."""
    return np.asarray(draw_photograph(0, size=SIDE).photograph)


def pictures() -> Iterator[bytes]:
    """A sound photograph in every format that Pillow decodes."""
    pixels = draw()
    for form, options in (("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {}), ("BMP", {}), ("PPM", {})):
        yield picture(pixels, form, **options)
    for form in ("WEBP", "AVIF", "JPEG2000"):
        yield picture(pixels, form)
    grey = pixels[..., 1]
    for image in (grey, grey.astype(np.uint16) * 257, np.dstack([pixels, grey]), Image.fromarray(pixels).quantize(16)):
        yield picture(image, "PNG")
    yield picture(np.dstack([pixels, grey]), "WEBP", lossless=True)
    yield picture(grey, "JPEG2000", no_jp2=True)
    yield picture(Image.fromarray(pixels).convert("CMYK"), "JPEG")


def dicoms() -> Iterator[bytes]:
    """A sound photograph in every DICOM transfer syntax that is read."""
    pixels = draw()
    for syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian):
        yield dicom(pixels, syntax)
    for syntax in (RLELossless, JPEGLSLossless, JPEG2000Lossless):
        made = dataset(pixels, ExplicitVRLittleEndian)
        made.compress(syntax, generate_instance_uid=False)
        yield written(made, syntax)
    if shutil.which("dcmcjpeg"):  # of DCMTK; no library here writes JPEG Lossless
        with tempfile.TemporaryDirectory() as folder:
            paths = [Path(folder) / name for name in ("raw.dcm", "lossless.dcm")]
            paths[0].write_bytes(dicom(pixels, ExplicitVRLittleEndian))
            subprocess.run(["dcmcjpeg", "+e1", *paths], check=True)
            yield paths[1].read_bytes()
    made = dataset(pixels, JPEGBaseline8Bit)
    made.PhotometricInterpretation, made.PixelData = "YBR_FULL_422", encapsulate([picture(pixels, "JPEG")])
    made["PixelData"].is_undefined_length = True
    yield written(made, JPEGBaseline8Bit)
    yield dicom(np.asarray(pixels, np.uint16) * 257, ExplicitVRLittleEndian)


def tiffs() -> Iterator[bytes]:
    """TIFF files of every compression: 8 and 16 bits, separate planes, tiles, big-endian, BigTIFF."""
    pixels = draw()
    for compression in ("raw", "tiff_lzw", "jpeg", "tiff_adobe_deflate"):
        yield picture(pixels, "TIFF", compression=compression)
    sixteen, planes = pixels.astype(np.uint16) * 257, np.moveaxis(pixels, 2, 0)
    for values, options in (
        (sixteen, {"byteorder": ">"}),
        (np.moveaxis(sixteen, 2, 0), {"planarconfig": "separate"}),
        (planes, {"planarconfig": "separate", "tile": (32, 32), "compression": "lzw", "predictor": True}),
        (sixteen, {"bigtiff": True, "rowsperstrip": 16, "compression": "zstd"}),
        (pixels[..., 1], {"photometric": "miniswhite", "compression": "packbits"}),
    ):
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, values, **{"photometric": "rgb", **options})
        yield buffer.getvalue()


def masks() -> Iterator[bytes]:
    """Masks in the modes and formats of annotation programs."""
    marked = np.zeros((48, 64), np.uint8)
    marked[10:30, 20:40] = 255
    rgba = np.dstack([marked, marked, marked, 255 - marked])
    palette = Image.fromarray(marked // 255).convert("P")
    for image in (marked, Image.fromarray(marked).convert("1"), rgba, rgba[..., 2:], palette, marked.astype(np.uint16)):
        yield picture(image, "PNG")
    yield picture(palette, "PNG", transparency=1)
    for form in ("TIFF", "BMP", "GIF", "JPEG", "PPM", "WEBP", "JPEG2000"):
        yield picture(marked, form)
    yield picture(Image.fromarray(marked).convert("1"), "TIFF", compression="group4")
    yield picture(marked.astype(np.float32) / 255, "TIFF", compression="tiff_lzw")
    yield picture(marked, "GIF", save_all=True, append_images=[Image.fromarray(255 - marked)])


def picture(pixels: np.ndarray | Image.Image, form: str, **options: object) -> bytes:
    """Write a picture."""
    buffer = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(buffer, form, **options)
    return buffer.getvalue()


def dataset(pixels: np.ndarray, syntax: UID) -> FileDataset:
    """A photograph without compression."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = syntax
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = OphthalmicPhotography8BitImageStorage, UID("2.25.3")
    made = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    made.SOPClassUID, made.SOPInstanceUID = OphthalmicPhotography8BitImageStorage, UID("2.25.3")
    made.StudyInstanceUID, made.SeriesInstanceUID = UID("2.25.1"), UID("2.25.2")
    made.PatientName, made.PatientID, made.ImageLaterality = "Drawing^Synthetic", "P", "R"
    region = Dataset()
    region.CodeValue, region.CodingSchemeDesignator, region.CodeMeaning = "5665001", "SCT", "Retina"
    made.AnatomicRegionSequence = [region]
    made.Rows, made.Columns, made.SamplesPerPixel, made.PlanarConfiguration = *pixels.shape, 0
    made.PhotometricInterpretation, made.PixelRepresentation = "RGB", 0
    made.BitsAllocated = made.BitsStored = 8 * pixels.itemsize
    made.HighBit, made.PixelData = made.BitsStored - 1, pixels.tobytes()
    made["PixelData"].VR = "OB" if pixels.itemsize == 1 else "OW"
    return made


def dicom(pixels: np.ndarray, syntax: UID) -> bytes:
    """A DICOM file of a photograph without compression."""
    return written(dataset(pixels, syntax), syntax)


def written(made: FileDataset, syntax: UID) -> bytes:
    """The bytes of a DICOM file."""
    buffer = io.BytesIO()
    dcmwrite(buffer, made, implicit_vr=syntax.is_implicit_VR, little_endian=syntax.is_little_endian)
    return buffer.getvalue()
