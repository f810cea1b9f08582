"""Norms that are made smaller, those without learned weights among them."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase


def entries(norm: nn.Module) -> torch.Size:
    """The shape of a norm's weight, also of one without it."""
    if isinstance(norm, nn.LayerNorm | nn.RMSNorm):
        return torch.Size(norm.normalized_shape)
    if isinstance(norm, nn.GroupNorm):
        return torch.Size((norm.num_channels,))
    if isinstance(norm, _NormBase):
        return torch.Size((norm.num_features,))
    assert isinstance(norm.weight, torch.Tensor)
    return norm.weight.shape


def lacks_weight(module: nn.Module, name: str) -> bool:
    """Whether `name` is the weight that a norm without learned weights does not have."""
    known = isinstance(module, _NormBase | nn.GroupNorm | nn.LayerNorm | nn.RMSNorm)
    return known and name == "weight" and module.weight is None


def is_rms(module: nn.Module) -> bool:
    """Whether a module is torch's RMS norm, or one of Hugging Face's models (which have a `variance_epsilon`)."""
    named = hasattr(module, "variance_epsilon") and isinstance(getattr(module, "weight", None), torch.Tensor)
    return isinstance(module, nn.RMSNorm) or named


def rms_scale(before: int, after: int) -> float:
    """What the weight of an RMS norm is multiplied with when only `after` of its entries are not always zero.

    x / sqrt(sum(x^2) / D + eps) = sqrt(D / D') x / sqrt(sum(x^2) / D' + eps D / D').
    """
    return math.sqrt(before / after)


def rms_eps(norm: nn.Module, times: float) -> float:
    """A multiple of an RMS norm's eps; torch's default is the machine epsilon of the type that it computes in."""
    eps = norm.eps if isinstance(norm, nn.RMSNorm) else norm.variance_epsilon
    if eps is None:
        wide = isinstance(norm.weight, torch.Tensor) and norm.weight.dtype == torch.float64
        eps = torch.finfo(torch.float64 if wide else torch.float32).eps
    return times * float(eps)  # type: ignore[arg-type]
