"""Networks of which coupled units are pruned: what should be left, and whether it is when they are compacted."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from tests.support.architectures.architecture import Example, Made, in_dtype, outputs
from tombola import compact, prune
from tombola.graph.coupling import Coupling, coupling
from tombola.utils.model_inputs import batches_like

WITHIN = {torch.float32: 1e-5, torch.float64: 1e-9}
"""How far outputs may be apart, relative to the largest of them."""


def count_parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def kinds_of(network: nn.Module, example: Example) -> set[str]:
    """The kinds of units that can be pruned: there are at least two in a set."""
    return {units.kind for units in coupling(network, example).sets if not units.whole and len(set(units.units)) > 1}


def pruned_units(found: Coupling, mask: Mapping[str, Tensor]) -> set[int]:
    """The units that could be removed and of which the mask keeps no weight at all, neither of those that compute
    them nor of those that read them."""
    kept: set[int] = set()
    for name, weights in mask.items():
        for axis, units in enumerate(found.parameters.get(name, ())):
            if units is not None:
                others = tuple(other for other in range(weights.dim()) if other != axis)
                kept |= set(units[weights.numpy().any(axis=others)].tolist())
    return {unit for units in found.sets for unit in units.units if not units.whole} - kept


def parameters_left(network: nn.Module, found: Coupling, mask: Mapping[str, Tensor]) -> int:
    """How many numbers are left if all of the pruned units goes: biases and norms, too."""
    pruned, count = pruned_units(found, mask), 0
    for name, parameter in network.named_parameters():
        axes = found.parameters.get(name) or (None,) * parameter.dim()
        assert len(axes) == parameter.dim(), name
        count += math.prod(
            size if units is None else int((~np.isin(units, [*pruned])).sum())
            for size, units in zip(parameter.shape, axes, strict=True)
        )
    return count


def assert_exact(
    network: nn.Module, example: Example, structure: str, score: str, seed: int, all_removable: bool = True
) -> None:
    """Prune half the units, compact, and compare outputs and sizes. The network is changed in place. Unless units are
    `all_removable`, some may stay where their number is in the code, which a line says."""
    before, found = count_parameters(network), coupling(network, example)
    mask = prune(network, 0.5, structure=structure, score=score, seed=seed, example=example)
    left = parameters_left(network, found, mask)
    assert left < before, f"no {structure} are pruned"
    with lines_of_compaction() as lines:
        smaller = compact(network, example)
    assert_same(network, smaller, example)
    if lines and not all_removable:
        assert all("could not be removed" in line for line in lines), lines
        assert left <= count_parameters(smaller) <= before
    else:
        assert not lines
        assert count_parameters(smaller) == left, f"parameters left after pruning {structure}"


@contextmanager
def lines_of_compaction() -> Iterator[list[str]]:
    """What compaction logs."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger(compact.__module__)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def assert_same(network: nn.Module, smaller: nn.Module, example: Example) -> None:
    """Compare outputs for the example and for other batches like it."""
    within = WITHIN[next(network.parameters()).dtype]
    for batch in (example, *batches_like(example)):
        for expected, computed in zip(outputs(network, batch), outputs(smaller, batch), strict=True):
            assert computed.dtype == expected.dtype
            assert (computed - expected).abs().max() <= within * expected.abs().max()


def in_double(made: Made) -> Made:
    network, example = made
    return network.double(), in_dtype(example, torch.float64)
