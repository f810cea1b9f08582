"""Makes the layers of a module sparse where those are faster."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from tombola.engines.eager import ModuleLearner
from tombola.engines.sparse.candidates import Shapes, record_input_shapes, why_not_sparse
from tombola.engines.sparse.modules import SparseTrainingLayer, make_sparse
from tombola.engines.sparse.speeds import Speeds
from tombola.engines.sparse.trial import Trial, run_trial
from tombola.pruning.mask import Mask, State
from tombola.runs.run import Run
from tombola.utils.network_copy import copy_network
from tombola.utils.text import first_line
from tombola.zoo.datasets.split import Split


@dataclass
class SparsifiedNetwork:
    """A module in which some layers were made sparse."""

    network: nn.Module
    layers: dict[str, SparseTrainingLayer] = field(default_factory=dict)
    """The sparse layers, by name as in `named_modules`."""

    @classmethod
    def of(cls, network: nn.Module, kept: Mapping[str, Tensor]) -> SparsifiedNetwork:
        """Make layers of `network` sparse, in place; `kept` are the masks of their weights, by the layers' names."""
        return cls(network, {name: make_sparse(_layer(network, name), mask) for name, mask in kept.items()})

    def state_dict(self) -> State:
        """The `state_dict` of the module with dense layers: the same names, in the same order."""
        return self.to_dense(self.network.state_dict())

    def to_dense(self, entries: State) -> State:
        """Entries of parameters, converted to those of the dense layers. Names may have a prefix, as in
        `Outcome.optimizer`."""
        state: State = {}
        for entry, tensor in entries.items():
            sparse, value = self._sparse(entry, "values"), tensor.detach()
            name = entry if sparse is None else f"{entry.removesuffix('values')}weight"
            state[name] = sparse.product.to_dense(value) if sparse and value.dim() else value.clone()
        return state

    def to_sparse(self, entries: State) -> State:
        """The inverse of `to_dense`: of sparse layers, only the kept weights."""
        state: State = {}
        for entry, tensor in entries.items():
            sparse = self._sparse(entry, "weight")
            name = entry if sparse is None else f"{entry.removesuffix('weight')}values"
            state[name] = sparse.product.to_sparse(tensor) if sparse and tensor.dim() else tensor
        return state

    def _sparse(self, entry: str, parameter: str) -> SparseTrainingLayer | None:
        """The sparse layer if `entry` is its parameter of that name, else None."""
        layer, _, last = entry.rpartition("/")[2].rpartition(".")
        return self.layers.get(layer) if last == parameter else None


def sparsify(
    network: nn.Module, mask: Mask, inputs: Tensor, speeds: Speeds
) -> tuple[SparsifiedNetwork, dict[str, str]]:
    """Make layers of `network` sparse, in place. Also returns why other masked layers stay dense, by their names, and
    other masked parameters, by theirs.

    Weights outside `mask` must be zero. `inputs` is a batch, used to find the layers' input shapes, and to try copies
    of the network with sparse layers: layers whose weight it accesses stay dense, and if it does not compute the same
    as before, all of them.
    """
    try:
        with _unchanged_buffers(network):
            copied = copy_network(network)
            shapes = record_input_shapes(copied, lambda: copied(inputs))
            chosen, dense = _choose(network, mask, shapes, speeds)
            expected = run_trial(copy_network(network), inputs) if chosen else Trial([], {})
            while chosen and (reasons := _why_not_these(network, chosen, inputs, expected)):
                dense |= reasons
                chosen = {name: kept for name, kept in chosen.items() if name not in reasons}
    except Exception as error:  # noqa: BLE001 - a user's module may raise anything, such as when it is copied
        reason = f"the network cannot be tried: {first_line(error)}"
        chosen, dense = {}, {name.removesuffix(".weight"): reason for name in mask}
    return SparsifiedNetwork.of(network, chosen), dense


def _choose(
    network: nn.Module, mask: Mask, shapes: Shapes, speeds: Speeds
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The masks of the layers that can be sparse and are faster, and why other masked layers stay dense."""
    chosen, dense = {}, {}
    for parameter, kept in mask.items():
        name, _, last = parameter.rpartition(".")
        if last != "weight" or not isinstance(network.get_submodule(name), nn.Linear | _ConvNd):
            dense[parameter] = "it is not the weight of a linear layer or convolution"
            continue
        reason = why_not_sparse(network, name, shapes)
        if reason is None and not all(p.requires_grad for p in network.get_submodule(name).parameters()):
            reason = "some of its parameters are frozen"
        if reason is None:
            density = kept.float().mean().item()
            if speeds.sparse_is_faster(_layer(network, name), shapes[name], density):
                chosen[name] = kept
                continue
            reason = f"dense is faster with {density:.1%} of its weights"
        dense[name] = reason
    return chosen, dense


def _why_not_these(network: nn.Module, chosen: dict[str, Tensor], inputs: Tensor, expected: Trial) -> dict[str, str]:
    """Which of these layers must stay dense and why; `expected` is a trial of the dense network."""
    made = SparsifiedNetwork.of(copy_network(network), chosen)
    try:
        trial = run_trial(made.network, inputs)
    except Exception as error:  # noqa: BLE001 - a user's module may access its layers in any way
        reason: str | None = first_line(error)
    else:
        trial = replace(trial, gradients=made.to_dense(trial.gradients))
        reason = trial.difference(expected.outputs, _masked(expected.gradients, chosen))
    if needed := [name for name, layer in made.layers.items() if layer.needed_dense]:
        return dict.fromkeys(needed, "the network accesses its weight, or calls it with unsupported inputs")
    return dict.fromkeys(chosen, f"the network does not work with sparse layers: {reason}") if reason else {}


def _masked(gradients: State, kept: dict[str, Tensor]) -> State:
    """Gradients, zero for the pruned weights of these layers."""
    weights = {f"{name}.weight": mask for name, mask in kept.items()}
    return {name: gradient * weights[name] if name in weights else gradient for name, gradient in gradients.items()}


def _layer(network: nn.Module, name: str) -> nn.Linear | nn.Conv2d:
    layer = network.get_submodule(name)
    assert isinstance(layer, nn.Linear | nn.Conv2d)
    return layer


@contextlib.contextmanager
def _unchanged_buffers(network: nn.Module) -> Iterator[None]:
    """Restores the buffers of `network` afterwards: a closure in a copy still calls the layers of the original."""
    before = [(buffer, buffer.clone()) for buffer in network.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in before:
                buffer.copy_(value)


class SparsifiedLearner(ModuleLearner):
    """A `Learner` of a module in which some layers are sparse; all other parameters in the run's mask are masked."""

    def __init__(self, sparsified: SparsifiedNetwork, run: Run, split: Split, device: torch.device) -> None:
        sparse = {f"{name}.weight" for name in sparsified.layers}
        masked = Mask({name: kept for name, kept in run.mask.items() if name not in sparse})
        super().__init__(sparsified.network, run, split, device, masked)
        self.sparsified = sparsified

    @property
    def how(self) -> str:
        """How it trains, as in the engine's name."""
        layers = self.sparsified.layers
        return f"layers {', '.join(layers)}" if layers else "no layer"

    def weights(self) -> list[State]:
        """With the names of the dense layers."""
        return [self.sparsified.to_dense(self._result())]

    def optimizer_states(self) -> list[State]:
        return [self.sparsified.to_dense(state) for state in super().optimizer_states()]

    def load_optimizer_states(self, states: Sequence[State]) -> None:
        super().load_optimizer_states([self.sparsified.to_sparse(state) for state in states])
