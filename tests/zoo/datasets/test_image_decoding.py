from __future__ import annotations

import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from tests.support.datasets import encode, random_images
from tombola.zoo.datasets import image_decoding
from tombola.zoo.datasets.dataset import Array
from tombola.zoo.datasets.image_decoding import ImageError, decode


@pytest.mark.parametrize("shape", [(5, 7), (3, 5, 7)])
@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_formats_give_the_same_pixels(shape: tuple[int, ...], kind: str) -> None:
    image = random_images(1, *shape)[0]
    np.testing.assert_array_equal(decode(encode(image, kind)), image)


def test_every_mode_is_converted_to_grey_or_three_channels() -> None:
    grey, colour = random_images(1, 4, 6)[0], random_images(1, 3, 4, 6)[0]
    picture = Image.fromarray(np.ascontiguousarray(colour.transpose(1, 2, 0)))
    alpha = Image.fromarray(random_images(1, 4, 6, seed=3)[0])
    transparent, transparent_grey = picture.copy(), Image.fromarray(grey)
    transparent.putalpha(alpha)
    transparent_grey.putalpha(alpha)
    grey_16_bit = grey.astype(np.uint16) * 256 + 17
    for image, expected in [
        (Image.fromarray((grey > 127).astype(np.uint8) * 255).convert("1"), (grey > 127) * 255),
        (transparent_grey, grey),
        (Image.fromarray(grey_16_bit), grey),
        (transparent, colour),
        (picture.quantize(200), np.asarray(picture.quantize(200).convert("RGB")).transpose(2, 0, 1)),
    ]:
        np.testing.assert_array_equal(decode(encode(image)), expected)


def test_images_are_rotated_by_their_exif_orientation() -> None:
    image = random_images(1, 4, 6)[0]
    stream = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    Image.fromarray(image).save(stream, "PNG", exif=exif)
    np.testing.assert_array_equal(decode(stream.getvalue()), image[::-1, ::-1])


@pytest.mark.parametrize("shape", [(40, 30), (3, 30, 47), (3, 16, 16), (8, 11), (16, 1)])
def test_the_shorter_side_is_resized_and_the_centre_cropped(shape: tuple[int, ...]) -> None:
    image = random_images(1, *shape)[0]
    height, width = shape[-2:]
    factor = 16 / min(height, width)
    tall, wide = int(height * factor), int(width * factor)
    channels = [
        np.asarray(Image.fromarray(channel).resize((wide, tall), Image.Resampling.BILINEAR))
        for channel in image.reshape(-1, height, width)
    ]
    top, left = round((tall - 16) / 2), round((wide - 16) / 2)
    expected = np.stack(channels)[:, top : top + 16, left : left + 16].reshape(*shape[:-2], 16, 16)
    np.testing.assert_array_equal(decode(encode(image), 16), expected)


def test_reducing_averages_over_all_pixels() -> None:
    board: Array = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    assert abs(decode(encode(board), 8).astype(int) - 128).max() <= 2


def png_of(width: int, height: int) -> bytes:
    """A short file that claims to be a large image."""
    header = struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b""))
    parts = [struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize(
    ("content", "fact"),
    [
        (b"", "PNG, JPEG, BMP, GIF, PPM, TIFF, WEBP"),
        (b"hello", "PNG, JPEG, BMP, GIF, PPM, TIFF, WEBP"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "PNG, JPEG, BMP"),
        (encode(random_images(1, 3, 40, 40)[0])[:-300], "cannot be decoded"),
        (encode(random_images(1, 3, 40, 40)[0], "JPEG")[:-300], "cannot be decoded"),
        (png_of(9000, 8000), "9,000 x 8,000 pixels, more than 67,108,864"),
        (png_of(10_000, 10_000), "more than 67,108,864 pixels"),  # Pillow would warn
        (png_of(100_000, 100_000), "more than 67,108,864 pixels"),  # Pillow would refuse
        (encode(Image.new("F", (3, 3)), "TIFF"), "floating-point"),
    ],
)
def test_invalid_and_too_large_images_are_refused(content: bytes, fact: str) -> None:
    with pytest.raises(ImageError) as caught:
        decode(content)
    assert fact in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_resized_image_may_not_be_too_large() -> None:
    with pytest.raises(ImageError, match="60,000 x 1,200"):
        decode(encode(np.zeros((1, 50), np.uint8)), 1200)


def test_an_altered_byte_raises_no_other_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_decoding, "MAX_PIXELS", 10_000)
    generator = np.random.default_rng(0)
    for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"):
        content = encode(random_images(1, 3, 9, 9)[0], kind)
        for position in generator.integers(0, len(content), 40):
            altered = bytearray(content)
            altered[position] ^= int(generator.integers(1, 256))
            with contextlib.suppress(ImageError):
                decode(bytes(altered))
