"""The columns of Parquet files that hold images and labels."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from tombola.utils.errors import InputError


@dataclass(frozen=True)
class Columns:
    """How files are read: their columns and the image size, chosen by the user, or None where the files decide."""

    image: str | None = None
    """The image column; needed if there are several."""
    label: str | None = None
    """The label column; needed if there are several."""
    size: int | None = None
    """The height and width, in pixels, that every image is resized to."""
    stream: bool = False
    """Whether images are read only when they are needed."""

    @property
    def given(self) -> list[str]:
        """The names of the options given."""
        return [name for name in ("image", "label", "size", "stream") if getattr(self, name)]


@dataclass(frozen=True)
class ColumnChoice:
    """The image and label columns of a file."""

    image: str
    label: str
    classes: int | None
    """The number of classes, if the file has a list of their names."""


def find_columns(path: Path, schema: pa.Schema, columns: Columns) -> ColumnChoice:
    """The image and label columns of a file with that schema.

    They are those named by `columns`; else those that the file's metadata for Hugging Face's `datasets` calls Image
    and ClassLabel; else those of a suitable type: binary or a struct with `bytes` for images, integers for labels,
    and among several integers the one named `label` or `labels`.

    Raises `InputError` if there is no such column, or several to choose from.
    """
    features = _features(schema)
    images = [field.name for field in schema if _holds_images(field.type)]
    integers = label_columns(schema)
    image = _choose(path, schema, "image", columns.image, images, _of_type(features, "Image", images))
    classes = _of_type(features, "ClassLabel", integers)
    preferred = classes or [name for name in integers if name in ("label", "labels")]
    label = _choose(path, schema, "label", columns.label, integers, preferred)
    names = features[label].get("names") if label in classes else None
    return ColumnChoice(image, label, len(names) if isinstance(names, list) else None)


def label_columns(schema: pa.Schema) -> list[str]:
    """The columns that could hold labels."""
    return [field.name for field in schema if pa.types.is_integer(field.type)]


def _choose(
    path: Path, schema: pa.Schema, what: str, named: str | None, suitable: list[str], preferred: list[str]
) -> str:
    kind = {"image": "images (binary, or a struct with `bytes`)", "label": "labels (integers)"}[what]
    if named is not None:
        if named in suitable:
            return named
        problem = f"column {named} does not hold {kind}" if named in schema.names else f"there is no column {named}"
        choices = suitable or schema.names
        advice = f"one of its columns {', '.join(choices)}" if len(choices) > 1 else choices[0]
        raise InputError(f"{path}: {problem}; set data.{what} to {advice}")
    candidates = preferred or suitable
    if not candidates:
        raise InputError(f"{path}: no column of {kind}; it has {', '.join(schema.names) or 'no columns'}")
    if len(candidates) > 1:
        raise InputError(f"{path}: several columns of {what}s; set data.{what} to one of {', '.join(candidates)}")
    return candidates[0]


def _holds_images(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _is_binary(kind.field("bytes").type)
    return _is_binary(kind)


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind))


def _features(schema: pa.Schema) -> dict[str, dict[str, Any]]:
    """The metadata of `datasets` for each column, by name; empty if it is missing or invalid."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError):
        return {}
    if not isinstance(features, dict):
        return {}
    return {name: feature for name, feature in features.items() if isinstance(feature, dict)}


def _of_type(features: dict[str, dict[str, Any]], kind: str, among: list[str]) -> list[str]:
    return [name for name in among if features.get(name, {}).get("_type") == kind]
