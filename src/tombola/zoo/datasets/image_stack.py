"""Many encoded images as one array; and the arrays of training and test images, made alike."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image

from tombola.utils.errors import InputError
from tombola.zoo.datasets.dataset import Array
from tombola.zoo.datasets.image_decoding import ImageError, decode


@contextmanager
def decoder_warnings() -> Iterator[None]:
    """In the block, Pillow's warnings about metadata are ignored, and that about too many pixels is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def stack_images(where: str, count: int, contents: Iterable[tuple[str, bytes | None]], size: int | None) -> Array:
    """The pixels of `count` encoded images: uint8 of shape (count, 3, height, width), or (count, height, width) if
    all are grey. Each comes with the name of its place for messages; None is a missing image.

    Raises `InputError` with the place and what is wrong there; with `where` if the array does not fit into memory.
    """
    images: Array | None = None
    for index, (place, content) in enumerate(contents):
        pixels = _decode_at(place, content, size)
        if images is None:
            images = _allocate(where, count, pixels)
        images = _store(place, images, index, pixels)
    assert images is not None
    return images


def join_parts(train: str, test: str, x_train: Array, x_test: Array) -> tuple[Array, Array]:
    """Training and test images, with three channels if either has. Raises `InputError` unless their sizes agree."""
    if x_train.shape[-2:] != x_test.shape[-2:]:
        raise InputError(
            f"{train} has images of {_size(x_train[0])} and {test} of {_size(x_test[0])}; they should have one size: "
            "set data.size"
        )
    if x_train.ndim != x_test.ndim:  # one part is grey, the other has colours
        x_train, x_test = _with_channels(x_train), _with_channels(x_test)
    return x_train, x_test


def _decode_at(place: str, content: bytes | None, size: int | None) -> Array:
    if content is None:
        raise InputError(f"{place}: the image is missing; the file should contain its bytes")
    try:
        return decode(content, size)
    except ImageError as error:
        raise InputError(f"{place}: {error}") from error


def _allocate(where: str, count: int, pixels: Array) -> Array:
    try:
        return np.empty((count, *pixels.shape), np.uint8)
    except (MemoryError, ValueError) as error:
        raise InputError(
            f"{where}: {count:,} images of {_size(pixels)} do not fit into memory; set data.size to less"
        ) from error


def _store(place: str, images: Array, index: int, pixels: Array) -> Array:
    """`images` with `pixels` at `index`; with three channels from the first colour image on."""
    if pixels.shape[-2:] != images.shape[-2:]:
        raise InputError(
            f"{place}: the image has {_size(pixels)}, the images before it have {_size(images[0])}; set data.size to "
            "resize them all"
        )
    if pixels.ndim == 3 and images.ndim == 3:
        images = _with_channels(images)
    images[index] = pixels  # a grey image is broadcast to all channels
    return images


def _with_channels(images: Array) -> Array:
    """The same images with three channels."""
    return images if images.ndim == 4 else np.repeat(images[:, None], 3, axis=1)


def _size(image: Array) -> str:
    """The size of an image, for messages."""
    height, width = image.shape[-2:]
    return f"{height} x {width} {'colour' if image.ndim == 3 else 'grey'} pixels"
