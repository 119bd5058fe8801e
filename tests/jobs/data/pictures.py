"""Image files of the kinds that people have, written by hand where no library writes them."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

SIGNATURE = b"\x89PNG\r\n\x1a\n"
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # samples of a pixel, by PNG's colour type
KINDS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}  # depths of each colour type
SIDE = 24


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(depth: int, colour: int, rows: list[bytes], more: bytes = b"") -> bytes:
    """A PNG file of SIDE × SIDE pixels, its `rows` as the format has them; `more` are chunks before them."""
    head = struct.pack(">IIBBBBB", SIDE, SIDE, depth, colour, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    return SIGNATURE + chunk(b"IHDR", head) + more + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def any_png(depth: int, colour: int, transparency: bytes = b"") -> bytes:
    """One with pixels of all values."""
    width = -(-SIDE * depth * CHANNELS[colour] // 8)
    values = np.random.default_rng(depth * 10 + colour).integers(0, 256, (SIDE, width), np.uint8)
    palette = chunk(b"PLTE", bytes(i * 37 % 256 for i in range(3 * 2**depth))) if colour == 3 else b""
    more = palette + (chunk(b"tRNS", transparency) if transparency else b"")
    return png(depth, colour, [row.tobytes() for row in values], more)


def ramp_16() -> bytes:
    """Grey of 16 bits, from black on the left to nearly white on the right."""
    return png(16, 0, [np.arange(0, SIDE * 2730, 2730).astype(">u2").tobytes()] * SIDE)


def saved(image: Image.Image, kind: str, **how: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **how)
    return file.getvalue()


def stroke(mode: str, ink: int) -> Image.Image:
    """A vertical stroke of `ink` on a transparent ground, in RGBA, LA or P."""
    alpha = np.zeros((SIDE, SIDE), np.uint8)
    alpha[:, SIDE // 3 : SIDE // 2] = 255
    drawn = Image.fromarray(np.dstack([np.minimum(alpha, ink)] * 3 + [alpha]))
    return {"RGBA": drawn, "LA": drawn.convert("LA"), "P": drawn.quantize(4)}[mode]


def halves(left: int, right: int) -> Image.Image:
    """The left half of one grey, the right half of another."""
    pixels = np.full((SIDE, SIDE, 3), left, np.uint8)
    pixels[:, SIDE // 2 :] = right
    return Image.fromarray(pixels)
