"""Compaction: a pruned network as a smaller dense one that computes the same."""

from __future__ import annotations

import copy
import logging

import numpy as np
import torch
from torch import Tensor, nn

from tombola.exports.agreement import disagreement
from tombola.exports.coupling import CoupledLayer, CoupledUnits, bias_of, numbers
from tombola.exports.graph import graph_of
from tombola.exports.liveness import Kept, kept, representative
from tombola.exports.resizing import TENSORS, resize
from tombola.pruning.hold import release
from tombola.utils.text import first_line
from tombola.zoo.models.resnet import Subsample

log = logging.getLogger(__name__)


def compact(network: nn.Module, example: Tensor) -> nn.Module:
    """A copy of `network`, in evaluation mode, without the units and channels that its outputs do not depend on.

    Weights that are zero count as pruned. What a removed unit always is, whatever the example, goes into the biases
    of those that read it; a layer without one may get one. The copy has the same modules by the same names, some of
    them smaller, and computes the same up to rounding. `example` is a batch of inputs of any size, on the CPU.

    A network whose steps cannot be seen, or that with smaller layers does not compute what it did, comes back as a
    plain copy; a warning in the log says why.
    """
    plain = copy.deepcopy(network).eval()
    release(plain)
    example = example.to(next((parameter.device for parameter in plain.parameters()), example.device))
    smaller = copy.deepcopy(plain)
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad(), np.errstate(all="ignore"):  # weights may be infinite
            shrink(smaller, example)
            reason = disagreement(plain, smaller, example)
    except Exception as error:  # noqa: BLE001 - whatever a module of the user's does with smaller layers
        reason = first_line(error)
    if reason is not None:
        log.warning("the network stays as large as it is, with smaller layers %s", reason)
        return plain
    return smaller if _size(smaller) <= _size(plain) else plain  # new biases may outweigh what has gone


def shrink(network: nn.Module, example: Tensor) -> None:
    """Make the layers of a network in evaluation mode smaller, in place, without a look at what it computes then.

    Raises `Untraceable`.
    """
    units = CoupledUnits(graph_of(network, example))
    left = kept(units)
    for layer in units.layers:
        if layer.is_product:
            _shrink_product(layer, left)
        else:
            _shrink_each(layer, left)


def _shrink_product(layer: CoupledLayer, left: Kept) -> None:
    """Leave out rows and columns. The constants of columns that go are put into the bias, or into another column."""
    module, constants = layer.module, np.nan_to_num(layer.reads.constants)
    assert isinstance(module, nn.Linear | nn.Conv2d)
    rows, columns = left.present[layer.gives.ids], left.present[layer.reads.ids]
    read, unread = left.used[layer.reads.ids], ~left.used[layer.gives.ids]
    weight, bias = numbers(module.weight), bias_of(module)
    weight[unread], bias[unread] = 0, 0
    lost = ~read & (constants != 0) & (weight != 0).reshape(*weight.shape[:2], -1).any((0, 2))
    if layer.padded and lost.any():
        one = representative(layer, left.used)
        weight[:, one] += np.einsum("oi...,i->o...", weight[:, lost], constants[lost] / constants[one])
    else:
        bias += weight.reshape(*weight.shape[:2], -1).sum(2)[:, lost] @ constants[lost]
    weight[:, ~read] = 0
    tensors = {"weight": torch.from_numpy(weight[rows][:, columns])}
    if module.bias is not None or bias[rows].any():
        tensors["bias"] = torch.from_numpy(bias[rows])
    resize(module, tensors)


def _shrink_each(layer: CoupledLayer, left: Kept) -> None:
    """The same for what treats every unit by itself."""
    present = torch.from_numpy(left.present[layer.gives.ids])
    if isinstance(layer.module, Subsample):
        layer.module.channels = int(present.sum())
        return
    tensors = {name: getattr(layer.module, name, None) for name in TENSORS}
    resize(layer.module, {n: tensor.cpu()[present] for n, tensor in tensors.items() if tensor is not None})


def _size(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())
