"""Datasets: loaded by name, and prepared as the tensors a run uses."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tombola.utils.errors import InputError, unknown
from tombola.zoo.datasets.class_folders import has_class_folders
from tombola.zoo.datasets.csv_dataset import find_csv_parts, read_csv, read_csv_folder
from tombola.zoo.datasets.description import Data
from tombola.zoo.datasets.handed import handed_dataset
from tombola.zoo.datasets.hub import PREFIX, load_hub
from tombola.zoo.datasets.image_folder import read_image_folder
from tombola.zoo.datasets.npz import read_npz
from tombola.zoo.datasets.parquet import read_parquet
from tombola.zoo.datasets.parquet_columns import Columns
from tombola.zoo.datasets.parquet_files import list_files, train_folders
from tombola.zoo.datasets.registry import DATASETS, IMAGE_DATASETS
from tombola.zoo.datasets.search_paths import file_versions, find_file, find_folder
from tombola.zoo.datasets.split import Split, split
from tombola.zoo.datasets.streaming.streamed_dataset import AnyDataset, StreamedDataset

__all__ = ["DATASETS", "IMAGE_DATASETS", "described_dataset", "load", "prepare"]

_PREPARING = threading.Lock()


class Reader(NamedTuple):
    """How files are read: a function of their path and, if there are options, of `Columns`."""

    read: Callable[..., AnyDataset]
    options: tuple[str, ...] = ()
    """The fields of `Columns` that it takes."""


FILE_READERS: dict[str, Reader] = {".npz": Reader(read_npz), ".csv": Reader(read_csv, ("label",))}
"""By the end of the file's name. A file with tabs may be called `.tsv`."""
FILE_READERS[".tsv"] = FILE_READERS[".csv"]

PARQUET = Reader(read_parquet, ("image", "label", "size", "stream"))
IMAGES = Reader(read_image_folder, ("size", "stream"))
CSV_FOLDER = Reader(read_csv_folder, ("label",))


def load(name: str, data_dir: str | Path | None = None, columns: Columns | None = None) -> AnyDataset:
    """The dataset of that name: one of `DATASETS` or `IMAGE_DATASETS`, the path of an `.npz` or a CSV file, of a
    folder of Parquet files, of `train.csv` and `test.csv` or of images in a folder for each class, or `hf:owner/name`
    on Hugging Face's hub.

    Raises `InputError` for an unknown name, for missing, damaged or invalid files, and for `columns` that a dataset
    does not have.
    """
    columns = columns or Columns()
    if name in IMAGE_DATASETS:
        return _load(IMAGE_DATASETS[name], data_dir, columns)
    if name.startswith(PREFIX):
        return _load(load_hub, name, columns)
    if name in DATASETS:
        _check_options(name, columns, ())
        return _load(DATASETS[name], data_dir)
    reader = FILE_READERS.get(Path(name).suffix.lower())
    if reader is not None:
        _check_options(name, columns, reader.options)
        path = find_file(name, data_dir)
    else:
        folder = find_folder(name, data_dir)
        if folder is None:
            paths = ["path/to/arrays.npz", "path/to/table.csv", "path/to/folder", "hf:owner/name"]
            raise unknown("dataset", name, [*DATASETS, *IMAGE_DATASETS, *paths])
        path, reader = folder, _folder_reader(folder)
        _check_options(name, columns, reader.options)
    arguments = [columns] if reader.options else []
    return _load(reader.read, path.resolve(), *arguments, versions=file_versions(path))


def _folder_reader(folder: Path) -> Reader:
    """The reader for what the folder holds."""
    parquet = list_files(folder)
    if train_folders(parquet):
        return PARQUET
    csv, images = find_csv_parts(folder) is not None, has_class_folders(folder)
    if csv and images:
        raise InputError(f"{folder} has both train.csv and folders of images; move one of them")
    if csv or images:
        return CSV_FOLDER if csv else IMAGES
    if parquet:
        return PARQUET  # it raises the error
    raise InputError(
        f"{folder} holds no dataset: there is no train-*.parquet and test-*.parquet, no train.csv and test.csv, and "
        "no sub-folder with images, such as train/CLASS/1.png and test/CLASS/1.png"
    )


def _check_options(name: str, columns: Columns, options: Sequence[str]) -> None:
    kinds = {
        "image": "Parquet files",
        "label": "Parquet and CSV files",
        "size": "Parquet files and folders of images",
        "stream": "Parquet files and folders of images",
    }
    for option in columns.given:
        if option not in options:
            raise InputError(f'data.{option}: only for datasets in {kinds[option]}, which "{name}" is not')


@functools.lru_cache(maxsize=2)
def _load(
    loader: Callable[..., AnyDataset],
    *arguments: Any,
    versions: object = None,  # noqa: ARG001
) -> AnyDataset:
    """What `loader` returns. Cached, except if `versions` shows that files have changed."""
    return loader(*arguments)


_STREAMED: dict[tuple[str, str], StreamedDataset] = {}
"""By name and digest. Looking for changed files takes long where there are many, so a process does it once."""


@functools.lru_cache(maxsize=2)
def prepare(data: Data, data_dir: str | Path | None = None) -> Split:
    """The tensors that a run trains, validates and tests on; on the CPU. Raises `InputError` as `load` does, and if
    the arrays are not those that `data` describes."""
    with _PREPARING:  # threads that need the same arrays wait for the first to make them
        return split(described_dataset(data, data_dir), data)


def described_dataset(data: Data, data_dir: str | Path | None = None) -> AnyDataset:
    """The dataset that `data` describes, not yet split. Raises `InputError` as `prepare` does."""
    if (handed := handed_dataset(data.digest)) is not None:
        return handed
    if (known := _STREAMED.get((data.name, data.digest))) is not None:
        return known
    dataset = load(data.name, data_dir, data.columns)
    if dataset.digest != data.digest:
        raise InputError(f'dataset "{data.name}" has changed: its content is not that of the described run')
    if isinstance(dataset, StreamedDataset):
        _STREAMED[data.name, data.digest] = dataset
    return dataset
