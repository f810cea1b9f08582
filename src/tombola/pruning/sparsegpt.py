"""SparseGPT: one-shot pruning that updates the weights left, so that each layer's output changes little."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tombola.pruning.layers import Kind, Layer, by_layer
from tombola.pruning.mask import Mask
from tombola.pruning.prunable_layers import layers_of
from tombola.pruning.ranking import select_best
from tombola.pruning.scopes import Counts, Group, allocate
from tombola.pruning.scores.activations import inputs_of
from tombola.pruning.scores.inputs import ScoreInputs
from tombola.pruning.structures import NMPattern, Rows, Structure, UnitStructure
from tombola.pruning.structures.rows import best_of_rows
from tombola.utils.errors import InputError

BLOCK = 128
"""The columns whose weights are chosen together (section 3.2); later ones are updated after each block (3.4)."""
DAMPENING = 0.01
"""Of the mean of the Hessian's diagonal, added to it (appendix A)."""

_KINDS: tuple[Kind, ...] = ("linear", "convolution", "Conv1D", "projection")

Select = Callable[[Tensor, int], Tensor]
"""(saliencies of some columns [out, columns], the index of the first of them) -> which are kept, bool."""


def prune_and_update(inputs: ScoreInputs, structure: Structure, counts: Counts) -> tuple[Mask, dict[str, Tensor]]:
    """Prune layer after layer, in the order of their first use, each with the inputs it has behind the pruned layers
    before it (SparseGPT, Frantar & Alistarh 2023, arXiv 2301.00774, section 3). The mask, and the updated weights by
    parameter.

    Each layer takes a pass over the batches. The authors' code takes one for each transformer block, and prunes its
    layers by the inputs that they have before any of them is pruned. Raises `InputError` for layers of other kinds,
    groups of several layers, structures other than single weights and `n:m`, and layers that the batches do not
    reach.
    """
    if isinstance(structure, UnitStructure):
        raise InputError('score: "sparsegpt" prunes single weights or n:m, not units')
    if any(len(group) > 1 for group in counts):
        raise InputError('scope: "sparsegpt" prunes layer by layer; use "layer", "row" or "erk"')
    network = inputs.network()
    weights = dict(network.named_parameters())
    layers = {layer.name: layer for layer in layers_of(network, inputs.weights) if (layer.name,) in counts}
    for layer in layers.values():
        _check_kind(layer)
    kept: dict[str, Tensor] = {}
    for layer in _in_order_of_use(inputs, network, layers):
        weight = by_layer({layer.parameter: weights[layer.parameter].detach()})[layer.name]
        columns = _columns(weight, layer)  # [out, in]
        select = _selection(structure, counts[layer.name,], columns.shape)
        hessian = _hessian(inputs, network, layer)
        if not hessian.isfinite().all():
            raise InputError(f"data: the inputs of {layer.label} are not finite")
        updated, mask = solve(columns.double(), hessian, select, _block(structure))
        weight.copy_(_from_columns(updated, layer))  # a view of the copied network's weight
        kept[layer.name] = _from_columns(mask, layer).cpu()
    found = inputs.mask.with_layers(kept)
    return found, {name: weights[name].detach() for name in inputs.weights}


def solve(weight: Tensor, hessian: Tensor, select: Select, block: int = BLOCK) -> tuple[Tensor, Tensor]:
    """Prune a weight [out, in] by columns, and update those behind each so that the squared change of the outputs is
    least; `hessian` is X Xᵀ [in, in] of the inputs X. The updated weight, and which are kept (algorithm 1).

    A column that has been passed keeps its values, so the inverse Hessian is the same for all rows: that makes it
    fast, and its error a little larger than that of the least-squares solution for the same mask. In each block
    `select` chooses by w² / [H⁻¹]ⱼⱼ of the weights as updated so far; it is 0 where the input always is.
    """
    weight, hessian = weight.clone(), hessian.clone()
    unused = hessian.diagonal() == 0
    hessian.diagonal().masked_fill_(unused, 1)
    hessian.diagonal().add_(DAMPENING * hessian.diagonal().mean())
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
    upper = torch.linalg.cholesky(inverse, upper=True)  # of the inverses behind each column, in its rows
    kept = torch.ones_like(weight, dtype=torch.bool)
    for begin in range(0, weight.shape[1], block):
        end = min(begin + block, weight.shape[1])
        errors = torch.zeros_like(weight[:, begin:end])
        saliencies = (weight[:, begin:end] / upper.diagonal()[begin:end]).square()
        kept[:, begin:end] = select(saliencies.masked_fill(unused[begin:end], 0), begin)
        for j in range(begin, end):
            error = weight[:, j].masked_fill(kept[:, j], 0) / upper[j, j]
            weight[:, j:end] -= error[:, None] * upper[j, j:end]
            errors[:, j - begin] = error
        weight[:, end:] -= errors @ upper[begin:end, end:]
    return weight.masked_fill_(~kept, 0), kept


