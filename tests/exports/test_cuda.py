"""2:4 weights on a CUDA device; their kernels are tested only on a real one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import tombola
from tests.support.cuda_device import CudaDevice
from tombola.exports.two_four import is_two_four, read_two_four, semi_structured, write_two_four
from tombola.utils.errors import InputError


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
