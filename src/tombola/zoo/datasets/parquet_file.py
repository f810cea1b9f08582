"""Reading of one Parquet file: its schema, number of rows, labels and encoded images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tombola.utils.errors import InputError
from tombola.utils.text import first_line
from tombola.zoo.datasets.dataset import Array
from tombola.zoo.datasets.parquet_columns import ColumnChoice


def check_labels(path: Path, row: int, column: pa.Array, found: ColumnChoice) -> Array:
    """The labels of a batch of rows whose first one is `row`, int64. Raises `InputError` unless they are the numbers
    of classes."""
    if column.null_count:
        missing = row + int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0])
        raise InputError(f"{path}, row {missing:,}: {found.label} is missing; every image needs a label")
    values = column.to_numpy(zero_copy_only=False)
    largest = np.iinfo(np.int64).max if found.classes is None else found.classes - 1
    to = "" if found.classes is None else f" to {largest}"
    wrong = np.flatnonzero((values < 0) | (values > largest))
    if wrong.size:
        problem = f"{found.label} is {values[wrong[0]]}; it should be from 0{to}"
        raise InputError(f"{path}, row {row + int(wrong[0]):,}: {problem}")
    return np.asarray(values, np.int64)


def schema_of(path: Path) -> pa.Schema:
    with open_parquet(path) as file:
        return file.schema_arrow


def count_rows(path: Path) -> int:
    with open_parquet(path) as file:
        return int(file.metadata.num_rows)


def image_bytes(column: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """The encoded images of a column, which are binary or in the field `bytes` of structs."""
    return pc.struct_field(column, "bytes") if pa.types.is_struct(column.type) else column


def open_parquet(path: Path) -> pq.ParquetFile:
    """The opened file. Raises `InputError` if it cannot be read."""
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise damaged_parquet(path, error) from error


def damaged_parquet(path: Path, error: Exception) -> InputError:
    """The error for a file that pyarrow cannot read."""
    return InputError(f"{path} is damaged or not a Parquet file: {first_line(error)}")
