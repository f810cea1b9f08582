"""PrunableNetwork: a network's layers to prune, and its output layers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from torch import nn

from tombola.graph.coupling import Coupling, coupling
from tombola.pruning.example_inputs import plausible_inputs
from tombola.pruning.hold import release
from tombola.pruning.layers import Layer, display_name
from tombola.pruning.mask import Mask
from tombola.pruning.multiply_adds import multiply_adds
from tombola.pruning.output_layers import trace_output_layers
from tombola.pruning.prunable_layers import find_layers, matrix_weights, unprunable
from tombola.pruning.scopes import match_layers
from tombola.pruning.weight_use import warn_if_zeros_change
from tombola.utils.errors import InputError
from tombola.utils.model_inputs import Inputs, batch_size, to_device_of
from tombola.utils.network_copy import copy_network
from tombola.utils.text import first_line

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
    given_example: Inputs | Callable[[], Inputs | None] | None = None
    """A batch of inputs, or a function that may find one; if there is none, and one is needed, plausible ones are
    tried."""

    def including(self, parameters: Sequence[str]) -> PrunableNetwork:
        """The same network, of which these parameters can be pruned too."""
        made = replace(self, include=[*self.include, *parameters])
        vars(made)["coupling"] = self.coupling  # it takes seconds
        return made

    @cached_property
    def example(self) -> Inputs:
        """A batch of inputs, on the network's device. Raises `InputError` if none is given or found."""
        given = self.given_example() if callable(self.given_example) else self.given_example
        given = plausible_inputs(self.network) if given is None else given
        found: Inputs = to_device_of(self.network, given)
        return found

    @cached_property
    def coupling(self) -> Coupling:
        """Which units of the network are coupled. Raises `InputError` without an example, or for a wrong one."""
        example, copied = self.example, copy_network(self.network)
        release(copied)  # a hold changes weights before they are used
        try:
            return coupling(copied, example)
        except InputError:
            raise
        except Exception as error:  # a user's module may raise anything
            raise InputError(f"example: the network does not take it: {first_line(error)}") from error

    @cached_property
    def multiply_adds(self) -> dict[str, float]:
        """By layer: the multiply-adds of each of its weights for one example."""
        by_parameter = multiply_adds(self.coupling.graph, min(2, batch_size(self.example)))  # as many are recorded
        return {
            layer.name: by_parameter.get(layer.parameter, 0) / self.dense[layer.parameter].numel()
            for layer in self.layers.values()
        }

    @cached_property
    def layers(self) -> dict[str, Layer]:
        """The layers by name, in the network's order. Raises `InputError` as `find_layers` does."""
        return {layer.name: layer for layer in find_layers(self.network, self.include, self.leave_out)}

    @cached_property
    def unprunable(self) -> dict[str, str]:
        """The weights that are left out because they cannot be pruned, by name -> why."""
        return unprunable(self.network)

    @cached_property
    def left_out(self) -> frozenset[str]:
        """The layers that are not pruned. Raises `InputError` for a name or pattern that matches none."""
        names = dict.fromkeys(self.leave_out)
        return frozenset(match_layers(names, self.layers.values(), "leave_out", self.unprunable))

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

        They are found without running the network if torch.fx can trace it, and otherwise from the operations on an
        example. Raises `InputError` for an unknown name, and for a network that can be neither traced nor run.
        """
        layers = list(self.layers.values())
        if self.output_names is not None:
            others = dict(self.network.named_parameters(remove_duplicate=False))
            return frozenset(match_layers(dict.fromkeys(self.output_names), layers, "outputs", others))
        try:
            return trace_output_layers(self.network, layers)
        except InputError as untraceable:
            try:
                parameters = self.coupling.output_layers
            except InputError:
                raise untraceable from None
            return frozenset(layer.name for layer in layers if layer.parameter in parameters)
