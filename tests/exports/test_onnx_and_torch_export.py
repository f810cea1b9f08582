from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import numpy_helper
from torch import Tensor, nn

from tests.support.export_networks import FunctionNetwork, sparse
from tests.support.random_networks import networks, sparsify
from tombola import hold, prune
from tombola.exports import onnx_file
from tombola.exports.agreement import TOLERANCE
from tombola.exports.onnx_file import initializer_bytes, read_onnx, write_onnx
from tombola.exports.torch_export import largest_difference, read_exported, write_exported
from tombola.utils import libraries
from tombola.utils.errors import InputError

Write = Callable[[nn.Module, Tensor, Path], float]
FORMATS: dict[str, tuple[Write, Callable[[Path], Any]]] = {
    "net.onnx": (write_onnx, read_onnx),
    "net.pt2": (write_exported, read_exported),
}
"""The functions that write and read each file."""


@pytest.mark.parametrize("file", FORMATS)
@settings(deadline=None, max_examples=4, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=networks(), density=st.floats(0.02, 1), seed=st.integers(0, 999))
def test_the_file_computes_the_same_for_any_batch(
    tmp_path: Path, file: str, drawn: tuple[nn.Module, Tensor], density: float, seed: int
) -> None:
    (network, example), (write, read) = drawn, FORMATS[file]
    sparsify(network, density, seed)
    write(network, example, tmp_path / file)
    answers = read(tmp_path / file)
    for size in (1, 2, 7, 1024):
        inputs = torch.randn(size, *example.shape[1:])
        with torch.no_grad():
            expected = network(inputs)
        assert (answers(inputs) - expected).abs().max() <= TOLERANCE * expected.abs().max()


@pytest.mark.parametrize("file", FORMATS)
def test_exporting_changes_and_prints_nothing(tmp_path: Path, file: str, capfd: pytest.CaptureFixture[str]) -> None:
    network, example = sparse()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    assert 0 <= FORMATS[file][0](network, example, tmp_path / file) < 1e-4
    assert all(module.training for module in network.modules())
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert capfd.readouterr() == ("", "")
    assert [path.name for path in tmp_path.iterdir()] == [file]


def by_value(_: Any, x: Tensor) -> Tensor:
    return x if x.sum() > 0 else -x


UNSUPPORTED: list[tuple[str, nn.Module, str]] = [
    ("net.pt2", FunctionNetwork(by_value), r"torch\.export"),
    ("net.pt2", FunctionNetwork(lambda _, x: x.reshape(-1, 4) + torch.ones(3, 4)), "any batch size"),
    ("net.pt2", nn.Linear(5, 2), r"\(3, 4\)"),
    ("net.pt2", FunctionNetwork(lambda _, x: (x.mean(), None)), "not tuple$"),
    ("net.pt2", nn.Flatten(0), r"not shape \(12,\)$"),
    ("net.onnx", FunctionNetwork(lambda _, x: torch.special.bessel_j0(x)), "bessel_j0"),
    ("net.onnx", FunctionNetwork(lambda _, x: x + torch.rand_like(x)), "ONNX Runtime and PyTorch differ"),
]


@pytest.mark.parametrize(("file", "network", "message"), UNSUPPORTED)
def test_unsupported_networks_are_an_error_in_one_line_and_the_file_stays(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], file: str, network: nn.Module, message: str
) -> None:
    (tmp_path / file).write_bytes(b"before")
    with pytest.raises(InputError, match=message) as caught:
        FORMATS[file][0](network, torch.ones(3, 4), tmp_path / file)
    assert "\n" not in str(caught.value)
    assert (tmp_path / file).read_bytes() == b"before"
    assert [path.name for path in tmp_path.iterdir()] == [file]
    assert capfd.readouterr() == ("", "")
    assert logging.root.manager.disable == logging.NOTSET


@pytest.mark.parametrize("read", [read_onnx, initializer_bytes, read_exported])
def test_missing_and_damaged_files_are_an_error(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], read: Callable[[Path], Any]
) -> None:
    (tmp_path / "net").write_bytes(b"no model")
    with pytest.raises(InputError, match="none"):
        read(tmp_path / "none")
    with pytest.raises(InputError, match="net is damaged") as caught:
        read(tmp_path / "net")
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("example", [torch.ones(4), torch.ones(0, 4), torch.ones(3, 4).double()])
def test_an_example_that_is_not_a_batch_of_inputs_is_an_error(tmp_path: Path, example: Tensor) -> None:
    with pytest.raises(InputError, match=r"^example: "):
        write_exported(nn.Linear(4, 2), example, tmp_path / "net.pt2")


