"""Image files in a folder for each class, in the layout of torchvision's `ImageFolder`."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np

from tombola.utils.errors import InputError
from tombola.zoo.datasets.dataset import Array
from tombola.zoo.datasets.holdout import hold_out
from tombola.zoo.datasets.parquet_files import TEST, TRAIN

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".pbm", ".pgm", ".ppm", ".tif", ".tiff", ".webp"}

PARTS = {"training": TRAIN[0], "testing": TEST[0], **{name: name for name in TRAIN + TEST}}
"""Names of folders, in lower case, that are parts of a dataset and not classes, if they contain folders of images."""


@dataclass(frozen=True)
class ClassFiles:
    """The images of one part, with the names of their classes."""

    root: Path
    """The folder of the part."""
    paths: Sequence[Path]
    classes: Sequence[str]

    def labels(self, classes: Sequence[str]) -> Array:
        """The numbers of the images' classes among `classes`, which are sorted: int64 of shape (images,). Raises
        `InputError` for any other class."""
        known = set(classes)
        for path, name in zip(self.paths, self.classes, strict=True):
            if name not in known:
                raise InputError(f"{path.parent}: there are no training images of the class {name}")
        return np.searchsorted(classes, self.classes).astype(np.int64)

    def select(self, chosen: Array) -> ClassFiles:
        """Those images for which `chosen`, bool of shape (images,), is true."""
        indices = np.flatnonzero(chosen).tolist()
        return ClassFiles(self.root, [self.paths[i] for i in indices], [self.classes[i] for i in indices])


@dataclass(frozen=True)
class ImageParts:
    """The training and the test images of a dataset."""

    train: ClassFiles
    test: ClassFiles
    notes: tuple[str, ...] = ()
    """What the reader decided, and the user should know; a line each."""

    def labels(self) -> tuple[Array, Array]:
        """The labels of both parts; classes are numbered in the order of their names."""
        classes = sorted(set(self.train.classes))
        return self.train.labels(classes), self.test.labels(classes)


def has_class_folders(folder: Path) -> bool:
    """Whether there are images in sub-folders."""
    return any(path.parent != folder for path in images_in(folder))


def find_image_parts(folder: Path, digests_of: Callable[[Sequence[Path]], Sequence[bytes]]) -> ImageParts:
    """The images in `folder/train/CLASS/` and `folder/test/CLASS/`, or in `folder/CLASS/`.

    Instead of `test` it may be `validation`, `valid` or `val`; without any, some of the images are held out, by the
    digests of their content that `digests_of` returns. Folders in a class's folder belong to it. Hidden files and
    folders are ignored.

    Raises `InputError` with the folder, and what is wrong.
    """
    named = {PARTS[each.name.lower()]: each for each in sub_folders(folder) if each.name.lower() in PARTS}
    parts = {name: each for name, each in named.items() if has_class_folders(each)}
    if TRAIN[0] in named and len(named) > 1 and TRAIN[0] not in parts:
        raise InputError(f"{named[TRAIN[0]]} has no folders of images, one for each class")
    if parts and TRAIN[0] not in parts:
        found = next(iter(parts.values()))
        raise InputError(
            f"{folder} has no folder train beside {found.name}; it should have train and test, or classes"
        )
    root = parts.get(TRAIN[0], folder)
    files, notes = files_by_class(root)
    if len(set(files.classes)) == 1:
        raise InputError(f"{root} has images in one folder only, {files.classes[0]}; every class needs a folder")
    test_root = next((parts[name] for name in TEST if name in parts), None)
    if test_root is not None:
        test, more = files_by_class(test_root)
        return ImageParts(files, test, (*notes, *more))
    numbers = np.unique(np.array(files.classes), return_inverse=True)[1]
    held_out, note = hold_out(str(root), numbers, digests_of(files.paths))
    return ImageParts(files.select(~held_out), files.select(held_out), (*notes, note))


def files_by_class(root: Path) -> tuple[ClassFiles, list[str]]:
    """The images in the classes' folders in `root`, and a line about those outside."""
    classes = sub_folders(root)
    paths: list[Path] = []
    names: list[str] = []
    for each in classes:
        images = list(images_in(each))
        if not images:
            raise InputError(f"{each} has no images ({', '.join(sorted(SUFFIXES))}); every folder should be a class")
        paths += images
        names += [each.name] * len(images)
    if not paths:
        raise InputError(f"{root} has no folders of images, one for each class")
    notes = list(_nesting(root, classes))
    loose = [path for path in images_in(root) if path.parent == root]
    if loose:
        notes.append(f"{len(loose)} images, such as {loose[0]}, are in no class's folder, and are left out")
    return ClassFiles(root, paths, names), notes


def _nesting(root: Path, classes: list[Path]) -> Iterator[str]:
    """A line about two folders with the same sub-folders: probably they are parts, and the classes are inside."""
    inside = {each: {sub.name for sub in sub_folders(each)} for each in classes}
    for first, second in itertools.pairwise(classes):
        if len(inside[first] & inside[second]) > 1:
            yield (
                f"the classes {first.name} and {second.name} have the same sub-folders; if these are the classes, "
                f"name the folders in {root} train and test"
            )


def sub_folders(folder: Path) -> list[Path]:
    """The folders in `folder`, in order, without hidden ones."""
    _, names, _ = next(_walk(folder))
    return [folder / name for name in names]


def images_in(folder: Path) -> Iterator[Path]:
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


def read_file(path: Path) -> bytes:
    """The content of a file. Raises `InputError` if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
