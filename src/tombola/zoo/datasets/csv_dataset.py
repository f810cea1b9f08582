"""Tables of numeric features and a column of labels, in CSV files."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tombola.utils.errors import InputError
from tombola.zoo.datasets.checks import check_classes, check_inputs
from tombola.zoo.datasets.csv_table import is_number, read_table
from tombola.zoo.datasets.dataset import Array, Dataset
from tombola.zoo.datasets.holdout import hold_out
from tombola.zoo.datasets.parquet_columns import Columns
from tombola.zoo.datasets.parquet_files import TEST, TRAIN

LABELS = ("label", "labels", "target", "class", "y")
"""Names of the label column, in any case; otherwise it is the last column."""


@dataclass(frozen=True)
class CsvTable:
    """The content of a file."""

    path: Path
    content: pa.Table

    def row(self, index: int) -> str:
        """A row, for messages; the first one below the header is 0."""
        return f"{self.path}, row {index:,}"


def read_csv(path: Path, columns: Columns) -> Dataset:
    """Read a file of which a part is held out as the test set.

    All columns but that of the labels are features, which should be numbers; columns that only number the rows are
    left out. Labels are whole numbers or text; the classes are their different values, in order.

    Raises `InputError` with the file, the column and what is wrong.
    """
    table = CsvTable(path, read_table(path))
    label, features, notes = _choose_columns(table, columns.label)
    x, names = _inputs(table, features), _labels(table, label)
    y = np.unique(names, return_inverse=True)[1]
    test, note = hold_out(f"{path}: label column {label}", y, [hashlib.sha256(row.tobytes()).digest() for row in x])
    check_classes(f"{path}: label column {label}", str(path), y[~test], y[test])
    return Dataset(x[~test], y[~test], x[test], y[test], (*notes, note))


def find_csv_parts(folder: Path) -> tuple[Path, Path | None] | None:
    """`train.csv` in a folder, and the file of test examples beside it; None if there is no `train.csv`."""
    train, *others = (folder / f"{name}.csv" for name in TRAIN + TEST)
    return (train, next((path for path in others if path.is_file()), None)) if train.is_file() else None


def read_csv_folder(folder: Path, columns: Columns) -> Dataset:
    """Read `train.csv` and `test.csv` (or `validation.csv`, `valid.csv`, `val.csv`), as `read_csv` does."""
    parts = find_csv_parts(folder)
    assert parts is not None
    if parts[1] is None:
        return read_csv(parts[0], columns)
    train, test = (CsvTable(path, read_table(path)) for path in parts if path is not None)
    ours, theirs = set(train.content.column_names), set(test.content.column_names)
    if ours != theirs:
        problem = f"no column {min(ours - theirs)}" if ours - theirs else f"a column {min(theirs - ours)}"
        raise InputError(f"{test.path} has {problem}, unlike {train.path}; they should have the same columns")
    label, features, notes = _choose_columns(train, columns.label)
    x_train, x_test = _inputs(train, features), _inputs(test, features)
    names, test_names = _labels(train, label), _labels(test, label)
    if names.dtype.kind != test_names.dtype.kind:
        names, test_names = names.astype(str), test_names.astype(str)
    classes, y_train = np.unique(names, return_inverse=True)
    unseen = np.flatnonzero(~np.isin(test_names, classes))
    if unseen.size:
        where = test.row(int(unseen[0]))
        raise InputError(
            f"{where}: {label} is {test_names[unseen[0]]}, which no training example in {train.path} has"
        )
    y_test = np.searchsorted(classes, test_names)
    check_classes(f"{train.path}: label column {label}", str(test.path), y_train, y_test)
    return Dataset(x_train, y_train, x_test, y_test, tuple(notes))


def _choose_columns(table: CsvTable, named: str | None) -> tuple[str, list[str], list[str]]:
    """The label column, the feature columns, and lines about what was decided."""
    names = table.content.column_names
    if named is not None and named not in names:
        raise InputError(f"{table.path}: there is no column {named}; set data.label to one of {_listed(names)}")
    usual = [name for name in names if name.lower() in LABELS]
    if named is None and len(usual) > 1:
        raise InputError(f"{table.path}: several columns could be labels; set data.label to one of {_listed(usual)}")
    label = named or next(iter(usual), names[-1])
    notes = [] if named or usual else [f"the labels are the last column, {label}; data.label sets another"]
    features = [name for name in names if name != label]
    numbering = [name for name in features if _numbers_rows(table.content.column(name))]
    notes += [f'column "{name}" only numbers the rows, and is left out' for name in numbering]
    features = [name for name in features if name not in numbering]
    if not features:
        raise InputError(f"{table.path} has no column of features beside {label}")
    return label, features, notes


def _listed(names: list[str]) -> str:
    return ", ".join(names[:10]) + (", …" if len(names) > 10 else "")


def _numbers_rows(column: pa.ChunkedArray) -> bool:
    """Whether the values are consecutive numbers, as in an index that was saved with the table."""
    if not pa.types.is_integer(column.type) or column.null_count or len(column) < 3:
        return False
    return bool((np.diff(column.to_numpy()) == 1).all())


def _inputs(table: CsvTable, features: list[str]) -> Array:
    """The features as float32 of shape (rows, features)."""
    if table.content.num_rows == 0:
        raise InputError(f"{table.path} has no rows")
    x = np.empty((table.content.num_rows, len(features)), np.float64)
    for index, name in enumerate(features):
        x[:, index] = _numbers(table, name)
    return check_inputs(f"{table.path}: the table", x).astype(np.float32)


def _numbers(table: CsvTable, name: str) -> Array:
    column = _complete(table, name)
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        texts = _texts(column)
        row, value = next(((i, text) for i, text in enumerate(texts) if not is_number(text)), (0, texts[0]))
        raise InputError(
            f'{table.row(row)}: {name} is "{value}"; features should be numbers: remove the column, or replace its '
            "text, as by pandas.get_dummies"
        )
    values: Array = column.to_numpy()
    if not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values))[0])
        raise InputError(f"{table.row(row)}: {name} is {values[row]}; features should be finite")
    return values


def _labels(table: CsvTable, name: str) -> Array:
    """The label of each row: int64, or text."""
    column = _complete(table, name)
    if pa.types.is_boolean(column.type) or pa.types.is_integer(column.type):
        return np.asarray(column.cast(pa.int64()).to_numpy())
    if pa.types.is_floating(column.type):
        values = column.to_numpy()
        wrong = np.flatnonzero((values != np.floor(values)) | (np.abs(values) > 2**53))
        if wrong.size:
            row = int(wrong[0])
            raise InputError(f"{table.row(row)}: {name} is {values[row]}; labels should be whole numbers or names")
        return np.asarray(values, np.int64)
    return np.array([text.strip() for text in _texts(column)])


def _complete(table: CsvTable, name: str) -> pa.ChunkedArray:
    """A column without missing values."""
    column = table.content.column(name)
    if column.null_count:
        row = int(pc.index(pc.is_null(column), True).as_py())
        raise InputError(
            f"{table.row(row)}: {name} is missing, as in {column.null_count:,} of {len(column):,} rows; fill it in, "
            "or remove the rows or the column"
        )
    if pa.types.is_binary(column.type):
        raise InputError(f"{table.path}: {name} is not text in UTF-8")
    return column


def _texts(column: pa.ChunkedArray) -> list[str]:
    return [str(value) for value in column.to_pylist()]
