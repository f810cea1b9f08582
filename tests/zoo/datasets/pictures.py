"""Small data sets of images in Parquet files."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from tombola.zoo.datasets.dataset import Array


def pixels(count: int, *shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


def encoded(image: Array | Image.Image, kind: str = "PNG") -> bytes:
    """An image of shape (height, width) or (3, height, width), or one of Pillow's, as a file."""
    if not isinstance(image, Image.Image):
        image = Image.fromarray(image if image.ndim == 2 else np.ascontiguousarray(image.transpose(1, 2, 0)))
    stream = io.BytesIO()
    image.save(stream, kind)
    return stream.getvalue()


def described(**features: Any) -> dict[bytes, bytes]:
    """What `datasets` writes about columns: "Image", or the number of classes."""
    about = {
        name: {"_type": "Image"}
        if kind == "Image"
        else {"names": [str(i) for i in range(kind)], "_type": "ClassLabel"}
        for name, kind in features.items()
    }
    return {b"huggingface": json.dumps({"info": {"features": about}}).encode()}


def table(
    images: Sequence[Array | bytes | None],
    labels: Sequence[int | None],
    about: dict[bytes, bytes] | None = None,
    **more: Any,
) -> pa.Table:
    """Columns `img` and `label`, and `more`."""
    contents = [image if isinstance(image, bytes | None) else encoded(image) for image in images]
    rows = [{"bytes": content, "path": f"{i}.png"} for i, content in enumerate(contents)]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns = {"img": pa.array(rows, kind), "label": pa.array(labels, pa.int64()), **more}
    return pa.table(columns).replace_schema_metadata(about)


def write(path: Path, rows: pa.Table) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(rows, path, row_group_size=4)
    return path


def small(folder: Path, *shape: int, train: int = 12, test: int = 6, classes: int = 3) -> tuple[Array, Array]:
    """Write a data set of random images whose labels count up and begin anew; the images are returned."""
    x_train, x_test = pixels(train, *shape), pixels(test, *shape, seed=1)
    about = described(img="Image", label=classes)
    for part, x in (("train", x_train), ("test", x_test)):
        labels = (np.arange(len(x)) % classes).tolist()
        write(folder / f"{part}-00000-of-00001.parquet", table(x, labels, about))
    return x_train, x_test
