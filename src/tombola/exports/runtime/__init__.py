"""The sparse runtime: a network that stores and multiplies only the kept weights, on a CPU."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor, nn

from tombola.kernels.plans.steps import TracingError
from tombola.utils.errors import InputError
from tombola.utils.model_inputs import Inputs, batch_size, call_checked, map_tensors

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from tombola.exports.runtime.network import SparseNetwork


def sparse(network: nn.Module, example: Inputs, threads: int | None = None) -> nn.Module:
    """`network` in evaluation mode, computed with its nonzero weights only: float32, on the CPU, without gradients.

    `example` is a batch of inputs: a tensor, a tuple of the network's positional arguments, or a dict of its keyword
    arguments. Later batches have the same shape but any size. A network of linear layers, convolutions, batch norm,
    ReLU, pooling, additions and concatenations that takes one tensor becomes one compiled program, a `SparseNetwork`,
    which can be saved and loaded without the network's code. In any other network, layers are replaced if they are
    faster sparse, which is measured on this machine, and a warning in the log says why it is not one program.
    `threads` share a large batch (default: as many as torch uses). Raises `InputError` for an invalid `example` or
    number of threads, and for a network that cannot be copied, or does not take the example.
    """
    from tombola.exports.runtime.network import cpu_copy, sparse_network
    from tombola.exports.runtime.sparse_layers import with_sparse_layers
    from tombola.kernels.plans.plan import UnsupportedNetwork

    if isinstance(example, Tensor) and example.dim() < 2:
        raise InputError(f"example: should be a batch of inputs, a tensor (N, ...), not {tuple(example.shape)}")
    if batch_size(example):
        call_checked(cpu_copy(network), map_tensors(lambda tensor: tensor.cpu().clone(), example))
    try:
        return sparse_network(network, example, threads)
    except (UnsupportedNetwork, TracingError) as error:
        made, names = with_sparse_layers(network, example, threads)
        log.warning("not one program, but a module with %d sparse layers: %s", len(names), error)
        return made


def load_sparse(path: str | Path, threads: int | None = None) -> SparseNetwork:
    """The network in a file of `SparseNetwork.save` or `tombola ticket export`: see `SparseNetwork.load`."""
    from tombola.exports.runtime.network import SparseNetwork

    return SparseNetwork.load(path, threads)
