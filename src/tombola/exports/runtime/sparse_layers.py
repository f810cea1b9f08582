"""Sparse layers in any module: for networks with operations that the kernels cannot compute, such as attention."""

from __future__ import annotations

import copy
import logging
import math

import torch
from torch import Tensor, nn

from tombola.engines.sparse.candidates import record_input_shapes, why_not_sparse
from tombola.engines.sparse.modules import avoid_fused_path
from tombola.exports.agreement import output_mismatch
from tombola.exports.runtime.network import SparseNetwork, cpu_copy
from tombola.exports.runtime.tuning import is_faster, tuned
from tombola.kernels.plans.plan import UnsupportedNetwork
from tombola.kernels.plans.planner import plan_of
from tombola.kernels.plans.steps import TracingError, graph_of
from tombola.utils.model_inputs import Inputs, call, clone
from tombola.utils.network_copy import copy_network
from tombola.utils.random_state import preserve_rng_state
from tombola.utils.text import first_line

log = logging.getLogger(__name__)


class SparseLayer(nn.Module):
    """A `SparseNetwork` in place of a convolution, or of a linear layer over the last of any number of axes.

    It has the attributes of the layer. Of its weight it has the type, device and shape only: its numbers read as NaN.
    """

    needed_dense = False
    """Whether something accessed its weight, or called it with inputs that it does not support."""

    def __init__(self, layer: nn.Linear | nn.Conv2d, example: Tensor, threads: int | None = None) -> None:
        super().__init__()
        vars(self).update({name: value for name, value in vars(layer).items() if name not in vars(self)})
        self.linear = isinstance(layer, nn.Linear)
        self.weight_shape = layer.weight.shape
        self.bias = layer.bias
        example = self._flat(example)
        self.network = SparseNetwork(tuned(plan_of(graph_of(layer, example))), threads)
        self.eval()
        avoid_fused_path(self)

    @property
    def weight(self) -> Tensor:
        """A tensor of the type, device and shape of the weight, without memory for its numbers."""
        self.needed_dense = True
        return torch.tensor(math.nan).expand(self.weight_shape)

    def forward(self, input: Tensor) -> Tensor:  # torch's name, used in calls by keyword
        """The output of the layer."""
        try:
            out: Tensor = self.network(self._flat(input))
        except Exception:  # of inputs that it does not support; raised again
            self.needed_dense = True
            raise
        return out.reshape(*input.shape[:-1], -1) if self.linear else out

    def _flat(self, x: Tensor) -> Tensor:
        return x.reshape(-1, x.shape[-1]) if self.linear else x


def with_sparse_layers(
    network: nn.Module, example: Inputs, threads: int | None = None
) -> tuple[nn.Module, list[str]]:
    """A copy of `network` in eval mode, with sparse layers if they are faster for `example`; and their names.

    `example` is a tensor, a tuple or a dict, as in `call`. Layers whose weights the network computes with, or that it
    calls with images of several sizes, stay dense. If its outputs differ for another reason, all layers do, with a
    warning. It cannot be trained.
    """
    dense = cpu_copy(network)
    try:
        chosen = _faster_layers(dense, example, threads)
    except Exception as error:  # noqa: BLE001 - a user's module may not work with hooks
        log.warning("the network does not work with hooks, all layers stay dense: %s", first_line(error))
        chosen = {}
    while chosen:
        copied = copy_network(dense)
        for name, layer in chosen.items():
            _replace_module(copied, name, copy.deepcopy(layer))
        reason = _why_different(dense, copied, example)
        if reason is None:
            return copied, list(chosen)
        needed = [name for name in chosen if copied.get_submodule(name).needed_dense]
        if not needed:
            log.warning("the network does not work with sparse layers, all stay dense: %s", reason)
            break
        log.info("%s stays dense: the network accesses its weight, or calls it with other inputs", ", ".join(needed))
        chosen = {name: layer for name, layer in chosen.items() if name not in needed}
    return dense, []


def _faster_layers(network: nn.Module, example: Inputs, threads: int | None) -> dict[str, SparseLayer]:
    """Sparse layers for those layers of `network` that they are faster than."""
    copied = copy_network(network)
    shapes = record_input_shapes(copied, lambda: call(copied, clone(example)))
    faster = {}
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Linear | nn.Conv2d) and why_not_sparse(network, name, shapes) is None:
            inputs = torch.ones(shapes[name])
            try:
                sparse = SparseLayer(layer, inputs, threads)
            except (UnsupportedNetwork, TracingError):  # such as a convolution of a single image
                continue
            if _sparse_is_faster(sparse, layer, inputs):
                faster[name] = sparse
    return faster


def _why_different(dense: nn.Module, sparse: nn.Module, example: Inputs) -> str | None:
    """How the outputs of a network with sparse layers differ, or the error that it raises; with and without autograd,
    because modules of torch compute in different ways then. None if it computes the same."""
    try:
        with preserve_rng_state():
            for mode in (torch.no_grad(), torch.enable_grad()):
                if reason := output_mismatch(mode(dense.__call__), mode(sparse.__call__), example):
                    return reason
    except Exception as error:  # noqa: BLE001 - a user's module may raise anything with other layers
        return first_line(error)
    return None


def _replace_module(network: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(network.get_submodule(parent), last, layer)


@torch.inference_mode()
def _sparse_is_faster(sparse: nn.Module, dense: nn.Module, x: Tensor) -> bool:
    return is_faster(lambda: sparse(x), lambda: dense(x))
