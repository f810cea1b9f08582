"""Images per second that are read from disk and decoded: tombola's readers beside PyTorch's DataLoader.

    python -m benchmarks.streaming

Both sides read an epoch of the same generated JPEG files in random order, resize the shorter side to 256 pixels and
crop the centre, with one decoding thread or process for each core; the DataLoader's workers are kept between epochs.
Pixels are compared. The limit is the time in which one core decodes them, without reading, divided by the number of
cores.
"""

from __future__ import annotations

import io
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import typer
from PIL import Image
from rich.table import Table
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from benchmarks.common import console, machine, median, take_turns, write
from tombola.utils.workers import cores
from tombola.zoo.datasets import load, prepare
from tombola.zoo.datasets.description import Data
from tombola.zoo.datasets.image_decoding import decode
from tombola.zoo.datasets.parquet_columns import Columns
from tombola.zoo.datasets.streaming.streamed_examples import StreamedExamples

SIZE, BATCH, CLASSES = 256, 64, 4


class Files(TorchDataset[torch.Tensor]):
    """Decoded images, as a user of PyTorch would write it."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(decode(self.paths[index].read_bytes(), SIZE)))


def encoded(count: int, height: int = 375, width: int = 500) -> Iterator[bytes]:
    """JPEG images of about the size of ImageNet's, with structure at all scales."""
    generator = np.random.default_rng(0)
    for _ in range(count):
        coarse = generator.integers(0, 256, (24, 32, 3), dtype=np.uint8)
        pixels = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), np.float32)
        pixels = pixels + generator.normal(0, 12, pixels.shape)
        stream = io.BytesIO()
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(stream, "JPEG", quality=92)
        yield stream.getvalue()


def generate(root: Path, images: int) -> list[Path]:
    """The same images in class folders and in Parquet files; the paths of the training images."""
    contents = list(encoded(images))
    paths = []
    for i, content in enumerate(contents):
        paths.append(root / "folders" / "train" / f"class{i % CLASSES}" / f"{i:06}.jpg")
        paths[-1].parent.mkdir(parents=True, exist_ok=True)
        paths[-1].write_bytes(content)
    for part, count in (("train", images), ("test", CLASSES)):
        table = pa.table(
            {"image": pa.array(contents[:count], pa.binary()), "label": [i % CLASSES for i in range(count)]}
        )
        (root / "parquet").mkdir(exist_ok=True)
        pq.write_table(table, root / "parquet" / f"{part}.parquet", row_group_size=100)
    for i in range(CLASSES):
        test = root / "folders" / "test" / f"class{i}" / "0.jpg"
        test.parent.mkdir(parents=True, exist_ok=True)
        test.write_bytes(contents[i])
    return paths


def streamed(folder: Path) -> StreamedExamples:
    digest = load(str(folder), None, Columns(size=SIZE, stream=True)).digest
    data = Data(name=str(folder), digest=digest, seed=0, validation=1, size=SIZE, stream=True, shuffle_buffer=400)
    train = prepare(data).train
    assert isinstance(train, StreamedExamples)
    return train


def epoch_of_tombola(train: StreamedExamples, epoch: int) -> int:
    """Read an epoch; the sum of all pixels."""
    count = len(train) // BATCH
    order = train.order(epoch, BATCH)
    train.read_ahead(order, 0, count, count)
    batches = order.batches(0, count)
    return sum(int(train.reader.read(train.rows[batch.numpy()]).sum(dtype=np.int64)) for batch in batches)


def epoch_of_torch(loader: DataLoader[torch.Tensor]) -> int:
    return sum(int(batch.sum(dtype=torch.int64)) for batch in loader)


def main(
    images: Annotated[int, typer.Option(help="Generated images.")] = 1500,
    turns: Annotated[int, typer.Option(min=1, help="Epochs of each side.")] = 5,
    save: Annotated[bool, typer.Option(help="Write results/streaming.json.")] = True,
) -> None:
    """Measure, print, write results/streaming.json."""
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        paths = generate(root, images)
        loader = DataLoader(
            Files(paths), BATCH, shuffle=True, drop_last=True, num_workers=cores(), persistent_workers=True
        )
        folders, parquet = streamed(root / "folders"), streamed(root / "parquet")
        check_pixels(paths, folders, parquet)
        sides: dict[str, Callable[[], Any]] = {
            "DataLoader": lambda: epoch_of_torch(loader),
            "tombola, files": lambda: epoch_of_tombola(folders, 0),
            "tombola, Parquet": lambda: epoch_of_tombola(parquet, 0),
        }
        seconds = take_turns(sides, turns)
        limit = decoding_seconds(paths) * (images // BATCH * BATCH) / cores()
    read = images // BATCH * BATCH
    speeds = {name: read / median(each) for name, each in seconds.items()}
    table = Table("side", "images/s", "beside DataLoader", "share of the limit")
    for name, speed in speeds.items():
        table.add_row(name, f"{speed:,.0f}", f"{speed / speeds['DataLoader']:.2f}", f"{speed * limit / read:.0%}")
    console.print(table)
    console.print(machine())
    if save:
        about = {"images": images, "images_per_second": speeds, "limit": read / limit}
        console.print(f"Written to {write('streaming', about)}.")


def check_pixels(paths: list[Path], *sides: StreamedExamples) -> None:
    """Raises `AssertionError` unless every side reads the pixels that the DataLoader reads."""
    expected = {int(image.sum(dtype=torch.int64)) for image in map(Files(paths).__getitem__, range(len(paths)))}
    for train in sides:
        rows = np.arange(len(paths))
        found = {int(image.sum(dtype=np.int64)) for image in train.reader.read(rows)}
        assert found == expected, "the sides read different pixels"


def decoding_seconds(paths: list[Path], sample: int = 200) -> float:
    """Seconds that one core takes to decode an image that is in memory: the median of five tries."""
    contents = [path.read_bytes() for path in paths[:sample]]

    def once() -> float:
        began = time.perf_counter()
        for content in contents:
            decode(content, SIZE)
        return (time.perf_counter() - began) / len(contents)

    return median([once() for _ in range(5)])


if __name__ == "__main__":
    typer.run(main)
