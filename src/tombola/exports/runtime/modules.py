"""Sparse layers in any module: for networks that do more than the kernels know, attention say."""

from __future__ import annotations

import copy
import logging

import torch
from torch import Tensor, nn

from tombola.engines.sparse.swap import put, try_out, unfit
from tombola.exports.agreement import disagreement
from tombola.exports.graph import Untraceable, graph_of
from tombola.exports.runtime.network import SparseNetwork, plain_copy
from tombola.exports.runtime.plan import Unplannable, plan_of
from tombola.exports.runtime.tuning import faster, tuned
from tombola.utils.text import first_line

log = logging.getLogger(__name__)


class SparseLayer(nn.Module):
    """A linear layer over the last axis of tensors with any number of axes, or a convolution, by `SparseNetwork`."""

    def __init__(self, layer: nn.Linear | nn.Conv2d, example: Tensor, threads: int | None = None) -> None:
        super().__init__()
        self.linear = isinstance(layer, nn.Linear)
        example = self._flat(example)
        self.network = SparseNetwork(tuned(plan_of(graph_of(layer, example))), threads)

    def forward(self, x: Tensor) -> Tensor:
        """What the layer would give."""
        out: Tensor = self.network(self._flat(x))
        return out.reshape(*x.shape[:-1], -1) if self.linear else out

    def _flat(self, x: Tensor) -> Tensor:
        return x.reshape(-1, x.shape[-1]) if self.linear else x


def with_sparse_layers(
    network: nn.Module, example: Tensor, threads: int | None = None
) -> tuple[nn.Module, list[str]]:
    """A copy of `network`, in evaluation mode, whose layers are sparse where that is faster for a batch such as
    `example`; and their names. The copy computes the same, which is made sure of: where it does not, all layers stay
    dense, and a warning says so. It cannot be trained."""
    plain = plain_copy(network)
    copied = copy.deepcopy(plain)
    shapes, _ = try_out(copied, example)
    names = []
    for name, layer in list(copied.named_modules()):
        if isinstance(layer, nn.Linear | nn.Conv2d) and unfit(copied, name, shapes) is None:
            inputs = torch.ones(shapes[name])
            try:
                sparse = SparseLayer(layer, inputs, threads)
            except (Unplannable, Untraceable):  # a convolution of a single image, say
                continue
            if _pays(sparse, layer, inputs):
                put(copied, name, sparse)
                names.append(name)
    if names:
        try:
            reason = disagreement(plain, copied, example)
        except Exception as error:  # noqa: BLE001 - whatever a module of the user's does with its layers
            reason = first_line(error)
        if reason is not None:
            log.warning("the network does not work with sparse layers, all stay dense: %s", reason)
            return plain, []
    return copied, names


@torch.inference_mode()
def _pays(sparse: nn.Module, dense: nn.Module, x: Tensor) -> bool:
    return faster(lambda: sparse(x), lambda: dense(x))
