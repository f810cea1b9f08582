"""ImageNet (Russakovsky et al. 2015) and Tiny ImageNet, as their archives or Hugging Face's hub distribute them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from tombola.utils.errors import InputError
from tombola.zoo.datasets.class_folders import ClassFiles, ImageParts, files_by_class, images_in
from tombola.zoo.datasets.image_folder import read_image_parts
from tombola.zoo.datasets.parquet import read_files
from tombola.zoo.datasets.parquet_columns import Columns
from tombola.zoo.datasets.parquet_files import choose_files, list_files, train_folders
from tombola.zoo.datasets.search_paths import data_folders
from tombola.zoo.datasets.streaming.readers import stream_image_parts
from tombola.zoo.datasets.streaming.streamed_dataset import AnyDataset

TESTS = ("validation", "valid", "val")
"""The parts that are used as the test set: the labels of the original test sets are not public."""

ANNOTATIONS = "val_annotations.txt"
"""In Tiny ImageNet: the class of every image in `val/images`."""


@dataclass(frozen=True)
class ImageNetSource:
    """A published dataset: the folders that it may be in, its size, and where it can be downloaded."""

    name: str
    folders: tuple[str, ...]
    classes: int
    examples: tuple[int, int]
    """In the training and the validation set."""
    url: str


IMAGENET = ImageNetSource("imagenet", ("imagenet",), 1000, (1_281_167, 50_000), "https://image-net.org/download.php")
TINY_IMAGENET = ImageNetSource(
    "tiny-imagenet",
    ("tiny-imagenet", "tiny-imagenet-200"),
    200,
    (100_000, 10_000),
    "http://cs231n.stanford.edu/tiny-imagenet-200.zip",
)


def load_imagenet(source: ImageNetSource, data_dir: str | Path | None, columns: Columns | None = None) -> AnyDataset:
    """Read the dataset from the first folder that has it: `train/CLASS/` and `val/CLASS/`, `val/images/` beside
    `val_annotations.txt`, or Parquet files. The validation set is the test set. Subsets are accepted, with a note.

    Raises `InputError` with the folders searched, and for missing, damaged or invalid files.
    """
    columns = columns or Columns()
    folder = locate_imagenet(source, data_dir)
    if folder is None:
        searched = ", ".join(str(each / source.folders[0]) for each in data_folders(data_dir))
        raise InputError(
            f'dataset "{source.name}": there is none in {searched}; download it from {source.url} into a folder with '
            "train/CLASS/*.JPEG and val/CLASS/*.JPEG, or train-*.parquet and validation-*.parquet"
        )
    dataset = _read(folder, columns)
    found = (dataset.classes, len(dataset.y_train), len(dataset.y_test))
    if found == (source.classes, *source.examples):
        return dataset
    has, should = (
        f"{classes:,} classes, {train:,} training and {test:,} validation images"
        for classes, train, test in (found, (source.classes, *source.examples))
    )
    return replace(dataset, notes=(*dataset.notes, f"{folder} has {has}; the published dataset has {should}"))


def locate_imagenet(source: ImageNetSource, data_dir: str | Path | None) -> Path | None:
    """The folder that `load_imagenet` would read; None if there is none."""
    folders = (each / name for each in data_folders(data_dir) for name in source.folders)
    return next((each for each in folders if (each / "train").is_dir() or train_folders(list_files(each))), None)


def _read(folder: Path, columns: Columns) -> AnyDataset:
    files = list_files(folder)
    if train_folders(files):
        return read_files(folder, choose_files(str(folder), files, tests=TESTS), columns)
    for option in ("image", "label"):
        if option in columns.given:
            raise InputError(f"data.{option}: only for Parquet files, and {folder} has folders of images")
    parts = ImageParts(files_by_class(folder / "train")[0], _validation_files(folder))
    return stream_image_parts(parts, columns.size) if columns.stream else read_image_parts(parts, columns.size)


def _validation_files(folder: Path) -> ClassFiles:
    root = next((folder / name for name in ("val", "validation") if (folder / name).is_dir()), None)
    if root is None:
        raise InputError(f"{folder} has no folder val beside train")
    if not (root / ANNOTATIONS).is_file():
        return files_by_class(root)[0]
    lines = (root / ANNOTATIONS).read_text(encoding="utf-8").splitlines()
    classes = {fields[0]: fields[1] for line in lines if len(fields := line.split()) > 1}
    paths = list(images_in(root / "images"))
    if missing := [path for path in paths if path.name not in classes]:
        raise InputError(f"{root / ANNOTATIONS} does not have the class of {missing[0].name}")
    if not paths:
        raise InputError(f"{root / 'images'} has no images")
    return ClassFiles(root, paths, [classes[path.name] for path in paths])
