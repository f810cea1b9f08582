"""Resizing: layers with other numbers of inputs and outputs."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from tombola.pruning.mask import State
from tombola.utils.errors import InputError
from tombola.utils.network_copy import copy_network
from tombola.zoo.models.resnet import ResidualBlock, Subsample

RESIZABLE = (nn.Linear, nn.Conv2d, nn.BatchNorm1d, nn.BatchNorm2d)
"""Modules that compaction makes smaller: exactly these classes, and `Subsample`."""
UNIT_TENSORS = ("weight", "bias", "running_mean", "running_var")
"""Their tensors with an entry for each unit; not every module has all of them."""


def resize(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Replace tensors of a module of one of the `RESIZABLE` classes, by name, and set its sizes accordingly.

    Dtype, device and `requires_grad` stay the same; a new bias has those of the weight. A convolution of several
    groups becomes one with a single channel in each.
    """
    before = (module.in_channels, module.out_channels) if isinstance(module, nn.Conv2d) else None
    for name, tensor in tensors.items():
        old = getattr(module, name)
        like: Tensor = module.weight if old is None else old  # type: ignore[assignment]
        new = tensor.detach().to(like.device, like.dtype, copy=True).contiguous()
        is_buffer = old is not None and not isinstance(old, nn.Parameter)
        setattr(module, name, new if is_buffer else nn.Parameter(new, like.requires_grad))
    if isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
        assert module.running_mean is not None
        module.num_features = len(module.running_mean)
    elif isinstance(module, nn.Conv2d):
        assert before is not None
        module.out_channels = module.weight.shape[0]
        if module.groups > 1:
            module.in_channels = module.groups = module.out_channels * before[0] // before[1]
        else:
            module.in_channels = module.weight.shape[1]


def load_resized(network: nn.Module, state: State) -> nn.Module:
    """A copy of `network` with layers as small as in `state`, and that state loaded.

    `network` has the architecture that a compact network was made of, and `state` is the compact one's `state_dict`.
    Whether layers fit each other is not checked. Raises `InputError` for other names or dtypes, for shapes that
    compaction cannot produce, and for smaller layers next to a `Subsample` that is not the shortcut of a
    `ResidualBlock`: no tensor has its number of channels.
    """
    types = {name: tensor.dtype for name, tensor in network.state_dict().items()}
    for name, tensor in state.items():
        own_type = types.get(name, types.get(f"{name.removesuffix('bias')}weight", tensor.dtype))  # of a new bias
        if tensor.dtype != own_type:
            raise InputError(f"{name} is {tensor.dtype} in this state, but {own_type} in the network")
    smaller, changed = copy_network(network), False
    for path, module in smaller.named_modules():
        prefix = f"{path}." if path else ""
        tensors = {name: state[prefix + name] for name in UNIT_TENSORS if prefix + name in state}
        if type(module) in RESIZABLE and _can_shrink_to(module, tensors):
            resize(module, tensors)
            changed = True
    shortcuts = set()
    for module in smaller.modules():
        if isinstance(module, ResidualBlock) and isinstance(module.shortcut, Subsample):
            module.shortcut.channels = module.conv2.out_channels
            shortcuts.add(module.shortcut)
    own = smaller.state_dict()
    for name in [*own, *state]:
        ours, theirs = (tuple(entries[name].shape) if name in entries else "missing" for entries in (own, state))
        if ours != theirs:
            raise InputError(
                f"this state has another architecture: {name} is {theirs} in it, but {ours} in the network"
            )
    for path, module in smaller.named_modules():
        if changed and isinstance(module, Subsample) and module not in shortcuts:
            raise InputError(
                f"{path or 'a Subsample'}: its number of channels in a smaller network is not part of a state_dict"
            )
    smaller.load_state_dict(state)
    return smaller


def _can_shrink_to(module: nn.Module, tensors: Mapping[str, Tensor]) -> bool:
    """Whether a module of a `RESIZABLE` class can have these tensors, and is not of their sizes yet."""
    product = isinstance(module, nn.Linear | nn.Conv2d)
    own: dict[str, Tensor | None] = {name: getattr(module, name, None) for name in tensors}
    if all(old is not None and old.shape == tensors[name].shape for name, old in own.items()):
        return False
    if any(old is None and not (product and name == "bias") for name, old in own.items()):
        return False
    sizes = {tensor.shape[0] if tensor.dim() else 0 for tensor in tensors.values()}
    if len(sizes) != 1 or any(tensor.dim() != 1 for name, tensor in tensors.items() if not product or name == "bias"):
        return False
    if not product:
        assert isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)
        return 1 <= sizes.pop() <= module.num_features
    if "weight" not in tensors:
        return False
    assert isinstance(module, nn.Linear | nn.Conv2d)
    old, new = module.weight.shape, tensors["weight"].shape
    if len(old) != len(new) or old[2:] != new[2:] or not all(1 <= n <= o for n, o in zip(new, old, strict=True)):
        return False
    if isinstance(module, nn.Linear) or module.groups == 1:
        return True
    depthwise = module.groups == module.in_channels
    return depthwise and new[0] % (module.out_channels // module.in_channels) == 0
