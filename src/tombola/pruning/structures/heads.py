"""Attention heads."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tombola.pruning.layers import Kind, Layer, Shape, outputs_first
from tombola.pruning.prunable_layers import default_layers
from tombola.pruning.prunable_network import PrunableNetwork
from tombola.pruning.structures.unit_structure import UnitStructure
from tombola.utils.errors import InputError, unknown

_MATRICES: tuple[Kind, ...] = ("linear", "Conv1D", "projection")


@dataclass(frozen=True)
class Heads:
    """Describes attention modules: the names of their layers, and the number of heads. A name may be a pattern
    (`encoder.*.query`) that matches one layer in each attention module, in the network's order.

    >>> Heads(12, query="*.self.query", key="*.self.key", value="*.self.value", output="*.attention.output.dense")
    ... # doctest: +ELLIPSIS
    Heads(...)
    """

    count: int
    """The number of heads of each module."""
    output: str
    """The output projection: [width, heads × d]."""
    query: str | None = None
    """The projections to queries, keys and values: [heads × d, width] each."""
    key: str | None = None
    value: str | None = None
    qkv: str | None = None
    """Instead of these three, one projection: [3 × heads × d, width]."""

    def __call__(self, network: nn.Module) -> UnitStructure:
        """A unit is a head: its rows of the projections to queries, keys and values, and its columns of the output
        projection (Michel et al. 2019, section 2). Raises `InputError` for names that match no layer, and for layers
        of other shapes, as in grouped-query attention.
        """
        given = [self.query, self.key, self.value] if self.qkv is None else [self.qkv]
        if None in given:
            raise InputError("structure: Heads needs query, key and value, or qkv")
        layers = default_layers(network)
        inward = [_match_linear(layers, pattern) for pattern in given if pattern is not None]
        outward = _match_linear(layers, self.output)
        if any(len(layers) != len(outward) for layers in inward):
            names = ", ".join(map(str, given))
            raise InputError(f"structure: {names} and {self.output} match different numbers of layers")
        ids: dict[str, Tensor] = {}
        for index, (output, *projections) in enumerate(zip(outward, *inward, strict=True)):
            ids |= _head_ids(index * self.count, self.count, output, projections)
        return UnitStructure({layer.name: ids[layer.name] for layer in layers if layer.name in ids}, "heads")


_DETECTED: tuple[tuple[tuple[str, ...], str, tuple[Kind, ...]], ...] = (
    (("qkv",), "proj", _MATRICES),  # the vit here and in timm
    (("c_attn",), "c_proj", ("Conv1D",)),  # GPT-2; in GPTBigCode, of linear layers, each head's parts are adjacent
    (("query", "key", "value"), "out_proj", _MATRICES),  # nn.MultiheadAttention
    (("q_proj_weight", "k_proj_weight", "v_proj_weight"), "out_proj", _MATRICES),  # of inputs of different widths
)
"""Names of the projections to queries, keys and values in a module, and of its output projection; their kinds."""


def heads(network: PrunableNetwork) -> UnitStructure:
    """The heads of every module with `heads` or `num_heads` whose projections have one of the names above. Raises
    `InputError` if there is no such module; `Heads` describes others.
    """
    layers = {layer.label: layer for layer in network.layers.values()}
    found: dict[str, Tensor] = {}
    first = 0
    for name, module in network.network.named_modules():
        count = getattr(module, "heads", getattr(module, "num_heads", None))
        prefix = f"{name}." if name else ""
        for inward, outward, kinds in _DETECTED:
            named = [layers.get(f"{prefix}{part}") for part in (outward, *inward)]
            matrices = [layer for layer in named if layer is not None and layer.kind in kinds]
            if isinstance(count, int) and len(matrices) == len(named):
                found |= _head_ids(first, count, matrices[0], matrices[1:])
                first += count
    if not found:
        known = "nn.MultiheadAttention, GPT-2's, or layers qkv and proj"
        advice = "describe others with tombola.pruning.structures.Heads"
        raise InputError(f"structure: found no attention module ({known}); {advice}")
    return UnitStructure({name: found[name] for name in network.layers if name in found}, "heads")


def _head_ids(first: int, count: int, output: Layer, projections: list[Layer]) -> dict[str, Tensor]:
    """The ids of `count` heads from `first` on, by layer. `projections` are query, key and value, or one of all."""
    _check_rows(output, projections)
    heads = first + torch.arange(count)
    columns = _ids_by_row(heads, _matrix_shape(output)[::-1], output).t()
    ids = {output.name: outputs_first(columns, output)}
    for projection in projections:
        rows = heads if len(projections) == 3 else heads.repeat(3)
        ids[projection.name] = outputs_first(_ids_by_row(rows, _matrix_shape(projection), projection), projection)
    return ids


def _check_rows(output: Layer, projections: list[Layer]) -> None:
    """Refuse attention whose heads share rows of a projection, such as grouped-query attention."""
    layer, width = output.label, _matrix_shape(output)[1]
    rows = [_matrix_shape(projection)[0] for projection in projections]
    if len(rows) == 3 and rows[0] != rows[1]:
        found = f"the keys of {layer} have {rows[1]} rows, but the queries {rows[0]}"
        raise InputError(f"structure: {found}; heads that share keys cannot be pruned")
    what, right = ("values", width) if len(rows) == 3 else ("qkv", 3 * width)
    if rows[-1] != right:
        raise InputError(
            f"structure: {what} should have {right} rows, as {layer} has {width} columns, not {rows[-1]}"
        )


def _matrix_shape(layer: Layer) -> Shape:
    """The shape as [out, in]."""
    return layer.shape[::-1] if layer.kind == "Conv1D" else layer.shape


def _ids_by_row(units: Tensor, shape: Shape, layer: Layer) -> Tensor:
    """The unit of each weight, if each unit has equally many consecutive rows: int64 of that shape."""
    if shape[0] % len(units):
        raise InputError(f"structure: {layer.label}, of {shape[0]} rows, cannot have {len(units)} equal parts")
    return units.repeat_interleave(shape[0] // len(units)).unsqueeze(1).expand(shape)


def _match_linear(layers: list[Layer], pattern: str) -> list[Layer]:
    """The linear layers that the pattern matches."""
    named = {layer.label: layer for layer in layers if layer.kind in _MATRICES}
    matching = [pattern] if pattern in named else fnmatch.filter(named, pattern)
    if not matching:
        raise InputError(f"structure: {unknown('linear layer', pattern, named)}")
    return [named[name] for name in matching]
