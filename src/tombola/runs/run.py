"""Run: one training, fully described and hashable.

Everything that can change a result is in a `Run`, and nothing else is. Its key is a hash of its description,
so equal descriptions are trained once, ever, and a result can always be traced to what produced it.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Self, TypeVar

from pydantic import Field, InstanceOf, PlainSerializer

from tombola.pruning.mask import Mask
from tombola.runs.training import Training
from tombola.utils.frozen_model import FrozenModel
from tombola.zoo.datasets.description import Data
from tombola.zoo.models.description import Reuse, Start, Trained

SomeRun = TypeVar("SomeRun", bound="BaseRun")


KEY_FORMAT = 1
"""Part of every key. It changes only when the same description comes to mean another training."""


class BaseRun(FrozenModel):
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

    def after(self, run: BaseRun, begin: int, end: int | None = None) -> Self:
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


class Run(BaseRun):
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
