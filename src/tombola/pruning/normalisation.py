"""Normalisation layers."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _NormBase


def running_norms(network: nn.Module) -> list[_NormBase]:
    """The normalisation layers with running statistics."""
    return [
        module
        for module in network.modules()
        if isinstance(module, _NormBase) and module.track_running_stats and module.running_mean is not None
    ]


def normalisation_parameters(network: nn.Module) -> list[str]:
    """The names of the parameters of normalisation layers."""
    kinds = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
    return [
        f"{layer}.{name}" if layer else name
        for layer, module in network.named_modules()
        if isinstance(module, kinds)
        for name, _ in module.named_parameters(recurse=False)
    ]
