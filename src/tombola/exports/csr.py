"""CSR: each layer's kept weights as compressed sparse rows in a plain `.npz`, for other runtimes."""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from tombola.pruning.hold import check_held
from tombola.utils.errors import InputError
from tombola.utils.files import atomic_write
from tombola.utils.text import first_line

Array = NDArray[Any]

MAX_COMPRESSION = 1000
"""The largest allowed ratio of arrays to file size; the usual compression of zip hardly exceeds it."""


def write_csr(network: nn.Module, path: str | Path) -> None:
    """Write the state of `network` to `path`, its layers' weights as compressed sparse rows, without zeros.

    Of each linear or convolutional layer NAME, whose weight is a matrix [out, in × kernel]: `NAME/indptr` (int32,
    out + 1), `NAME/indices` (int32, increasing within a row), `NAME/values` (float32), `NAME/shape` (int64, of the
    weight tensor), and `NAME/bias` (float32) if the layer has one. Of a convolution also `NAME/stride` and
    `NAME/dilation` (int64, one number for each axis), `NAME/padding` (int64, before and after on each axis),
    `NAME/padding_mode` (text) and `NAME/groups`. A network that is a single layer has no `NAME/`. All other entries
    of the `state_dict`, transposed convolutions too, are dense, under their own names. The same network gives the
    same bytes. Raises `InputError` if two arrays would have the same name.
    """
    check_held(network)
    state = {name: tensor for name, tensor in network.state_dict().items() if isinstance(tensor, Tensor)}
    arrays: dict[str, Array] = {}
    for name, layer in network.named_modules(remove_duplicate=False):
        weight, bias = (f"{name}.{part}" if name else part for part in ("weight", "bias"))
        if isinstance(layer, nn.Linear | _ConvNd) and not isinstance(layer, _ConvTransposeNd) and weight in state:
            for part, array in _layer(layer, state.pop(weight), state.pop(bias, None)).items():
                _add(arrays, f"{name}/{part}" if name else part, array)
    for name, tensor in state.items():
        _add(arrays, name, _to_numpy(tensor))
    with atomic_write(path) as temporary:
        _write(temporary, arrays)


def read_csr(path: str | Path) -> dict[str, csr_array]:
    """The weights of each layer in a file of `write_csr`, by name: a float32 matrix [out, in × kernel].

    Nothing in the file is executed. Raises `InputError` if it is missing or damaged, or its arrays are more than
    `MAX_COMPRESSION` times its size.
    """
    try:
        with Path(path).open("rb") as file:
            _check_sizes(file)
            with np.load(file, allow_pickle=False) as arrays:
                layers = [name.removesuffix("indptr") for name in arrays if f"/{name}".endswith("/indptr")]
                return {layer.removesuffix("/"): _matrix(arrays, layer) for layer in layers}
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    except Exception as error:  # NumPy and SciPy may raise anything
        raise InputError(f"{path} is damaged or not a file of compressed sparse rows: {first_line(error)}") from error


def _check_sizes(file: BinaryIO) -> None:
    """Raise `ValueError` if arrays are larger than the zip states, or compressed too much; reads none."""
    size = file.seek(0, os.SEEK_END)
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        if sum(entry.file_size for entry in entries) > MAX_COMPRESSION * size:
            raise ValueError(f"its arrays are more than {MAX_COMPRESSION} times as large as the file")
        for entry in entries:
            with archive.open(entry) as array:
                version = np.lib.format.read_magic(array)
                read = (
                    np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                )
                shape, _, dtype = read(array)
                if array.tell() + math.prod(shape) * dtype.itemsize != entry.file_size:
                    raise ValueError(f"{entry.filename} does not have the size of {shape} {dtype}")
    file.seek(0)


def _matrix(arrays: Mapping[str, Array], layer: str) -> csr_array:
    """The checked matrix of one layer. Raises `ValueError`."""
    expected = {"values": np.float32, "indices": np.int32, "indptr": np.int32, "shape": np.int64}
    parts = {name: arrays[f"{layer}{name}"] for name in expected}
    for name, dtype in expected.items():
        if parts[name].dtype != dtype or parts[name].ndim != 1:
            found = f"{parts[name].dtype} {list(parts[name].shape)}"
            raise ValueError(f"{layer}{name} should be {np.dtype(dtype)} on one axis, not {found}")
    shape = parts["shape"].tolist()
    if len(shape) < 2 or min(shape) < 1 or max(shape[0], math.prod(shape[1:])) >= 2**31:
        raise ValueError(f"{layer}shape should be (out, in, *kernel), for less than 2**31 columns, not {shape}")
    matrix = csr_array((parts["values"], parts["indices"], parts["indptr"]), shape=(shape[0], math.prod(shape[1:])))
    matrix.check_format(full_check=True)
    if parts["indptr"][-1] != len(parts["indices"]):
        raise ValueError(f"{layer}indptr should end with {len(parts['indices'])}, the number of indices")
    if not matrix.has_canonical_format:
        raise ValueError(f"{layer}indices should increase within a row")
    return matrix


def _layer(layer: nn.Linear | _ConvNd, weight: Tensor, bias: Tensor | None) -> dict[str, Array]:
    """The arrays of one layer, by the last part of their names."""
    matrix = csr_array(_to_numpy(weight.flatten(1)))
    arrays: dict[str, Array] = {
        "indptr": matrix.indptr.astype(np.int32),
        "indices": matrix.indices.astype(np.int32),
        "values": matrix.data,
        "shape": np.array(weight.shape, dtype=np.int64),
    }
    if bias is not None:
        arrays["bias"] = _to_numpy(bias)
    if isinstance(layer, _ConvNd):
        arrays["stride"] = np.array(layer.stride, dtype=np.int64)
        arrays["padding"] = _padding(layer)
        arrays["padding_mode"] = np.array(layer.padding_mode)
        arrays["dilation"] = np.array(layer.dilation, dtype=np.int64)
        arrays["groups"] = np.array(layer.groups, dtype=np.int64)
    return arrays


def _padding(layer: _ConvNd) -> Array:
    """The padding before and after on each axis: int64 [axes, 2]; of "same", before may be one less."""
    if layer.padding == "same":
        reach = [dilation * (size - 1) for dilation, size in zip(layer.dilation, layer.kernel_size, strict=True)]
        return np.array([(each // 2, each - each // 2) for each in reach], dtype=np.int64)
    if layer.padding == "valid":
        return np.zeros((len(layer.stride), 2), dtype=np.int64)
    return np.array([(each, each) for each in layer.padding], dtype=np.int64)


def _to_numpy(tensor: Tensor) -> Array:
    """A NumPy array: floating-point numbers as float32, others unchanged."""
    array: Array = (tensor.float() if tensor.is_floating_point() else tensor).detach().cpu().numpy()
    return array


def _add(arrays: dict[str, Array], name: str, array: Array) -> None:
    if name in arrays:
        raise InputError(f"two arrays have the name {name}: rename one of the layers")
    arrays[name] = array


def _write(path: Path, arrays: Mapping[str, Array]) -> None:
    """Like `numpy.savez`, for any names, with a constant date for all entries: the earliest that a zip can hold."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0)), "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.ascontiguousarray(array).reshape(array.shape), allow_pickle=False)
