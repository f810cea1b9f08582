"""The sparse runtime: a network that stores and multiplies only the weights left, on a CPU."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor, nn

from tombola.ship.graph import Untraceable

if TYPE_CHECKING:
    from tombola.ship.runtime.network import SparseNetwork


def sparse(network: nn.Module, example: Tensor, threads: int | None = None) -> nn.Module:
    """`network` in evaluation mode, computed by its nonzero weights only: float32, on the CPU, without gradients.

    `example` is a batch of inputs; shapes are those of its examples from then on, batches can be of any size. Where
    the network is made of linear layers, convolutions, batch norm, ReLU, pooling, additions and concatenations, it
    becomes one compiled program, a `SparseNetwork`, which can be saved and loaded by itself. In any other network
    those layers are replaced that are faster sparse. Which are is measured on this machine. `threads` work on a large
    batch (default: as many as torch uses).
    """
    from tombola.ship.runtime.layers import with_sparse_layers
    from tombola.ship.runtime.network import sparse_network
    from tombola.ship.runtime.plan import Unplannable

    try:
        return sparse_network(network, example, threads)
    except (Unplannable, Untraceable):
        return with_sparse_layers(network, example, threads)[0]


def load_sparse(path: str | Path, threads: int | None = None) -> SparseNetwork:
    """The network in a file that `SparseNetwork.save` or `tombola ticket export` wrote. Nothing in it is executed.

    Raises `InputError` when there is no such file, it is damaged, or it is no sparse network.
    """
    from tombola.ship.runtime.network import SparseNetwork

    return SparseNetwork.load(path, threads)
