"""An image file ─▶ its pixels as its maker meant them, or a refusal that names the file."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from jobs.data.dataset import DataError, Images
from jobs.data.listing import plain

# Told by their content, whatever a file is called. Others are read differently by different libraries, and one
# (EPS) is a program that would be run.
FORMATS = ("PNG", "JPEG")
VERSION = 2  # of what is done here to a file's pixels: with another one, what is kept is decoded anew
# What else is often found in a file that is called .png or .jpg, by its first bytes.
BEGINNINGS = {
    b"GIF8": "a GIF",
    b"BM": "a BMP",
    b"II*\0": "a TIFF",
    b"MM\0*": "a TIFF",
    b"RIFF": "a WebP",
    b"\0\0\0": "HEIC or AVIF",
    b"version https://git-lfs": "what Git LFS puts in a file's place; run `git lfs pull`",
    b"<": "a web page or SVG",
}


def decoded(file: Path, side: int, channels: int) -> Images:
    """uint8 [side, side, channels]: upright, on white where it is transparent, scaled and cut in the middle.

    Raises DataError.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError, __version__

    if not hasattr(Image.Image, "has_transparency_data"):
        raise DataError(f"Pillow {__version__} is too old to read images with; install 10.1 or a later one")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large pictures, and of faults in what is not their pixels
            with Image.open(file, formats=FORMATS) as image:
                if image.format == "PNG" and getattr(image, "is_animated", False):
                    raise ValueError("an animation: keep one of its pictures")
                ImageOps.exif_transpose(image, in_place=True)
                wanted = _flat(image, "L" if channels == 1 else "RGB")
        fitted = ImageOps.fit(wanted, (side, side), Image.Resampling.BILINEAR)
    except Exception as error:  # Pillow's are of many kinds, failed assertions among them
        reason = _looks(file) if isinstance(error, UnidentifiedImageError) else str(error).partition("\n")[0]
        said = reason or type(error).__name__
        raise DataError(f"{plain(file)}: not readable as an image ({said}); mend or remove it") from None
    return np.asarray(fitted, np.uint8).reshape(side, side, channels)


def _flat(image: Any, mode: str) -> Any:
    """The image in `mode`, L or RGB. Of 16 bits the upper 8 count; what is transparent is white, as on paper."""
    from PIL import Image

    if image.mode.startswith("I"):  # grey of 16 bits, which convert() would cut off at 255
        grey = np.asarray(image)
        clear = grey == image.info.get("transparency")
        flat = Image.fromarray((np.where(clear, 0xFFFF, grey) >> 8).astype(np.uint8)).convert(mode)
        transparent = bool(np.any(clear))
    elif image.has_transparency_data:
        drawn = image.convert("RGBA")
        paper = Image.new("RGBA", drawn.size, "white")
        paper.alpha_composite(drawn)
        flat = paper.convert("RGB").convert(mode)
        transparent = drawn.getchannel("A").getextrema()[0] < 255
    else:
        return image.convert(mode)
    if transparent and np.asarray(flat).min() == 255:
        raise ValueError("transparent, and nothing of it is seen on white: give it a ground")
    return flat


def _looks(file: Path) -> str:
    """What a file that is none of FORMATS seems to be."""
    with file.open("rb") as opened:
        begins = opened.read(32)
    kind = next((kind for beginning, kind in BEGINNINGS.items() if begins.startswith(beginning)), "")
    return f"neither PNG nor JPEG{f' but {kind}' if kind else ''}" if begins else "an empty file"
