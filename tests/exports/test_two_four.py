from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import tombola
from tombola.exports.two_four import is_two_four, read_two_four, semi_structured, write_two_four
from tombola.utils.errors import InputError
from tombola.utils.files import read_tensors, write_tensors

DTYPES = [torch.float16, torch.bfloat16, torch.float32]


def network() -> nn.Sequential:
    """A first layer that 4 does not divide, then two that it does, and a linear one."""
    layers = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, groups=2), nn.Conv2d(8, 6, 1, bias=False)
    return nn.Sequential(*layers, nn.ConvTranspose2d(6, 4, 2), nn.Flatten(), nn.Linear(36, 5))


def pruned() -> nn.Sequential:
    made = network()
    mask = tombola.prune(made, structure="2:4", leave_out=["0", "4"])
    mask.apply_(made)
    return made


def test_pruning_with_two_four_structure_gives_two_four_weights() -> None:
    made = pruned()
    assert [is_two_four(made[place].weight) for place in (0, 2, 3, 6)] == [False, True, True, True]
    with torch.no_grad():
        made[2].weight[5, 1:4, 2, 0] = 1
    assert not is_two_four(made[2].weight)


def test_neighbours_are_inputs() -> None:
    weight = torch.ones(4, 8)
    weight[:, ::2] = 0
    assert is_two_four(weight)
    assert not is_two_four(weight.T.contiguous())
    assert not is_two_four(weight[:, :6])
    assert not is_two_four(weight[0])
    assert is_two_four(torch.zeros(3, 4, 2))


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(DTYPES),
    st.integers(1, 5),
    st.integers(1, 5),
    st.lists(st.integers(1, 3), max_size=3),
    st.integers(0, 999),
)
def test_packing_is_exact_and_of_the_stated_size(
    tmp_path: Path, dtype: torch.dtype, rows: int, fours: int, kernel: list[int], seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    make: Any = {0: nn.Linear, 1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[len(kernel)]
    layer, other = (make(4 * fours, rows, *([tuple(kernel)] if kernel else [])) for _ in range(2))
    places = torch.rand(rows, *kernel, fours, 4, generator=generator).argsort(-1) < 2
    kept = places & (torch.rand(places.shape, generator=generator) < 0.9)  # some fours have fewer than two
    with torch.no_grad():
        layer.weight.mul_(kept.flatten(-2).movedim(-1, 1))
    write_two_four(layer, tmp_path / "layer.safetensors", dtype)
    tensors, about = read_tensors(tmp_path / "layer.safetensors")
    size = layer.weight.numel()
    assert about == {"format": "two-four 1", "dtype": str(dtype).removeprefix("torch.")}
    assert sorted(tensors) == ["places/weight", "shape/weight", "values/weight", "whole/bias"]
    assert tensors["values/weight"].shape == (size // 2,)
    assert tensors["values/weight"].dtype == dtype
    assert tensors["places/weight"].shape == ((size + 7) // 8,)
    assert tensors["shape/weight"].tolist() == list(layer.weight.shape)
    assert read_two_four(other, tmp_path / "layer.safetensors") is other
    assert torch.equal(other.weight, layer.weight.to(dtype).float())
    assert torch.equal(other.bias, layer.bias.to(dtype).float())


def test_the_layout_by_hand(tmp_path: Path) -> None:
    layer = nn.Linear(8, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.0, 3, 0, 4, 0, 0, 5, 0]]))
    write_two_four(layer, tmp_path / "layer.safetensors")
    tensors, _ = read_tensors(tmp_path / "layer.safetensors")
    assert tensors["values/weight"].tolist() == [3, 4, 0, 5]  # a zero fills up the second four
    assert tensors["places/weight"].tolist() == [0b10_00_11_01]


def test_networks_can_be_restored_and_other_weights_are_dense(tmp_path: Path) -> None:
    made = pruned()
    made[1].num_batches_tracked.fill_(70_000)
    write_two_four(made, tmp_path / "net.safetensors")
    tensors, _ = read_tensors(tmp_path / "net.safetensors")
    assert sorted(name for name in tensors if name.startswith("values/")) == [f"values/{n}.weight" for n in (2, 3, 6)]
    again = read_two_four(network(), tmp_path / "net.safetensors")
    for name, tensor in made.state_dict().items():
        expected = tensor.half().float() if tensor.is_floating_point() else tensor
        assert torch.equal(again.state_dict()[name], expected), name
    first = (tmp_path / "net.safetensors").read_bytes()
    write_two_four(made, tmp_path / "net.safetensors")
    assert (tmp_path / "net.safetensors").read_bytes() == first


def test_shared_weights_can_be_restored(tmp_path: Path) -> None:
    one, other = (nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)) for _ in range(2))
    with torch.no_grad():
        one[0].weight[:, :2] = 0
    one[1].weight, other[1].weight = one[0].weight, other[0].weight
    write_two_four(one, tmp_path / "net.safetensors", torch.float32)
    read_two_four(other, tmp_path / "net.safetensors")
    assert torch.equal(one[1].weight, other[1].weight)


