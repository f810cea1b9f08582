"""Which columns of Parquet files hold the images and the labels."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from tombola.utils.errors import InputError


@dataclass(frozen=True)
class Columns:
    """What may be said of a data set in Parquet files; None leaves it to the files."""

    image: str | None = None
    """The column of the images; needed where there are several."""
    label: str | None = None
    """The column of the labels; needed where there are several."""
    size: int | None = None
    """The height and width, in pixels, that every image is brought to."""

    @property
    def given(self) -> list[str]:
        """The names of those that were said."""
        return [name for name in ("image", "label", "size") if getattr(self, name) is not None]


@dataclass(frozen=True)
class ColumnChoice:
    """The two columns of a file."""

    image: str
    label: str
    classes: int | None
    """How many classes the file names; None if it does not."""


def find_columns(path: Path, schema: pa.Schema, columns: Columns) -> ColumnChoice:
    """The column of images and that of labels in a file of that schema.

    They are those that `columns` names, or those that the file's description for Hugging Face's `datasets` calls
    an Image and a ClassLabel, or those of a fitting type: binary or a struct with `bytes` for images, integers for
    labels, and of several integers the one named `label` or `labels`.

    Raises `InputError` when there is none, or several to choose from.
    """
    features = _features(schema)
    images = [field.name for field in schema if _holds_images(field.type)]
    integers = label_columns(schema)
    image = _choose(path, schema, "image", columns.image, images, _of_type(features, "Image", images))
    classes = _of_type(features, "ClassLabel", integers)
    likely = classes or [name for name in integers if name in ("label", "labels")]
    label = _choose(path, schema, "label", columns.label, integers, likely)
    names = features[label].get("names") if label in classes else None
    return ColumnChoice(image, label, len(names) if isinstance(names, list) else None)


def label_columns(schema: pa.Schema) -> list[str]:
    """The columns that could hold labels."""
    return [field.name for field in schema if pa.types.is_integer(field.type)]


def _choose(
    path: Path, schema: pa.Schema, what: str, named: str | None, fitting: list[str], likely: list[str]
) -> str:
    kind = {"image": "images (binary, or a struct with `bytes`)", "label": "labels (integers)"}[what]
    if named is not None:
        if named in fitting:
            return named
        problem = f"column {named} does not hold {kind}" if named in schema.names else f"there is no column {named}"
        choices = fitting or schema.names
        advice = f"one of its columns {', '.join(choices)}" if len(choices) > 1 else choices[0]
        raise InputError(f"{path}: {problem}; set data.{what} to {advice}")
    candidates = likely or fitting
    if not candidates:
        raise InputError(f"{path}: no column of {kind}; it has {', '.join(schema.names) or 'no columns'}")
    if len(candidates) > 1:
        raise InputError(f"{path}: several columns of {what}s; set data.{what} to one of {', '.join(candidates)}")
    return candidates[0]


def _holds_images(of: pa.DataType) -> bool:
    if pa.types.is_struct(of):
        return of.get_field_index("bytes") >= 0 and _is_binary(of.field("bytes").type)
    return _is_binary(of)


def _is_binary(of: pa.DataType) -> bool:
    return bool(pa.types.is_binary(of) or pa.types.is_large_binary(of) or pa.types.is_fixed_size_binary(of))


def _features(schema: pa.Schema) -> dict[str, dict[str, Any]]:
    """What `datasets` wrote about the columns, by name; nothing if there is no such thing or it is spoilt."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError):
        return {}
    if not isinstance(features, dict):
        return {}
    return {name: feature for name, feature in features.items() if isinstance(feature, dict)}


def _of_type(features: dict[str, dict[str, Any]], kind: str, among: list[str]) -> list[str]:
    return [name for name in among if features.get(name, {}).get("_type") == kind]
