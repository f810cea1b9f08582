"""Sparse layers in any module: for networks with operations that the kernels cannot compute, such as attention."""

from __future__ import annotations

import copy
import logging

import torch
from torch import Tensor, nn

from tombola.engines.sparse.sparsify import record_input_shapes, replace_module, why_not_sparse
from tombola.exports.compaction import output_mismatch
from tombola.exports.graph import TracingError, graph_of
from tombola.exports.runtime.network import SparseNetwork, cpu_copy
from tombola.exports.runtime.plan import UnsupportedNetwork
from tombola.exports.runtime.planner import plan_of
from tombola.exports.runtime.tuning import is_faster, tuned
from tombola.utils.text import first_line

log = logging.getLogger(__name__)


class SparseLayer(nn.Module):
    """A `SparseNetwork` in place of a convolution, or of a linear layer over the last of any number of axes."""

    def __init__(self, layer: nn.Linear | nn.Conv2d, example: Tensor, threads: int | None = None) -> None:
        super().__init__()
        self.linear = isinstance(layer, nn.Linear)
        example = self._flat(example)
        self.network = SparseNetwork(tuned(plan_of(graph_of(layer, example))), threads)

    def forward(self, x: Tensor) -> Tensor:
        """The output of the layer."""
        out: Tensor = self.network(self._flat(x))
        return out.reshape(*x.shape[:-1], -1) if self.linear else out

    def _flat(self, x: Tensor) -> Tensor:
        return x.reshape(-1, x.shape[-1]) if self.linear else x


def with_sparse_layers(
    network: nn.Module, example: Tensor, threads: int | None = None
) -> tuple[nn.Module, list[str]]:
    """A copy of `network` in eval mode, with sparse layers if they are faster for a batch like `example`; and names.

    If its outputs for `example` differ, all layers stay dense, with a warning. It cannot be trained.
    """
    dense = cpu_copy(network)
    copied = copy.deepcopy(dense)
    shapes, _ = record_input_shapes(copied, example)
    names = []
    for name, layer in list(copied.named_modules()):
        if isinstance(layer, nn.Linear | nn.Conv2d) and why_not_sparse(copied, name, shapes) is None:
            inputs = torch.ones(shapes[name])
            try:
                sparse = SparseLayer(layer, inputs, threads)
            except (UnsupportedNetwork, TracingError):  # such as a convolution of a single image
                continue
            if _sparse_is_faster(sparse, layer, inputs):
                replace_module(copied, name, sparse)
                names.append(name)
    if names:
        try:
            reason = output_mismatch(dense, copied, example)
        except Exception as error:  # noqa: BLE001 - a user's module may raise anything with other layers
            reason = first_line(error)
        if reason is not None:
            log.warning("the network does not work with sparse layers, all stay dense: %s", reason)
            return dense, []
    return copied, names


@torch.inference_mode()
def _sparse_is_faster(sparse: nn.Module, dense: nn.Module, x: Tensor) -> bool:
    return is_faster(lambda: sparse(x), lambda: dense(x))
