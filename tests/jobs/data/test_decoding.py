"""Each kind of image file is read as it was meant, or refused by its name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jobs.data.dataset import DataError
from jobs.data.decoding import decoded
from tests.jobs.data.pictures import KINDS, SIDE, any_png, chunk, halves, png, ramp_16, saved, stroke


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "picture.png"


def read(file: Path, content: bytes, channels: int = 1) -> np.ndarray:
    file.write_bytes(content)
    return decoded(file, SIDE, channels)


def test_grey_of_16_bits_keeps_its_greys(file: Path) -> None:
    columns = read(file, ramp_16())[0, :, 0]
    assert columns.tolist() == [column * 2730 >> 8 for column in range(SIDE)]
    assert len(set(columns)) == SIDE
    np.testing.assert_array_equal(read(file, ramp_16(), 3), np.repeat(read(file, ramp_16()), 3, axis=2))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
@pytest.mark.parametrize("ink", [0, 200])
def test_what_is_drawn_on_a_transparent_ground_is_seen_on_white(mode: str, ink: int, file: Path) -> None:
    seen = read(file, saved(stroke(mode, ink), "PNG"))[SIDE // 2, :, 0]
    assert seen[SIDE // 3 + 1] == pytest.approx(ink, abs=3)
    assert seen[0] == seen[-1] == 255


def test_a_colour_that_is_declared_transparent_is_white(file: Path) -> None:
    black_is_transparent = halves(0, 90).convert("L")
    assert set(read(file, saved(black_is_transparent, "PNG", transparency=0)).ravel()) == {255, 90}


def test_an_opaque_image_with_transparency_is_as_without_it(file: Path) -> None:
    picture = halves(0, 90)
    np.testing.assert_array_equal(
        read(file, saved(picture.convert("RGBA"), "PNG"), 3), read(file, saved(picture, "PNG"), 3)
    )


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize(("orientation", "dark"), [(1, "left"), (2, "right"), (3, "right"), (6, "top"), (8, "bottom")])
def test_a_photograph_stands_upright(kind: str, orientation: int, dark: str, file: Path) -> None:
    """Dark on the left as it is stored. 6: to be turned right by a quarter, as telephones are held."""
    tags = Image.Exif()
    tags[0x0112] = orientation
    seen = read(file, saved(halves(0, 255), kind, exif=tags))[..., 0].astype(int)
    edges = {"left": seen[:, 0], "right": seen[:, -1], "top": seen[0], "bottom": seen[-1]}
    assert min(edges, key=lambda edge: edges[edge].mean()) == dark
    assert edges[dark].max() < 10


def test_tags_that_are_damaged_cost_nothing(file: Path, recwarn: pytest.WarningsRecorder) -> None:
    plain = read(file, saved(halves(0, 255), "JPEG"))
    for tags in (b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff"):
        np.testing.assert_array_equal(read(file, saved(halves(0, 255), "JPEG", exif=tags)), plain)
    assert not list(recwarn)


@pytest.mark.parametrize(("colour", "depth"), [(colour, depth) for colour in KINDS for depth in KINDS[colour]])
def test_every_kind_of_png_has_many_shades(depth: int, colour: int, file: Path) -> None:
    seen = read(file, any_png(depth, colour), 3)
    assert np.ptp(seen) > 100
    assert len(np.unique(seen)) >= min(2**depth, 20)


def test_inks_of_print_become_light(file: Path) -> None:
    """CMYK has 0 for no ink, and as Adobe writes it the other way round."""
    seen = read(file, saved(halves(0, 255).convert("CMYK"), "JPEG"), 3)
    assert seen[0, 0].max() < 10
    assert seen[0, -1].min() > 245


def test_what_a_file_is_called_does_not_matter(tmp_path: Path) -> None:
    picture = saved(halves(10, 200), "PNG")
    np.testing.assert_array_equal(read(tmp_path / "a.jpg", picture), read(tmp_path / "a.png", picture))


def test_a_photograph_with_a_second_picture_is_its_first(file: Path) -> None:
    """Telephones put a preview, or depth, behind the picture (MPO)."""
    seen = read(file, saved(halves(0, 255), "MPO", save_all=True, append_images=[halves(9, 9)]))
    assert np.ptp(seen) > 240


def test_a_large_photograph_is_read_and_a_bomb_is_refused(
    file: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.setattr(
        Image, "MAX_IMAGE_PIXELS", SIDE * SIDE // 2 + 1
    )  # beyond it Pillow warns, beyond twice it refuses
    assert np.ptp(read(file, saved(halves(0, 255), "PNG"))) == 255
    assert not list(recwarn)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", SIDE * SIDE // 4)
    with pytest.raises(DataError, match="decompression bomb"):
        read(file, saved(halves(0, 255), "PNG"))


ANIMATED = {"save_all": True, "append_images": [halves(1, 2)]}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "an empty file"),
        (b"not an image", "neither PNG nor JPEG"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "git lfs pull"),
        (b"<!DOCTYPE html>", "a web page"),
        (saved(halves(0, 9), "GIF"), "a GIF"),
        (saved(halves(0, 9), "WEBP"), "a WebP"),
        (saved(Image.fromarray(np.zeros((4, 4), np.float32)), "TIFF"), "a TIFF"),
        (saved(halves(0, 9), "PNG", **ANIMATED), "an animation"),
        (saved(halves(0, 9), "JPEG")[:-20], "truncated"),
        (any_png(8, 2)[:400], "not readable"),
        (any_png(8, 2).replace(b"IDAT", b"IDOT"), "not readable"),
        (any_png(8, 2)[:20], "not readable"),
        (saved(stroke("RGBA", 255), "PNG"), "nothing of it is seen on white"),
        (saved(Image.new("RGBA", (SIDE, SIDE), (255, 0, 0, 0)), "PNG"), "nothing of it is seen on white"),
        (saved(Image.new("LA", (SIDE, SIDE), (0, 0)), "PNG"), "nothing of it is seen on white"),
        (saved(Image.new("L", (SIDE, SIDE), 9), "PNG", transparency=9), "nothing of it is seen on white"),
        (png(16, 0, [bytes(2 * SIDE)] * SIDE, chunk(b"tRNS", bytes(2))), "nothing of it is seen on white"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_right_is_refused_by_name(content: bytes, why: str, file: Path) -> None:
    with pytest.raises(DataError) as caught:
        read(file, content)
    said = str(caught.value)
    assert said.startswith(f"{file}: not readable as an image (")
    assert why in said
    assert "\n" not in said


@pytest.mark.parametrize("colour", [(255, 255, 255, 255), (90, 90, 90, 255), (0, 0, 0, 128)])
def test_a_plain_picture_that_is_seen_is_read(colour: tuple[int, ...], file: Path) -> None:
    assert np.ptp(read(file, saved(Image.new("RGBA", (SIDE, SIDE), colour), "PNG"))) == 0


def test_a_pillow_that_is_too_old_is_said_before_any_file_is_blamed(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pillow before 10.1, and pillow-simd, lack what tells of transparency."""
    monkeypatch.delattr(Image.Image, "has_transparency_data")
    with pytest.raises(DataError, match=r"^Pillow [0-9.]+ is too old .*; install 10\.1 or a later one$"):
        read(file, b"not an image")


def test_a_transparent_value_of_16_bits_is_that_value(file: Path) -> None:
    rows = [np.full(SIDE, 0x1234 if row % 2 else 0x12FF, ">u2").tobytes() for row in range(SIDE)]
    seen = read(file, png(16, 0, rows, any_png(16, 0, b"\x12\x34")[33:47]))
    assert set(seen.ravel()) == {0x12, 0xFF}
