"""A unit whose weights are zero, of the layers that compute it and of those that read it, does not matter any more:
whatever else belongs to it, biases and norms, may have any value."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.support.architectures import ARCHITECTURES
from tests.support.architectures.architecture import Factory, outputs
from tests.support.architectures.random_graphs import random_graph
from tests.support.coupled_units import in_double
from tombola.graph.coupling import Coupling, coupling


def half_of_each_set(found: Coupling, kind: str, seed: int) -> list[int]:
    choice, chosen = Random(seed), list[int]()
    for units in found.sets:
        if units.kind == kind and not units.whole:
            chosen += choice.sample(units.units, len(units.units) // 2)
    return chosen


@torch.no_grad()
def change(network: nn.Module, found: Coupling, units: list[int], vectors: bool) -> None:
    """Zero the weights of these units; or draw the `vectors` that belong to them: biases, norms, statistics."""
    tensors: dict[str, Tensor] = dict((*network.named_parameters(), *network.named_buffers()))
    for name, axes in found.parameters.items():
        for axis, ids in enumerate(axes):
            if ids is not None and (tensors[name].dim() == 1) == vectors:
                at = torch.from_numpy(np.flatnonzero(np.isin(ids, units)))
                shape = [size if other != axis else len(at) for other, size in enumerate(tensors[name].shape)]
                new = torch.rand(shape, dtype=tensors[name].dtype) + 0.5 if vectors else torch.zeros(shape)
                tensors[name].index_copy_(axis, at, new.to(tensors[name]))


def check(factory: Factory, seed: int) -> None:
    found = coupling(*in_double(factory()))
    for kind in ("channels", "neurons", "heads"):
        if units := half_of_each_set(found, kind, seed):
            network, example = in_double(factory())
            change(network, found, units, vectors=False)
            before = outputs(network, example)
            change(network, found, units, vectors=True)
            for some, other in zip(before, outputs(network, example), strict=True):
                assert (some - other).abs().max() <= 1e-9 * some.abs().max(), kind


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_in_an_architecture(name: str) -> None:
    check(ARCHITECTURES[name], 0)


@pytest.mark.parametrize("seed", range(60))
def test_in_a_random_graph(seed: int) -> None:
    check(lambda: random_graph(seed), seed)
