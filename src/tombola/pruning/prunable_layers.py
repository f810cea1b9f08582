"""Which weights of a network can be pruned."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.parameter import is_lazy

from tombola.pruning.layers import Kind, Layer, by_layer, display_name, matching, names_of
from tombola.utils.errors import InputError, unknown

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""The types of weights that can be pruned."""

_NOT_WEIGHTS = ("embed", "pos", "token", "bias", "scale", "prompt", "table", "mask")
"""In names of three-dimensional parameters that are no stacked matrices, but embeddings, biases and the like."""


def find_layers(network: nn.Module, include: Sequence[str] = (), leave_out: Sequence[str] = ()) -> list[Layer]:
    """The layers of the parameters that `tombola.prunable` names, in the same order. Raises the same errors."""
    if isinstance(network, torch.jit.ScriptModule):
        raise InputError("model: is compiled by torch.jit; give the module that it was made of")
    problems = unprunable(network)
    names = {name: names_of(name) for name in problems}
    left_out = {name for pattern in leave_out for name in matching(pattern, names)}
    for name, reason in problems.items():
        if name not in left_out:
            raise InputError(f'model: {name} {reason}; leave_out=["{display_name(name)}"] keeps it whole')
    return [layer for layer in _layers(network, _included(network, include)) if not problems.keys() & layer.names]


def layers_of(network: nn.Module, parameters: Iterable[str]) -> list[Layer]:
    """The layers of the parameters of these names in `named_parameters`."""
    names = frozenset(parameters)
    return [layer for layer in _layers(network, names) if layer.parameter in names]


def default_layers(network: nn.Module) -> list[Layer]:
    """The layers that can be pruned by default; those that cannot be are left out."""
    return _layers(network, frozenset())


def unprunable(network: nn.Module) -> dict[str, str]:
    """Weights that would be pruned by default, but cannot be, by name -> why."""
    found, overlapping = {}, _overlapping(network)
    for path, module in network.named_modules():
        for attribute in weight_attributes(module):
            name = f"{path}.{attribute}" if path else attribute
            reason = _why_not_prunable(module, attribute) or overlapping.get(id(module._parameters.get(attribute)))
            if reason:
                found[name] = reason
    return found


def _overlapping(network: nn.Module) -> dict[int, str]:
    """By the id of a parameter that shares memory with another one, as after `a.data = b.data.t()`: that it does."""
    places = []
    for name, p in network.named_parameters():
        if not (is_lazy(p) or hasattr(p, "to_local")) and p.numel() and not p.is_meta and p.layout == torch.strided:
            extent = sum((size - 1) * stride for size, stride in zip(p.shape, p.stride(), strict=True)) + 1
            places.append((p.data_ptr(), p.data_ptr() + extent * p.element_size(), name, id(p)))
    found: dict[int, str] = {}
    for (_, end, first, one), (begin, _, second, other) in itertools.pairwise(sorted(places)):
        if begin < end:
            reason = "has its memory in common with {}, which is another parameter: make them one parameter"
            found |= {one: reason.format(second), other: reason.format(first)}
    return found


def matrix_weights(network: nn.Module) -> int:
    """The number of all weights in matrices, prunable or not: of parameters with two or more dimensions."""
    return sum(parameter.numel() for parameter in network.parameters() if _is_matrix(parameter))


def _layers(network: nn.Module, included: frozenset[str]) -> list[Layer]:
    owners: dict[int, list[tuple[nn.Module, str]]] = {}
    for module in network.modules():
        for attribute, parameter in module._parameters.items():
            if parameter is not None:
                owners.setdefault(id(parameter), []).append((module, attribute))
    aliases: dict[int, list[str]] = {}
    for name, parameter in network.named_parameters(remove_duplicate=False):
        aliases.setdefault(id(parameter), []).append(name)
    layers = []
    for name, parameter in network.named_parameters():
        uses = [(_kind(*owner, parameter), *owner) for owner in owners[id(parameter)]]
        matrices = [use for use in uses if use[0] not in ("embedding", "other")]
        tied_to_embedding = any(kind == "embedding" for kind, *_ in uses)
        by_default = bool(matrices) and not tied_to_embedding and not _why_not(parameter)
        if (by_default or name in included) and parameter.numel():
            use = (matrices or uses)[0]
            parts = by_layer({name: parameter})
            names = tuple(aliases[id(parameter)])
            layers += [Layer(layer, name, tuple(part.shape), *use, names) for layer, part in parts.items()]
    return layers


