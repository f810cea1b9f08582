"""Small datasets, some in Parquet files."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from tombola.zoo.datasets.dataset import Array, Dataset
from tombola.zoo.datasets.description import Data
from tombola.zoo.datasets.example_set import ExampleSet


def npz_arrays(**changes: Any) -> dict[str, Any]:
    """Valid arrays for an `.npz` file, with `changes`; None removes an array."""
    generator = np.random.default_rng(0)
    arrays: dict[str, Any] = {
        "x_train": generator.random((30, 4)),
        "y_train": np.arange(30) % 3,
        "x_test": generator.random((12, 4)),
        "y_test": np.arange(12) % 3,
    }
    return {name: value for name, value in (arrays | changes).items() if value is not None}


def make_dataset(x: Array) -> Dataset:
    """A dataset with these training inputs, and the first of them as test inputs."""
    labels = np.arange(len(x)) % 3
    return Dataset(x, labels, x[:5] if len(x) > 5 else x, labels[:5])


def describe_data(dataset: Dataset, **changes: Any) -> Data:
    return Data(**{"name": "any", "digest": dataset.digest, "seed": 0, "validation": 6, **changes})


def examples_in_memory(count: int) -> ExampleSet:
    """So many examples, of which only the number matters."""
    return ExampleSet(torch.zeros(1, 1), torch.zeros(count, dtype=torch.int64))


TRAIN, TEST = "train-00000-of-00001.parquet", "test-00000-of-00001.parquet"
"""The names of the files that `write_dataset` writes."""


def random_images(count: int, *shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


def encode(image: Array | Image.Image, kind: str = "PNG") -> bytes:
    """The content of an image file; `image` has shape (height, width) or (3, height, width), or is Pillow's."""
    if not isinstance(image, Image.Image):
        image = Image.fromarray(image if image.ndim == 2 else np.ascontiguousarray(image.transpose(1, 2, 0)))
    stream = io.BytesIO()
    image.save(stream, kind)
    return stream.getvalue()


def hub_metadata(**features: Any) -> dict[bytes, bytes]:
    """The metadata that `datasets` writes for columns, each given as "Image" or as a number of classes."""
    columns = {
        name: {"_type": "Image"}
        if kind == "Image"
        else {"names": [str(i) for i in range(kind)], "_type": "ClassLabel"}
        for name, kind in features.items()
    }
    return {b"huggingface": json.dumps({"info": {"features": columns}}).encode()}


def make_table(
    images: Sequence[Array | bytes | None],
    labels: Sequence[int | None],
    metadata: dict[bytes, bytes] | None = None,
    **more: Any,
) -> pa.Table:
    """A table with the columns `img` and `label`, and `more`."""
    contents = [image if isinstance(image, bytes | None) else encode(image) for image in images]
    rows = [{"bytes": content, "path": f"{i}.png"} for i, content in enumerate(contents)]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns = {"img": pa.array(rows, kind), "label": pa.array(labels, pa.int64()), **more}
    return pa.table(columns).replace_schema_metadata(metadata)


def write_parquet(path: Path, rows: pa.Table) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(rows, path, row_group_size=4)
    return path


def write_dataset(folder: Path, *shape: int, train: int = 12, test: int = 6, classes: int = 3) -> tuple[Array, Array]:
    """Write a dataset of random images whose labels are 0, 1, …, 0, 1, …; return the images."""
    x_train, x_test = random_images(train, *shape), random_images(test, *shape, seed=1)
    metadata = hub_metadata(img="Image", label=classes)
    for name, x in ((TRAIN, x_train), (TEST, x_test)):
        labels = (np.arange(len(x)) % classes).tolist()
        write_parquet(folder / name, make_table(x, labels, metadata))
    return x_train, x_test
