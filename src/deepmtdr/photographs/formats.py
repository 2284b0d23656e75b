"""Name the picture format of a file, by its first bytes and by its suffix."""

from __future__ import annotations

PHOTOGRAPH_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff", ".ppm", ".bmp"})
"""Suffixes of photographs in public data sets; other files of a folder, such as a read-me file, are ignored."""

JPEG_2000_SUFFIXES = frozenset({".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"})

READABLE_SUFFIXES = (
    PHOTOGRAPH_SUFFIXES
    | JPEG_2000_SUFFIXES
    | {".jpe", ".jfif", ".pgm", ".pnm", ".webp", ".avif", ".dib", ".dcm", ".dicom"}
)
"""Suffixes of the files that are taken for photographs in a folder of the user."""

UNREADABLE_SUFFIXES = frozenset(
    {
        ".heic",
        ".heif",
        ".hif",
        ".jxl",
        ".jxr",
        ".gif",
        ".psd",
        ".tga",
        ".exr",
        ".pbm",
        ".pam",
        ".pcx",
        ".ico",
        # Raw pictures of cameras.
        ".arw",
        ".cr2",
        ".cr3",
        ".dng",
        ".nef",
        ".orf",
        ".pef",
        ".raf",
        ".raw",
        ".rw2",
        ".srw",
    }
)
"""Suffixes of pictures that cannot be read. In a folder they get a row with the reason: no picture is dropped."""

_SIGNATURES = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG", "PNG"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
    (b"II+\x00", "TIFF"),  # BigTIFF
    (b"MM\x00+", "TIFF"),
    (b"BM", "BMP"),
    (b"P5", "PPM"),
    (b"P6", "PPM"),
    (b"\x00\x00\x00\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"GIF8", "GIF"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\x00\x00\x00\x0cJXL ", "JPEG XL"),
    (b"II\xbc", "JPEG XR"),
    (b"8BPS", "Photoshop"),
    (b"v/1\x01", "OpenEXR"),
    (b"FUJIFILMCCD-RAW", "camera raw"),
    (b"IIRO", "camera raw"),
    (b"IIU\x00", "camera raw"),
)
"""First bytes of a file and the name of its format."""

_READABLE = frozenset({"JPEG", "PNG", "TIFF", "BMP", "PPM", "WebP", "AVIF", "JPEG 2000", "DICOM"})
_HEIF_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"})
SIGNATURE_BYTES = 256
"""Bytes at the beginning of a file that `name_format` needs."""


def name_format(start: bytes) -> str | None:
    """Name the picture format of a file.

    Args:
        start: at least the first `SIGNATURE_BYTES` bytes of the file, or all of them.

    Returns:
        The name, such as JPEG or HEIC; None if no picture format begins like this.
    """
    if start[128:132] == b"DICM":
        return "DICOM"
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "WebP"
    if start[4:8] == b"ftyp":
        return _name_iso_media(start)
    return next((name for signature, name in _SIGNATURES if start.startswith(signature)), None)


def _name_iso_media(start: bytes) -> str | None:
    """Name the format of a file of ISO base media boxes by its brands; None for films."""
    size = min(int.from_bytes(start[:4], "big"), len(start))
    brands = {start[8:12], *(start[at : at + 4] for at in range(16, size - 3, 4))}
    if brands & {b"avif", b"avis"}:
        return "AVIF"
    if brands & _HEIF_BRANDS:
        return "HEIC"
    return "camera raw" if start[8:12] == b"crx " else None


def is_readable(name: str | None) -> bool:
    """Whether photographs of a format, as `name_format` names it, can be decoded."""
    return name in _READABLE
