"""The sparse runtime: a network that stores and multiplies only the weights left, on a CPU."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor, nn

from tombola.exports.graph import Untraceable
from tombola.utils.errors import InputError

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from tombola.exports.runtime.network import SparseNetwork


def sparse(network: nn.Module, example: Tensor, threads: int | None = None) -> nn.Module:
    """`network` in evaluation mode, computed by its nonzero weights only: float32, on the CPU, without gradients.

    `example` is a batch of inputs; shapes are those of its examples from then on, batches can be of any size. Where
    the network is made of linear layers, convolutions, batch norm, ReLU, pooling, additions and concatenations, it
    becomes one compiled program, a `SparseNetwork`, which can be saved and loaded by itself. In any other network
    those layers are replaced that are faster sparse. Which are is measured on this machine. `threads` work on a large
    batch (default: as many as torch uses). A warning in the log says why it is not one program.

    Raises `InputError` for an example that is no batch, and a number of threads that is none.
    """
    from tombola.exports.runtime.modules import with_sparse_layers
    from tombola.exports.runtime.network import sparse_network
    from tombola.exports.runtime.plan import Unplannable

    if not isinstance(example, Tensor) or example.dim() < 2:
        what = tuple(example.shape) if isinstance(example, Tensor) else type(example).__name__
        raise InputError(f"example: should be a batch of inputs, a tensor (N, ...), not {what}")
    try:
        return sparse_network(network, example, threads)
    except (Unplannable, Untraceable) as error:
        made, names = with_sparse_layers(network, example, threads)
        log.warning("not one program, but a module with %d sparse layers: %s", len(names), error)
        return made


def load_sparse(path: str | Path, threads: int | None = None) -> SparseNetwork:
    """The network in a file that `SparseNetwork.save` or `tombola ticket export` wrote. Nothing in it is executed.

    Raises `InputError` when there is no such file, it is damaged, or it is no sparse network.
    """
    from tombola.exports.runtime.network import SparseNetwork

    return SparseNetwork.load(path, threads)
