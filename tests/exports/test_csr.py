from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from tests.support.export_networks import sparse
from tests.support.random_networks import networks, sparsify
from tombola.exports.csr import read_csr, write_csr
from tombola.utils.errors import InputError


def arrays_of(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(networks(), st.floats(0, 1), st.integers(0, 999))
def test_the_state_dict_can_be_restored(
    tmp_path: Path, drawn: tuple[nn.Module, Tensor], density: float, seed: int
) -> None:
    network = sparsify(nn.Sequential(drawn[0], nn.ConvTranspose2d(2, 3, 2)), density, seed)
    write_csr(network, tmp_path / "net.npz")
    arrays, matrices = arrays_of(tmp_path / "net.npz"), read_csr(tmp_path / "net.npz")
    for name, tensor in network.state_dict().items():
        layer, _, part = name.rpartition(".")
        if layer in matrices and part == "weight":
            assert matrices[layer].nnz == tensor.count_nonzero()
            whole = matrices[layer].toarray().reshape(arrays[f"{layer}/shape"])
        else:
            whole = arrays[f"{layer}/bias" if layer in matrices else name]
        assert np.array_equal(whole, tensor.numpy())


def test_rows_are_outputs_and_columns_inputs_by_kernel(tmp_path: Path) -> None:
    layer = nn.Conv2d(4, 2, (1, 2), stride=(1, 2), padding=(0, 1), dilation=(1, 3), groups=2)
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[0, 1, 0, 1] = 7  # column (1 * 1 + 0) * 2 + 1
        layer.weight[1, 0, 0, 0] = -1
        layer.weight[1, 1, 0, 0] = 2
        layer.bias.copy_(torch.tensor([5.0, 6.0]))
    write_csr(layer, tmp_path / "layer.npz")
    arrays = arrays_of(tmp_path / "layer.npz")
    assert {name: array.tolist() for name, array in arrays.items()} == {
        "indptr": [0, 1, 3],
        "indices": [3, 0, 2],
        "values": [7, -1, 2],
        "shape": [2, 2, 1, 2],
        "bias": [5, 6],
        "stride": [1, 2],
        "padding": [[0, 0], [1, 1]],
        "padding_mode": "zeros",
        "dilation": [1, 3],
        "groups": 2,
    }
    kinds = {name: array.dtype for name, array in arrays.items()}
    assert kinds["indptr"] == kinds["indices"] == np.int32
    assert kinds["values"] == kinds["bias"] == np.float32
    assert read_csr(tmp_path / "layer.npz")[""].toarray().tolist() == [[0, 0, 0, 7], [-1, 0, 2, 0]]


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("padding", ["same", "valid", (2, 1)])
def test_padding_equals_that_of_the_layer(tmp_path: Path, padding: Any) -> None:
    layer = nn.Conv2d(2, 3, (4, 3), padding=padding, dilation=(1, 2))
    write_csr(layer, tmp_path / "layer.npz")
    (top, bottom), (left, right) = arrays_of(tmp_path / "layer.npz")["padding"].tolist()
    inputs = torch.randn(2, 2, 9, 9)
    padded = functional.pad(inputs, (left, right, top, bottom))
    with torch.no_grad():
        outputs = functional.conv2d(padded, layer.weight, layer.bias, dilation=(1, 2))
        torch.testing.assert_close(outputs, layer(inputs))


class Tied(nn.Module):
    """Two layers with one weight, and one whose weight is computed."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(3, 3), nn.Linear(3, 3, bias=False)
        self.other.weight = self.one.weight
        self.normed = nn.utils.parametrizations.weight_norm(nn.Linear(2, 2))
        self.register_buffer("short", torch.ones(2, dtype=torch.bfloat16))


def test_shared_weights_are_stored_for_each_layer_and_computed_ones_dense(tmp_path: Path) -> None:
    network = Tied()
    write_csr(network, tmp_path / "net.npz")
    matrices, arrays = read_csr(tmp_path / "net.npz"), arrays_of(tmp_path / "net.npz")
    assert list(matrices) == ["one", "other"]
    assert (matrices["one"] != matrices["other"]).nnz == 0
    computed = "normed.parametrizations.weight.original1"
    assert np.array_equal(arrays[computed], network.state_dict()[computed].numpy())
    assert arrays["short"].dtype == np.float32


def test_the_same_network_gives_the_same_bytes(tmp_path: Path) -> None:
    network, _ = sparse()
    folder = tmp_path / "not" / "there yet"
    for name in ("one.npz", "other.npz"):
        write_csr(network, folder / name)
    assert (folder / "one.npz").read_bytes() == (folder / "other.npz").read_bytes()
    with zipfile.ZipFile(folder / "one.npz") as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    assert sorted(file.name for file in folder.iterdir()) == ["one.npz", "other.npz"]


def test_names_that_collide_are_an_error(tmp_path: Path) -> None:
    network = nn.ModuleDict({"a": nn.Linear(2, 2)})
    network.register_buffer("a/values", torch.ones(1))
    with pytest.raises(InputError, match="a/values"):
        write_csr(network, tmp_path / "net.npz")
    assert list(tmp_path.iterdir()) == []


def test_damaged_files_are_an_error_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "net.npz"
    with pytest.raises(InputError, match=r"net\.npz"):
        read_csr(path)
    write_csr(nn.Linear(8, 4), path)
    content, arrays = path.read_bytes(), arrays_of(path)
    damages: list[dict[str, Any]] = [
        {"indices": arrays["indices"] + 1},  # beyond the last column
        {"indptr": arrays["indptr"][:-1]},
        {"shape": np.array(4)},
        {"shape": np.array([-4, -8])},
        {"values": np.array([None] * 32)},  # pickled, which is not allowed
        {"values": arrays["values"].astype(np.float64)},
        {"values": arrays["values"][None]},
        {"indptr": arrays["indptr"].astype(np.int64)},
        {"indices": arrays["indices"][::-1].copy()},
        {"indices": np.zeros_like(arrays["indices"])},
        {"indices": -arrays["indices"]},
        {"indptr": np.array([0, 16, 8, 24, 32], dtype=np.int32)},
        {"indptr": np.array([0, 8, 16, 24, 31], dtype=np.int32)},
        {"shape": np.array([4, 8.0])},
        {"shape": np.array([4])},
        {"shape": np.array([0, 8]), "indptr": np.array([0], dtype=np.int32)},
        {"shape": np.array([4, 2**16, 2**15])},
    ]
    for damage in damages:
        np.savez(path, **arrays | damage)
        with pytest.raises(InputError, match=r"net\.npz is damaged") as caught:
            read_csr(path)
        assert "\n" not in str(caught.value)
    for cut in (b"", content[:50], content[: len(content) // 2], content[:400] + b"\xff" * 20 + content[420:]):
        path.write_bytes(cut)
        with pytest.raises(InputError, match=r"net\.npz is damaged"):
            read_csr(path)


def test_sizes_are_checked_before_arrays_are_read(tmp_path: Path) -> None:
    path = tmp_path / "net.npz"
    write_csr(nn.Linear(8, 4), path)
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    huge = content["values.npy"].replace(b"(32,), }" + b" " * 8, b"(9999999999,), }"[:16])
    assert huge != content["values.npy"]
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in content.items():
            archive.writestr(name, huge if name == "values.npy" else array)
    with pytest.raises(InputError, match=r"values\.npy.*9999999999"):
        read_csr(path)


def test_extremely_compressed_files_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "net.npz"
    np.savez_compressed(path, **{"more": np.zeros(2**20, dtype=np.int8)})
    assert read_csr(path) == {}  # 1000 times as large is allowed
    monkeypatch.setattr("tombola.exports.csr.MAX_COMPRESSION", 100)
    with pytest.raises(InputError, match="100 times"):
        read_csr(path)
