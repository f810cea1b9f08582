"""Tables of features and labels in CSV files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.errors import raises_input_error
from tombola.zoo.datasets import load
from tombola.zoo.datasets.csv_table import read_table
from tombola.zoo.datasets.parquet_columns import Columns


def table(row: Callable[[int], str], header: str | None = "a,b,label", rows: int = 20) -> str:
    return "".join(f"{line}\n" for line in ([] if header is None else [header]) + [row(i) for i in range(rows)])


def write(folder: Path, text: str, name: str = "mine.csv") -> str:
    (folder / name).write_text(text, encoding="utf-8", newline="")
    return str(folder / name)


PLAIN = table(lambda i: f"{i * 0.5},{i % 7},{'dog' if i % 2 else 'cat'}")
PAIRS = {(i * 0.5, i % 7, i % 2) for i in range(20)}
"""Its rows; the classes are cat and dog."""


def rows_of(path: str, columns: Columns | None = None) -> set[tuple[float, ...]]:
    """All rows, training and test, with the number of the class last."""
    dataset = load(path, columns=columns)
    x, y = np.concatenate([dataset.x_train, dataset.x_test]), np.concatenate([dataset.y_train, dataset.y_test])
    return {(*row, label) for row, label in zip(x.tolist(), y.tolist(), strict=True)}


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (PLAIN, "mine.csv"),
        (PLAIN, "MINE.CSV"),
        (PLAIN.replace(",", ";"), "mine.csv"),
        (PLAIN.replace(",", "\t"), "mine.tsv"),
        (PLAIN.replace(",", "|"), "mine.csv"),
        (PLAIN.replace("\n", "\r\n"), "mine.csv"),
        ("\ufeff" + PLAIN, "mine.csv"),
        (PLAIN.replace(",", ", "), "mine.csv"),
        (table(lambda i: f'"{i / 2}","{i % 7}","{"dog" if i % 2 else "cat"}"', '"a","b","label"'), "mine.csv"),
        (table(lambda i: f"{'dog' if i % 2 else 'cat'},{i / 2},{i % 7}", "Target,a,b"), "mine.csv"),
        (table(lambda i: f"{i},{i / 2},{i % 7},{'dog' if i % 2 else 'cat'}", ",a,b,y"), "mine.csv"),  # pandas' index
        (table(lambda i: f"{i + 1},{i / 2},{i % 7},{i % 2 + 1}", "Id,a,b,Species"), "mine.csv"),
        (table(lambda i: f"{i / 2},{i % 7},{i % 2 == 1}"), "mine.csv"),
        (table(lambda i: f"{i / 2},{i % 7},{i % 2}.0", None), "mine.csv"),
        (table(lambda i: f"{i / 2},{i % 7},{'dog' if i % 2 else 'cat'}", None), "mine.csv"),
        (table(lambda i: f"{i / 2},{i % 7},{i % 2}", "0,1,2"), "mine.csv"),  # pandas' names of columns
    ],
)
def test_tables_are_read_in_every_form(tmp_path: Path, text: str, name: str) -> None:
    assert rows_of(write(tmp_path, text, name)) == PAIRS


def test_features_are_numbers_of_any_kind(tmp_path: Path) -> None:
    dataset = load(write(tmp_path, table(lambda i: f"{i * 3},{'true' if i % 3 else 'false'},{i % 2}")))
    assert dataset.x_train.dtype == np.float32
    assert set(dataset.x_train[:, 1]) == {0.0, 1.0}


def test_the_label_column_is_named_or_usual_or_last(tmp_path: Path) -> None:
    path = write(tmp_path, table(lambda i: f"{i % 3},{i % 7},{i % 2}", "a,b,c"))
    assert load(path).classes == 2
    assert any("c; data.label" in note for note in load(path).notes)
    assert load(path, columns=Columns(label="a")).classes == 3
    assert not any("last column" in note for note in load(path, columns=Columns(label="c")).notes)
    with raises_input_error(path, "no column d", "a, b, c"):
        load(path, columns=Columns(label="d"))


def test_columns_that_are_left_out_are_named(tmp_path: Path) -> None:
    path = write(tmp_path, table(lambda i: f"{i + 5},{i * 0.3},{i % 2}", "id,a,label"))
    assert load(path).inputs == (1,)
    assert any('"id"' in note for note in load(path).notes)


def test_the_test_set_is_the_same_in_any_order_of_rows(tmp_path: Path) -> None:
    header, *lines = PLAIN.splitlines()
    first = load(write(tmp_path, PLAIN))
    again = load(write(tmp_path, "\n".join([header, *reversed(lines)])))
    assert {row.tobytes() for row in first.x_test} == {row.tobytes() for row in again.x_test}
    assert len(first.x_test) == 4
    assert any("4 of 20" in note for note in first.notes)


def test_training_and_test_tables_are_read_from_a_folder(tmp_path: Path) -> None:
    write(tmp_path, table(lambda i: f"{i / 2},{i % 7},{'abc'[i % 3]}"), "train.csv")
    write(tmp_path, table(lambda i: f"{'cb'[i % 2]},{i % 5},{i / 4}", "label,b,a", rows=6), "test.csv")
    dataset = load(str(tmp_path))
    np.testing.assert_array_equal(dataset.x_test, [[i / 4, i % 5] for i in range(6)])
    assert dataset.y_test.tolist() == [2, 1] * 3
    assert (len(dataset.x_train), dataset.classes, dataset.notes) == (20, 3, ())


def test_a_training_table_alone_is_divided(tmp_path: Path) -> None:
    write(tmp_path, PLAIN, "train.csv")
    assert rows_of(str(tmp_path)) == PAIRS


@pytest.mark.parametrize(
    ("test", "facts"),
    [
        ("a,b,label\n1,2,bird\n", ["row 0", "bird"]),
        ("a,b\n1,2\n", ["no column label"]),
        ("a,b,c,label\n1,2,3,cat\n", ["a column c"]),
        ("a,b,label\n1,x,cat\n", ["row 0", '"x"']),
        ("a,b,label\n", ["no rows"]),
        ("a,b,label\n1,2,0\n", ["row 0", "label is 0"]),
    ],
)
def test_unsuitable_test_tables_are_refused(tmp_path: Path, test: str, facts: list[str]) -> None:
    write(tmp_path, PLAIN, "train.csv")
    path = write(tmp_path, test, "test.csv")
    with raises_input_error(path, *facts):
        load(str(tmp_path))


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("", ["empty"]),
        ("\n\n", ["empty"]),
        ("a,b,label\n", ["no rows"]),
        ("a\n1\n2\n", ["one column"]),
        ("a,b,label\n1,2,0\n1,2\n", ["CSV", "3 columns"]),
        ("a,a,label\n1,2,0\n", ['"a"', "rename"]),
        ("a,b,label\n1,2,0\n,3,1\n", ["row 1", "a is missing", "1 of 2"]),
        ("a,b,label\n1,2,0\n1,3,\n", ["row 1", "label is missing"]),
        ("a,b,label\n1,2,0\n1,NA,1\n", ["row 1", "b is missing"]),
        ("a,b,label\n1,2,0\n1,?,1\n", ["row 1", 'b is "?"', "numbers"]),
        ("a,b,label\n1,2,0\ninf,3,1\n", ["row 1", "inf"]),
        ("a,b,label\n1,2,0\n1e300,3,1\n", ["1e+300", "float32"]),
        ("a,b,label\n1,2020-01-01,0\n1,2020-01-02,1\n", ["row 0", "2020-01-01"]),
        ("a;b;label\n1,5;2;0\n1,6;3;1\n", ["row 0", '"1,5"']),
        ("a,b,label\n1,2,0.5\n1,3,1\n", ["row 0", "label is 0.5", "whole numbers or names"]),
        ("a,b,label\n1,2,1e300\n1,3,1\n", ["row 0", "1e+300"]),
        ("a,b,label\n1,2,0\n1,3,1\n", ["label", "two examples"]),
        ("a,b,label\n1,2,0\n1,3,0\n2,4,0\n", ["label", "only one class"]),
        ("a,label,class\n1,2,0\n1,3,1\n", ["several", "label, class"]),
        ("id,label\n1,0\n2,0\n3,1\n", ["no column of features"]),
    ],
)
def test_unusable_tables_are_refused(tmp_path: Path, text: str, facts: list[str]) -> None:
    path = write(tmp_path, text)
    with raises_input_error(path, *facts):
        load(path)


@pytest.mark.parametrize("text", ["á,b,label\n1,2,0\n", "a,b,label\n1,2,á\n1,3,á\n"])
def test_text_of_another_encoding_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "mine.csv").write_bytes(text.encode("latin-1"))
    with raises_input_error(tmp_path / "mine.csv", "UTF-8"):
        load(str(tmp_path / "mine.csv"))


def test_missing_files_and_other_options_are_refused(tmp_path: Path) -> None:
    with raises_input_error("no/such.csv"):
        load("no/such.csv")
    for option in (Columns(image="a"), Columns(size=3)):
        with raises_input_error(f"data.{option.given[0]}", "such.csv"):
            load("such.csv", columns=option)
    assert load("mine.csv", str(Path(write(tmp_path, PLAIN)).parent)).inputs == (2,)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(
    numbers=st.lists(st.tuples(*[st.floats(width=32, allow_nan=False, allow_infinity=False)] * 3), min_size=1),
    delimiter=st.sampled_from(",;\t|"),
)
def test_numbers_are_read_as_they_are_written(
    tmp_path: Path, numbers: list[tuple[float, ...]], delimiter: str
) -> None:
    lines = [delimiter.join("abc"), *(delimiter.join(map(repr, row)) for row in numbers)]
    found = read_table(Path(write(tmp_path, "\n".join(lines))))
    assert found.column_names == ["a", "b", "c"]
    assert [tuple(map(float, row.values())) for row in found.to_pylist()] == numbers
