from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.support.errors import raises_input_error
from tests.support.export_networks import FunctionNetwork, images
from tests.support.user_networks import with_dead_units
from tombola import compact
from tombola.exports.artefacts import load_compact
from tombola.utils.files import write_tensors

EXAMPLE = images(3, 10)


def backwards(n: Any, x: Tensor) -> Tensor:
    out: Tensor = n.output(n.hidden(x).relu())
    return out


def two_heads(n: Any, x: Tensor) -> Any:
    hidden = n.hidden(x).relu()
    return {"one": n.output(hidden).log_softmax(1), "other": [n.other(hidden)]}


def by_value(n: Any, x: Tensor) -> Any:
    return backwards(n, x) if x.sum() > 0 else backwards(n, -x)


def network_of(how: Any) -> nn.Module:
    """Its output layers are defined first."""
    layers = {"output": nn.Linear(64, 2), "other": nn.Linear(64, 3), "hidden": nn.Linear(10, 64)}
    return with_dead_units(FunctionNetwork(how, **layers))  # type: ignore[no-any-return]


@pytest.mark.parametrize("how", [backwards, two_heads])
def test_the_output_layer_may_be_defined_first(tmp_path: Path, how: Any) -> None:
    network, path = network_of(how), tmp_path / "compact.safetensors"
    write_tensors(path, compact(network, EXAMPLE).state_dict(), {})
    for example in (None, EXAMPLE, (EXAMPLE,), {"x": EXAMPLE}):
        loaded = load_compact(path, network, example)
        assert loaded.get_submodule("hidden").weight.shape == (20, 10)  # type: ignore[union-attr]


def test_other_numbers_of_outputs_are_an_error(tmp_path: Path) -> None:
    path = tmp_path / "compact.safetensors"
    fewer = FunctionNetwork(two_heads, output=nn.Linear(64, 2), other=nn.Linear(64, 1), hidden=nn.Linear(10, 64))
    write_tensors(path, fewer.state_dict(), {})
    with raises_input_error("other", 1, 3):
        load_compact(path, network_of(two_heads))
    with raises_input_error("(3, 1)", "(3, 3)"):
        load_compact(path, network_of(two_heads), EXAMPLE)


def test_without_a_trace_an_example_is_needed(tmp_path: Path) -> None:
    network, path = network_of(by_value), tmp_path / "compact.safetensors"
    with torch.no_grad():
        write_tensors(path, compact(network_of(backwards), EXAMPLE).state_dict(), {})
    with raises_input_error("hidden", "example"):
        load_compact(path, network)
    assert load_compact(path, network, EXAMPLE).training is False
