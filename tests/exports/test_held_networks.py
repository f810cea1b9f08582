"""Exports of a held network whose pruned weights are not zero are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.support.errors import raises_input_error
from tests.support.held_networks import mask_of
from tombola.exports.compaction import compact
from tombola.exports.csr import write_csr
from tombola.exports.runtime import sparse
from tombola.exports.torch_export import write_exported
from tombola.exports.two_four import write_two_four
from tombola.pruning.hold import hold

X = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))


def onnx(network: nn.Module, x: Tensor, path: Path) -> None:
    pytest.importorskip("onnxscript")
    from tombola.exports.onnx_file import write_onnx

    write_onnx(network, x, path)


EXPORTS: list[Callable[[nn.Module, Tensor, Path], Any]] = [
    lambda network, x, _: compact(network, x),
    lambda network, x, _: sparse(network, x),
    lambda network, _, path: write_csr(network, path),
    lambda network, _, path: write_two_four(network, path),
    write_exported,
    onnx,
]


@pytest.mark.parametrize("export", EXPORTS, ids=["compact", "sparse", "csr", "2:4", "torch.export", "onnx"])
def test_revived_weights_are_not_exported(export: Callable[[nn.Module, Tensor, Path], Any], tmp_path: Path) -> None:
    made = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))
    hold(made, mask_of(made))
    made[2].weight.data += 1
    with raises_input_error("2.weight", "not zero"):
        export(made, X, tmp_path / "file")
    assert not list(tmp_path.iterdir())


def test_changes_that_are_counted_are_zero_in_an_export() -> None:
    made = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))
    mask = mask_of(made, density=0)
    hold(made, mask)
    with torch.no_grad():
        made[0].weight.add_(1)
    assert compact(made, X)[0].weight.numel() < 64  # type: ignore[index]
