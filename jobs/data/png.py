"""What can be told of a PNG file without decoding it: whether every library reads the same from it."""

from __future__ import annotations

import os
from pathlib import Path

SIGNATURE = b"\x89PNG\r\n\x1a\n"  # PNG (ISO/IEC 15948), 5.2
END = b"\0\0\0\0IEND\xaeB`\x82"
GREY = (0, 4)  # colour types without and with transparency


def fault(path: Path) -> str:
    """Why a file is none that ingest can read, in a few words; empty if it seems to be. Raises OSError.

    Reads its first bytes and its last, and has the kernel not read ahead: what is measured is reading these files.
    """
    with path.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        head = file.read(33)
        if not head:
            return "is empty"
        if head[:8] != SIGNATURE:
            return "is no PNG file, whatever it is called"
        if len(head) < 33 or head[12:16] != b"IHDR":
            return "has no whole PNG header"
        depth, kind = head[24], head[25]
        if depth == 16 and kind in GREY:
            return "is grey with 16 bits, which libraries read differently; save it with 8"
        file.seek(-len(END), os.SEEK_END)
        if file.read(len(END)) != END and not _ends(file.fileno()):
            return "ends in the middle: a part of it is missing"
    return ""


def _ends(descriptor: int) -> bool:
    """Whether there is an end among a file's chunks, with something else after it."""
    at = len(SIGNATURE)
    while len(head := os.pread(descriptor, len(END), at)) == len(END):
        if head[4:8] == b"IEND":
            return True
        at += 12 + int.from_bytes(head[:4], "big")
    return False
