"""Swap: sparse layers in the place of a module's dense ones, where that is faster."""

from __future__ import annotations

import copy
import functools
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from tombola.engines.sparse.modules import SparseTrainingLayer
from tombola.engines.sparse.speeds import Speeds
from tombola.engines.sparse.stack import hooked
from tombola.pruning.mask import Mask, State


@dataclass
class Swapped:
    """A module some of whose layers are sparse now."""

    network: nn.Module
    layers: dict[str, nn.Module] = field(default_factory=dict)
    """Those that were there, by name as in `named_modules`; without their weights, which would take memory."""

    def state(self) -> State:
        """The `state_dict` the module would have with its own layers: the same names, in the same order."""
        return self.dense(self.network.state_dict())

    def dense(self, entries: State) -> State:
        """Entries of parameters as they would be with the module's own layers. Names may have a kind in front, as in
        `Outcome.optimizer`."""
        state: State = {}
        for entry, tensor in entries.items():
            sparse = self._sparse(entry, "values")
            name = entry if sparse is None else f"{entry.removesuffix('values')}weight"
            state[name] = sparse.dense(tensor) if sparse and tensor.dim() else tensor.detach().clone()
        return state

    def packed(self, entries: State) -> State:
        """The other way round: of sparse layers, only the weights left."""
        state: State = {}
        for entry, tensor in entries.items():
            sparse = self._sparse(entry, "weight")
            name = entry if sparse is None else f"{entry.removesuffix('weight')}values"
            state[name] = tensor.reshape(-1)[sparse.order] if sparse and tensor.dim() else tensor
        return state

    def _sparse(self, entry: str, parameter: str) -> SparseTrainingLayer | None:
        """The sparse layer whose parameter of that name the entry is of."""
        layer, _, last = entry.rpartition("/")[2].rpartition(".")
        if layer not in self.layers or last != parameter:
            return None
        sparse = self.network.get_submodule(layer)
        assert isinstance(sparse, SparseTrainingLayer)
        return sparse

    def undo(self) -> None:
        """Give the module its own layers back, with the weights they have now."""
        state = self.state()
        for name, layer in self.layers.items():
            put(self.network, name, layer.to_empty(device="cpu"))
        self.layers = {}
        self.network.load_state_dict(state)


def swap(network: nn.Module, mask: Mask, inputs: Tensor, speeds: Speeds) -> tuple[Swapped, dict[str, str]]:
    """Put sparse layers into `network`, in place. Also says of each layer of the mask that stayed dense why it did.

    The weights outside `mask` are zero already. `inputs` is a batch, to see what shapes the layers get, and to make
    sure that with sparse layers the network computes what it did before.
    """
    shapes, before = try_out(network, inputs)
    swapped, dense = Swapped(network), {}
    for name, kept in mask.items():
        layer_name = name.removesuffix(".weight")
        layer = network.get_submodule(layer_name)
        density = kept.float().mean().item()
        reason = unfit(network, layer_name, shapes)
        if reason is None and not all(p.requires_grad for p in network.get_submodule(layer_name).parameters()):
            reason = "some of its parameters are frozen"
        if reason is None:
            assert isinstance(layer, nn.Linear | nn.Conv2d)
            if speeds.sparse_is_faster(layer, shapes[layer_name], density):
                swapped.layers[layer_name] = layer
                put(network, layer_name, SparseTrainingLayer(layer, kept))
                continue
            reason = f"dense is faster with {density:.1%} of its weights"
        dense[layer_name] = reason
    if swapped.layers:
        try:
            _, after = try_out(network, inputs)
            torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-4)
            _try_training(network, inputs)
        except Exception as error:  # noqa: BLE001 - whatever a module of the user's does with its layers
            reason = f"the network does not work with sparse layers: {str(error).splitlines()[0]}"
            dense |= dict.fromkeys(swapped.layers, reason)
            swapped.undo()
        for layer in swapped.layers.values():
            layer.to("meta")
    return swapped, dense


def put(network: nn.Module, name: str, layer: nn.Module) -> None:
    """Have `layer` in the place of the one of that name, as in `named_modules`."""
    parent, _, last = name.rpartition(".")
    setattr(network.get_submodule(parent), last, layer)


def unfit(network: nn.Module, name: str, shapes: dict[str, tuple[int, ...]]) -> str | None:
    """Why this layer has to stay dense, if it has to. `shapes` are those of all layers' inputs that are called."""
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
    elif hooked(layer):
        reason = "it has hooks"
    elif _uses(network, layer) > 1:
        reason = "it shares parameters with another layer"
    elif name not in shapes:
        reason = "the network does not call it"
    return reason


def _uses(network: nn.Module, layer: nn.Module) -> int:
    """How many names the parameters of `layer` go by in `network`, at most."""
    ours = {id(parameter) for parameter in layer.parameters()}
    names = [id(p) for _, p in network.named_parameters(remove_duplicate=False) if id(p) in ours]
    return max((names.count(one) for one in ours), default=0)


@torch.no_grad()
def try_out(network: nn.Module, inputs: Tensor) -> tuple[dict[str, tuple[int, ...]], Tensor]:
    """What shapes linear and convolutional layers get of `inputs`, and what comes out; in evaluation mode."""
    shapes: dict[str, tuple[int, ...]] = {}

    def note(name: str, module: nn.Module, arguments: tuple[Tensor, ...]) -> None:  # noqa: ARG001
        shapes.setdefault(name, tuple(arguments[0].shape))

    handles = [
        module.register_forward_pre_hook(functools.partial(note, name))
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
    """Do a forward and a backward pass in training mode, with a copy, leaving torch's generator as it was."""
    with torch.random.fork_rng(devices=[]):
        copy.deepcopy(network).train()(inputs).sum().backward()
