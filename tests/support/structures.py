"""Networks and one pruning step, for tests of structures."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from tests.support.prunable import prunable_network
from tombola.pruning.mask import Mask
from tombola.pruning.options import PruningOptions
from tombola.pruning.prunable_network import PrunableNetwork
from tombola.pruning.scores.weights import uniform
from tombola.pruning.structures import NMPattern, Structure, UnitStructure


def network(*widths: int, seed: int = 0) -> nn.Module:
    """Linear layers `0`, `1`, ... of these widths."""
    torch.manual_seed(seed)
    return nn.Sequential(*(nn.Linear(a, b) for a, b in pairwise(widths)))


def n_of_m(n: int, m: int, made: nn.Module) -> NMPattern:
    return NMPattern(n, m, PrunableNetwork(made).layers)


def prune(
    structure: Structure, mask: Mask, rate: float, scores: dict[str, Tensor] | None = None, **scope_options: Any
) -> Mask:
    """One pruning step, at random if no scores are given."""
    options = PruningOptions(rate=rate, **scope_options)
    if isinstance(structure, UnitStructure):
        structure = replace(structure, together=options.scope == "global")
    chosen = options.scope_of(prunable_network(mask.shapes), structure)
    counts = chosen.keeps(structure.units_left(mask, chosen))
    return structure.keep_best(uniform(mask, 0) if scores is None else scores, mask, counts)


def conv1d(inputs: int, outputs: int) -> nn.Module:
    """Hugging Face's layer, of weight [in, out]."""
    from transformers.pytorch_utils import Conv1D

    made: nn.Module = Conv1D(outputs, inputs)
    return made


def assert_whole(parts: list[Tensor]) -> list[bool]:
    """Units, along the first axis of each part, are whole or gone whole. Returns which are left."""
    units = torch.cat([part.flatten(1) for part in parts], 1)
    assert torch.equal(units.any(1), units.all(1))
    return units.any(1).tolist()
