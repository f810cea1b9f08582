"""Run: the full description of one training.

A `Run` contains everything that can change its result, and nothing else. Its key is a hash of the description, so
equal descriptions are trained only once, and every result can be traced to what produced it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import Field, InstanceOf, PlainSerializer, field_validator, model_validator

from tombola.pruning.mask import Mask
from tombola.utils.duration import ZERO, Duration
from tombola.utils.errors import unknown
from tombola.utils.former_names import former_attribute
from tombola.utils.frozen_model import FrozenModel
from tombola.zoo.datasets.description import Data
from tombola.zoo.models import describe_parametrized
from tombola.zoo.models.description import Network, Reuse, Signs, Start, Trained
from tombola.zoo.models.reparametrization import original_name

Precision = Literal["fp32", "tf32", "bf16"]
OPTIMIZERS = ("adam", "adamw", "sgd")
"""The optimizers that a training can name; others have an import path."""


class Training(FrozenModel):
    """Optimizer, learning rate schedule, batch size, duration and evaluation of a training."""

    optimizer: Literal["adam", "adamw", "sgd"] | str
    """Adam or AdamW (β 0.9 and 0.999, ε 1e-8) or SGD, as in torch, or the import path of an optimizer class,
    `package.module:Class`."""
    optimizer_options: dict[str, Any] = {}
    """Keyword arguments of an optimizer by import path, besides its parameters, `lr` and `weight_decay`."""
    optimizer_source: str | None = None
    """Of an optimizer by import path, a hash of the source text of its module, so that an edited optimizer is another
    one; modules imported by that module are not included. Not given in a recipe."""
    other_optimizer: Literal["adam", "adamw", "sgd"] | None = None
    """The optimizer of all parameters that are not matrices, for an optimizer by import path that takes only these,
    such as Muon. None: one optimizer trains all parameters."""
    lr: float = Field(gt=0)
    """Learning rate."""
    batch_size: int = Field(ge=1)
    """Examples in a batch; the last one of an epoch may be smaller."""
    length: Duration
    """In iterations (batches) or epochs."""
    evaluate_every: Duration = Duration(iterations=100)
    """The interval between evaluations on the validation split; the last iteration is always evaluated."""
    momentum: float = Field(default=0.0, ge=0, lt=1)
    """The momentum of SGD."""
    weight_decay: float = Field(default=0.0, ge=0)
    """The coefficient of weight decay: with `adam` and `sgd` of the L2 penalty, added to the gradient of every
    parameter; with `adamw` decoupled from the gradient (Loshchilov & Hutter 2019, algorithm 2)."""
    decay_normalisation: bool = True
    """Whether weight decay applies to the scales and shifts of normalisation layers."""
    nesterov: bool = False
    """Nesterov momentum (Sutskever et al. 2013, section 3), as in torch."""
    schedule: Literal["constant", "step", "cosine"] = "constant"
    """The schedule of the learning rate. `step`: it is multiplied by `decay` at each of `milestones`. `cosine`: it
    falls almost to 0 along half a cosine."""
    milestones: Annotated[tuple[Duration, ...], Field(strict=False)] = ()
    """When a `step` schedule multiplies the learning rate by `decay`."""
    decay: float = Field(default=0.1, gt=0, le=1)
    """The factor of a `step` schedule."""
    warmup: Duration = Duration()
    """The time over which the learning rate first grows linearly from 0."""
    test_curve: bool = False
    """Whether each evaluation also records the test loss and accuracy. Nothing is chosen by them."""
    precision: Precision = "fp32"
    """The precision of the network's arithmetic; weights and optimizer are always float32. `tf32`: on CUDA, matrix
    multiplications and convolutions round their inputs to TF32. `bf16`: forward passes run under torch's autocast to
    bfloat16, in training and evaluation."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """The share of each training label that is spread over all classes (Szegedy et al. 2016, section 7)."""
    mixup: float = Field(default=0.0, ge=0)
    """α of mixup (Zhang et al. 2018, section 2): each batch is mixed with a permutation of itself, labels included,
    at a ratio drawn from Beta(α, α). 0: examples are not mixed."""
    ema: float = Field(default=0.0, ge=0, lt=1)
    """The decay, in an iteration, of an exponential moving average of the weights and running statistics, which is
    evaluated in place of these, and is the result of the training. 0: there is no average."""
    clip_norm: float | None = Field(default=None, gt=0)
    """The largest norm of the gradient of all kept weights and other parameters together; a longer gradient is scaled
    to it (Pascanu et al. 2013, section 3.2)."""

    @field_validator("optimizer", mode="before")
    @classmethod
    def _known(cls, given: Any) -> Any:
        if given in OPTIMIZERS or (isinstance(given, str) and ":" in given):
            return given
        error = unknown("optimizer", given, OPTIMIZERS)
        raise ValueError(f'{error}, or an import path "package.module:Class"')

    @model_validator(mode="after")
    def _check(self) -> Training:
        if self.optimizer != "sgd" and self.momentum:
            hint = "; give it in optimizer_options" if self.custom_optimizer else ""
            raise ValueError(f'momentum needs optimizer "sgd", not "{self.optimizer}"{hint}')
        if not self.custom_optimizer:
            for name in ("optimizer_options", "optimizer_source", "other_optimizer"):
                if getattr(self, name):
                    raise ValueError(
                        f'{name}: is for an optimizer by import path, such as "torch.optim:AdamW", not '
                        f'"{self.optimizer}"'
                    )
        for name in ("lr", "weight_decay"):
            if name in self.optimizer_options:
                raise ValueError(f"optimizer_options: should not have {name}; give training.{name}")
        if self.nesterov and not self.momentum:
            raise ValueError('nesterov needs optimizer "sgd" and a momentum above 0')
        if (self.schedule == "step") != bool(self.milestones):
            raise ValueError('milestones, such as ["20000it", "25000it"], go with schedule = "step"')
        for name in ("length", "evaluate_every"):
            if getattr(self, name) == Duration():
                raise ValueError(f"{name} should be at least 1it")
        return self

    def __hash__(self) -> int:
        return hash(self.model_dump_json())

    @property
    def custom_optimizer(self) -> bool:
        """Whether the optimizer is given by its import path."""
        return self.optimizer not in OPTIMIZERS

    def in_iterations(self, examples: int) -> Training:
        """The same training with its durations in iterations; an epoch has `examples` examples. Raises `ValueError`
        if milestones are not in order, or if the warm-up is not shorter than the training."""

        def iterations(length: Duration) -> Duration:
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


SomeRun = TypeVar("SomeRun", bound="BaseRun")


KEY_FORMAT = 1
"""Part of every key. It changes only when the same description means a different training."""


class BaseRun(FrozenModel):
    """Common to all runs: initial weights, mask and seed. Studies derive further runs from it."""

    start: Start
    mask: Annotated[InstanceOf[Mask], PlainSerializer(lambda mask: mask.digest, return_type=str)]
    seed: int
    """The seed of everything random during training: batch order, augmentation, dropout."""
    begin: int = Field(default=0, ge=0)
    """The first iteration: batches and learning rates continue from there; the optimizer is reset unless
    `Trained.optimizer` is set."""
    end: int | None = Field(default=None, ge=0)
    """The iteration at which the run ends; None is the end of the training. With `end == begin`, nothing is trained
    and the weights are only evaluated."""

    def masked(self, mask: Mask) -> Self:
        """The same training from the same initial weights, with another mask."""
        return self.model_copy(update={"mask": mask})

    def reinitialised(self, seed: int) -> Self:
        """The whole training with the same mask, from newly drawn initial weights."""
        return self._from_the_beginning({"seed": seed})

    def reusing(self, seed: int, keep_signs: bool = False) -> Self:
        """The whole training with the same mask, from the initial weights shuffled within each layer."""
        return self._from_the_beginning({"reuse": Reuse(seed=seed, keep_signs=keep_signs)})

    def with_signs_of(self, other: Start, seed: int, normalisation: bool = False) -> Self:
        """The whole training with the same mask, from newly drawn initial weights with the signs of `other`. With
        `normalisation`, scales and shifts of normalisation layers are also those of `other`."""
        return self._from_the_beginning({"seed": seed, "signs": Signs(of=other, normalisation=normalisation)})

    def with_drawn_signs(self, seed: int) -> Self:
        """The same training, with newly drawn signs of the weights that it starts from."""
        return self.model_copy(update={"start": self.start.model_copy(update={"signs": Signs(seed=seed)})})

    def parametrized(self, by: str) -> Self:
        """The same training, with the masked weights computed by a parametrization of `PARAMETRIZATIONS` without
        options. The mask is that of the tensors that they are computed from."""
        network = describe_parametrized(self.start.network, by, {name: {} for name in self.mask})
        mask = Mask({original_name(name): kept for name, kept in self.mask.items()})
        return self.with_network(network).masked(mask)

    def with_network(self, network: Network) -> Self:
        """The same training of another network, whose initial weights are drawn with the same seed."""
        return self.model_copy(update={"start": self.start.model_copy(update={"network": network})})

    @property
    def final_start(self) -> Start:
        """A start from the weights that this run ends with."""
        return Start(network=self.start.network, seed=self.start.seed, trained=Trained(run=self.key))

    def _from_the_beginning(self, drawn: dict[str, Any]) -> Self:
        start = self.start.model_copy(update=drawn | {"trained": None})
        return self.model_copy(update={"start": start, "begin": 0, "end": None})

    def until(self, end: int) -> Self:
        """Only the first `end` iterations of this training."""
        return self.model_copy(update={"end": end})

    def until_mark(self) -> Self:
        """This training up to the mark in the user's function. Raises `TypeError` for trainings of engines."""
        raise TypeError("only a training by the user's own function has a mark")

    def after(self, run: BaseRun, begin: int, end: int | None = None) -> Self:
        """This training from iteration `begin` (to `end`), with the final weights of `run`. If `run` trained this
        network with a parametrization, the weights that the parametrization computed are taken."""
        through = None if run.start.network == self.start.network else run.start.network
        start = self.start.model_copy(update={"trained": Trained(run=run.key, through=through)})
        return self.model_copy(update={"start": start, "begin": begin, "end": end})

    def between(self, one: BaseRun, other: BaseRun, share: float, at: int, statistics: Duration = ZERO) -> Self:
        """A run that trains nothing and evaluates (1 - share) · one + share · other: the weights on the straight line
        between the final weights of two runs, with this run's mask. `at` is the iteration at which `one` ended; see
        `Trained.statistics`."""
        return self._evaluating(Trained(run=one.key, towards=other.key, share=share, statistics=statistics), at)

    def averaging(
        self,
        runs: Sequence[BaseRun],
        at: int,
        statistics: Duration = ZERO,
        weights: Sequence[float] | None = None,
    ) -> Self:
        """A run that trains nothing: its final weights are the mean of those of several runs, with this run's mask;
        `weights`, one for each of different runs, sum to 1. `at` is the iteration that counts as the end of the
        training; see `Trained.statistics`."""
        keys = list(dict.fromkeys(run.key for run in runs))
        first, *others = zip(keys, weights or [1 / len(keys)] * len(keys), strict=True)
        return self._evaluating(Trained(run=first[0], averaged=tuple(sorted(others)), statistics=statistics), at)

    def _evaluating(self, trained: Trained, at: int) -> Self:
        start = self.start.model_copy(update={"trained": trained})
        return self.model_copy(update={"start": start, "begin": at, "end": at})

    mixed = former_attribute("mixed", "interpolates")

    @property
    def interpolates(self) -> bool:
        """Whether the run only evaluates weights interpolated between two runs."""
        return self.start.trained is not None and self.start.trained.towards is not None

    @property
    def shape(self) -> tuple[object, ...]:
        """Equal for runs that an engine may train as one stack."""
        return (self.key,)

    @property
    def description(self) -> dict[str, Any]:
        """The run as plain JSON values; the mask is represented by its digest.

        Options at their default are left out. So adding an option whose default changes nothing does not change the
        keys of existing runs.
        """
        return self.model_dump(mode="json", exclude_defaults=True)

    @cached_property
    def key(self) -> str:
        """The run's name in the store: 32 hexadecimal digits, a hash of the description."""
        return key_of(self.description)

    def __copy__(self) -> Self:
        copied = super().__copy__()
        copied.__dict__.pop("key", None)  # `model_copy` copies the cached key, and then changes the fields
        return copied

    def __hash__(self) -> int:
        return hash(self.key)


