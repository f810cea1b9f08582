"""The datasets by name, and the description of one. To add one, list its loader here."""

from __future__ import annotations

from pathlib import PurePath
from typing import Literal

from pydantic import Field, field_serializer

from tombola.utils.frozen_model import FrozenModel
from tombola.zoo.datasets.parquet_columns import Columns
from tombola.zoo.datasets.registry import DATASETS, IMAGE_DATASETS

SHUFFLE_BUFFER = 10_000


class Data(FrozenModel):
    """A dataset, how it is divided, and how its inputs are scaled and augmented."""

    name: str
    """The name of a dataset, the path of an `.npz` or CSV file or of a folder, or `hf:owner/name`
    (docs/how-to/data.md)."""
    digest: str
    """A hash of the arrays' content, so that changed data under the same name is not mistaken for it."""
    seed: int
    """Decides which training examples are held out for validation."""
    validation: int
    """The number of training examples held out."""
    scale: Literal["range", "unit-norm", "standard"] = "range"
    """`range`: pixels are divided by their largest possible value. `unit-norm`: then each example by its L2 norm.
    `standard`: the mean is subtracted, and the result divided by the standard deviation."""
    fraction: float = Field(default=1.0, gt=0, le=1)
    """The fraction of the other training examples that is used. A smaller fraction is a subset of a larger one."""
    label_noise: float = Field(default=0.0, ge=0, le=1)
    """The fraction of the training examples whose label is replaced by a random class, which may be the right one
    (Zhang et al. 2017, section 2). Validation and test labels are not changed."""
    image: str | None = None
    """In Parquet files: the image column; None if there is only one."""
    label: str | None = None
    """In Parquet and CSV files: the label column; None if the files decide."""
    size: int | None = Field(default=None, ge=1)
    """Images are resized to this height and width."""
    stream: bool = False
    """Whether images are read when a batch needs them, for datasets larger than memory. Images in Parquet files are
    then shuffled, and held out, by row groups."""
    shuffle_buffer: int = Field(default=SHUFFLE_BUFFER, ge=1)
    """With `stream`, of Parquet files: about how many training examples are shuffled together. Their row groups, and
    those of as many that follow, are kept in memory, encoded."""
    mean: tuple[float, ...] | None = None
    """With scale `standard`: the mean to subtract from each channel, instead of that of the training examples."""
    std: tuple[float, ...] | None = None
    """Likewise: the standard deviation to divide each channel by."""
    flip: bool = False
    """In training, every image is flipped left to right with probability 1/2."""
    crop: int = Field(default=0, ge=0)
    """In training, every image is padded with this many black pixels on each side, and cropped to its former size at
    a random position."""

    resized_crop: int | None = Field(default=None, ge=1)
    """In training, of every image a random part is resized to this height and width; in evaluation, the centre of
    this size is used (Szegedy et al. 2015, "Going deeper with convolutions", section 6). The part has 8 to 100% of
    the area, and 3/4 to 4/3 as its ratio of width to height."""

    @property
    def augmented(self) -> bool:
        """Whether images are augmented in training."""
        return self.flip or self.crop > 0 or self.resized_crop is not None

    def shape_of(self, inputs: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the network's inputs, for examples of shape `inputs`."""
        return inputs if self.resized_crop is None else (*inputs[:-2], self.resized_crop, self.resized_crop)

    @property
    def columns(self) -> Columns:
        """How its files are read."""
        return Columns(self.image, self.label, self.size, self.stream)

    @field_serializer("name")
    def _without_path(self, name: str) -> str:
        """Where files are does not change results; `digest` stands for their content."""
        if name in DATASETS or name in IMAGE_DATASETS or name.startswith("hf:"):
            return name
        kinds = {".npz": "npz", ".csv": "csv", ".tsv": "csv"}
        return kinds.get(PurePath(name).suffix.lower(), "parquet")  # any folder: former keys have this word
