"""Replaces the dense layers of a module by sparse layers where those are faster."""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from tombola.engines.eager import ModuleLearner
from tombola.engines.sparse.modules import SparseTrainingLayer
from tombola.engines.sparse.speeds import Speeds
from tombola.engines.sparse.stack import has_hooks
from tombola.pruning.mask import Mask, State
from tombola.runs.run import Run
from tombola.zoo.datasets.split import Split


@dataclass
class SparsifiedNetwork:
    """A module in which some layers were replaced by sparse ones."""

    network: nn.Module
    layers: dict[str, nn.Module] = field(default_factory=dict)
    """The replaced layers, by name as in `named_modules`; without their weights, to save memory."""

    def state_dict(self) -> State:
        """The `state_dict` of the module with dense layers: the same names, in the same order."""
        return self.to_dense(self.network.state_dict())

    def to_dense(self, entries: State) -> State:
        """Entries of parameters, converted to those of the dense layers. Names may have a prefix, as in
        `Outcome.optimizer`."""
        state: State = {}
        for entry, tensor in entries.items():
            sparse = self._sparse(entry, "values")
            name = entry if sparse is None else f"{entry.removesuffix('values')}weight"
            state[name] = sparse.to_dense(tensor) if sparse and tensor.dim() else tensor.detach().clone()
        return state

    def to_sparse(self, entries: State) -> State:
        """The inverse of `to_dense`: of sparse layers, only the kept weights."""
        state: State = {}
        for entry, tensor in entries.items():
            sparse = self._sparse(entry, "weight")
            name = entry if sparse is None else f"{entry.removesuffix('weight')}values"
            state[name] = tensor.reshape(-1)[sparse.order] if sparse and tensor.dim() else tensor
        return state

    def _sparse(self, entry: str, parameter: str) -> SparseTrainingLayer | None:
        """The sparse layer if `entry` is its parameter of that name, else None."""
        layer, _, last = entry.rpartition("/")[2].rpartition(".")
        if layer not in self.layers or last != parameter:
            return None
        sparse = self.network.get_submodule(layer)
        assert isinstance(sparse, SparseTrainingLayer)
        return sparse

    def restore(self) -> None:
        """Put the dense layers back, with the current weights."""
        state = self.state_dict()
        for name, layer in self.layers.items():
            replace_module(self.network, name, layer.to_empty(device="cpu"))
        self.layers = {}
        self.network.load_state_dict(state)


def sparsify(
    network: nn.Module, mask: Mask, inputs: Tensor, speeds: Speeds
) -> tuple[SparsifiedNetwork, dict[str, str]]:
    """Replace layers of `network` by sparse ones, in place. Also returns why each other masked layer stays dense.

    Weights outside `mask` must be zero. `inputs` is a batch, used to find the layers' input shapes and to check that
    the outputs of the network stay the same.
    """
    shapes, before = record_input_shapes(network, inputs)
    sparsified, dense = SparsifiedNetwork(network), {}
    for name, kept in mask.items():
        layer_name = name.removesuffix(".weight")
        layer = network.get_submodule(layer_name)
        density = kept.float().mean().item()
        reason = why_not_sparse(network, layer_name, shapes)
        if reason is None and not all(p.requires_grad for p in network.get_submodule(layer_name).parameters()):
            reason = "some of its parameters are frozen"
        if reason is None:
            assert isinstance(layer, nn.Linear | nn.Conv2d)
            if speeds.sparse_is_faster(layer, shapes[layer_name], density):
                sparsified.layers[layer_name] = layer
                replace_module(network, layer_name, SparseTrainingLayer(layer, kept))
                continue
            reason = f"dense is faster with {density:.1%} of its weights"
        dense[layer_name] = reason
    if sparsified.layers:
        try:
            _, after = record_input_shapes(network, inputs)
            torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-4)
            _try_training(network, inputs)
        except Exception as error:  # noqa: BLE001 - a user's module may access its layers in any way
            reason = f"the network does not work with sparse layers: {str(error).splitlines()[0]}"
            dense |= dict.fromkeys(sparsified.layers, reason)
            sparsified.restore()
        for layer in sparsified.layers.values():
            layer.to("meta")
    return sparsified, dense


def replace_module(network: nn.Module, name: str, layer: nn.Module) -> None:
    """Replace the module of that name, as in `named_modules`, by `layer`."""
    parent, _, last = name.rpartition(".")
    setattr(network.get_submodule(parent), last, layer)


def why_not_sparse(network: nn.Module, name: str, shapes: dict[str, tuple[int, ...]]) -> str | None:
    """Why this layer must stay dense, or None if it need not. `shapes` are the input shapes of all called layers."""
    layer = network.get_submodule(name)
    reason = None
    if type(layer) not in (nn.Linear, nn.Conv2d):
        reason = f"it is a {type(layer).__name__}"
    elif layer is network:
        reason = "it is the whole network"
    elif isinstance(layer, nn.Conv2d) and layer.padding_mode != "zeros":
        reason = f'its padding mode is "{layer.padding_mode}"'
    elif any(parameter.dtype != torch.float32 for parameter in layer.parameters()):
        reason = "it is not of float32"
    elif has_hooks(layer):
        reason = "it has hooks"
    elif _uses(network, layer) > 1:
        reason = "it shares parameters with another layer"
    elif name not in shapes:
        reason = "the network does not call it"
    return reason


def _uses(network: nn.Module, layer: nn.Module) -> int:
    """The largest number of names that a parameter of `layer` has in `network`."""
    own = {id(parameter) for parameter in layer.parameters()}
    names = [id(p) for _, p in network.named_parameters(remove_duplicate=False) if id(p) in own]
    return max((names.count(one) for one in own), default=0)


@torch.no_grad()
def record_input_shapes(network: nn.Module, inputs: Tensor) -> tuple[dict[str, tuple[int, ...]], Tensor]:
    """The input shapes of linear and convolutional layers for `inputs`, and the outputs; in evaluation mode."""
    shapes: dict[str, tuple[int, ...]] = {}

    def record(name: str, module: nn.Module, arguments: tuple[Tensor, ...]) -> None:  # noqa: ARG001
        shapes.setdefault(name, tuple(arguments[0].shape))

    handles = [
        module.register_forward_pre_hook(functools.partial(record, name))
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
    ]
    training = network.training
    network.eval()
    try:
        out: Tensor = network(inputs)
    finally:
        network.train(training)
        for handle in handles:
            handle.remove()
    return shapes, out


def _try_training(network: nn.Module, inputs: Tensor) -> None:
    """Run a forward and a backward pass of a copy in training mode, without changing torch's random state."""
    with torch.random.fork_rng(devices=[]):
        copy.deepcopy(network).train()(inputs).sum().backward()


class SparsifiedLearner(ModuleLearner):
    """A `Learner` of a module in which some layers are sparse; the others are masked."""

    def __init__(self, sparsified: SparsifiedNetwork, run: Run, split: Split, device: torch.device) -> None:
        dense = Mask(
            {name: kept for name, kept in run.mask.items() if name.removesuffix(".weight") not in sparsified.layers}
        )
        super().__init__(sparsified.network, run, split, device, dense)
        self.sparsified = sparsified

    def weights(self) -> list[State]:
        """With the names of the dense layers."""
        return [self.sparsified.state_dict()]

    def optimizer_states(self) -> list[State]:
        return [self.sparsified.to_dense(state) for state in super().optimizer_states()]

    def load_optimizer_states(self, states: Sequence[State]) -> None:
        super().load_optimizer_states([self.sparsified.to_sparse(state) for state in states])
