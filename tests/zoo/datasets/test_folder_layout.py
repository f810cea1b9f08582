from __future__ import annotations

from pathlib import PurePosixPath

import pytest

from tombola.utils.errors import InputError
from tombola.zoo.datasets.folder_layout import choose_files


def chosen(*files: str, configuration: str | None = None) -> tuple[list[str], list[str]]:
    layout = choose_files("here", map(PurePosixPath, files), configuration)
    return [str(file) for file in layout.train], [str(file) for file in layout.test]


@pytest.mark.parametrize("home", ["", "data/", "plain_text/", "default/", "anything/"])
@pytest.mark.parametrize("test", ["test", "validation", "valid", "val"])
@pytest.mark.parametrize(
    "name",
    [
        "{}-00000-of-00001.parquet",
        "{}.parquet",
        "{}-0abc.parquet",
        "{}/0000.parquet",
        "{0}/{0}-00000-of-00001.parquet",
        "{0}/{0}.parquet",
    ],
)
def test_files_are_found_in_the_usual_places_by_the_usual_names(home: str, test: str, name: str) -> None:
    train, other = home + name.format("train"), home + name.format(test)
    assert chosen(train, other, "README.md", f"{home}extra-00000-of-00001.parquet") == ([train], [other])


def test_test_files_come_before_those_for_validation() -> None:
    assert chosen("train-0.parquet", "validation-0.parquet", "test-0.parquet")[1] == ["test-0.parquet"]


def test_the_folder_itself_and_usual_sub_folders_come_before_others() -> None:
    files = ["train-0.parquet", "test-0.parquet", "data/train-0.parquet", "zoo/train-0.parquet"]
    assert chosen(*files)[0] == ["train-0.parquet"]
    assert chosen(*files[2:], "data/test-0.parquet")[0] == ["data/train-0.parquet"]


def test_parts_of_a_part_are_in_order() -> None:
    names = [f"train-{i:05d}-of-00003.parquet" for i in range(3)]
    assert chosen(*reversed(names), "test-00000-of-00001.parquet")[0] == names


def test_a_configuration_can_be_named() -> None:
    files = ["a/train-0.parquet", "a/test-0.parquet", "b/train-0.parquet", "b/test-0.parquet"]
    assert chosen(*files, configuration="b") == ([files[2]], [files[3]])


@pytest.mark.parametrize(
    ("files", "configuration", "message"),
    [
        ([], None, "there is no train-*.parquet and test-*.parquet in here"),
        (["x/y/z/train-0.parquet", "train-0.txt"], None, "there is no train-*.parquet and test-*.parquet in here"),
        (["a/train-0.parquet"], "b", "there is no train-*.parquet and test-*.parquet in b in here"),
        (
            ["a/train-0.parquet", "b/train-0.parquet"],
            None,
            "here: several sub-folders have train-*.parquet (a, b); set data.name to one, as in here/a",
        ),
        (
            ["train-0.parquet", "data/test-0.parquet"],
            None,
            "here: there is train-0.parquet, and no test-*.parquet, validation-*.parquet, valid-*.parquet or "
            "val-*.parquet beside it to test on",
        ),
        (
            ["train-00001-of-00002.parquet", "test-0.parquet"],
            None,
            "here: train-00001-of-00002.parquet is one of a series, of which number 0 is missing",
        ),
        (
            ["train-00000-of-00001.parquet", "train-00000-of-00002.parquet", "test-0.parquet"],
            None,
            "here: train-00000-of-00001.parquet and train-00000-of-00002.parquet belong to different series of files",
        ),
        (
            ["train-00000-of-00001-a.parquet", "train-00000-of-00001-b.parquet", "test-0.parquet"],
            None,
            "here: train-00000-of-00001-a.parquet and train-00000-of-00001-b.parquet belong to different series of "
            "files",
        ),
    ],
)
def test_what_is_missing_or_too_much_is_named(files: list[str], configuration: str | None, message: str) -> None:
    with pytest.raises(InputError) as caught:
        chosen(*files, configuration=configuration)
    assert str(caught.value) == message


@pytest.mark.parametrize("part", ["train", "test"])
@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("{}-00000-of-00001.parquet", "{}.parquet"),
        ("{}-00000-of-00001.parquet", "{}/0000.parquet"),
        ("{}-00000-of-00001.parquet", "{}-0.parquet"),
        ("{}-0.parquet", "{}.parquet"),
        ("{}.parquet", "{}/0000.parquet"),
        ("{}/0000.parquet", "{0}/{0}-00000-of-00001.parquet"),
        ("{}/flowers.parquet", "{}/train-0.parquet"),
    ],
)
def test_files_of_two_forms_are_not_taken_for_one_part(part: str, first: str, second: str) -> None:
    files = sorted(PurePosixPath(name.format(part)) for name in (first, second))
    other = {"train": "test", "test": "train"}[part] + "-0.parquet"
    with pytest.raises(InputError) as caught:
        chosen(*map(str, files), other)
    assert str(caught.value) == (
        f"here: {files[0]} and {files[1]} are files of two forms, perhaps the same examples twice; keep one"
    )


def test_files_in_a_folder_of_a_part_are_called_whatever_they_like() -> None:
    files = ["train/roses.parquet", "train/tulips-2.parquet", "test/train.parquet"]
    assert chosen(*files) == (files[:2], files[2:])
