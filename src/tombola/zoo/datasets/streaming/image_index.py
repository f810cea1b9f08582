"""ImageIndex: what must be known of all encoded images before the first is decoded. It is made once, and cached."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import PIL
import platformdirs
import torch

from tombola.utils.errors import DamagedFile, InputError
from tombola.utils.files import read_tensors, write_tensors
from tombola.utils.workers import cores
from tombola.zoo.datasets.dataset import Array
from tombola.zoo.datasets.image_decoding import decode
from tombola.zoo.datasets.image_stack import decoder_warnings, image_at
from tombola.zoo.datasets.search_paths import file_version
from tombola.zoo.datasets.streaming.image_source import ImageSource

log = logging.getLogger(__name__)

FORMAT = 1
"""Part of the key of a cached index; to be changed when the same images would be described differently."""

CHUNK = 64
"""Images that a thread describes at a time."""

LOG_EVERY = 30.0
"""Seconds between lines about the progress."""


@dataclass(frozen=True, eq=False)
class ImageIndex:
    """Of every image, a digest of its encoded content, and the shape that it is decoded to."""

    digests: Array
    """uint8 of shape (images, 16)."""
    shapes: Array
    """int64 of shape (images, 3): channels, 0 for grey images, height and width."""

    def select(self, rows: Sequence[int]) -> ImageIndex:
        """The index of these images."""
        return ImageIndex(self.digests[rows], self.shapes[rows])

    def shape(self, row: int) -> tuple[int, ...]:
        """The shape of an image: (3, height, width), or (height, width) if it is grey."""
        channels, height, width = self.shapes[row].tolist()
        return (channels, height, width) if channels else (height, width)


def index_images(source: ImageSource, files: Sequence[Path], column: str = "") -> ImageIndex:
    """The index of all images of `source`, which are in this column of `files`: from the cache if these have not
    changed since.

    Otherwise every image is read and decoded, in several threads. Raises `InputError` with the first image that is
    missing or damaged.
    """
    path = _cache_file(files, column)
    try:
        tensors, _ = read_tensors(path)
        return ImageIndex(tensors["digests"].numpy(), tensors["shapes"].numpy())
    except FileNotFoundError:
        pass
    except (DamagedFile, OSError, KeyError) as error:
        log.info("indexing images again: %s", error)
    index = _describe_all(source, str(files[0].parent))
    tensors = {"digests": torch.from_numpy(index.digests), "shapes": torch.from_numpy(index.shapes)}
    try:
        write_tensors(path, tensors, {})
    except InputError as error:
        log.info("the index of images is not cached: %s", error)
    return index


def _cache_file(files: Sequence[Path], column: str) -> Path:
    """The file of the index of images in these versions of `files`."""
    sha = hashlib.sha256(repr((FORMAT, PIL.__version__, column)).encode())
    for each in files:
        try:
            sha.update(repr(file_version(each.absolute())).encode())
        except OSError as error:  # such as a link to a missing file
            raise InputError(f"{each} cannot be read: {error.strerror}") from error
    return Path(platformdirs.user_cache_dir("tombola")) / "image-index" / f"{sha.hexdigest()[:32]}.safetensors"


def _describe_all(source: ImageSource, where: str) -> ImageIndex:
    images, workers = len(source), cores()
    digests, shapes = np.zeros((images, 16), np.uint8), np.zeros((images, 3), np.int64)
    source.keep(2 * workers * CHUNK)
    announced = time.monotonic()
    with decoder_warnings(), ThreadPoolExecutor(workers) as pool:
        chunks = [range(first, min(first + CHUNK, images)) for first in range(0, images, CHUNK)]
        for rows, described in zip(chunks, pool.map(partial(_describe, source), chunks), strict=True):
            for row, (digest, shape) in zip(rows, described, strict=True):
                digests[row] = np.frombuffer(digest, np.uint8)
                shapes[row] = shape if len(shape) == 3 else (0, *shape)
            if time.monotonic() - announced > LOG_EVERY:
                announced = time.monotonic()
                log.info("reading the images in %s, once: %d of %d", where, rows.stop, images)
    return ImageIndex(digests, shapes)


def _describe(source: ImageSource, rows: range) -> list[tuple[bytes, tuple[int, ...]]]:
    described = []
    for place, content in source.read(rows):
        with image_at(place, content) as encoded:
            described.append((hashlib.sha256(encoded).digest()[:16], decode(encoded).shape))
    return described
