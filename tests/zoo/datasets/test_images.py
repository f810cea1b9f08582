from __future__ import annotations

import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from tests.zoo.datasets.pictures import encoded, pixels
from tombola.zoo.datasets import images
from tombola.zoo.datasets.dataset import Array
from tombola.zoo.datasets.images import Unfit, decode


@pytest.mark.parametrize("shape", [(5, 7), (3, 5, 7)])
@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_pixels_come_back_as_they_were_written(shape: tuple[int, ...], kind: str) -> None:
    image = pixels(1, *shape)[0]
    np.testing.assert_array_equal(decode(encoded(image, kind)), image)


def test_every_mode_becomes_grey_or_three_channels() -> None:
    grey, colour = pixels(1, 4, 6)[0], pixels(1, 3, 4, 6)[0]
    picture = Image.fromarray(np.ascontiguousarray(colour.transpose(1, 2, 0)))
    veil = Image.fromarray(pixels(1, 4, 6, seed=3)[0])
    veiled, veiled_grey = picture.copy(), Image.fromarray(grey)
    veiled.putalpha(veil)
    veiled_grey.putalpha(veil)
    deep = grey.astype(np.uint16) * 256 + 17
    for image, expected in [
        (Image.fromarray((grey > 127).astype(np.uint8) * 255).convert("1"), (grey > 127) * 255),
        (veiled_grey, grey),
        (Image.fromarray(deep), grey),
        (veiled, colour),
        (picture.quantize(200), np.asarray(picture.quantize(200).convert("RGB")).transpose(2, 0, 1)),
    ]:
        np.testing.assert_array_equal(decode(encoded(image)), expected)


def test_a_picture_is_turned_upright() -> None:
    image = pixels(1, 4, 6)[0]
    stream = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    Image.fromarray(image).save(stream, "PNG", exif=exif)
    np.testing.assert_array_equal(decode(stream.getvalue()), image[::-1, ::-1])


@pytest.mark.parametrize("shape", [(40, 30), (3, 30, 47), (3, 16, 16), (8, 11), (16, 1)])
def test_the_shorter_side_is_brought_to_size_and_the_centre_cut_out(shape: tuple[int, ...]) -> None:
    image = pixels(1, *shape)[0]
    height, width = shape[-2:]
    factor = 16 / min(height, width)
    tall, wide = int(height * factor), int(width * factor)
    channels = [
        np.asarray(Image.fromarray(channel).resize((wide, tall), Image.Resampling.BILINEAR))
        for channel in image.reshape(-1, height, width)
    ]
    top, left = round((tall - 16) / 2), round((wide - 16) / 2)
    expected = np.stack(channels)[:, top : top + 16, left : left + 16].reshape(*shape[:-2], 16, 16)
    np.testing.assert_array_equal(decode(encoded(image), 16), expected)


def test_reducing_covers_all_pixels() -> None:
    board: Array = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    assert abs(decode(encoded(board), 8).astype(int) - 128).max() <= 2


def png_of(width: int, height: int) -> bytes:
    """A short file that claims to be a large picture."""
    header = struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b""))
    parts = [struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not an image of the formats PNG, JPEG, BMP, GIF, PPM, TIFF, WEBP"),
        (b"hello", "not an image of the formats PNG, JPEG, BMP, GIF, PPM, TIFF, WEBP"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image of the formats PNG, JPEG, BMP"),
        (encoded(pixels(1, 3, 40, 40)[0])[:-300], "the image cannot be decoded: "),
        (encoded(pixels(1, 3, 40, 40)[0], "JPEG")[:-300], "the image cannot be decoded: "),
        (png_of(9000, 8000), "the image has 9,000 x 8,000 pixels, more than 67,108,864"),
        (png_of(10_000, 10_000), "the image has more than 67,108,864 pixels"),  # Pillow would warn
        (png_of(100_000, 100_000), "the image has more than 67,108,864 pixels"),  # Pillow would refuse
        (encoded(Image.new("F", (3, 3)), "TIFF"), "the image has pixels of floating-point numbers"),
    ],
)
def test_what_is_no_image_or_too_large_is_unfit(content: bytes, message: str) -> None:
    with pytest.raises(Unfit) as caught:
        decode(content)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_thin_image_is_not_made_huge() -> None:
    with pytest.raises(Unfit, match=r"60,000 x 1,200 pixels, more than"):
        decode(encoded(np.zeros((1, 50), np.uint8)), 1200)


def test_no_byte_of_a_file_can_raise_anything_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "PIXELS", 10_000)
    generator = np.random.default_rng(0)
    for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"):
        whole = encoded(pixels(1, 3, 9, 9)[0], kind)
        for position in generator.integers(0, len(whole), 60):
            altered = bytearray(whole)
            altered[position] ^= int(generator.integers(1, 256))
            with contextlib.suppress(Unfit):
                decode(bytes(altered))
