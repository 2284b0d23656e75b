"""Check a received data set against its request, before it is stored."""

from __future__ import annotations

from io import BytesIO

from pydicom import uid as uids
from pydicom.filereader import read_dataset

FIRST_DATA_SET_GROUP = 0x0008
"""Lowest group of a data set. Groups 0000 to 0007 belong to commands, file headers and directories (PS3.5, PS3.7)."""
SOP_INSTANCE_UID_TAG = 0x00080018


def contradicts_request(data_set: BytesIO, syntax: str, uid: str, sop_class: str) -> bool:
    """Whether a data set is not the object that its request announced.

    Args:
        data_set: the encoded data set; its position is changed.
        syntax: transfer syntax UID of the presentation context.
        uid: SOP Instance UID of the request.
        sop_class: SOP Class UID of the request.

    Returns:
        True if the UIDs differ, or the data set begins with an element of the file header (group 0002): in a file that
        element would replace the announced transfer syntax and UIDs. False if the data set is damaged. A data set whose
        elements are out of order may have another UID further on, so the examination compares the UID again.
    """
    little = syntax != uids.ExplicitVRBigEndian
    if _first_group(data_set, little_endian=little) < FIRST_DATA_SET_GROUP:
        return True
    data_set.seek(0)
    try:
        implicit = syntax == uids.ImplicitVRLittleEndian
        head = read_dataset(data_set, implicit, little, stop_when=lambda tag, *_: tag > SOP_INSTANCE_UID_TAG)
        found = (head.get("SOPInstanceUID"), head.get("SOPClassUID"))
    except Exception:  # a damaged data set makes pydicom raise almost anything
        return False
    return any(value and str(value) != expected for value, expected in zip(found, (uid, sop_class), strict=True))


def _first_group(data_set: BytesIO, *, little_endian: bool) -> int:
    """Group of the first element; that of the lowest allowed one if the data set has no complete element."""
    data_set.seek(0)
    group = data_set.read(2)
    return int.from_bytes(group, "little" if little_endian else "big") if len(group) == 2 else FIRST_DATA_SET_GROUP
