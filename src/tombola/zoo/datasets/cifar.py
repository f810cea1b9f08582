"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009): Parquet files, found on disk or downloaded, and checked."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tombola.utils.errors import InputError
from tombola.zoo.datasets.columns import Columns
from tombola.zoo.datasets.dataset import Dataset
from tombola.zoo.datasets.download import download
from tombola.zoo.datasets.folder_layout import choose_files, files_in
from tombola.zoo.datasets.parquet import labels_in, read_parquet
from tombola.zoo.datasets.places import folders

FILES = ("train-00000-of-00001.parquet", "test-00000-of-00001.parquet")


@dataclass(frozen=True)
class CifarSource:
    """A published data set of two files, and what is known of its content."""

    name: str
    url: str
    classes: dict[str, int]
    """How many classes each column of labels has; the first is the usual one. If it is the only one, it may have
    another name."""
    examples: tuple[int, int] = (50_000, 10_000)
    """In training and test set, equally many of every class."""
    side: int = 32
    """Height and width in pixels."""


HUB = "https://huggingface.co/datasets/uoft-cs"

CIFAR10 = CifarSource("cifar10", f"{HUB}/cifar10/resolve/main/plain_text/", {"label": 10})
CIFAR100 = CifarSource("cifar100", f"{HUB}/cifar100/resolve/main/cifar100/", {"fine_label": 100, "coarse_label": 20})


def load_cifar(source: CifarSource, data_dir: Path | None, columns: Columns | None = None) -> Dataset:
    """Read the data set from the first folder that has it, or download it to the user's cache.

    The folders are those of `places.folders`; in each the files lie in a folder of the data set's name, in any layout
    that `layout.choose_files` knows. Pixels are not compared with the published ones, so copies that were
    encoded anew are taken too; numbers, shapes and classes of the examples are checked.

    Raises `InputError` that says where it looked and which file is missing, damaged or another.
    """
    columns = columns or Columns()
    folder = _locate(source, data_dir)
    label, classes = _labels(source, folder, columns.label)
    dataset = read_parquet(folder, replace(columns, label=label))
    _check(source, folder, dataset, columns.size or source.side, classes)
    return dataset


def _locate(source: CifarSource, data_dir: Path | None) -> Path:
    places = [folder / source.name for folder in folders(data_dir)]
    for place in places[:-1]:
        if files_in(place):
            return place
    cache = places[-1]
    try:
        choose_files(str(cache), files_in(cache))
    except InputError:  # nothing yet, or a download that was interrupted between the files
        wanted = f"{' and '.join(FILES)} (or the like)"
        for file in FILES:
            if not (cache / file).is_file():
                download(source.name, wanted, source.url + file, places, check=_check_parquet)
    return cache


def _check_parquet(path: Path) -> None:
    """Raises `ValueError` unless the file begins and ends as a Parquet file does."""
    content = path.read_bytes()
    if len(content) < 12 or content[:4] != b"PAR1" or content[-4:] != b"PAR1":
        raise ValueError("what came is not a Parquet file")


def _labels(source: CifarSource, folder: Path, named: str | None) -> tuple[str, int]:
    """The column of labels, and how many classes it should have.

    Raises `InputError` that gives the columns to choose from.
    """
    columns = labels_in(folder)
    usual = next(iter(source.classes))
    label = named or usual
    if label in columns and label in source.classes:
        return label, source.classes[label]
    only = columns[0] if len(columns) == 1 and columns[0] not in source.classes else None
    if only is not None and named in (None, only):
        return only, source.classes[usual]
    known = [only] if only is not None else [column for column in source.classes if column in columns]
    if not known:
        raise InputError(f"{folder} does not hold {source.name}: it has no column {' or '.join(source.classes)}")
    raise InputError(f"{folder}: no labels {label} of {source.name}; set data.label to {' or '.join(known)}")


def _check(source: CifarSource, folder: Path, dataset: Dataset, side: int, classes: int) -> None:
    """Raises `InputError` unless numbers, shapes and classes are the published ones."""
    if dataset.inputs != (3, side, side):
        raise InputError(f"{folder} does not hold {source.name}: its images have shape {dataset.inputs}")
    for part, labels, examples in zip(
        ("training", "test"), (dataset.y_train, dataset.y_test), source.examples, strict=True
    ):
        counts = np.bincount(labels, minlength=classes)
        if len(counts) > classes or (counts != examples // classes).any():
            raise InputError(
                f"{folder} does not hold {source.name}: its {len(labels):,} {part} examples are not "
                f"{examples // classes:,} of each of {classes} classes"
            )