def test_differences_of_one_two_and_all_examples_are_relative_to_the_largest_output() -> None:
    network, example = nn.Identity(), torch.tensor([[100.0, 1.0], [2.0, 3.0], [4.0, 5.0]])
    sizes = []

    def near(inputs: Tensor) -> Tensor:
        sizes.append(len(inputs))
        return inputs + torch.tensor([0.0, 0.0078125])

    assert largest_difference(network, near, example, "near") == 0.0078125
    assert sizes == [1, 2, 3]
    with pytest.raises(InputError, match=r"^far and PyTorch differ by 0\.02.*1e\+02"):
        largest_difference(network, lambda inputs: inputs + 0.02, example, "far")
    with pytest.raises(InputError, match="differ by inf"):  # shapes that broadcast differ, too
        largest_difference(network, lambda inputs: inputs[:, None], example, "other shape")
    with pytest.raises(InputError, match=r"^broken .*batch of 1"):
        largest_difference(network, lambda inputs: inputs + torch.ones(5), example, "broken")
    with pytest.raises(InputError, match="differ by nan"):
        largest_difference(network, lambda inputs: inputs * torch.nan, example, "none")


def test_the_example_is_not_stored(tmp_path: Path) -> None:
    example = torch.full((50, 4, 4), 1.2345678)
    write_exported(nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), example, tmp_path / "net.pt2")
    assert example[0, 0, :2].numpy().tobytes() not in (tmp_path / "net.pt2").read_bytes()


Written = tuple[nn.Sequential, Path]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """A held network in training mode with a shared layer, and its file."""
    path, shared = tmp_path_factory.mktemp("onnx") / "net.onnx", nn.Linear(4, 4)
    network = nn.Sequential(shared, nn.BatchNorm1d(4), nn.ReLU(), shared, nn.ReLU(), nn.Linear(4, 3, bias=False))
    network[1].eval()
    mask = prune(network, 0.5)
    mask.apply_(network)
    with hold(network, mask):
        write_onnx(network, torch.randn(2, 4), path, {"recipe": "digits", "level": "4"})
    return network, path


def test_the_file_is_a_valid_model_with_names_and_weights(written: Written) -> None:
    network, path = written
    assert [file.name for file in path.parent.iterdir()] == ["net.onnx"]
    model = onnx.load(path, load_external_data=False)
    onnx.checker.check_model(model, full_check=True)
    assert model.producer_name == "tombola"
    assert {entry.key: entry.value for entry in model.metadata_props} == {"recipe": "digits", "level": "4"}
    assert read_onnx(path).about == {"recipe": "digits", "level": "4"}
    shapes = [
        (value.name, [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim])
        for value in (*model.graph.input, *model.graph.output)
    ]
    assert shapes == [("input", ["batch", 4]), ("output", ["batch", 3])]
    stored = [torch.tensor(numpy_helper.to_array(each)) for each in model.graph.initializer]
    for layer in (network[0], network[5]):
        assert any(torch.equal(each, layer.weight) for each in stored)  # zeros included


def test_bytes_of_initializers_are_counted(written: Written) -> None:
    path = written[1]
    numbers = sum(len(numpy_helper.to_array(each).tobytes()) for each in onnx.load(path).graph.initializer)
    assert initializer_bytes(path) == numbers < path.stat().st_size
    assert numbers >= 4 * (16 + 4 + 12)


def test_the_same_network_gives_the_same_bytes_without_paths(tmp_path: Path) -> None:
    network, example = sparse()
    contents = []
    for _ in range(2):
        write_onnx(network, example, tmp_path / "net.onnx", {"a": "1", "b": "2"})
        contents.append((tmp_path / "net.onnx").read_bytes())
    assert contents[0] == contents[1]
    assert str(Path(__file__).parents[2]).encode() not in contents[0]
    assert b".py" not in contents[0]


def test_networks_too_large_for_a_file_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_file, "MAX_BYTES", 1000)
    with pytest.raises(InputError, match=r"\d,\d{3} bytes.*1,000"):
        write_onnx(nn.Linear(16, 16), torch.randn(2, 16), tmp_path / "net.onnx")


def test_missing_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = nn.Linear(2, 2), torch.randn(2, 2), tmp_path / "net.onnx"
    with monkeypatch.context() as patch:
        patch.setattr(torch, "__version__", torch.torch_version.TorchVersion("2.4.1"))
        with pytest.raises(InputError, match=rf"torch {onnx_file.MIN_TORCH}.* 2\.4\.1"):
            write_onnx(*arguments)

    def absent(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(libraries.importlib, "import_module", absent)
    with pytest.raises(InputError, match=r"onnx: .*'tombola\[onnx\]'"):
        write_onnx(*arguments)
    with pytest.raises(InputError, match=r"onnxruntime: .*'tombola\[onnx\]'"):
        read_onnx(tmp_path / "net.onnx")
