"""Warn about layers whose forward pass changes weights: there, pruned weights that are zero need not stay zero."""

from __future__ import annotations

import copy
import logging
import weakref

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from tombola.utils.random_state import preserve_rng_state

_log = logging.getLogger(__name__)

_changes_zeros: weakref.WeakKeyDictionary[type, bool] = weakref.WeakKeyDictionary()  # by class of layer


def warn_if_zeros_change(layer: nn.Module, name: str) -> None:
    """Log a warning, once for each class of layer, if the layer's forward pass makes zeros in its weight, the
    parameter `name`, nonzero, as weight standardisation does (Qiao et al. 2019). Layers of torch itself do not."""
    kind = type(layer)
    own = not kind.__module__.startswith("torch.") or "forward" in vars(layer)
    if not own or not isinstance(layer, nn.Linear | _ConvNd) or kind in _changes_zeros:
        return
    _changes_zeros[kind] = _uses_zero_weights(layer)
    if _changes_zeros[kind]:
        _log.warning(
            "%s: the forward pass of %s computes other weights from it, of which pruned ones are not zero",
            name,
            kind.__name__,
        )


def _uses_zero_weights(layer: nn.Linear | _ConvNd) -> bool:
    """Whether outputs depend on an input whose weights are all zero; the other weights are random."""
    with preserve_rng_state(), torch.no_grad():
        try:
            copied = copy.deepcopy(layer).cpu().float().eval()
            torch.manual_seed(0)
            copied.weight.normal_()
            copied.weight.select(0 if isinstance(copied, _ConvTransposeNd) else 1, 0).zero_()
            zeros = torch.zeros(_input_shape(copied))
            ones = zeros.clone()
            ones[:, 0] = 1
            torch.manual_seed(0)  # the layer may draw random numbers
            without = copied.forward(zeros)
            torch.manual_seed(0)
            return not torch.allclose(without, copied.forward(ones), atol=1e-5)
        except Exception:  # noqa: BLE001 - its forward pass may need other arguments, and raise anything
            return False


def _input_shape(layer: nn.Linear | _ConvNd) -> tuple[int, ...]:
    if isinstance(layer, nn.Linear):
        return 1, layer.in_features
    return 1, layer.in_channels, *(d * (k - 1) + 2 for d, k in zip(layer.dilation, layer.kernel_size, strict=True))