def _selection(structure: Structure, count: int, shape: torch.Size) -> Select:
    """Keeps an exact number of a layer's weights, those of each block of columns in proportion to its size."""
    rows, columns = shape
    if isinstance(structure, NMPattern):
        n, m = structure.n, structure.m

        def n_of_m(saliencies: Tensor, _: int) -> Tensor:
            groups = saliencies.reshape(-1, m)
            every = torch.ones_like(groups, dtype=torch.bool)
            return best_of_rows(groups, every, n * len(groups)).view_as(saliencies)

        return n_of_m
    sizes: dict[Group, int] = {
        (str(begin),): rows * (min(begin + BLOCK, columns) - begin) for begin in range(0, columns, BLOCK)
    }
    by_row = isinstance(structure, Rows)
    if by_row:
        sizes = {group: size // rows for group, size in sizes.items()}
    counts = allocate(count // rows if by_row else count, {group: float(n) for group, n in sizes.items()}, sizes)

    def best(saliencies: Tensor, begin: int) -> Tensor:
        every, block = torch.ones_like(saliencies, dtype=torch.bool), counts[str(begin),]
        if by_row:
            return best_of_rows(saliencies, every, block * rows)
        return select_best(saliencies.flatten(), every.flatten(), block, ()).view_as(saliencies)

    return best


def _block(structure: Structure) -> int:
    """With n of m weights, these are chosen when the columns before them have been pruned (section 3.3)."""
    return structure.m if isinstance(structure, NMPattern) else BLOCK


def _check_kind(layer: Layer) -> None:
    advice = f'leave_out=["{layer.label}"] keeps it dense'
    if layer.kind not in _KINDS:
        raise InputError(f'score: "sparsegpt" does not support {layer.label}, of kind {layer.kind}; {advice}')
    module = layer.module
    if layer.kind == "convolution" and not (
        isinstance(module, nn.Conv2d) and module.groups == 1 and module.padding_mode == "zeros"
    ):
        what = "two dimensions, one group and zeros as padding"
        raise InputError(f'score: "sparsegpt" supports convolutions of {what}; {layer.label} is another; {advice}')


def _in_order_of_use(inputs: ScoreInputs, network: nn.Module, layers: Mapping[str, Layer]) -> list[Layer]:
    """The layers as a forward pass comes to them. Raises `InputError` for one that it does not use."""
    used: dict[str, None] = {}
    _run(inputs, network, [*layers.values()], lambda layer, _, __: used.setdefault(layer.name, None))
    for layer in layers.values():
        if layer.name not in used:
            raise InputError(f'data: gives {layer.label} no inputs; leave_out=["{layer.label}"] keeps it dense')
    return [layers[name] for name in used]


def _hessian(inputs: ScoreInputs, network: nn.Module, layer: Layer) -> Tensor:
    """X Xᵀ, summed over examples and positions: [in, in], float64; in a convolution `in` is that of `_columns`."""
    parts: list[Tensor] = []

    def add(_: Layer, module: nn.Module, x: Tensor) -> None:
        rows = _input_rows(module, x.detach()).double()
        product = rows.t() @ rows
        parts[:] = [parts[0] + product] if parts else [product]

    _run(inputs, network, [layer], add)
    return parts[0]


def _run(
    inputs: ScoreInputs, network: nn.Module, layers: list[Layer], see: Callable[[Layer, nn.Module, Tensor], Any]
) -> None:
    """A forward pass over all batches; `see` gets each layer's inputs, and the module that uses them."""

    def hook_of(layer: Layer, read: Any) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            x = read(module, args, kwargs)
            if x is not None:
                see(layer, module, x)

        return hook

    hooks = [
        module.register_forward_pre_hook(hook_of(layer, read), with_kwargs=True)
        for module, layer, read in inputs_of(network, layers)
    ]
    try:
        with torch.no_grad():
            for batch in inputs.batches():
                inputs.loss(network, batch)
    finally:
        for hook in hooks:
            hook.remove()


def _input_rows(module: nn.Module, x: Tensor) -> Tensor:
    """What the columns of the weight are multiplied by: [examples and positions, in]."""
    if not isinstance(module, nn.Conv2d):
        return x.reshape(-1, x.shape[-1])
    x = x if x.dim() == 4 else x.unsqueeze(0)
    if isinstance(module.padding, str):
        x = F.pad(x, module._reversed_padding_repeated_twice)
    padding: Any = 0 if isinstance(module.padding, str) else module.padding
    patches = F.unfold(x, module.kernel_size, module.dilation, padding, module.stride)  # [B, channels × kernel, T]
    by_channel = patches.view(len(x), x.shape[1], -1, patches.shape[2])
    return by_channel.permute(0, 3, 2, 1).reshape(-1, patches.shape[1])


def _columns(weight: Tensor, layer: Layer) -> Tensor:
    """[out, in]; of a convolution `in` is the kernel's positions × channels, so that channels are consecutive."""
    if layer.kind == "Conv1D":
        return weight.t()
    return weight.flatten(2).transpose(1, 2).flatten(1) if layer.kind == "convolution" else weight


def _from_columns(columns: Tensor, layer: Layer) -> Tensor:
    """The inverse of `_columns`."""
    if layer.kind == "Conv1D":
        return columns.t().contiguous()
    if layer.kind != "convolution":
        return columns
    out, channels, *_ = layer.shape
    return columns.view(out, -1, channels).transpose(1, 2).reshape(layer.shape)
