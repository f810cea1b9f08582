"""The attributes of modules that state their sizes, from the shapes of their tensors and their former attributes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from tombola.exports.resizing.attention import ResizedMultiheadAttention
from tombola.exports.resizing.heads import head_attributes
from tombola.exports.resizing.layer_norm import ResizedLayerNorm
from tombola.exports.resizing.norms import entries, is_rms, rms_eps

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]
Sizes = dict[str, int]

GROUP_SIZES = "group_sizes"
"""A buffer [groups] of a convolution: the rows of its weight in each group. Only a convolution has it whose shapes
would be the same with another number of groups."""


@dataclass(frozen=True)
class Update:
    """The attributes that change, and the class that replaces the module's own, if it cannot express its sizes. A
    function gives the value of an attribute for the module with its new tensors."""

    attributes: Mapping[str, Any]
    becomes: type[nn.Module] | None = None


_UNITS = ("num_features",)
_AXES: tuple[tuple[Any, dict[str, tuple[str | None, ...]]], ...] = (
    (nn.Linear, {"weight": ("out_features", "in_features"), "bias": ("out_features",)}),
    (nn.Bilinear, {"weight": ("out_features", "in1_features", "in2_features"), "bias": ("out_features",)}),
    ((nn.Embedding, nn.EmbeddingBag), {"weight": (None, "embedding_dim")}),
    (nn.PReLU, {"weight": ("num_parameters",)}),
    (_NormBase, dict.fromkeys(("weight", "bias", "running_mean", "running_var"), _UNITS)),
    (nn.GroupNorm, {"weight": ("num_channels",), "bias": ("num_channels",)}),
    (_ConvTransposeNd, {"weight": ("rows", "per_group"), "bias": ("out_channels",), GROUP_SIZES: ("groups",)}),
    (_ConvNd, {"weight": ("rows", "per_group"), "bias": ("rows",), GROUP_SIZES: ("groups",)}),
    (
        nn.MultiheadAttention,
        {
            "in_proj_weight": ("packed", "embed_dim"),
            "in_proj_bias": ("packed",),
            "q_proj_weight": ("inner", "embed_dim"),
            "k_proj_weight": ("inner", "kdim"),
            "v_proj_weight": ("inner", "vdim"),
            "bias_k": (None, None, "inner"),
            "bias_v": (None, None, "inner"),
            "out_proj.weight": ("outputs", "inner"),
            "out_proj.bias": ("outputs",),
        },
    ),
)
"""The size that each axis of a tensor has. Axes that are not listed stay as they are."""


def axes_of(module: nn.Module) -> dict[str, tuple[str | None, ...]] | None:
    """The tensors of a module that may become smaller, and the name of each axis's size; None if its class is not
    known."""
    if isinstance(module, nn.LayerNorm) or is_rms(module):
        names = tuple(f"axis {axis}" for axis in range(len(entries(module))))
        return {"weight": names, "bias": names}
    if is_conv1d(module):
        return {"weight": ("nx", "nf"), "bias": ("nf",)}
    if isinstance(module, nn.RNNBase) or hasattr(module, "parametrizations"):
        return {}
    return next((axes for classes, axes in _AXES if isinstance(module, classes)), None)


def is_conv1d(module: nn.Module) -> bool:
    """Whether a module is Hugging Face's `Conv1D`, a linear layer whose weight is transposed."""
    return type(module).__name__ == "Conv1D" and hasattr(module, "nf")


def update(module: nn.Module, before: Shapes, after: Shapes) -> Update | None:
    """What has to change in a module whose tensors, and those of modules in it, get other shapes; None if a module of
    its class cannot have them. The module still has its former attributes."""
    changed = {name for name, shape in after.items() if before.get(name) != shape}
    if not changed:
        return Update({})
    axes = axes_of(module)
    if axes is None:
        return _update_of_compound(module, after, changed)
    if any(name not in axes and ("." not in name or name.startswith("parametrizations.")) for name in changed):
        return None
    sizes = _sizes(axes, before, after)
    if sizes is None:
        return None
    if isinstance(module, nn.MultiheadAttention):
        return _update_of_attention(module, sizes)
    if isinstance(module, _ConvNd):
        return _update_of_convolution(module, sizes)
    if isinstance(module, nn.GroupNorm):
        return _update_of_group_norm(module, sizes)
    if "axis 0" in sizes:
        return _update_of_norm(module, torch.Size(sizes[f"axis {axis}"] for axis in range(len(entries(module)))))
    return Update({name: size for name, size in sizes.items() if hasattr(module, name)})


