"""The description of a data set."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_serializer

from tombola.utils.frozen_model import FrozenModel
from tombola.zoo.datasets.registry import DATASETS, PARQUET_DATASETS


class Data(FrozenModel):
    """A data set, how it is divided and how its inputs are scaled."""

    name: str
    """A name in `tombola.zoo.datasets`, the path of an `.npz` file or a folder of Parquet files, or
    `hf:owner/name`."""
    digest: str
    """A hash of the arrays' content: other data under the same name is other data."""
    seed: int
    """Chooses which training examples are held out for validation."""
    validation: int
    """How many training examples are held out."""
    scale: Literal["range", "unit-norm", "standard"] = "range"
    """See `tombola.zoo.datasets.scale`."""
    fraction: float = Field(default=1.0, gt=0, le=1)
    """How much is used of what is left to train on. A smaller fraction lies within a larger one."""
    label_noise: float = Field(default=0.0, ge=0, le=1)
    """For what fraction of the training examples the label is replaced by one drawn at random from all classes, the
    right one included (Zhang et al. 2017, section 2). Validation and test labels stay as they are."""
    image: str | None = None
    """Of Parquet files: the column of the images; None where there is only one."""
    label: str | None = None
    """Of Parquet files: the column of the labels; None where there is only one."""
    size: int | None = Field(default=None, ge=1)
    """Images are brought to this height and width: see `tombola.zoo.datasets.parquet`."""
    mean: tuple[float, ...] | None = None
    """With scale `standard`: what is taken from each channel, instead of what the training examples say."""
    std: tuple[float, ...] | None = None
    """The same: what each channel is divided by."""
    flip: bool = False
    """While training, every image is turned left to right with a chance of one half."""
    crop: int = Field(default=0, ge=0)
    """While training, every image is padded with black by so many pixels on each side, and one of its former size
    is cut out anywhere."""

    @property
    def augmented(self) -> bool:
        """Whether images are changed while training."""
        return self.flip or self.crop > 0

    @field_serializer("name")
    def _without_place(self, name: str) -> str:
        """Where files of arrays or images lie changes no result; the digest says what is in them."""
        if name in DATASETS or name in PARQUET_DATASETS or name.startswith("hf:"):
            return name
        return "npz" if name.endswith(".npz") else "parquet"
