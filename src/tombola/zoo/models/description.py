"""Descriptions of a network and of the weights that a training starts from."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from tombola.utils.frozen_model import FrozenModel


class Network(FrozenModel):
    """A network by name: what to call, and with what, to get the module."""

    name: str
    """A name in `tombola.zoo.models`, the import path of a factory, `package.module:factory`, or `timm:NAME`."""
    options: dict[str, Any] = {}
    """Keyword arguments of the factory, those at their default left out."""
    source: str | None = None
    """For an import path, a hash of the source text of the factory's module: a network that was edited is another
    network. What that module imports from elsewhere is not seen. For `timm:NAME`, timm's version."""
    inputs: tuple[int, ...]
    """The shape of one example."""
    classes: int
    """The number of classes."""


class Reuse(FrozenModel):
    """Another order of the initial weights within each prunable layer."""

    seed: int
    keep_signs: bool = False
    """Weights change places only with others of their own sign."""


class Trained(FrozenModel):
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


class Start(FrozenModel):
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
