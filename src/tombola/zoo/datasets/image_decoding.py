"""Decoding of one image file, such as PNG or JPEG, to an array of pixels."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from tombola.utils.text import first_line
from tombola.zoo.datasets.dataset import Array

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "PPM", "TIFF", "WEBP")

MAX_PIXELS = 2**26
"""The largest image decoded: a small file can claim to be an image that fills all memory."""

GREY_16_BIT = ("I", "I;16", "I;16B", "I;16L", "I;16N")
"""Pillow's modes of grey images with 16 bits per pixel."""

GREY_MODES = ("1", "L", "LA", "La", *GREY_16_BIT)


class ImageError(ValueError):
    """An image cannot be used; the message gives the reason."""


def decode(content: bytes, size: int | None = None) -> Array:
    """The pixels of an encoded image: uint8 of shape (height, width) if it is grey, or (3, height, width).

    Of 16 bits per pixel the upper 8 are used, transparency is dropped, and the image is rotated by its EXIF
    orientation. With `size`, the shorter side is resized to `size` by Pillow's bilinear filter (which averages over
    all pixels when it reduces), and the central square is cropped.

    Raises `ImageError` if it is not an image of one of the `FORMATS`, is truncated or has more than `MAX_PIXELS`.
    """
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            _check_pixels(*image.size)
            array = np.asarray(_resize(_to_grey_or_rgb(image), size))
            return array if array.ndim == 2 else array.transpose(2, 0, 1)
    except (ImageError, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"the image has more than {MAX_PIXELS:,} pixels") from error
    except Exception as error:  # Pillow's decoders raise errors of many types
        if isinstance(error, UnidentifiedImageError):
            raise ImageError(f"not an image of the formats {', '.join(FORMATS)}") from error
        raise ImageError(f"the image cannot be decoded: {first_line(error)}") from error


def _check_pixels(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise ImageError(f"the image has {width:,} x {height:,} pixels, more than {MAX_PIXELS:,}")


def _to_grey_or_rgb(image: Image.Image) -> Image.Image:
    """The image upright, in mode L or RGB."""
    if "exif" in image.info:
        image = ImageOps.exif_transpose(image)
    if image.mode in GREY_16_BIT:
        return Image.fromarray((np.asarray(image).clip(0, 2**16 - 1) >> 8).astype(np.uint8))
    if image.mode in GREY_MODES:
        return image if image.mode == "L" else image.convert("L")
    if image.mode == "F":
        raise ImageError("the image has floating-point pixels; they should have 8 or 16 bits")
    if "transparency" in image.info:
        image = image.convert("RGBA")
    return image if image.mode == "RGB" else image.convert("RGB")


def _resize(image: Image.Image, size: int | None) -> Image.Image:
    if size is None:
        return image
    shorter = min(image.size)
    width, height = (int(size * side / shorter) for side in image.size)
    _check_pixels(width, height)
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return image.crop((left, top, left + size, top + size))
