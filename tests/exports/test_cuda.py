"""2:4 weights on a CUDA device; their kernels are tested only on a real one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import tombola
from tests.support.cuda_device import CudaDevice
from tests.support.digits_tickets import context_of, ticket_of
from tombola.exports.artefacts import ARTEFACTS
from tombola.exports.examples import Examples
from tombola.exports.export import export
from tombola.exports.export_result import FIGURES_FILE, read_export
from tombola.exports.two_four import is_two_four, read_two_four, semi_structured, write_two_four
from tombola.report.export_tables import speeds
from tombola.utils.errors import InputError
from tombola.utils.network_copy import copy_network


def network(outputs: int = 12) -> nn.Sequential:
    return nn.Sequential(nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, outputs))


@pytest.mark.usefixtures("cuda")
def test_a_network_on_the_device_is_written_and_read(tmp_path: Path) -> None:
    made, other, path = network().cuda(), network().cuda(), tmp_path / "weights.safetensors"
    tombola.prune(made, structure="2:4")
    write_two_four(made, path)
    read_two_four(other, path)
    for name, value in other.state_dict().items():
        assert value.device.type == "cuda"
        torch.testing.assert_close(value.cpu(), made.state_dict()[name].cpu(), rtol=1e-3, atol=1e-3)
    assert is_two_four(other[0].weight)


@pytest.mark.usefixtures("quick_export")
def test_two_four_weights_are_timed_beside_dense_ones_in_half_precision(
    tmp_path: Path, cuda: CudaDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    if cuda.pretended is not None:  # dense kernels instead
        dense = lambda network: copy_network(network).to("cuda", torch.float16)  # noqa: E731
        monkeypatch.setattr("tombola.exports.two_four.semi_structured", dense)
    made = network()
    ticket = ticket_of(made, tombola.prune(made, structure="2:4", leave_out=["2"]))
    x = torch.randn(40, 128, generator=torch.Generator().manual_seed(0))
    options: dict[str, Any] = {"network": made, "examples": Examples(x, torch.arange(40) % 12), "turns": 1}
    exported = export(ticket, tmp_path, kinds=["two-four"], strict=True, **options)
    whole, half, packed = exported.figures
    assert [each.device for each in exported.figures] == ["cpu", "cuda", "cuda"]
    assert [each.is_reference for each in exported.figures] == [True, True, False]
    assert sorted(path.name for path in tmp_path.iterdir()) == [FIGURES_FILE, "two-four.safetensors"]
    assert half.weights == whole.weights == 64 * 128 + 12 * 64
    assert half.memory == whole.memory // 2
    assert packed.weights == 64 * 128 // 2 + 12 * 64
    for each in (half, packed):
        assert each.latency is not None
        assert 0 < each.difference < 0.05
        assert each.accuracy is not None
    assert [row[0] for row in speeds(exported.figures) if row[2]] == [packed.name]
    assert read_export(tmp_path) == exported


def test_where_kernels_fail_weights_are_packed_and_not_timed(
    tmp_path: Path, cuda: CudaDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if x.dtype == torch.float16:
                raise RuntimeError("no kernel\nfor this")
            return super().forward(x)

    if cuda.pretended is not None:
        dense = lambda network: copy_network(network).to("cuda", torch.float16)  # noqa: E731
        monkeypatch.setattr("tombola.exports.two_four.semi_structured", dense)
    made = nn.Sequential(Failing(128, 64))
    mask = tombola.prune(made, structure="2:4")
    found = ARTEFACTS["two-four"](context_of(made, mask, tmp_path, torch.randn(2, 128)))
    assert (found.timed, found.device) == (False, "cpu")
    assert "\n" not in found.note
    if cuda.pretended is not None:
        assert "no kernel" in found.note


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_linear_layers_use_two_four_kernels(dtype: torch.dtype, cuda: CudaDevice) -> None:
    if cuda.pretended is not None:
        pytest.skip("the kernels need a real device")
    made = network(10)
    with pytest.raises(InputError, match='structure="2:4"'):
        semi_structured(made, dtype)
    tombola.prune(made, structure="2:4").apply_(made)
    fast = semi_structured(made, dtype)
    kinds = [isinstance(fast[place].weight, torch.sparse.SparseSemiStructuredTensor) for place in (0, 2)]
    assert kinds == [True, False]  # 10 outputs are not a multiple of 32
    assert made[0].weight.dtype == torch.float32
    inputs = torch.randn(48, 128, device="cuda", dtype=dtype)
    with torch.no_grad():
        expected = made.to("cuda", dtype)(inputs)
        torch.testing.assert_close(fast(inputs), expected, rtol=2e-2, atol=2e-2)
