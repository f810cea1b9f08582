"""Image files in a folder for each class, as torchvision's `ImageFolder` reads them."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

import numpy as np
import PIL

from tombola.utils.errors import InputError
from tombola.zoo.datasets.checks import check_classes
from tombola.zoo.datasets.dataset import Array, Dataset
from tombola.zoo.datasets.decoded_cache import FORMAT, cached
from tombola.zoo.datasets.holdout import hold_out
from tombola.zoo.datasets.image_stack import decoder_warnings, join_parts, stack_images
from tombola.zoo.datasets.parquet_columns import Columns
from tombola.zoo.datasets.parquet_files import TEST, TRAIN

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".pbm", ".pgm", ".ppm", ".tif", ".tiff", ".webp"}

PARTS = {"training": TRAIN[0], "testing": TEST[0], **{name: name for name in TRAIN + TEST}}
"""Names of folders, in lower case, that are parts of a dataset and not classes, if they contain folders of images."""


@dataclass(frozen=True)
class ImageFiles:
    """The images of one part, with the names of their classes."""

    paths: list[Path]
    classes: list[str]


def has_class_folders(folder: Path) -> bool:
    """Whether there are images in sub-folders."""
    return any(path.parent != folder for path in _images_in(folder))


def read_image_folder(folder: Path, columns: Columns) -> Dataset:
    """Read `folder/train/CLASS/*.png` and `folder/test/CLASS/*.png`, or `folder/CLASS/*.png`.

    Classes are numbered in the order of the names of their folders. Instead of `test` it may be `validation`, `valid`
    or `val`; without any, some of the images are held out. Folders in a class's folder belong to it. Hidden files and
    folders are ignored. Images are those of `read_parquet`.

    Raises `InputError` with the file or folder, and what is wrong.
    """
    named = {PARTS[each.name.lower()]: each for each in _sub_folders(folder) if each.name.lower() in PARTS}
    parts = {name: each for name, each in named.items() if has_class_folders(each)}
    if TRAIN[0] in named and len(named) > 1 and TRAIN[0] not in parts:
        raise InputError(f"{named[TRAIN[0]]} has no folders of images, one for each class")
    if parts and TRAIN[0] not in parts:
        found = next(iter(parts.values()))
        raise InputError(
            f"{folder} has no folder train beside {found.name}; it should have train and test, or classes"
        )
    root = parts.get(TRAIN[0], folder)
    files, notes = _files_in(root)
    if len(set(files.classes)) == 1:
        raise InputError(f"{root} has images in one folder only, {files.classes[0]}; every class needs a folder")
    test_root = next((parts[name] for name in TEST if name in parts), None)
    if test_root is None:
        digests = [_content_digest(path) for path in files.paths]
        names = np.array(files.classes)
        held_out, note = hold_out(str(root), np.unique(names, return_inverse=True)[1], digests)
        train, test = _select(files, ~held_out), _select(files, held_out)
        notes.append(note)
    else:
        train, (test, more) = files, _files_in(test_root)
        notes += more
    dataset = cached(_cache_key(train, test, columns), lambda: _decode_all(train, test, columns.size))
    check_classes(str(root), str(test_root or root), dataset.y_train, dataset.y_test)
    return replace(dataset, notes=tuple(notes))


def _files_in(root: Path) -> tuple[ImageFiles, list[str]]:
    """The images in the classes' folders in `root`, and a line about those outside."""
    classes = _sub_folders(root)
    paths: list[Path] = []
    names: list[str] = []
    for each in classes:
        images = list(_images_in(each))
        if not images:
            raise InputError(f"{each} has no images ({', '.join(sorted(SUFFIXES))}); every folder should be a class")
        paths += images
        names += [each.name] * len(images)
    notes = list(_nesting(root, classes))
    loose = [path for path in _images_in(root) if path.parent == root]
    if loose:
        notes.append(f"{len(loose)} images, such as {loose[0]}, are in no class's folder, and are left out")
    return ImageFiles(paths, names), notes


def _nesting(root: Path, classes: list[Path]) -> Iterator[str]:
    """A line about two folders with the same sub-folders: probably they are parts, and the classes are inside."""
    inside = {each: {sub.name for sub in _sub_folders(each)} for each in classes}
    for first, second in itertools.pairwise(classes):
        if len(inside[first] & inside[second]) > 1:
            yield (
                f"the classes {first.name} and {second.name} have the same sub-folders; if these are the classes, "
                f"name the folders in {root} train and test"
            )


def _sub_folders(folder: Path) -> list[Path]:
    _, names, _ = next(_walk(folder))
    return [folder / name for name in names]


def _images_in(folder: Path) -> Iterator[Path]:
    """The images in a folder and its sub-folders, in the order of their paths."""
    for parent, _, files in _walk(folder):
        yield from (Path(parent, name) for name in files if Path(name).suffix.lower() in SUFFIXES)


def _walk(folder: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """As `os.walk`: in order, and without what is hidden."""

    def refuse(error: OSError) -> NoReturn:
        raise InputError(f"{error.filename} cannot be read: {error.strerror}") from error

    for parent, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        folders[:] = sorted(name for name in folders if not _is_hidden(name))
        yield parent, folders, sorted(name for name in files if not _is_hidden(name))


def _is_hidden(name: str) -> bool:
    return name.startswith((".", "__MACOSX"))


def _select(files: ImageFiles, chosen: Array) -> ImageFiles:
    indices = np.flatnonzero(chosen)
    return ImageFiles([files.paths[i] for i in indices], [files.classes[i] for i in indices])


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error


def _content_digest(path: Path) -> bytes:
    return hashlib.sha256(_content(path)).digest()


def _cache_key(train: ImageFiles, test: ImageFiles, columns: Columns) -> str:
    """A hash of everything that the decoded arrays depend on."""
    sha = hashlib.sha256(repr(("images", FORMAT, PIL.__version__, columns.size)).encode())
    for part in (train, test):
        sha.update(repr(part.classes).encode())
        for path in part.paths:
            sha.update(_content_digest(path))
    return sha.hexdigest()


def _decode_all(train: ImageFiles, test: ImageFiles, size: int | None) -> Dataset:
    classes = sorted(set(train.classes))
    for path, name in zip(test.paths, test.classes, strict=True):
        if name not in classes:
            raise InputError(f"{path.parent}: there are no training images of the class {name}")
    with decoder_warnings():
        x_train, x_test = (_stack(part.paths, size) for part in (train, test))
    x_train, x_test = join_parts(str(train.paths[0]), str(test.paths[0]), x_train, x_test)
    y_train, y_test = (np.searchsorted(classes, part.classes).astype(np.int64) for part in (train, test))
    return Dataset(x_train, y_train, x_test, y_test)


def _stack(paths: list[Path], size: int | None) -> Array:
    contents = ((str(path), _content(path)) for path in paths)
    return stack_images(str(paths[0].parent), len(paths), contents, size)
