"""Networks that are made smaller, and comparisons with what they computed before."""

from __future__ import annotations

import copy
import pickle
from typing import TypeVar

import torch
from torch import Tensor, nn

from tombola.exports.resizing import Kept, load_resized, resize

Module = TypeVar("Module", bound=nn.Module)


def randomised(network: Module, seed: int = 0) -> Module:
    """The network in float64 and evaluation mode; its floating tensors are random, variances positive."""
    generator = torch.Generator().manual_seed(seed)
    network = network.double().eval()
    with torch.no_grad():
        for name, tensor in (*network.named_parameters(), *network.named_buffers()):
            if tensor.is_floating_point():
                tensor.copy_(torch.randn(tensor.shape, generator=generator, dtype=torch.float64) / 2)
                if name.endswith("var"):
                    tensor.copy_(tensor.abs() + 0.5)
    return network


def values(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def indices(size: int, *removed: int) -> Tensor:
    """Which of `size` indices stay: all but these."""
    return torch.tensor([index not in removed for index in range(size)])


def resized(network: Module, kept: Kept) -> Module:
    """A smaller copy. A copy of it, its pickle, and what `load_resized` makes of its state, have the same tensors and
    the same sizes."""
    smaller = copy.deepcopy(network)
    resize(smaller, kept)
    state = {name: tensor.clone() for name, tensor in smaller.state_dict().items()}
    for again in (copy.deepcopy(smaller), pickle.loads(pickle.dumps(smaller)), load_resized(network, state)):
        assert repr(again) == repr(smaller)
        for name, tensor in state.items():
            assert torch.equal(again.state_dict()[name], tensor), name
        for one, other in zip(again.modules(), smaller.modules(), strict=True):
            assert type(one) is type(other)
            assert plain_attributes(one) == plain_attributes(other)
    return smaller


def plain_attributes(module: nn.Module) -> dict[str, object]:
    return {name: value for name, value in vars(module).items() if isinstance(value, int | float | str | tuple)}


def close(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=0, atol=1e-12)
