"""One encoded image, PNG or JPEG or the like, made into an array of pixels."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from tombola.zoo.datasets.dataset import Array

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "PPM", "TIFF", "WEBP")

PIXELS = 2**26
"""The largest image that is decoded: a small file can claim to be a picture that fills all memory."""

DEEP = ("I", "I;16", "I;16B", "I;16L", "I;16N")
"""Modes of grey images with 16 bits a pixel."""

GREY = ("1", "L", "LA", "La", *DEEP)


class Unfit(ValueError):
    """An image that cannot be used; the message says why."""


def decode(content: bytes, size: int | None = None) -> Array:
    """The pixels of an encoded image: uint8 of shape (height, width) if it is grey, or (3, height, width).

    Of 16 bits a pixel the upper 8 are taken, transparency is dropped, and an image is turned as its EXIF
    orientation says. With `size` its shorter side is brought to `size`, by Pillow's bilinear filter (which covers all
    pixels when it reduces), and a square of `size` is cut out of the centre.

    Raises `Unfit` for whatever is not an image of one of the `FORMATS`, is truncated or has more than `PIXELS`.
    """
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            _check_pixels(*image.size)
            return _pixels(_resized(_plain(image), size))
    except (Unfit, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise Unfit(f"the image has more than {PIXELS:,} pixels") from error
    except Exception as error:  # Pillow's decoders raise whatever they stumble over
        if isinstance(error, UnidentifiedImageError):
            raise Unfit(f"not an image of the formats {', '.join(FORMATS)}") from error
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise Unfit(f"the image cannot be decoded: {reason}") from error


def _check_pixels(width: int, height: int) -> None:
    if width * height > PIXELS:
        raise Unfit(f"the image has {width:,} x {height:,} pixels, more than {PIXELS:,}")


def _plain(image: Image.Image) -> Image.Image:
    """The same image upright, of mode L or RGB."""
    if "exif" in image.info:
        image = ImageOps.exif_transpose(image)
    if image.mode in DEEP:
        return Image.fromarray((np.asarray(image).clip(0, 2**16 - 1) >> 8).astype(np.uint8))
    if image.mode in GREY:
        return image if image.mode == "L" else image.convert("L")
    if image.mode == "F":
        raise Unfit("the image has pixels of floating-point numbers, not of 8 or 16 bits")
    if "transparency" in image.info:
        image = image.convert("RGBA")
    return image if image.mode == "RGB" else image.convert("RGB")


def _resized(image: Image.Image, size: int | None) -> Image.Image:
    if size is None:
        return image
    shorter = min(image.size)
    width, height = (int(size * side / shorter) for side in image.size)
    _check_pixels(width, height)
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return image.crop((left, top, left + size, top + size))


def _pixels(image: Image.Image) -> Array:
    array = np.asarray(image)
    return array if array.ndim == 2 else array.transpose(2, 0, 1)
