from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.exports.exporting import sparse
from tests.exports.networks import networks, sparsify
from tombola.exports.torch_export import TOLERANCE, agreement, read_exported, write_exported
from tombola.utils.errors import InputError


@settings(deadline=None, max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(networks(), st.floats(0.02, 1), st.integers(0, 999))
def test_what_is_read_answers_as_the_network_does(
    tmp_path: Path, drawn: tuple[nn.Module, Tensor], density: float, seed: int
) -> None:
    network, example = drawn
    sparsify(network, density, seed)
    write_exported(network, example, tmp_path / "net.pt2")
    read = read_exported(tmp_path / "net.pt2")
    for size in (1, 2, 7, 1024):
        inputs = torch.randn(size, *example.shape[1:])
        with torch.no_grad():
            expected = network(inputs)
        assert (read(inputs) - expected).abs().max() <= TOLERANCE * expected.abs().max()


def test_nothing_else_is_changed_written_or_printed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    network, example = sparse("convolutions")
    assert 0 <= write_exported(network, example, tmp_path / "net.pt2") < 1e-4
    assert all(module.training for module in network.modules())
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert capfd.readouterr() == ("", "")
    assert [file.name for file in tmp_path.iterdir()] == ["net.pt2"]


def test_the_example_is_not_in_the_file(tmp_path: Path) -> None:
    example = torch.full((50, 4, 4), 1.2345678)
    write_exported(sparse("mlp")[0], example, tmp_path / "net.pt2")
    assert example[0, 0, :2].numpy().tobytes() not in (tmp_path / "net.pt2").read_bytes()


class ByValue(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


class ThreeRows(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(-1, 4) + torch.ones(3, 4)


class Both(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


def test_what_cannot_be_exported_is_said_in_a_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    cases: dict[str, nn.Module] = {
        r"^torch\.export cannot export this network for any batch size: \w+.*": ByValue(),
        r"^torch\.export cannot export this network for any batch size: .+": ThreeRows(),
        r"^this network does not take an example of \(3, 4\): ": nn.Linear(5, 2),
        "gives one tensor with a row for each example; this one gives tuple$": Both(),
        r"gives one tensor with a row for each example; this one gives shape \(12,\)$": nn.Flatten(0),
    }
    for message, network in cases.items():
        with pytest.raises(InputError, match=message) as caught:
            write_exported(network, torch.ones(3, 4), tmp_path / "net.pt2")
        assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("example", [torch.ones(4), torch.ones(0, 4), torch.ones(3, 4).double()])
def test_an_example_that_is_no_batch_of_inputs_is_refused(tmp_path: Path, example: Tensor) -> None:
    with pytest.raises(InputError, match=r"^an export needs an example batch of inputs, float32 on the CPU"):
        write_exported(nn.Linear(4, 2), example, tmp_path / "net.pt2")


def test_agreement_is_measured_at_one_two_and_all_and_relative_to_the_largest_output() -> None:
    network, example = nn.Identity(), torch.tensor([[100.0, 1.0], [2.0, 3.0], [4.0, 5.0]])
    sizes = []

    def near(inputs: Tensor) -> Tensor:
        sizes.append(len(inputs))
        return inputs + torch.tensor([0.0, 0.0078125])

    assert agreement(network, near, example, "near") == 0.0078125
    assert sizes == [1, 2, 3]
    with pytest.raises(
        InputError, match=r"^far and PyTorch differ by 0.02 where outputs are up to 1e\+02, for a batch of 1"
    ):
        agreement(network, lambda inputs: inputs + 0.02, example, "far")
    with pytest.raises(InputError, match="differ by inf"):  # which a sum of the two would have hidden
        agreement(network, lambda inputs: inputs[:, None], example, "other shape")
    with pytest.raises(InputError, match=r"^broken cannot take a batch of 1: The size of tensor a"):
        agreement(network, lambda inputs: inputs + torch.ones(5), example, "broken")
    with pytest.raises(InputError, match="differ by nan"):
        agreement(network, lambda inputs: inputs * torch.nan, example, "none")


def test_files_that_cannot_be_read(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match=r"none\.pt2 cannot be read: No such file"):
        read_exported(tmp_path / "none.pt2")
    (tmp_path / "net.pt2").write_bytes(b"no program")
    with pytest.raises(InputError, match=r"net\.pt2 is damaged or no exported program: ") as caught:
        read_exported(tmp_path / "net.pt2")
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")