def _included(network: nn.Module, include: Sequence[str]) -> frozenset[str]:
    """The names in `named_parameters` of those that `include` matches under any of their names."""
    if isinstance(include, str):
        raise InputError(f'include: should be a list of names, ["{include}"]')
    first = {id(parameter): name for name, parameter in network.named_parameters()}
    aliases = dict(network.named_parameters(remove_duplicate=False))
    matrices = {n: names_of(n) for n, parameter in aliases.items() if _is_matrix(parameter)}
    found = set()
    for pattern in include:
        chosen = [name for name in (pattern, f"{pattern}.weight") if name in aliases][:1]
        chosen = chosen or matching(pattern, matrices)
        if not chosen:
            raise InputError(f"include: {unknown('parameter', pattern, map(display_name, aliases))}")
        for name in chosen:
            if reason := _why_not(aliases[name]):
                raise InputError(f"include: {name} {reason}")
            found.add(first[id(aliases[name])])
    return frozenset(found)


def _kind(module: nn.Module, attribute: str, parameter: Tensor) -> Kind:
    if isinstance(module, nn.Embedding | nn.EmbeddingBag) and attribute == "weight":
        return "embedding"
    if attribute not in weight_attributes(module):
        return "other"
    match module:
        case nn.Linear():
            return "linear"
        case _ConvTransposeNd():
            return "transposed convolution"
        case _ConvNd():
            return "convolution"
        case nn.Bilinear():
            return "bilinear"
        case nn.RNNBase() | nn.RNNCellBase():
            return "recurrent"
        case nn.MultiheadAttention():
            return "projection"
    return "Conv1D" if parameter.dim() == 2 else "stacked matrices"


def weight_attributes(module: nn.Module) -> list[str]:
    """The attributes of a module that are weight matrices by default."""
    if isinstance(module, nn.Linear | _ConvNd | nn.Bilinear) or is_conv1d(module):
        return ["weight"]
    if isinstance(module, nn.RNNBase):
        return [name for name in module._flat_weights_names if name.startswith("weight_")]
    if isinstance(module, nn.RNNCellBase):
        return ["weight_ih", "weight_hh"]
    if isinstance(module, nn.MultiheadAttention):
        fused = module._parameters.get("in_proj_weight") is not None
        return ["in_proj_weight"] if fused else ["q_proj_weight", "k_proj_weight", "v_proj_weight"]
    if type(module).__module__.startswith("torch.nn.") or "norm" in type(module).__name__.lower():
        return []
    matrices = ((name, p) for name, p in module._parameters.items() if p is not None and _is_matrix(p))
    stacked = (name for name, parameter in matrices if parameter.dim() == 3 and min(parameter.shape) > 1)
    return [name for name in stacked if not any(word in name.lower() for word in _NOT_WEIGHTS)]


def is_conv1d(module: nn.Module) -> bool:
    """Whether it is Hugging Face's linear layer, of weight [in, out]."""
    names = {(base.__module__, base.__name__) for base in type(module).__mro__}
    return ("transformers.pytorch_utils", "Conv1D") in names


def _is_matrix(parameter: Tensor) -> bool:
    return not is_lazy(parameter) and parameter.dim() > 1


def _why_not_prunable(module: nn.Module, attribute: str) -> str:
    """Why a weight matrix of a module cannot be pruned; empty if it can be."""
    parameter = module._parameters.get(attribute)
    if parameter is not None:
        return _why_not(parameter)
    if f"{attribute}_orig" in module._parameters and f"{attribute}_mask" in module._buffers:
        return "is pruned by torch.nn.utils.prune: call tombola.pruning.torch_prune.absorb first"
    return "is computed from other parameters, and only plain weights can be pruned"


def _why_not(parameter: Tensor) -> str:
    if is_lazy(parameter):
        return "has no shape yet: run the network on a batch first"
    if parameter.dtype not in FLOATS:
        return f"is {str(parameter.dtype).removeprefix('torch.')}, and only {_float_names()} can be pruned"
    return ""


def _float_names() -> str:
    return "float16, bfloat16, float32 and float64"
