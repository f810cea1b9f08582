"""Compaction: a pruned network as a smaller dense one that computes the same."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tombola.exports.coupling import BoolArray, CoupledLayer, CoupledUnits, bias_of, to_float64
from tombola.exports.graph import graph_of
from tombola.exports.resizing import UNIT_TENSORS, resize
from tombola.pruning.hold import check_held, release
from tombola.utils.model_inputs import (
    Inputs,
    batch_size,
    batches_like,
    call,
    call_checked,
    clone,
    tensors,
    to_device_of,
)
from tombola.utils.network_copy import copy_network
from tombola.utils.random_state import seeded
from tombola.utils.text import first_line
from tombola.zoo.models.resnet import Subsample

log = logging.getLogger(__name__)

TOLERANCE = 1e-4
"""The largest allowed difference of outputs, relative to the largest of them; half precision is allowed more."""
MIN_RATIO = 0.1
"""A constant can replace another if it is at least this fraction of it; a smaller one would cost precision."""


def compact(network: nn.Module, example: Inputs) -> nn.Module:
    """A copy of `network`, in evaluation mode, without the units and channels that its outputs do not depend on.

    Weights that are zero count as pruned. A removed unit that is constant is added to the biases of its readers; a
    layer without a bias may get one. The copy has the same modules by the same names, some of them smaller, and
    computes the same up to rounding. `example` is a batch of inputs of any size: a tensor, a tuple of positional
    arguments, or a dict of keyword arguments. A network that cannot be traced, or whose outputs would change, is
    returned as a copy of the same size; a warning in the log says why.

    Only copies are run, and random states do not change; the same network and example give the same module. Raises
    `InputError` for a network that cannot be copied (see `copy_network`), does not take the example, or has a held
    weight that is pruned and not zero.
    """
    check_held(network)
    original = copy_network(network).eval()
    release(original)
    example = to_device_of(original, example)
    if batch_size(example):
        call_checked(copy_network(original), clone(example))
    smaller = copy_network(original)
    try:
        with seeded(0), torch.no_grad(), np.errstate(all="ignore"):  # weights may be infinite
            shrink(smaller, example)
            reason = output_mismatch(copy_network(original), copy_network(smaller), example)
    except Exception as error:  # noqa: BLE001 - a user's module may raise anything with smaller layers
        reason = first_line(error)
    if reason is not None:
        log.warning("the network is not compacted: with smaller layers, %s", reason)
        return original
    return smaller if _size(smaller) <= _size(original) else original  # new biases may need more than was removed


def shrink(network: nn.Module, example: Inputs) -> None:
    """Make the layers of a network in evaluation mode smaller, in place and unchecked. Raises `TracingError`."""
    units = CoupledUnits(graph_of(network, example))
    used, present = _live_units(units)
    for layer in units.layers:
        if layer.is_product:
            _shrink_product(layer, used, present)
        else:
            _shrink_each(layer, present)


def _live_units(units: CoupledUnits) -> tuple[BoolArray, BoolArray]:
    """Which units the outputs of a network depend on; and which stay: these, and one of each tensor without any.

    A unit is used if it is fixed, or if a used unit reads it with a nonzero weight. A constant unit is not used: it
    is added to the biases of its readers. Only a padded convolution cannot have a constant in its bias; there, one
    constant unit replaces all others.
    """
    used = np.zeros(units.count, dtype=np.bool_)
    used[units.fixed] = True
    products = [layer for layer in reversed(units.layers) if layer.is_product]
    changes = True
    while changes:
        _propagate(products, used)
        changes = False
        for layer in products:
            changes |= layer.padded and _add_substitute(layer, used)
    present = used.copy()
    for value in units.values:
        if len(value.ids) and not present[value.ids].any():
            present[value.ids[0]] = True
    return used, present


def _propagate(products: list[CoupledLayer], used: BoolArray) -> None:
    changes = True
    while changes:
        changes = False
        for layer in products:
            needed = layer.inputs.ids[_used_inputs(layer, used) & np.isnan(layer.inputs.constants)]
            changes |= not used[needed].all()
            used[needed] = True


def _used_inputs(layer: CoupledLayer, used: BoolArray) -> BoolArray:
    """Which inputs the used outputs of a layer depend on."""
    rows = layer.nonzero[used[layer.outputs.ids]]
    return np.asarray(rows.any(0), dtype=np.bool_)


def _add_substitute(layer: CoupledLayer, used: BoolArray) -> bool:
    """Use one more unit if the constants that a padded layer loses need it. Returns whether one was added."""
    sizes = np.abs(np.nan_to_num(layer.inputs.constants))
    in_use = used[layer.inputs.ids]
    lost = np.where(_used_inputs(layer, used) & ~in_use, sizes, 0)
    if lost.max(initial=0) * MIN_RATIO <= np.where(in_use, sizes, 0).max(initial=0):
        return False
    used[layer.inputs.ids[lost.argmax()]] = True
    return True


def _substitute_input(layer: CoupledLayer, used: BoolArray) -> int:
    """Which input of a padded layer replaces the constant inputs that are not used."""
    sizes = np.abs(np.nan_to_num(layer.inputs.constants))
    return int(np.where(used[layer.inputs.ids], sizes, 0).argmax())


def _shrink_product(layer: CoupledLayer, used: BoolArray, present: BoolArray) -> None:
    """Remove rows and columns. The constants of removed columns are added to the bias, or to another column."""
    module, constants = layer.module, np.nan_to_num(layer.inputs.constants)
    assert isinstance(module, nn.Linear | nn.Conv2d)
    rows, columns = present[layer.outputs.ids], present[layer.inputs.ids]
    read, unread = used[layer.inputs.ids], ~used[layer.outputs.ids]
    weight, bias = to_float64(module.weight), bias_of(module)
    weight[unread], bias[unread] = 0, 0
    lost = ~read & (constants != 0) & (weight != 0).reshape(*weight.shape[:2], -1).any((0, 2))
    if layer.padded and lost.any():
        one = _substitute_input(layer, used)
        weight[:, one] += np.einsum("oi...,i->o...", weight[:, lost], constants[lost] / constants[one])
    else:
        bias += weight.reshape(*weight.shape[:2], -1).sum(2)[:, lost] @ constants[lost]
    weight[:, ~read] = 0
    tensors = {"weight": torch.from_numpy(weight[rows][:, columns])}
    if module.bias is not None or bias[rows].any():
        tensors["bias"] = torch.from_numpy(bias[rows])
    resize(module, tensors)


def _shrink_each(layer: CoupledLayer, present: BoolArray) -> None:
    """Shrink a layer that acts on each unit independently."""
    kept = torch.from_numpy(present[layer.outputs.ids])
    if isinstance(layer.module, Subsample):
        layer.module.channels = int(kept.sum())
        return
    tensors = {name: getattr(layer.module, name, None) for name in UNIT_TENSORS}
    resize(layer.module, {n: tensor.cpu()[kept] for n, tensor in tensors.items() if tensor is not None})


def _size(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@torch.no_grad()
def output_mismatch(network: Callable[..., Any], other: Callable[..., Any], example: Inputs) -> str | None:
    """How the outputs of `other` differ from those of `network`; None if they agree up to rounding.

    Both are called with the example, and with batches of its size, of two and of one (see `batches_like`), except
    those that `network` does not take; before each call, random states are set alike. Infinite and NaN outputs have
    to be the same in both. Raises what `network` raises for the example, and what `other` raises.
    """
    compared = 0
    for number, batch in enumerate([*[example] * (batch_size(example) > 0), *batches_like(example)]):
        try:
            before = _outputs(network, batch)
        except Exception:  # a user's module may raise anything, such as for numbers that it takes for indices
            if number == 0:
                raise
            continue
        after = _outputs(other, batch)
        if len(after) != len(before):
            return f"it returns {len(after)} tensors instead of {len(before)}"
        reason = next(filter(None, map(_difference, before, after)), None)
        if reason is not None:
            return reason
        compared += len(before)
    return None if compared else "it returns no tensors that could be compared"


def _outputs(network: Callable[..., Any], batch: Inputs) -> list[Tensor]:
    with seeded(0):
        return [*tensors(call(network, clone(batch)))]


def _difference(before: Tensor, after: Tensor) -> str | None:
    if before.shape != after.shape or before.dtype != after.dtype:
        return f"its outputs have shape {tuple(after.shape)} instead of {tuple(before.shape)}"
    wide = torch.complex128 if before.is_complex() else torch.float64
    coarse = 8 * torch.finfo(before.dtype).eps if before.is_floating_point() else 0.0
    before, after = before.to(wide), after.to(wide)
    finite = before[before.isfinite()].abs()
    scale = float(finite.max()) if finite.numel() else 0.0
    if not torch.allclose(after, before, rtol=0, atol=max(TOLERANCE, coarse) * scale, equal_nan=True):
        far = float((after - before).abs().max())
        return f"its outputs differ by up to {far:.2g}; the largest output is {scale:.2g}"
    return None
