"""Image files in the layouts that datasets are distributed in; small random images with a mean for each class."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.support.datasets import encode, make_table, write_parquet
from tombola.zoo.datasets.dataset import Array

CLASSES = ("n01440764", "n01443537", "n01484850")


def class_images(label: int, count: int, height: int = 12, width: int = 12, seed: int = 0) -> list[Array]:
    generator = np.random.default_rng((seed, label))
    noisy = generator.normal(60 + 60 * label, 30, (count, 3, height, width))
    return list(noisy.clip(0, 255).astype(np.uint8))


def write_class_folders(
    root: Path, part: str, count: int, inside: str = "", kind: str = "JPEG", **sizes: int
) -> None:
    """`root/part/CLASS/inside/*`, `count` images of each class."""
    for label, name in enumerate(CLASSES):
        folder = root / part / name / inside
        folder.mkdir(parents=True, exist_ok=True)
        for i, image in enumerate(class_images(label, count, seed=len(part), **sizes)):
            (folder / f"{name}_{i}.{kind}").write_bytes(encode(image, kind))


def write_imagenet(root: Path, count: int = 20, test: int = 5) -> Path:
    write_class_folders(root, "train", count, height=14, width=13)
    write_class_folders(root, "val", test, height=13, width=15)
    return root


def write_tiny_imagenet(root: Path, count: int = 20, test: int = 5) -> Path:
    """The layout of `tiny-imagenet-200.zip`."""
    write_class_folders(root, "train", count, "images")
    lines = []
    for folder in ("val", "test"):
        (root / folder / "images").mkdir(parents=True)
    for i in range(test):
        for label, name in enumerate(CLASSES):
            (image,) = class_images(label, 1, seed=100 + i)
            file = f"val_{len(lines)}.JPEG"
            (root / "val" / "images" / file).write_bytes(encode(image, "JPEG"))
            lines.append(f"{file}\t{name}\t0\t0\t11\t11")
    (root / "val" / "val_annotations.txt").write_text("\n".join(lines) + "\n")
    (root / "test" / "images" / "test_0.JPEG").write_bytes(encode(class_images(0, 1)[0], "JPEG"))
    (root / "wnids.txt").write_text("\n".join(CLASSES))
    return root


def write_shards(root: Path, train: int = 60, test: int = 15) -> Path:
    """Parquet files as on Hugging Face's hub, in row groups of four rows; the labels of the test set are hidden."""
    for part, count, shards in (("train", train, 2), ("validation", test, 1), ("test", 3, 1)):
        labels = np.random.default_rng(count).permutation(np.arange(count) % len(CLASSES))
        images = [class_images(int(label), 1, 14, 13, seed=i)[0] for i, label in enumerate(labels)]
        for shard, rows in enumerate(np.array_split(np.arange(count), shards)):
            table = make_table(
                [encode(images[row], "JPEG") for row in rows],
                [-1 if part == "test" else int(labels[row]) for row in rows],
            )
            write_parquet(root / "data" / f"{part}-{shard:05}-of-{shards:05}.parquet", table)
    return root