def test_numbers_that_overflow_and_other_dtypes_are_an_error(tmp_path: Path) -> None:
    layer = nn.BatchNorm1d(2)
    layer.running_var.fill_(1e6)
    with pytest.raises(InputError, match=r"running_var.*float16.*bfloat16"):
        write_two_four(layer, tmp_path / "net.safetensors")
    write_two_four(layer, tmp_path / "net.safetensors", torch.bfloat16)
    with pytest.raises(InputError, match=r"^dtype: .*int8"):
        write_two_four(layer, tmp_path / "net.safetensors", torch.int8)


def test_another_architecture_is_an_error_and_nothing_is_loaded(tmp_path: Path) -> None:
    write_two_four(pruned(), tmp_path / "net.safetensors")
    wider = network()
    wider[6] = nn.Linear(36, 9)
    before = wider[0].weight.clone()
    with pytest.raises(InputError, match=r"6\.\w+ is \(5.*\(9"):
        read_two_four(wider, tmp_path / "net.safetensors")
    assert torch.equal(wider[0].weight, before)
    with pytest.raises(InputError, match="missing in the network"):
        read_two_four(nn.ReLU(), tmp_path / "net.safetensors")


def test_damaged_files_are_an_error(tmp_path: Path) -> None:
    path = tmp_path / "layer.safetensors"
    with pytest.raises(InputError, match=r"layer\.safetensors"):
        read_two_four(nn.Linear(4, 2), path)
    write_tensors(path, {}, {"format": 1})
    with pytest.raises(InputError, match="2:4"):
        read_two_four(nn.Linear(4, 2), path)
    values, places = torch.ones(4), torch.tensor([0b11_01_10_00], dtype=torch.uint8)
    good = {"values/weight": values, "places/weight": places, "shape/weight": torch.tensor([2, 4])}
    about = {"format": "two-four 1", "dtype": "float32"}
    write_tensors(path, good, about)
    read = read_two_four(nn.Linear(4, 2, bias=False), path)
    assert read.weight.tolist() == [[1, 0, 1, 0], [0, 1, 0, 1]]
    damages: list[dict[str, Tensor]] = [
        {"shape/weight": torch.tensor([2, 2**40])},
        {"shape/weight": torch.tensor([-2, -4])},
        {"shape/weight": torch.tensor([4, 2])},
        {"shape/weight": torch.tensor(8)},
        {"shape/weight": torch.tensor([2.0, 4.0])},
        {"places/weight": torch.tensor([0, 0], dtype=torch.uint8)},
        {"places/weight": torch.tensor([0b01_01_10_00], dtype=torch.uint8)},
        {"places/weight": places.long()},
        {"values/weight": values.view(2, 2)},
        {"values/weight": torch.ones(3)},
    ]
    for damage in damages:
        write_tensors(path, good | damage, about)
        with pytest.raises(InputError, match="2:4 weights weight"):
            read_two_four(nn.Linear(4, 2, bias=False), path)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA GPU here")
def test_the_kernels_need_a_gpu() -> None:
    with pytest.raises(InputError, match="CUDA"):
        semi_structured(nn.Linear(64, 32))


def test_unsupported_dtypes_and_gpus_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="float32"):
        semi_structured(nn.Linear(64, 32), torch.float32)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 5))
    with pytest.raises(InputError, match=r"7\.5"):
        semi_structured(nn.Linear(64, 32))
