"""2:4 sparsity: run by GPUs with sparse tensor cores, and packed in a file on any machine."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from tombola.exports.plain_outputs import plain
from tombola.pruning.hold import check_held
from tombola.pruning.mask import State
from tombola.runs.sparse_state import strip_prefix
from tombola.utils.errors import DamagedFile, InputError
from tombola.utils.files import read_tensors, write_tensors
from tombola.utils.model_inputs import map_tensors, to_device_of
from tombola.utils.network_copy import copy_network
from tombola.utils.text import first_line

FORMAT = "two-four 1"
"""The name and version of the file format."""
ROW_MULTIPLE, COLUMN_MULTIPLE = 32, 64
"""torch's kernels take linear layers whose outputs and inputs are multiples of these."""
DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}

Module = TypeVar("Module", bound=nn.Module)


def is_two_four(weight: Tensor) -> bool:
    """Whether at most two of every four neighbours along the input are nonzero (Mishra et al. 2021, section 2).

    `weight` is [out, in] or [out, in, kernel...]: neighbours in a convolution are input channels at one place.
    """
    if weight.dim() < 2 or weight.shape[1] % 4:
        return False
    return bool((_groups_of_four(weight).count_nonzero(dim=1) <= 2).all())


def semi_structured(network: nn.Module, dtype: torch.dtype = torch.float16) -> nn.Module:
    """A copy of `network` on the GPU, in `dtype` and eval mode, whose 2:4 linear layers use sparse kernels.

    These are the layers with 2:4 weights [out, in], multiples of 32 and 64; others stay dense: torch has no such
    kernels for convolutions. Inputs have to be of `dtype`, too. Raises `InputError` without a suitable GPU, for
    dtypes other than float16 and bfloat16, and for a network without such a layer.
    """
    _check_gpu(dtype)
    check_held(network)
    copied = copy_network(network).to("cuda", dtype).eval().requires_grad_(False)
    chosen = [layer for layer in copied.modules() if type(layer) is nn.Linear and _is_supported(layer.weight)]
    if not chosen:
        what = f"2:4 weights [out, in], out a multiple of {ROW_MULTIPLE} and in of {COLUMN_MULTIPLE}"
        raise InputError(f'no linear layer of this network has {what}: prune it with structure="2:4"')
    for layer in chosen:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch says that it is a prototype
                sparse = torch.sparse.to_sparse_semi_structured(layer.weight.detach().contiguous())
        except RuntimeError as error:
            raise InputError(f"this build of torch has no 2:4 kernels for this GPU: {first_line(error)}") from error
        layer.weight = nn.Parameter(sparse, requires_grad=False)
    return copied


def in_half(network: nn.Module) -> Callable[..., Any]:
    """Calls `network`, which is in float16, with inputs as they are on the CPU in float32; its outputs are like
    these, too. So both directions of the transfer are part of its time."""

    def predict(*inputs: Any, **named: Any) -> Any:
        inputs, named = to_device_of(network, map_tensors(_half, (inputs, named)))
        return map_tensors(_single, plain(network(*inputs, **named)))

    return predict


def _half(tensor: Tensor) -> Tensor:
    return tensor.half() if tensor.is_floating_point() else tensor


def _single(tensor: Tensor) -> Tensor:
    return tensor.float().cpu() if tensor.is_floating_point() else tensor.cpu()


def write_two_four(network: nn.Module, path: str | Path, dtype: torch.dtype = torch.float16) -> None:
    """Write the state of `network` in `dtype` to the safetensors file `path`, its 2:4 layers packed, on any machine.

    Of each 2:4 weight NAME of a linear layer or convolution, with the input as its last axis: `values/NAME` (dtype),
    two for every four inputs, in row-major order; `places/NAME` (uint8), their positions within the four, 2 bits
    each, four in a byte, the first in the lowest bits; `shape/NAME` (int64). `whole/NAME` is everything else:
    floating-point numbers in `dtype`, others unchanged. Raises `InputError` for dtypes other than float16, bfloat16
    and float32, and for numbers too large for `dtype`.
    """
    kind = next((name for name, known in DTYPES.items() if known == dtype), None)
    if kind is None:
        raise InputError(f"dtype: should be {' or '.join(DTYPES)}, not {dtype}")
    check_held(network)
    layers = [
        name
        for name, layer in network.named_modules(remove_duplicate=False)
        if isinstance(layer, nn.Linear | _ConvNd) and not isinstance(layer, _ConvTransposeNd)
    ]
    weights = {f"{name}.weight".removeprefix(".") for name in layers}
    tensors: dict[str, Tensor] = {}
    for name, tensor in network.state_dict().items():
        if not isinstance(tensor, Tensor):
            continue
        value = _rounded(tensor.detach().cpu(), dtype, name)
        if name in weights and is_two_four(value):
            tensors[f"values/{name}"], tensors[f"places/{name}"] = _pack(value)
            tensors[f"shape/{name}"] = torch.tensor(value.shape, dtype=torch.int64)
        else:
            tensors[f"whole/{name}"] = value
    write_tensors(path, tensors, {"format": FORMAT, "dtype": kind})


