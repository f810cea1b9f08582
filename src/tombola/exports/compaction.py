"""Compaction: a pruned network as a smaller dense one that computes the same."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from tombola.exports.agreement import output_mismatch
from tombola.exports.folding import fold
from tombola.exports.liveness import live_units, readers
from tombola.exports.repair import Mismatch, first_mismatch, repair
from tombola.exports.resizing import resize
from tombola.exports.resizing.norms import entries, lacks_weight
from tombola.graph.constants import BoolArray, Constants
from tombola.graph.coupling import Coupling, coupling
from tombola.graph.ties import IntArray, vector
from tombola.pruning.hold import check_held, release
from tombola.pruning.network_state import named_tensors
from tombola.utils.errors import InputError
from tombola.utils.model_inputs import Inputs, batch_size, call_checked, clone, rows, to_device_of
from tombola.utils.network_copy import copy_network
from tombola.utils.random_state import seeded
from tombola.utils.text import first_line, plural

log = logging.getLogger(__name__)


def compact(network: nn.Module, example: Inputs) -> nn.Module:
    """A copy of `network`, in evaluation mode, without the units and channels that its outputs do not depend on.

    Weights that are zero count as pruned. A removed unit that is constant is added to the biases of its readers; a
    layer without a bias may get one. The copy has the same modules by the same names, some of them smaller, and
    computes the same up to rounding. `example` is a batch of inputs of any size: a tensor, a tuple of positional
    arguments, or a dict of keyword arguments. Units whose removal the network's code does not allow stay, and a line
    in the log names where. A network whose outputs would change is returned as a copy of the same size; a warning in
    the log says why.

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
    try:
        with torch.no_grad(), np.errstate(all="ignore"):  # weights may be infinite
            smaller = shrunk(original, example)
    except Exception as error:  # noqa: BLE001 - a user's module may raise anything with smaller layers
        log.warning("the network is not compacted: with smaller layers, %s", first_line(error))
        return original
    return smaller if _size(smaller) <= _size(original) else original  # new biases may need more than was removed


def shrunk(network: nn.Module, example: Inputs) -> nn.Module:
    """A smaller copy of a network in evaluation mode, with the same outputs.

    Where a size stands in the network's code, the smaller copy fails, or its outputs differ. Then its operations are
    compared with those of the network; at the first with another shape than expected, an attribute with that size is
    changed, or else the units stay. Raises an error that says how outputs differ, if all operations are as expected.
    """
    units = coupling(network, example)
    constants = Constants(units, named_tensors(network))
    all_readers = readers(units, constants, network)
    kept: dict[int, str] = {}
    while True:
        used, present = live_units(units, constants, all_readers, kept)
        smaller = copy_network(network)
        for reader in all_readers:
            fold(smaller, reader, used)
        try:
            resize(smaller, _kept_indices(smaller, units, present))
        except InputError as error:
            refused = _removed_from(str(error).partition(":")[0], units, present)
            if not refused:
                raise
            kept |= dict.fromkeys(refused, str(error))
            continue
        reason, mismatch = _repaired(network, smaller, example, units, present)
        if reason is None:
            break
        if mismatch is None or not mismatch.removed:
            raise RuntimeError(reason)
        kept |= dict.fromkeys(mismatch.removed, f"{mismatch.label} has a fixed size: {reason}")
    for label in dict.fromkeys(kept.values()):
        count = sum(each == label for each in kept.values())
        log.warning("%s could not be removed: %s", plural(count, "unit"), label)
    return smaller


def _repaired(
    network: nn.Module, smaller: nn.Module, example: Inputs, units: Coupling, present: BoolArray
) -> tuple[str | None, Mismatch | None]:
    """Change sizes in attributes of the smaller network's modules until its outputs agree with those of `network`.
    Returns how they differ, None if they agree, and the first operation that is not as expected and stays so."""
    two, former = rows(example, slice(2)), -1
    restore: Callable[[], None] | None = None
    while True:
        reason = _disagreement(network, smaller, example)
        mismatch = None if reason is None else first_mismatch(network, smaller, two, units, present)
        if mismatch is None:
            return reason, None
        if mismatch.position <= former and restore is not None:  # the change did not help
            restore()
            return reason, mismatch
        former, restore = mismatch.position, repair(smaller, mismatch)
        if restore is None:
            return reason, mismatch


def _disagreement(network: nn.Module, smaller: nn.Module, example: Inputs) -> str | None:
    """How the outputs of the smaller network differ; None if they agree."""
    try:
        with seeded(0):
            return output_mismatch(copy_network(network), copy_network(smaller), example)
    except Exception as error:  # noqa: BLE001 - a user's module may raise anything with smaller layers
        return first_line(error)


def _kept_indices(network: nn.Module, units: Coupling, present: BoolArray) -> dict[str, list[Tensor | None]]:
    """For each axis of the parameters and buffers that become smaller, which entries stay: bool."""
    kept, named = {}, named_tensors(network)
    for name in named:
        axes = units.parameters.get(name)
        if axes is not None:
            flags = [_flags(each, present) for each in axes]
            if any(each is not None for each in flags):
                kept[name] = flags
    for name, ids in _without_weights(network, units):
        rows = _flags(ids, present) if (ids >= 0).all() else None
        if rows is not None:
            kept[name] = [rows]
    for product in units.products:  # biases that constants were added to
        bias = product.weight.removesuffix("weight") + "bias"
        rows = _flags(product.outputs, present)
        if bias in named and bias not in units.parameters and rows is not None:
            kept[bias] = [rows]
    return kept


def _removed_from(path: str, units: Coupling, present: BoolArray) -> list[int]:
    """The units of the parameters of a module, or of one parameter, that are not present."""
    axes = [each for name, each in units.parameters.items() if f"{name}.".startswith(f"{path}.")]
    found = {int(unit) for each in axes for ids in each if ids is not None for unit in ids}
    return [unit for unit in sorted(found) if not present[unit]]


def _without_weights(network: nn.Module, units: Coupling) -> Iterator[tuple[str, IntArray]]:
    """The layers that normalise without weights, by the name of the weight that they lack, and the units along it."""
    for operation in units.graph.operations:
        module = network.get_submodule(operation.module)
        norm = isinstance(module, nn.GroupNorm | nn.LayerNorm | nn.RMSNorm) and lacks_weight(module, "weight")
        if norm and operation.inputs and len(entries(module)) == 1:
            tensor, axis = units.tensors.get(operation.inputs[0]), 1 if isinstance(module, nn.GroupNorm) else -1
            if tensor is not None and tensor.dim() > 1 and tensor.shape[axis] == entries(module)[0]:
                yield f"{operation.module}.weight".removeprefix("."), vector(tensor, axis).long().numpy()


def _flags(units: IntArray | None, present: BoolArray) -> Tensor | None:
    return None if units is None or present[units].all() else torch.from_numpy(present[units])


def _size(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())
