"""Plan: what an experiment will train, and what that takes."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tombola.utils.frozen_model import FrozenModel

Basis = Literal["store", "trial", "store and trial"]


class Estimate(FrozenModel):
    """From the lowest to the highest value that is expected."""

    low: float = Field(ge=0)
    high: float = Field(ge=0)


class PlannedRuns(FrozenModel):
    """Trainings of the same branch, level, network and length, of all replicates and draws."""

    branch: str
    level: int
    network: str
    iterations: int
    """Of one training; 0 where a network is only evaluated."""
    weights_left: float
    """The fraction of prunable weights, the mean over the trainings."""
    trainings: int
    """Different ones; a training that is requested twice is trained once."""
    in_store: int
    """How many of them the store has already."""
    seconds: Estimate | None
    """Of one training that is to be done; None if nothing is known, or all are in the store."""


class PlannedTime(Estimate):
    """Seconds until all is trained."""

    basis: Basis
    """What it follows from: trainings of the same kind in the store, or a few iterations that were trained to measure
    their speed."""


class PlannedMemory(FrozenModel):
    """Bytes of main memory, estimated."""

    worker: int
    """Of one worker process; of one more training, where workers are threads."""
    driver: int
    """Of the process that conducts the experiment."""
    total: int
    """Of all processes on this machine."""


class Plan(FrozenModel):
    """What an experiment will train, and what that takes. Numbers of trainings are exact if none diverges, unless
    `at_most` is set."""

    name: str
    engine: str
    device: str
    workers: int
    """How many trainings run at once."""
    requests: int
    """How many outcomes the experiment asks for, as its progress counts them."""
    trainings: int
    """Different ones; networks that are only evaluated count too."""
    in_store: int
    to_train: int
    at_most: str | None
    """Why these are maxima, if they are."""
    runs: list[PlannedRuns]
    """In the order in which they are first requested."""
    time: PlannedTime | None
    """None if nothing is to be trained, or nothing was measured."""
    disk_bytes: int
    """What the store grows by, approximately."""
    memory: PlannedMemory | None
    """None if nothing is to be trained."""