def read_two_four(network: Module, path: str | Path) -> Module:
    """Load a file of `write_two_four` into a network of the same architecture, in place and dense; and return it.

    The network keeps its own dtype. Raises `InputError` if the file is missing, damaged, or has another architecture;
    then nothing is loaded.
    """
    try:
        tensors, about = read_tensors(Path(path))
        if not isinstance(about, dict) or about.get("format") != FORMAT:
            raise DamagedFile(f"{path} is not a file of 2:4 weights in the format {FORMAT!r}")
        state = _state(tensors)
    except FileNotFoundError:
        raise InputError(f"there is no file {path}") from None
    except (DamagedFile, OSError) as error:
        raise InputError(str(error)) from error
    own = {name: tensor for name, tensor in network.state_dict().items() if isinstance(tensor, Tensor)}
    ours, theirs = ({name: tuple(tensor.shape) for name, tensor in each.items()} for each in (own, state))
    if ours != theirs:
        name = next(n for n in [*theirs, *ours] if ours.get(n) != theirs.get(n))
        raise InputError(
            f"{path} has another architecture: {name} is {theirs.get(name, 'missing')} in the file "
            f"and {ours.get(name, 'missing')} in the network"
        )
    strict = len(own) == len(network.state_dict())  # otherwise the network has an extra state
    network.load_state_dict(state, strict=strict)
    return network


def _check_gpu(dtype: torch.dtype) -> None:
    if dtype not in (torch.float16, torch.bfloat16):
        raise InputError(f"2:4 kernels need float16 or bfloat16, not {dtype}")
    if not torch.cuda.is_available():
        raise InputError("2:4 kernels need a CUDA GPU of compute capability 8.0 or newer; torch found none")
    if torch.cuda.get_device_capability() < (8, 0):
        major, minor = torch.cuda.get_device_capability()
        raise InputError(f"2:4 kernels need a GPU of compute capability 8.0 or newer; this has {major}.{minor}")


def _is_supported(weight: Tensor) -> bool:
    return weight.shape[0] % ROW_MULTIPLE == 0 and weight.shape[1] % COLUMN_MULTIPLE == 0 and is_two_four(weight)


def _rounded(tensor: Tensor, dtype: torch.dtype, name: str) -> Tensor:
    """A copy, in `dtype` if it has floating-point numbers."""
    if not tensor.is_floating_point():
        return tensor.clone()
    rounded = tensor.to(dtype, copy=True)
    if (rounded.isinf() & tensor.isfinite()).any():
        raise InputError(f"{name} has numbers too large for {dtype}: use torch.bfloat16")
    return rounded


def _groups_of_four(weight: Tensor) -> Tensor:
    """[out, in, kernel...] -> [out × kernel × in / 4, 4], the input last."""
    return weight.movedim(1, -1).reshape(-1, 4)


def _pack(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Two of each four that include the nonzero ones, and their positions in 2 bits each, four in a byte."""
    fours = _groups_of_four(weight)
    places = (fours == 0).int().argsort(dim=1, stable=True)[:, :2].sort(dim=1).values
    values = fours.gather(1, places).reshape(-1)
    flat = places.reshape(-1).to(torch.uint8)
    padded = nn.functional.pad(flat, (0, -len(flat) % 4)).view(-1, 4)
    return values, padded[:, 0] | padded[:, 1] << 2 | padded[:, 2] << 4 | padded[:, 3] << 6


def _unpack(values: Tensor, packed: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The inverse of `_pack`. Raises `ValueError` if the parts do not match."""
    if len(shape) < 2 or min(shape) < 0 or shape[1] % 4 or math.prod(shape) != 2 * values.numel():
        raise ValueError(f"{values.numel()} values are not half of {shape}")
    if packed.dtype != torch.uint8 or packed.shape != ((values.numel() + 3) // 4,) or values.dim() != 1:
        raise ValueError(f"{packed.numel()} bytes cannot hold the positions of {values.numel()} values")
    shifts = torch.tensor([0, 2, 4, 6], dtype=torch.uint8)
    places = (packed[:, None] >> shifts & 3).reshape(-1)[: values.numel()].view(-1, 2).long()
    if not (places[:, 0] < places[:, 1]).all():
        raise ValueError("positions are not increasing")
    fours = torch.zeros(len(places), 4, dtype=values.dtype).scatter_(1, places, values.view(-1, 2))
    return fours.view(shape[0], *shape[2:], shape[1]).movedim(-1, 1).contiguous()


def _state(tensors: Mapping[str, Tensor]) -> State:
    state = strip_prefix(tensors, "whole")
    for name, values in strip_prefix(tensors, "values").items():
        try:
            state[name] = _unpack(values, tensors[f"places/{name}"], tuple(tensors[f"shape/{name}"].tolist()))
        except (KeyError, ValueError, TypeError, RuntimeError) as error:
            raise DamagedFile(f"the parts of the 2:4 weights {name} do not match: {error}") from error
    return state
