"""PrunableNetwork: a network's layers to prune, and its output layers."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import nn

from tombola.pruning.layers import Layer, display_name
from tombola.pruning.mask import Mask
from tombola.pruning.output_layers import trace_output_layers
from tombola.pruning.prunable_layers import find_layers, matrix_weights, unprunable
from tombola.pruning.scopes import match_layers
from tombola.pruning.weight_use import warn_if_zeros_change

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PrunableNetwork:
    """What scopes and structures know of a network. The options are those of `PruningOptions`."""

    network: nn.Module
    include: Sequence[str] = ()
    leave_out: Sequence[str] = ()
    output_names: Sequence[str] | None = None
    """The output layers, by name or pattern, also of parameters that are not pruned; if it is None they are found by
    following the flow of data."""

    @cached_property
    def layers(self) -> dict[str, Layer]:
        """The layers by name, in the network's order. Raises `InputError` as `find_layers` does."""
        return {layer.name: layer for layer in find_layers(self.network, self.include, self.leave_out)}

    @cached_property
    def unprunable(self) -> dict[str, str]:
        """The weights that are left out because they cannot be pruned, by name -> why."""
        return unprunable(self.network)

    @cached_property
    def dense(self) -> Mask:
        """The mask of the dense network. Raises `InputError` as `Mask.full` does."""
        return Mask.full(self.network, self.include, self.leave_out)

    @cached_property
    def matrix_weights(self) -> int:
        """The number of all its matrix weights, prunable or not; see `tombola.pruning.prunable_layers`."""
        return matrix_weights(self.network)

    def warn(self) -> None:
        """Log a warning about layers that do not use their pruned weights as zeros, and if less than half of all
        matrix weights can be pruned."""
        for layer in self.layers.values():
            warn_if_zeros_change(layer.module, layer.name)
        size, total = self.dense.size, self.matrix_weights
        if 2 * size < total:
            others = {n: p.numel() for n, p in self.network.named_parameters() if p.dim() > 1 and n not in self.dense}
            largest = sorted(others, key=lambda name: -others[name])[:3]
            names = ", ".join(f'"{display_name(name)}"' for name in largest)
            _log.warning(
                "only %s of the network's %s matrix weights can be pruned; include=[%s] adds the largest others",
                f"{size:,}",
                f"{total:,}",
                names,
            )

    @cached_property
    def outputs(self) -> frozenset[str]:
        """The layers that compute the network's outputs.

        Raises `InputError` for an unknown name, and for a network whose flow of data cannot be followed.
        """
        layers = list(self.layers.values())
        if self.output_names is not None:
            others = dict(self.network.named_parameters(remove_duplicate=False))
            return frozenset(match_layers(dict.fromkeys(self.output_names), layers, "outputs", others))
        return trace_output_layers(self.network, layers)
