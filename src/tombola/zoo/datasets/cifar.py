"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009): Parquet files, found on disk or downloaded, and checked."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tombola.utils.errors import InputError
from tombola.zoo.datasets.parquet import label_columns_in, read_parquet
from tombola.zoo.datasets.parquet_columns import Columns
from tombola.zoo.datasets.parquet_files import choose_files, list_files
from tombola.zoo.datasets.search_paths import data_folders, download
from tombola.zoo.datasets.streaming.streamed_dataset import AnyDataset

FILES = ("train-00000-of-00001.parquet", "test-00000-of-00001.parquet")


@dataclass(frozen=True)
class CifarSource:
    """A published dataset of two files, and its size and classes."""

    name: str
    url: str
    classes: dict[str, int]
    """The number of classes of each label column; the first is the default. If it is the only one, it may have
    another name."""
    examples: tuple[int, int] = (50_000, 10_000)
    """In the training and the test set; equally many of every class."""
    side: int = 32
    """Height and width in pixels."""


HUB = "https://huggingface.co/datasets/uoft-cs"

CIFAR10 = CifarSource("cifar10", f"{HUB}/cifar10/resolve/main/plain_text/", {"label": 10})
CIFAR100 = CifarSource("cifar100", f"{HUB}/cifar100/resolve/main/cifar100/", {"fine_label": 100, "coarse_label": 20})


def load_cifar(source: CifarSource, data_dir: str | Path | None, columns: Columns | None = None) -> AnyDataset:
    """Read the dataset from the first folder that has it, or download it to the user's cache.

    The folders are those of `search_paths.data_folders`; in each, the files are in a folder with the dataset's name,
    as `choose_files` finds them. The number, shape and classes of the examples are checked, but not the pixels, so
    that re-encoded copies are accepted.

    Raises `InputError` with the folders searched and the missing, damaged or invalid file.
    """
    columns = columns or Columns()
    folder = _locate(source, data_dir)
    label, classes = _choose_labels(source, folder, columns.label)
    dataset = read_parquet(folder, replace(columns, label=label))
    _check(source, folder, dataset, columns.size or source.side, classes)
    return dataset


def locate_cifar(source: CifarSource, data_dir: str | Path | None) -> Path | None:
    """The folder that `load_cifar` would read; None if the dataset would be downloaded."""
    return next((folder for each in data_folders(data_dir) if list_files(folder := each / source.name)), None)


def _locate(source: CifarSource, data_dir: str | Path | None) -> Path:
    *folders, cache = (folder / source.name for folder in data_folders(data_dir))
    for folder in folders:
        if list_files(folder):
            return folder
    try:
        choose_files(str(cache), list_files(cache))
    except InputError:  # no file yet, or the download was interrupted between the files
        wanted = f"{' and '.join(FILES)} (or similar)"
        for file in FILES:
            if not (cache / file).is_file():
                download(source.name, wanted, source.url + file, [*folders, cache], check=_check_parquet)
    return cache


def _check_parquet(path: Path) -> None:
    """Raises `ValueError` unless the file begins and ends like a Parquet file."""
    content = path.read_bytes()
    if len(content) < 12 or content[:4] != b"PAR1" or content[-4:] != b"PAR1":
        raise ValueError("the server did not send a Parquet file")


def _choose_labels(source: CifarSource, folder: Path, named: str | None) -> tuple[str, int]:
    """The label column, and its number of classes. Raises `InputError` with the columns to choose from."""
    columns = label_columns_in(folder)
    default = next(iter(source.classes))
    label = named or default
    if label in columns and label in source.classes:
        return label, source.classes[label]
    only = columns[0] if len(columns) == 1 and columns[0] not in source.classes else None
    if only is not None and named in (None, only):
        return only, source.classes[default]
    known = [only] if only is not None else [column for column in source.classes if column in columns]
    if not known:
        raise InputError(f"{folder} does not hold {source.name}: it has no column {' or '.join(source.classes)}")
    raise InputError(f"{folder}: no label column {label}; set data.label to {' or '.join(known)}")


def _check(source: CifarSource, folder: Path, dataset: AnyDataset, side: int, classes: int) -> None:
    """Raises `InputError` unless the number, shape and classes of the examples are the published ones."""
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
