"""Folding: constant inputs of a layer become part of its bias, so that the layer no longer reads them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from tombola.exports.liveness import UnitReader, substitute_input
from tombola.graph.constants import BoolArray, FloatArray


def fold(network: nn.Module, reader: UnitReader, used: BoolArray) -> None:
    """Add the constants that a layer of `network` reads from units that are not used to its bias, which it may not
    have had, or to the weights of another constant input.

    Weights for these units, and outputs that are not used, become zero.
    """
    if reader.layer is None:
        return
    module, product = network.get_submodule(reader.layer), reader.weights.product
    parameter = module.weight
    assert isinstance(parameter, Tensor)
    read, unread = reader.of_inputs(used), ~used[reader.outputs]
    if read.all() and not unread.any():
        return
    constants = np.nan_to_num(reader.constants)
    bias = np.zeros(len(reader.outputs)) if module.bias is None else _float64(module.bias)
    bias[unread] = 0
    lost = ~read & (constants != 0) & reader.weights.nonzero[~unread].any(0)
    if product.groups == 1:
        out, into = product.axes
        weight = np.moveaxis(_float64(parameter), (out, into), (0, 1))
        weight[unread] = 0
        if reader.spreads and lost.any():
            one = substitute_input(reader, used)
            weight[:, one] += np.einsum("oi...,i->o...", weight[:, lost], constants[lost] / constants[one])
        else:
            bias += weight.reshape(*weight.shape[:2], -1).sum(2)[:, lost] @ constants[lost]
        weight[:, ~read] = 0
        _set(parameter, np.moveaxis(weight, (0, 1), (out, into)))
    else:
        bias[~unread] += (reader.weights.sums[:, lost] @ constants[lost])[~unread]
    if module.bias is not None:
        assert isinstance(module.bias, Tensor)
        _set(module.bias, bias)
    elif bias.any():
        module.bias = nn.Parameter(torch.from_numpy(bias).to(parameter), parameter.requires_grad)


def _set(parameter: Tensor, values: FloatArray) -> None:
    with torch.no_grad():
        parameter.copy_(torch.from_numpy(np.ascontiguousarray(values)))


def _float64(tensor: object) -> FloatArray:
    assert isinstance(tensor, Tensor)
    return np.array(tensor.detach().cpu().double().numpy())
