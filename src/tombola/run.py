"""Run: one training, fully described and hashable.

Everything that can change a result is in a `Run`, and nothing else is. Its key is a hash of its description,
so equal descriptions are trained once, ever, and a result can always be traced to what produced it.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, InstanceOf, PlainSerializer, field_serializer, model_validator

from tombola.length import Length
from tombola.mask import Mask

Precision = Literal["fp32", "tf32", "bf16"]

KEY_FORMAT = 1
"""Part of every key. It changes only when the same description comes to mean another training."""


class Described(BaseModel):
    """A frozen, strictly typed description. Unknown names and values of the wrong type are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Network(Described):
    """A network by name: what to call, and with what, to get the module."""

    name: str
    """A name in `tombola.zoo.networks`, or the import path of a factory, `package.module:factory`."""
    options: dict[str, Any] = {}
    """Keyword arguments of the factory, those at their default left out."""
    source: str | None = None
    """For an import path, a hash of the source text of the factory's module: a network that was edited is another
    network. What that module imports from elsewhere is not seen."""
    inputs: tuple[int, ...]
    """The shape of one example."""
    classes: int
    """The number of classes."""


class Reuse(Described):
    """Another order of the initial weights within each prunable layer."""

    seed: int
    keep_signs: bool = False
    """Weights change places only with others of their own sign."""


class Start(Described):
    """The weights a training starts from, θ0: a network, and the seed its weights are drawn with."""

    network: Network
    seed: int
    reuse: Reuse | None = None
    """What happens to the weights after they are drawn."""


class Data(Described):
    """A data set, how it is divided and how its inputs are scaled."""

    name: str
    """A name in `tombola.zoo.data`, or the path of an `.npz` file."""
    digest: str
    """A hash of the arrays' content: other data under the same name is other data."""
    seed: int
    """Chooses which training examples are held out for validation."""
    validation: int
    """How many training examples are held out."""
    scale: Literal["range", "unit-norm", "standard"] = "range"
    """See `tombola.zoo.data.split.scale`."""
    fraction: float = Field(default=1.0, gt=0, le=1)
    """How much is used of what is left to train on. A smaller fraction lies within a larger one."""
    label_noise: float = Field(default=0.0, ge=0, le=1)
    """For what fraction of the training examples the label is replaced by one drawn at random from all classes, the
    right one included (Zhang et al. 2017, section 2). Validation and test labels stay as they are."""

    @field_serializer("name")
    def _without_place(self, name: str) -> str:
        """Where a file of arrays lies changes no result; its digest says what is in it."""
        return "npz" if name.endswith(".npz") else name


class Training(Described):
    """How a network is trained."""

    optimizer: Literal["adam", "sgd"]
    lr: float = Field(gt=0)
    """Learning rate."""
    batch_size: int = Field(ge=1)
    length: Length
    """How long: iterations (batches) or epochs."""
    evaluate_every: Length = Length(iterations=100)
    """Validation happens every so often, and after the last iteration."""
    momentum: float = Field(default=0.0, ge=0, lt=1)
    """Of SGD."""
    weight_decay: float = Field(default=0.0, ge=0)
    """The L2 penalty's coefficient, added to the gradient of every parameter."""
    test_curve: bool = False
    """Whether to record the test set's loss and accuracy at every evaluation too. Nothing is chosen by it."""
    precision: Precision = "fp32"
    """What the network's arithmetic is done in, weights and optimizer always in float32. `tf32`: on CUDA, matrix
    multiplications and convolutions round their inputs to TF32. `bf16`: the forward pass is under torch's autocast
    to bfloat16, in training and in evaluation."""

    @model_validator(mode="after")
    def _check(self) -> Training:
        if self.optimizer == "adam" and self.momentum:
            raise ValueError('momentum is an option of optimizer "sgd"; adam has its own')
        for name in ("length", "evaluate_every"):
            if getattr(self, name) == Length():
                raise ValueError(f"{name} should be at least 1it")
        return self

    def in_iterations(self, examples: int) -> Training:
        """The same training with its lengths in iterations, `examples` making an epoch."""
        lengths = {
            name: Length(iterations=getattr(self, name).iterations_of(examples, self.batch_size))
            for name in ("length", "evaluate_every")
        }
        return self.model_copy(update=lengths)


class Run(Described):
    """One training: from these weights, with this mask, on this data, in this way, by this seed."""

    start: Start
    mask: Annotated[InstanceOf[Mask], PlainSerializer(lambda mask: mask.digest, return_type=str)]
    data: Data
    training: Training
    """With lengths in iterations."""
    seed: int
    """Everything random during training comes from it: batch order, dropout."""

    def masked(self, mask: Mask) -> Run:
        """The same training, from the same initial weights, of the weights left in `mask` alone."""
        return self.model_copy(update={"mask": mask})

    def reinitialised(self, seed: int) -> Run:
        """The same training with the same mask, from newly drawn initial weights."""
        return self.model_copy(update={"start": self.start.model_copy(update={"seed": seed})})

    def reusing(self, seed: int, keep_signs: bool = False) -> Run:
        """The same training with the same mask, from the same initial weights in another order within each layer."""
        reuse = Reuse(seed=seed, keep_signs=keep_signs)
        return self.model_copy(update={"start": self.start.model_copy(update={"reuse": reuse})})

    @property
    def shape(self) -> tuple[object, ...]:
        """Equal for runs that differ in nothing but initial weights, masks, splits and seeds."""
        split = self.data.model_copy(update={"seed": 0})
        return self.start.network.model_dump_json(), split, self.training

    @property
    def description(self) -> dict[str, Any]:
        """The run as plain JSON values; the mask stands there by its digest.

        Options at their default are left out, so that a new option, whose default changes nothing, leaves the
        keys of all earlier runs as they are.
        """
        return self.model_dump(mode="json", exclude_defaults=True)

    @property
    def key(self) -> str:
        """32 hexadecimal digits, the hash of the description: the run's name in the store."""
        text = json.dumps([KEY_FORMAT, self.description], sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def __hash__(self) -> int:
        return hash(self.key)