def key_of(description: dict[str, Any]) -> str:
    """The key of the run with this description."""
    text = json.dumps([KEY_FORMAT, description], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class Run(BaseRun):
    """One training by an engine: initial weights, mask, data, training options and seed."""

    data: Data
    training: Training
    """The training, with durations in iterations."""
    keeps_optimizer: bool = False
    """Whether the outcome includes the optimizer's state."""

    def paused(self, at: int) -> Run:
        """This training up to iteration `at`, where it can be resumed."""
        return self.model_copy(update={"end": at, "keeps_optimizer": True})

    def resuming(self, run: Run) -> Run:
        """This training from where `run` was paused, with its weights and optimizer state.

        With the same mask it gives the same bits as a training without a pause, unless torch draws dropout, whose
        random stream restarts. Raises `ValueError` unless `run` was paused.
        """
        if not run.keeps_optimizer:
            raise ValueError(f"run {run.key} was not paused: its optimizer's state is not kept")
        start = self.start.model_copy(update={"trained": Trained(run=run.key, optimizer=True)})
        return self.model_copy(update={"start": start, "begin": run.last})

    def at_constant_rate(self, lr: float) -> Run:
        """This training at a constant learning rate."""
        constant = {"lr": lr, "schedule": "constant", "milestones": (), "warmup": Duration()}
        return self.model_copy(update={"training": self.training.model_copy(update=constant)})

    @property
    def last(self) -> int:
        """The iteration at which the run ends."""
        return self.training.length.iterations if self.end is None else self.end

    @property
    def resumes(self) -> bool:
        """Whether the optimizer continues from an earlier run."""
        return self.start.trained is not None and self.start.trained.optimizer

    @property
    def shape(self) -> tuple[object, ...]:
        """Equal for runs that differ only in initial weights, masks, splits and seeds."""
        split = self.data.model_copy(update={"seed": 0})
        ends = self.begin, self.resumes, self.end, self.keeps_optimizer
        return self.start.network.model_dump_json(), split, self.training, ends, self.interpolates

    def __hash__(self) -> int:
        return hash(self.key)
