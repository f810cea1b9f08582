"""Run: one training, fully described and hashable.

Everything that can change a result is in a `Run`, and nothing else is. Its key is a hash of its description,
so equal descriptions are trained once, ever, and a result can always be traced to what produced it.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, InstanceOf, PlainSerializer, field_serializer, model_validator

from tombola.length import Length
from tombola.mask import Mask

SomeRun = TypeVar("SomeRun", bound="AnyRun")

Precision = Literal["fp32", "tf32", "bf16"]

KEY_FORMAT = 1
"""Part of every key. It changes only when the same description comes to mean another training."""


class Described(BaseModel):
    """A frozen, strictly typed description. Unknown names and values of the wrong type are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Network(Described):
    """A network by name: what to call, and with what, to get the module."""

    name: str
    """A name in `tombola.zoo.networks`, the import path of a factory, `package.module:factory`, or `timm:NAME`."""
    options: dict[str, Any] = {}
    """Keyword arguments of the factory, those at their default left out."""
    source: str | None = None
    """For an import path, a hash of the source text of the factory's module: a network that was edited is another
    network. What that module imports from elsewhere is not seen. For `timm:NAME`, timm's version."""
    inputs: tuple[int, ...]
    """The shape of one example."""
    classes: int
    """The number of classes."""


class Reuse(Described):
    """Another order of the initial weights within each prunable layer."""

    seed: int
    keep_signs: bool = False
    """Weights change places only with others of their own sign."""


class Trained(Described):
    """The weights that another run ended with, or some on the straight line between those of two runs."""

    run: str
    """The run's key."""
    towards: str | None = None
    """The key of another run of the same network."""
    share: float = Field(default=0.0, ge=0, le=1)
    """How far towards that one's weights, 1 being all the way."""
    optimizer: bool = False
    """The optimizer goes on from there too: from what it remembered, which is nothing of weights that were pruned
    then, or are now."""


class Start(Described):
    """The weights a training starts from: a network, and the seed its initial weights θ0 are drawn with."""

    network: Network
    seed: int
    reuse: Reuse | None = None
    """What happens to the weights after they are drawn."""
    trained: Trained | None = None
    """The weights that an earlier training left are taken instead of those drawn."""
    like: Network | None = None
    """Another network, whose weights, drawn by the same seed, are taken wherever names and shapes agree: how a ticket
    keeps its initial weights on data with other classes."""


class Data(Described):
    """A data set, how it is divided and how its inputs are scaled."""

    name: str
    """A name in `tombola.zoo.data`, the path of an `.npz` file or a folder of Parquet files, or `hf:owner/name`."""
    digest: str
    """A hash of the arrays' content: other data under the same name is other data."""
    seed: int
    """Chooses which training examples are held out for validation."""
    validation: int
    """How many training examples are held out."""
    scale: Literal["range", "unit-norm", "standard"] = "range"
    """See `tombola.zoo.data.scale`."""
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
    """Images are brought to this height and width: see `tombola.zoo.data.parquet`."""
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
        from tombola.zoo.data import DATA, PARQUET  # they are made of what is in this file

        if name in DATA or name in PARQUET or name.startswith("hf:"):
            return name
        return "npz" if name.endswith(".npz") else "parquet"


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
    decay_normalisation: bool = True
    """Whether that includes the scales and shifts of normalisation layers."""
    nesterov: bool = False
    """Whether momentum looks ahead (Sutskever et al. 2013, section 3), as torch does it."""
    schedule: Literal["constant", "step", "cosine"] = "constant"
    """What becomes of the learning rate; see `tombola.schedule`."""
    milestones: Annotated[tuple[Length, ...], Field(strict=False)] = ()
    """When a `step` schedule multiplies the learning rate by `decay`."""
    decay: float = Field(default=0.1, gt=0, le=1)
    warmup: Length = Length()
    """Over how long the learning rate grows linearly from 0 at first."""
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
        if self.nesterov and not self.momentum:
            raise ValueError('nesterov goes with optimizer "sgd" and a momentum')
        if (self.schedule == "step") != bool(self.milestones):
            raise ValueError('milestones, such as ["20000it", "25000it"], go with schedule = "step"')
        for name in ("length", "evaluate_every"):
            if getattr(self, name) == Length():
                raise ValueError(f"{name} should be at least 1it")
        return self

    def in_iterations(self, examples: int) -> Training:
        """The same training with its lengths in iterations, `examples` making an epoch.

        Raises `ValueError` where milestones are not in order, or the warm-up does not end before the training.
        """

        def iterations(length: Length) -> Length:
            return length.in_iterations(examples, self.batch_size)

        lengths = {name: iterations(getattr(self, name)) for name in ("length", "evaluate_every", "warmup")}
        milestones = tuple(map(iterations, self.milestones))
        at = [milestone.iterations for milestone in milestones]
        if at != sorted({0, *at, lengths["length"].iterations})[1:-1]:
            raise ValueError(
                f"milestones: should be in order, between 0it and the length, {self.length}, not "
                f"{', '.join(map(str, self.milestones))}"
            )
        if lengths["warmup"].iterations >= lengths["length"].iterations:
            raise ValueError(f"warmup: should be shorter than the length, {self.length}, not {self.warmup}")
        return self.model_copy(update=lengths | {"milestones": milestones})


