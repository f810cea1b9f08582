"""Readers of streamed datasets: image files in class folders, and Parquet files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from tombola.utils.errors import InputError
from tombola.zoo.datasets.class_folders import ClassFiles, ImageParts, find_image_parts
from tombola.zoo.datasets.dataset import Array
from tombola.zoo.datasets.parquet_columns import Columns, find_columns
from tombola.zoo.datasets.parquet_file import check_labels, damaged_parquet, open_parquet, schema_of
from tombola.zoo.datasets.parquet_files import DatasetFiles
from tombola.zoo.datasets.streaming.file_source import FileSource
from tombola.zoo.datasets.streaming.image_index import ImageIndex, index_images
from tombola.zoo.datasets.streaming.parquet_source import ParquetSource
from tombola.zoo.datasets.streaming.streamed_dataset import ImagePart, StreamedDataset, streamed_dataset


def stream_image_folder(folder: Path, columns: Columns) -> StreamedDataset:
    """The images that `find_image_parts` finds. Raises `InputError` with the file or folder, and what is wrong."""

    indexed: list[tuple[Sequence[Path], ImageIndex]] = []

    def digests(paths: Sequence[Path]) -> list[bytes]:
        indexed.append((paths, index_images(FileSource(paths), paths)))
        return [digest.tobytes() for digest in indexed[0][1].digests]

    def index_of(paths: Sequence[Path]) -> ImageIndex:
        if not indexed:
            return index_images(FileSource(paths), paths)
        row = {path: index for index, path in enumerate(indexed[0][0])}
        return indexed[0][1].select([row[path] for path in paths])

    return stream_image_parts(find_image_parts(folder, digests), columns.size, index_of)


def stream_image_parts(
    parts: ImageParts, size: int | None, index_of: Callable[[Sequence[Path]], ImageIndex] | None = None
) -> StreamedDataset:
    """The images of both parts; `index_of` returns the index of some of them, if it is known. Raises `InputError`
    with the file, and what is wrong."""

    def part(files: ClassFiles, labels: Array) -> ImagePart:
        source = FileSource(files.paths)
        index = index_of(files.paths) if index_of else index_images(source, files.paths)
        return ImagePart(str(files.root), source, index, labels)

    train, test = (
        part(files, labels) for files, labels in zip((parts.train, parts.test), parts.labels(), strict=True)
    )
    return streamed_dataset(train, test, size, parts.notes)


def stream_parquet(folder: Path, files: DatasetFiles, columns: Columns) -> StreamedDataset:
    """The images in those files of a folder. Raises `InputError` with the file, the row and what is wrong."""
    train, test = ([folder / file for file in part] for part in (files.train, files.test))
    found = find_columns(train[0], schema_of(train[0]), columns)
    columns = replace(columns, image=found.image, label=found.label)
    of_train, of_test = (_part_of_parquet(paths, columns, found.image) for paths in (train, test))
    return streamed_dataset(of_train, of_test, columns.size)


def _part_of_parquet(files: Sequence[Path], columns: Columns, image: str) -> ImagePart:
    read = [_labels_and_groups(path, columns) for path in files]
    labels = np.concatenate([of_file for of_file, _ in read])
    if not len(labels):
        raise InputError(f"{files[0]} has no rows: there are no examples")
    source = ParquetSource(files, image, [groups for _, groups in read])
    return ImagePart(str(files[0]), source, index_images(source, files, image), labels)


def _labels_and_groups(path: Path, columns: Columns) -> tuple[Array, list[int]]:
    """The labels in a file, and the numbers of rows in its row groups."""
    with open_parquet(path) as file:
        groups = [file.metadata.row_group(group).num_rows for group in range(file.metadata.num_row_groups)]
        found = find_columns(path, file.schema_arrow, columns)
        try:
            column = file.read(columns=[found.label], use_threads=False).column(0).combine_chunks()
        except (pa.ArrowException, OSError) as error:
            raise damaged_parquet(path, error) from error
    return check_labels(path, 0, column, found), groups