def _sizes(axes: Mapping[str, tuple[str | None, ...]], before: Shapes, after: Shapes) -> Sizes | None:
    """The sizes by their names; None if two axes differ that should not."""
    sizes: Sizes = {}
    for name, labels in axes.items():
        if name not in after:
            continue
        shape = after[name]
        former = before.get(name, shape)
        if len(shape) < len(labels) or len(shape) != len(former) or shape[len(labels) :] != former[len(labels) :]:
            return None
        for label, size, old in zip(labels, shape, former, strict=False):
            if (label is None and size != old) or (label is not None and sizes.setdefault(label, size) != size):
                return None
    return sizes


def _update_of_compound(module: nn.Module, shapes: Shapes, changed: set[str]) -> Update | None:
    """Modules that are made of others: attention, and the transformer of torch."""
    if isinstance(module, nn.Transformer):
        width = shapes.get("encoder.layers.0.linear1.weight", (0, module.d_model))[1]
        return Update({"d_model": width})
    if isinstance(module, nn.TransformerEncoderLayer):
        # Its fast path computes ordinary layer norms, whatever the classes of the norms are.
        return Update({"activation_relu_or_gelu": 0} if changed & {"norm1.weight", "norm2.weight"} else {})
    attributes = head_attributes(module, shapes)
    return None if attributes is None else Update(attributes)


def convolution_groups(module: _ConvNd, rows: int, per_group: int) -> int | None:
    """The number of groups of a convolution with a weight [rows, per_group, ...]: fewer, as large as they were, if
    that is possible, otherwise as many as there were."""
    assert isinstance(module.weight, Tensor)
    former_rows, former_per_group = module.weight.shape[:2]
    group = former_rows // module.groups
    if per_group == former_per_group and rows % group == 0:
        return rows // group
    return module.groups if rows % module.groups == 0 else None


def _update_of_convolution(module: _ConvNd, sizes: Sizes) -> Update | None:
    if "rows" not in sizes or "per_group" not in sizes:
        return None
    rows, per_group = sizes["rows"], sizes["per_group"]
    groups = sizes.get("groups", convolution_groups(module, rows, per_group))
    if groups is None or rows % groups:
        return None
    transposed = isinstance(module, _ConvTransposeNd)
    ins, outs = (rows, groups * per_group) if transposed else (groups * per_group, rows)
    if sizes.get("out_channels", outs) != outs:
        return None
    return Update({"in_channels": ins, "out_channels": outs, "groups": groups})


def _update_of_group_norm(module: nn.GroupNorm, sizes: Sizes) -> Update | None:
    channels, group = sizes["num_channels"], module.num_channels // module.num_groups
    return None if channels % group else Update({"num_channels": channels, "num_groups": channels // group})


def _update_of_norm(module: nn.Module, shape: torch.Size) -> Update | None:
    former = entries(module)
    if isinstance(module, nn.LayerNorm):
        if type(module) not in (nn.LayerNorm, ResizedLayerNorm):
            return None  # its formula is not known
        removed = getattr(module, "removed", 0) + former.numel() - shape.numel()
        return Update({"normalized_shape": tuple(shape), "removed": removed}, ResizedLayerNorm)
    eps = partial(rms_eps, times=former.numel() / shape.numel())
    if isinstance(module, nn.RMSNorm):
        return Update({"normalized_shape": tuple(shape), "eps": eps})
    return Update({"variance_epsilon": eps})


def _update_of_attention(module: nn.MultiheadAttention, sizes: Sizes) -> Update | None:
    if type(module) not in (nn.MultiheadAttention, ResizedMultiheadAttention):
        return None  # what it computes is not known
    if not {"inner", "embed_dim", "outputs"} <= sizes.keys():
        return None
    inner, embed_dim = sizes["inner"], sizes["embed_dim"]
    if sizes.get("packed", 3 * inner) != 3 * inner or inner % module.head_dim:
        return None
    kdim, vdim = sizes.get("kdim", embed_dim), sizes.get("vdim", embed_dim)
    heads = inner // module.head_dim
    attributes = {"embed_dim": embed_dim, "kdim": kdim, "vdim": vdim, "num_heads": heads}
    if type(module) is nn.MultiheadAttention and inner == embed_dim == sizes["outputs"]:
        return Update(attributes)
    return Update(attributes | {"_qkv_same_embed_dim": False}, ResizedMultiheadAttention)
