"""ONNX files with weights of 8 bits."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn

from tests.support.errors import raises_input_error
from tests.support.random_networks import randomise, sparsify
from tests.support.user_networks import Pair, Tokens
from tombola.exports import int8 as module
from tombola.exports.benchmark import weighted_layers
from tombola.exports.examples import Examples
from tombola.exports.int8 import quantise
from tombola.exports.onnx_file import initializer_bytes, read_onnx, write_onnx
from tombola.utils import libraries
from tombola.utils.errors import InputError
from tombola.utils.model_inputs import Inputs, call, rows, tensors

Arrays = dict[str, NDArray[Any]]
SCALES = torch.tensor([1.0, 100.0, 0.01, 1.0])


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def images() -> tuple[nn.Module, Tensor]:
    """Every kind of layer with weights, half of them zero, on images."""
    layers = nn.Conv2d(2, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8), nn.ReLU()
    network = nn.Sequential(*layers, nn.ConvTranspose2d(8, 4, 2), nn.Flatten(), nn.Linear(36, 5))
    return sparsify(randomise(network), 0.5, seed=0), normal(90, 2, 4, 4)


def linear() -> tuple[nn.Module, Tensor]:
    """Outputs of very different scales: one scale for all of them would leave nothing of some."""
    network = sparsify(nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 4)), 0.5, seed=0)
    with torch.no_grad():
        network[2].weight *= SCALES[:, None]
        network[2].bias *= SCALES
    return network, normal(90, 6)


class Attention(nn.Module):
    """Matrix products of constants, and of activations."""

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.output = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.output(self.attention(x, x, x)[0].mean(1))
        return out


def tokens() -> tuple[nn.Module, Inputs]:
    ids = torch.randint(20, (90, 4), generator=torch.Generator().manual_seed(0))
    return Tokens(gives_loss=True), {"attention_mask": (ids > 3).long(), "input_ids": ids}


NETWORKS = {
    "images": images,
    "linear": linear,
    "attention": lambda: (Attention(), normal(90, 5, 8)),
    "tokens": tokens,
    "two inputs": lambda: (Pair(), (normal(90, 10), normal(90, 6))),
}


Written = Callable[[str], tuple[nn.Module, Any, Path]]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """One of the networks, its inputs, and its ONNX file, which is written once."""

    @functools.cache
    def write(kind: str) -> tuple[nn.Module, Any, Path]:
        torch.manual_seed(0)
        (network, x), path = NETWORKS[kind](), tmp_path_factory.mktemp("onnx") / "net.onnx"
        write_onnx(network, rows(x, slice(2)), path, {"recipe": "digits"})
        return network.eval(), x, path

    return write


def made(folder: Path, whole: Path, x: Any, calibrated: bool = True) -> tuple[str, Path]:
    """What is said of a quantised file, and that file."""
    path = folder / "int8.onnx"
    return quantise(whole, path, rows(x, slice(2)), Examples(x, None, "theirs") if calibrated else None), path


def arrays(path: Path) -> Arrays:
    return {each.name: numpy_helper.to_array(each) for each in onnx.load(path).graph.initializer}


def quantised(path: Path) -> Arrays:
    """The quantised weights, without biases."""
    return {name: each for name, each in arrays(path).items() if each.dtype == np.int8 and each.ndim > 1}


@pytest.mark.parametrize("kind", NETWORKS)
def test_static_quantisation_computes_nearly_the_same(tmp_path: Path, written: Written, kind: str) -> None:
    network, x, whole = written(kind)
    how, path = made(tmp_path, whole, x)
    assert how.startswith("static ")
    assert "90 examples: theirs" in how
    read = read_onnx(path)
    assert read.about == {"recipe": "digits"}
    types = {node.op_type for node in onnx.load(path).graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= types
    with torch.no_grad():
        expected, found = ([*tensors(call(each, x))] for each in (network, read))
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.shape == theirs.shape
        scales = theirs.abs().amax(0)  # of each output: those of "linear" differ
        assert 0 < ((ours - theirs).abs() / scales).max() < 0.2
    for size in (1, 7):
        assert next(tensors(call(read, rows(x, slice(size))))).isfinite().all()
    first = path.read_bytes()
    made(tmp_path, whole, x)
    assert path.read_bytes() == first


@pytest.mark.parametrize("calibrated", [True, False])
def test_zeros_stay_zero_and_each_output_has_a_scale(tmp_path: Path, written: Written, calibrated: bool) -> None:
    for kind in ("images", "linear"):
        network, x, whole = written(kind)
        _, path = made(tmp_path, whole, x, calibrated)
        everything, weights = arrays(path), quantised(path)
        layers = {f"{name}.weight": each.weight.detach().numpy() for name, each in weighted_layers(network).items()}
        expected = layers if calibrated else {name: each for name, each in layers.items() if each.ndim == 2}
        assert {name.partition("_")[0] for name in weights} == {*expected}
        for name, weight in weights.items():
            stem, layer = name.removesuffix("_quantized"), layers[name.partition("_")[0]]
            layer = layer.T if "_Transposed" in name else layer
            scale, zero = everything[f"{stem}_scale"], everything[f"{stem}_zero_point"]
            assert scale.size > 1
            assert scale.size in weight.shape
            assert not zero.any()
            assert (layer == 0).any()
            assert (weight[layer == 0] == 0).all()
            assert abs(weight).max() == 64  # 7 bits


def test_without_examples_only_linear_layers_are_quantised(tmp_path: Path, written: Written) -> None:
    network, x, whole = written("images")
    how, path = made(tmp_path, whole, x, calibrated=False)
    assert how.startswith("dynamic ")
    assert "no calibration examples" in how
    assert [each.shape for each in quantised(path).values()] == [(36, 5)]
    kept = {name for name, each in arrays(path).items() if each.ndim == 4}
    assert kept == {name for name, each in arrays(whole).items() if each.ndim == 4}
    with torch.no_grad():
        expected = network(x)
    assert 0 < (read_onnx(path)(x) - expected).abs().max() < 0.05 * expected.abs().max()


def test_a_network_without_linear_layers_needs_examples(tmp_path: Path) -> None:
    x, path = normal(9, 2, 4, 4), tmp_path / "net.onnx"
    write_onnx(nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten()), x, path)
    (tmp_path / "int8.onnx").write_bytes(b"before")
    with raises_input_error("calibration", "linear"):
        made(tmp_path, path, x, calibrated=False)
    assert (tmp_path / "int8.onnx").read_bytes() == b"before"
    assert made(tmp_path, path, x)[0].startswith("static ")


def test_where_static_quantisation_fails_it_is_dynamic_and_says_why(
    tmp_path: Path, written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise ValueError("no ranges\nfor this")

    monkeypatch.setattr("onnxruntime.quantization.quantize_static", fails)
    _, x, whole = written("linear")
    how, path = made(tmp_path, whole, x)
    assert how.startswith("dynamic ")
    assert "no ranges" in how
    assert "\n" not in how
    assert len(quantised(path)) == 2
    path.unlink()
    with raises_input_error("calibration: ", "no ranges"):
        quantise(whole, path, x, Examples(x), must_calibrate=True)
    assert not path.exists()


def test_weights_are_smaller_and_ranges_are_those_of_all_calibration_examples(tmp_path: Path) -> None:
    network, x, whole = nn.Linear(100, 100), normal(module.CALIBRATION_BATCH + 1, 100), tmp_path / "net.onnx"
    x[-1] *= 10  # the last example, in a batch of its own
    write_onnx(network, x[:2], whole)
    _, path = made(tmp_path, whole, x)
    assert initializer_bytes(path) < 0.35 * initializer_bytes(whole)
    read = read_onnx(path)
    with torch.no_grad():
        torch.testing.assert_close(read(x[-1:]), network(x[-1:]), rtol=0, atol=0.05 * network(x).abs().max().item())


def test_nothing_is_printed(tmp_path: Path, written: Written, capfd: pytest.CaptureFixture[str]) -> None:
    _, x, whole = written("linear")
    capfd.readouterr()
    made(tmp_path, whole, x)
    assert capfd.readouterr() == ("", "")
    assert logging.root.manager.disable == logging.NOTSET
    assert [path.name for path in tmp_path.iterdir()] == ["int8.onnx"]


def test_missing_packages_and_files_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="none"):
        quantise(tmp_path / "none", tmp_path / "int8.onnx", normal(2, 6))

    def absent(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(libraries.importlib, "import_module", absent)
    with pytest.raises(InputError, match=r"onnx: .*'tombola\[onnx\]'"):
        quantise(tmp_path / "net.onnx", tmp_path / "int8.onnx", normal(2, 6))
