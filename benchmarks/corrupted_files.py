"""Read ten thousand corrupted files: does the decoder crash, hang, or use too much memory?

The files are drawings in every format and DICOM transfer syntax that can be read, corrupted at random: bytes changed,
removed, inserted or repeated; lengths made absurd; the end cut off; two files joined. `read_photograph` and
`read_source` must either succeed or raise an error of deepmtdr. A few hundred files are read per process, so that a
crash of native code is counted.
"""

from __future__ import annotations

import io
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
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

from deepmtdr.dicom.source import read_source
from deepmtdr.errors import DeepMTDRError
from deepmtdr.photographs.decode import read_photograph
from deepmtdr.synthetic.drawings import draw_photograph

FILES, A_PROCESS, SIDE = 10_000, 250, 96
LIMIT = 300.0
"""Most seconds for the files of one process; more counts as a hang."""


def measure(quick: bool = False) -> dict[str, object]:
    """Corrupt and read the files; figures over all of them."""
    outcomes: Counter[str] = Counter()
    slowest, peak, lost = 0.0, 0, []
    files = 500 if quick else FILES
    for first in range(0, files, A_PROCESS):
        command = [sys.executable, "-m", "benchmarks.corrupted_files", str(first), str(min(first + A_PROCESS, files))]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
        except subprocess.TimeoutExpired:
            lost.append(f"{first}: hung for {LIMIT:.0f} s")
            continue
        if done.returncode:
            lost.append(f"{first}: exit code {done.returncode}, {done.stderr.strip().splitlines()[-1:]}")
        for line in done.stdout.splitlines():
            kind, _, value = line.partition("\t")
            if kind == "slowest":
                slowest = max(slowest, float(value))
            elif kind == "peak":
                peak = max(peak, int(value))
            else:
                outcomes[kind] += 1
                if kind == "bug":
                    lost.append(value)
    return {
        "files": files,
        "read, photograph and header": dict(sorted(outcomes.items())),
        "crashes, hangs and unexpected errors": lost,
        "slowest file, s": round(slowest, 2),
        "peak memory of a process, MiB": peak,
    }


def run(first: int, last: int) -> None:
    """Read the corrupted files of these numbers and print the outcome of each."""
    whole, slowest = list(seeds()), 0.0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "corrupted"
        for number in range(first, last):
            path.write_bytes(corrupted(whole, random.Random(number)))
            for read in (read_photograph, read_source):
                begun = time.perf_counter()
                try:
                    read(path)
                    print(f"{read.__name__}: read")
                except DeepMTDRError:
                    print(f"{read.__name__}: refused")
                except Exception as error:
                    print(f"bug\t{number}, {read.__name__}: {type(error).__name__}: {error}")
                slowest = max(slowest, time.perf_counter() - begun)
    print(f"slowest\t{slowest}")
    print(f"peak\t{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10}", flush=True)


def seeds() -> Iterator[bytes]:
    """A sound photograph in every format that can be written here."""
    pixels = np.asarray(draw_photograph(0, size=SIDE).photograph)
    for form, options in (("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {}), ("BMP", {}), ("PPM", {})):
        yield picture(pixels, form, **options)
    for compression in ("raw", "tiff_lzw", "jpeg", "tiff_adobe_deflate"):
        yield picture(pixels, "TIFF", compression=compression)
    for form in ("WEBP", "AVIF", "JPEG2000"):
        yield picture(pixels, form)
    yield from tiffs(pixels)
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


def tiffs(pixels: np.ndarray) -> Iterator[bytes]:
    """TIFF files of kinds that Pillow does not write: 16 bits, separate planes, tiles, big-endian, BigTIFF."""
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


def corrupted(whole: list[bytes], chance: random.Random) -> bytes:
    """One of the files, corrupted one to eight times."""
    content = bytearray(chance.choice(whole))
    for _ in range(chance.choice((1, 1, 2, 3, 8))):
        # Headers matter most: half of the changes are in the first thousand bytes.
        reach = min(len(content), 1000) if chance.random() < 0.5 else len(content)
        at, length = chance.randrange(max(reach, 1)), chance.choice((1, 2, 4, 16, 256))
        kind = chance.randrange(8)
        if kind <= 1:
            for place in range(at, min(at + length, len(content))):
                content[place] = chance.randrange(256)
        elif kind == 2:
            content[at : at + 4] = chance.choice((b"\xff\xff\xff\xff", b"\x00\x00\x00\x00", b"\x7f\xff\xff\xff"))
        elif kind == 3:
            del content[at : at + length]
        elif kind == 4:
            content[at:at] = chance.randbytes(length)
        elif kind == 5:
            content[at:at] = content[at : at + length] * chance.choice((1, 2, 50))
        elif kind == 6:
            del content[chance.randrange(max(len(content), 1)) :]
        else:
            content[at:] = chance.choice(whole)[chance.randrange(2000) :]
    return bytes(content) or b"\0"


def picture(pixels: np.ndarray, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form, **options)
    return buffer.getvalue()


def dataset(pixels: np.ndarray, syntax: UID) -> FileDataset:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = syntax
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = OphthalmicPhotography8BitImageStorage, UID("2.25.3")
    made = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    made.SOPClassUID, made.SOPInstanceUID = OphthalmicPhotography8BitImageStorage, UID("2.25.3")
    made.StudyInstanceUID, made.SeriesInstanceUID = UID("2.25.1"), UID("2.25.2")
    made.PatientName, made.PatientID, made.ImageLaterality = "Nobody^Drawn", "P", "R"
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
    return written(dataset(pixels, syntax), syntax)


def written(made: FileDataset, syntax: UID) -> bytes:
    buffer = io.BytesIO()
    dcmwrite(buffer, made, implicit_vr=syntax.is_implicit_VR, little_endian=syntax.is_little_endian)
    return buffer.getvalue()


if __name__ == "__main__":
    run(int(sys.argv[1]), int(sys.argv[2]))
