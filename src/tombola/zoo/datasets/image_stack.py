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
        pixels = decode_at(place, content, size)
        if images is None:
            images = _allocate(where, count, pixels)
        images = _store(place, images, index, pixels)
    assert images is not None
    return images


def join_parts(train: str, test: str, x_train: Array, x_test: Array) -> tuple[Array, Array]:
    """Training and test images, with three channels if either has. Raises `InputError` unless their sizes agree."""
    if x_train.shape[-2:] != x_test.shape[-2:]:
        raise other_sizes(train, test, size_in_words(x_train[0].shape), size_in_words(x_test[0].shape))
    if x_train.ndim != x_test.ndim:  # one part is grey, the other has colours
        x_train, x_test = _with_channels(x_train), _with_channels(x_test)
    return x_train, x_test


def decode_at(place: str, content: bytes | None, size: int | None) -> Array:
    """What `decode` returns for the encoded image from this place. Raises `InputError` with the place."""
    with image_at(place, content) as encoded:
        return decode(encoded, size)


@contextmanager
def image_at(place: str, content: bytes | None) -> Iterator[bytes]:
    """The content of the encoded image. Raises `InputError` with its place if it is missing, and for an `ImageError`
    in the block."""
    if content is None:
        raise InputError(f"{place}: the image is missing; the file should contain its bytes")
    try:
        yield content
    except ImageError as error:
        raise InputError(f"{place}: {error}") from error


def other_size(place: str, one: str, before: str) -> InputError:
    """The error for an image of another size than those before it."""
    return InputError(
        f"{place}: the image has {one}, the images before it have {before}; set data.size to resize them all"
    )


def other_sizes(train: str, test: str, in_train: str, in_test: str) -> InputError:
    """The error for training and test images of different sizes."""
    return InputError(
        f"{train} has images of {in_train} and {test} of {in_test}; they should have one size: set data.size"
    )


def _allocate(where: str, count: int, pixels: Array) -> Array:
    try:
        return np.empty((count, *pixels.shape), np.uint8)
    except (MemoryError, ValueError) as error:
        raise InputError(
            f"{where}: {count:,} images of {size_in_words(pixels.shape)} do not fit into memory; set data.size to "
            "less, or data.stream to true"
        ) from error


def _store(place: str, images: Array, index: int, pixels: Array) -> Array:
    """`images` with `pixels` at `index`; with three channels from the first colour image on."""
    if pixels.shape[-2:] != images.shape[-2:]:
        raise other_size(place, size_in_words(pixels.shape), size_in_words(images[0].shape))
    if pixels.ndim == 3 and images.ndim == 3:
        images = _with_channels(images)
    images[index] = pixels  # a grey image is broadcast to all channels
    return images


def _with_channels(images: Array) -> Array:
    """The same images with three channels."""
    return images if images.ndim == 4 else np.repeat(images[:, None], 3, axis=1)


def size_in_words(shape: tuple[int, ...]) -> str:
    """The size of an image of this shape, for messages."""
    height, width = shape[-2:]
    return f"{height} x {width} {'colour' if len(shape) == 3 else 'grey'} pixels"
