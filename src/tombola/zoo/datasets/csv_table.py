"""Reading a CSV file as a table: its delimiter, its header, and its types are found."""

from __future__ import annotations

import csv
from pathlib import Path

import pyarrow as pa
import pyarrow.csv

from tombola.utils.errors import InputError
from tombola.utils.text import first_line

DELIMITERS = ",;\t|"

BLOCK = 2**24
"""Bytes read at a time; a row should not be longer."""


def read_table(path: Path) -> pa.Table:
    """The table in a text file in UTF-8, with commas, semicolons, tabs or bars between the columns.

    Without a header, columns are named f0, f1, …. A header has no numbers, or only those of the columns (0, 1, …).
    Raises `InputError` with the file and the reason.
    """
    delimiter, fields = _split_first_line(path)
    names = [field.strip() for field in fields] if _is_header(fields) else [f"f{i}" for i in range(len(fields))]
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise InputError(f'{path}: several columns have the name "{repeated}"; rename them')
    if len(names) < 2:
        raise InputError(
            f"{path} has one column, {names[0]}; it should have features and a label, separated by commas"
        )
    try:
        skip = int(_is_header(fields))
        return pyarrow.csv.read_csv(
            path,
            pyarrow.csv.ReadOptions(use_threads=False, block_size=BLOCK, column_names=names, skip_rows=skip),
            pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            pyarrow.csv.ConvertOptions(strings_can_be_null=True),
        )
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path} cannot be read as CSV: {first_line(error)}") from error


def _split_first_line(path: Path) -> tuple[str, list[str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            line = next(file, "")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not text in UTF-8: {first_line(error)}") from error
    if not line.strip():
        raise InputError(f"{path} is empty, or its first line is")
    delimiter = max(DELIMITERS, key=line.count)
    return delimiter, next(csv.reader([line], delimiter=delimiter))


def _is_header(fields: list[str]) -> bool:
    numbers = [float(field) for field in fields if is_number(field)]
    return not numbers or numbers == list(range(len(numbers)))


def is_number(field: str) -> bool:
    """Whether a field is a number."""
    try:
        float(field)
    except ValueError:
        return False
    return True
