"""Descriptions of a network and of the weights a training starts from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, model_validator

from tombola.utils.duration import ZERO, Duration
from tombola.utils.frozen_model import FrozenModel


class Network(FrozenModel):
    """A network: the name of its factory, and the arguments to call it with."""

    name: str
    """A name in `tombola.zoo.models`, the import path of a factory, `package.module:factory`, or `timm:NAME`."""
    options: dict[str, Any] = {}
    """Keyword arguments of the factory, without those at their default."""
    source: str | None = None
    """For an import path, a hash of the source text of the factory's module, so that an edited network is another
    network; modules imported by that module are not included. For `timm:NAME`, timm's version."""
    inputs: tuple[int, ...]
    """The shape of one example."""
    classes: int
    """The number of classes."""


class Reuse(FrozenModel):
    """A permutation of the initial weights within each prunable layer."""

    seed: int
    keep_signs: bool = False
    """Weights are exchanged only with weights of the same sign."""


class Trained(FrozenModel):
    """The final weights of another run, or a point on the line between the final weights of two runs."""

    run: str
    """The run's key."""
    towards: str | None = None
    """The key of another run of the same network."""
    share: float = Field(default=0.0, ge=0, le=1)
    """How far towards those weights; 1 is all the way."""
    averaged: Annotated[tuple[tuple[str, float], ...], Field(strict=False)] = ()
    """Further runs of the same network, by key, whose final weights are averaged with those of `run`, and the weight
    of each in the average; `run` has the rest."""
    statistics: Duration = ZERO
    """For how many batches of training examples the running statistics of normalisation layers are recomputed with
    weights that are averaged or on a line; `0it`: they are averaged, too."""
    optimizer: bool = False
    """Whether the optimizer resumes from its final state too; its state of weights pruned then or now is dropped."""
    through: Network | None = None
    """The network that the other run trained, if it is this network with a parametrization of its weights: the
    weights that it computed are taken."""


class Signs(FrozenModel):
    """The signs of the weights of prunable layers. Exactly one of `seed` and `of` is given."""

    seed: int | None = None
    """Each sign is + or -, with probability 1/2."""
    of: Start | None = None
    """The signs are those of other weights of the same network. Weights that are zero there keep their own."""
    normalisation: bool = False
    """Whether the scales and shifts of normalisation layers are also those of `of`."""

    @model_validator(mode="after")
    def _check(self) -> Signs:
        if (self.seed is None) == (self.of is None):
            raise ValueError("exactly one of seed and of should be given")
        return self


class Start(FrozenModel):
    """The weights a training starts from: a network, and the seed of its initial weights θ0."""

    network: Network
    seed: int
    reuse: Reuse | None = None
    """A permutation of the weights after they are drawn."""
    trained: Trained | None = None
    """Start from the final weights of an earlier training instead."""
    like: Network | None = None
    """Another network, drawn with the same seed, whose weights are used wherever names and shapes agree: so a ticket
    keeps its initial weights on a dataset with other classes."""
    signs: Signs | None = None
    """Other signs of these weights, which keep their magnitudes."""

    @property
    def parents(self) -> list[str]:
        """The keys of the runs whose final weights it depends on."""
        return parents_of_start(self.model_dump())


def parents_of_start(start: Mapping[str, Any]) -> list[str]:
    """`Start.parents`, from the fields of a start, which another version may have stored."""
    trained, other = start.get("trained") or {}, (start.get("signs") or {}).get("of")
    own = [trained[name] for name in ("run", "towards") if trained.get(name)]
    averaged = [key for key, _ in trained.get("averaged", ())]
    return [*own, *averaged, *(parents_of_start(other) if other else [])]
