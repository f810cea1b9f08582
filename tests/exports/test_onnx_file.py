from __future__ import annotations

import logging
from pathlib import Path

import onnx
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import numpy_helper
from torch import Tensor, nn

from tests.exports.exporting import sparse
from tests.exports.networks import networks, sparsify
from tombola import hold, prune
from tombola.exports import onnx_file as to_onnx
from tombola.exports.onnx_file import read_onnx, stored, write_onnx
from tombola.exports.torch_export import TOLERANCE
from tombola.utils import extras
from tombola.utils.errors import InputError


@settings(deadline=None, max_examples=4, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(networks(), st.floats(0.02, 1), st.integers(0, 999))
def test_onnx_runtime_agrees_for_any_batch(
    tmp_path: Path, drawn: tuple[nn.Module, Tensor], density: float, seed: int
) -> None:
    network, example = drawn
    sparsify(network, density, seed)
    difference = write_onnx(network, example, tmp_path / "net.onnx")
    read = read_onnx(tmp_path / "net.onnx")
    for size in (1, 2, 7, 1024):
        inputs = torch.randn(size, *example.shape[1:])
        with torch.no_grad():
            expected = network(inputs)
        assert (read(inputs) - expected).abs().max() <= TOLERANCE * expected.abs().max()
    with torch.no_grad():
        assert (read(example) - network(example)).abs().max() <= difference


def test_the_file_is_one_valid_model_with_its_names_and_weights(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    network, example = sparse("mlp")
    write_onnx(network, example, tmp_path / "net.onnx", {"recipe": "digits", "level": "4"})
    assert capfd.readouterr() == ("", "")
    assert [file.name for file in tmp_path.iterdir()] == ["net.onnx"]
    model = onnx.load(tmp_path / "net.onnx", load_external_data=False)
    onnx.checker.check_model(model, full_check=True)
    assert model.producer_name == "tombola"
    assert {entry.key: entry.value for entry in model.metadata_props} == {"recipe": "digits", "level": "4"}
    assert read_onnx(tmp_path / "net.onnx").about == {"recipe": "digits", "level": "4"}
    shapes = [
        (value.name, [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim])
        for value in (*model.graph.input, *model.graph.output)
    ]
    assert shapes == [("input", ["batch", 4, 4]), ("output", ["batch", 3])]
    stored = {value.name: torch.tensor(numpy_helper.to_array(value)) for value in model.graph.initializer}
    for name, parameter in network.named_parameters():
        assert torch.equal(stored[name], parameter)  # zeros stay


def test_bytes_of_the_numbers_in_a_file_are_counted(tmp_path: Path) -> None:
    shared = nn.Linear(4, 4)
    network = nn.Sequential(shared, nn.BatchNorm1d(4), nn.ReLU(), shared, nn.ReLU(), nn.Linear(4, 3, bias=False))
    write_onnx(network, torch.randn(2, 4), tmp_path / "net.onnx")
    model = onnx.load(tmp_path / "net.onnx")
    numbers = sum(len(numpy_helper.to_array(each).tobytes()) for each in model.graph.initializer)
    assert stored(tmp_path / "net.onnx") == numbers < (tmp_path / "net.onnx").stat().st_size
    assert numbers >= 4 * (16 + 4 + 12)


def test_the_same_network_gives_the_same_bytes_and_none_of_this_machine(tmp_path: Path) -> None:
    network, example = sparse("convolutions")
    contents = []
    for _ in range(2):
        write_onnx(network, example, tmp_path / "net.onnx", {"a": "1", "b": "2"})
        contents.append((tmp_path / "net.onnx").read_bytes())
    assert contents[0] == contents[1]
    assert str(Path(__file__).parents[2]).encode() not in contents[0]
    assert b".py" not in contents[0]


def test_the_network_stays_as_it_was(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    network[1].eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with hold(network, prune(network, 0.5)):
        write_onnx(network, torch.randn(3, 8), tmp_path / "held.onnx")
    assert [module.training for module in network] == [True, False, True]
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert before.keys() == network.state_dict().keys()
    assert torch.equal(before["1.running_mean"], network.state_dict()["1.running_mean"])


class Bessel(nn.Module):
    """Has no counterpart in ONNX."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.special.bessel_j0(x)


class Shifted(nn.Module):
    """Gives something else every time."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.rand_like(x)


def test_what_cannot_be_written_is_said_in_a_line_and_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(b"before")
    cases: dict[str, nn.Module] = {
        r"^torch cannot write this network as ONNX: .*bessel_j0": Bessel(),
        r"^ONNX Runtime and PyTorch differ by \S+ where outputs are up to \S+, for a batch of 1: nothing": Shifted(),
    }
    for message, network in cases.items():
        with pytest.raises(InputError, match=message) as caught:
            write_onnx(network, torch.randn(3, 4, 4), path)
        assert "\n" not in str(caught.value)
    assert path.read_bytes() == b"before"
    assert [file.name for file in tmp_path.iterdir()] == ["net.onnx"]
    assert logging.root.manager.disable == logging.NOTSET


def test_more_bytes_than_a_file_can_have_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(to_onnx, "LARGEST", 1000)
    with pytest.raises(InputError, match=r"^this network has \d,\d{3} bytes as ONNX; a file of it can have 1,000$"):
        write_onnx(nn.Linear(16, 16), torch.randn(2, 16), tmp_path / "net.onnx")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"no model")
    for read in (read_onnx, stored):
        with pytest.raises(InputError, match=r"none\.onnx cannot be read: No such file"):
            read(tmp_path / "none.onnx")
        with pytest.raises(InputError, match=r"net\.onnx is damaged or no ONNX model: ") as caught:
            read(tmp_path / "net.onnx")
        assert "\n" not in str(caught.value)


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = nn.Linear(2, 2), torch.randn(2, 2), tmp_path / "net.onnx"
    with monkeypatch.context() as patch:
        patch.setattr(torch, "__version__", torch.torch_version.TorchVersion("2.4.1"))
        with pytest.raises(
            InputError, match=f"^ONNX files are written by torch {to_onnx.TORCH} or newer, this is 2.4.1"
        ):
            write_onnx(*arguments)

    def absent(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(extras.importlib, "import_module", absent)
    with pytest.raises(InputError, match=r"^this needs onnx: pip install 'tombola\[onnx\]'$"):
        write_onnx(*arguments)
    with pytest.raises(InputError, match=r"^this needs onnxruntime: pip install 'tombola\[onnx\]'$"):
        read_onnx(tmp_path / "net.onnx")