class AnyRun(Described):
    """What every run is, whoever trains it: these weights, this mask, this seed. Studies derive runs from it."""

    start: Start
    mask: Annotated[InstanceOf[Mask], PlainSerializer(lambda mask: mask.digest, return_type=str)]
    seed: int
    """Everything random during training comes from it: batch order, augmentation, dropout."""
    begin: int = Field(default=0, ge=0)
    """How many iterations of the training are taken as done: batches and learning rates go on from there; the
    optimizer only where `Trained.optimizer` says so."""
    end: int | None = Field(default=None, ge=0)
    """The iteration that it ends at, if that is not where the training ends. Where it began there already, nothing is
    trained: the weights are only evaluated."""

    def masked(self, mask: Mask) -> Self:
        """The same training, from the same initial weights, of the weights left in `mask` alone."""
        return self.model_copy(update={"mask": mask})

    def reinitialised(self, seed: int) -> Self:
        """The same training with the same mask, all of it, from newly drawn initial weights."""
        return self._from_the_beginning({"seed": seed})

    def reusing(self, seed: int, keep_signs: bool = False) -> Self:
        """The same with the same mask, all of it, from these initial weights in another order within each layer."""
        return self._from_the_beginning({"reuse": Reuse(seed=seed, keep_signs=keep_signs)})

    def _from_the_beginning(self, drawn: dict[str, Any]) -> Self:
        start = self.start.model_copy(update=drawn | {"trained": None})
        return self.model_copy(update={"start": start, "begin": 0, "end": None})

    def until(self, end: int) -> Self:
        """Only the first `end` iterations of this training."""
        return self.model_copy(update={"end": end})

    def after(self, run: AnyRun, begin: int, end: int | None = None) -> Self:
        """This training from iteration `begin` on (to `end`), from the weights that `run` ended with."""
        start = self.start.model_copy(update={"trained": Trained(run=run.key)})
        return self.model_copy(update={"start": start, "begin": begin, "end": end})

    @property
    def shape(self) -> tuple[object, ...]:
        """Equal for runs that an engine may train as one."""
        return (self.key,)

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


class Run(AnyRun):
    """One training: from these weights, with this mask, on this data, in this way, by this seed."""

    data: Data
    training: Training
    """With lengths in iterations."""
    keeps_optimizer: bool = False
    """What its optimizer remembers at the end is part of the outcome."""

    def paused(self, at: int) -> Run:
        """This training up to iteration `at`, to be resumed there."""
        return self.model_copy(update={"end": at, "keeps_optimizer": True})

    def resuming(self, run: Run) -> Run:
        """This training from where `run` was paused: from its weights, with its optimizer.

        With the same mask it gives the bits of a training without a pause, unless torch draws dropout, whose noise
        begins anew. Raises `ValueError` where `run` was not paused.
        """
        if not run.keeps_optimizer:
            raise ValueError(f"run {run.key} was not paused: its optimizer's state is not kept")
        start = self.start.model_copy(update={"trained": Trained(run=run.key, optimizer=True)})
        return self.model_copy(update={"start": start, "begin": run.last})

    @property
    def last(self) -> int:
        """The iteration it ends at."""
        return self.training.length.iterations if self.end is None else self.end

    @property
    def resumes(self) -> bool:
        """Whether its optimizer goes on from an earlier run."""
        return self.start.trained is not None and self.start.trained.optimizer

    @property
    def mixed(self) -> bool:
        """Whether it only evaluates weights between those of two runs."""
        return self.start.trained is not None and self.start.trained.towards is not None

    def between(self, one: Run, other: Run, share: float) -> Run:
        """No training, but an evaluation at its end: of weights on the straight line from those that `one` ended with
        to those of the `other`."""
        start = self.start.model_copy(update={"trained": Trained(run=one.key, towards=other.key, share=share)})
        return self.model_copy(update={"start": start, "begin": one.last, "end": one.last})

    @property
    def shape(self) -> tuple[object, ...]:
        """Equal for runs that differ in nothing but initial weights, masks, splits and seeds."""
        split = self.data.model_copy(update={"seed": 0})
        ends = self.begin, self.resumes, self.end, self.keeps_optimizer
        return self.start.network.model_dump_json(), split, self.training, ends, self.mixed

    def __hash__(self) -> int:
        return hash(self.key)
