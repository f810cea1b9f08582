from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tombola.graph.recording import Graph, record


class Function(nn.Module):
    """A network that calls a function."""

    def __init__(self, how: Any, **layers: nn.Module) -> None:
        super().__init__()
        self.how = how
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, *inputs: Any, **named: Any) -> Any:
        return self.how(self, *inputs, **named)


def names(graph: Graph) -> list[str]:
    return [operation.name.removeprefix("aten.") for operation in graph.operations]


def test_operations_are_recorded_with_their_tensors_and_modules() -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.ReLU()).eval()
    graph = record(network, torch.ones(2, 3))
    assert [name for name in names(graph) if name != "detach"] == ["t", "addmm", "relu"]
    product = graph.operations[1]
    assert product.module == "0"
    assert [graph.names.get(index) for index in product.inputs] == ["0.bias", None, None]
    assert [graph.shapes[index] for index in product.inputs] == [(4,), (2, 3), (3, 4)]
    assert graph.shapes[graph.outputs[0]] == (2, 4)


def test_any_code_can_be_recorded() -> None:
    def how(n: Any, *, first: Tensor, second: Tensor) -> dict[str, Tensor]:
        y = n.a(first) if first.sum() > 0 else n.b(first)
        for _ in range(int(second.max())):
            y = torch.relu(y)
        return {"y": y}

    network = Function(how, a=nn.Linear(3, 4), b=nn.Linear(3, 4)).eval()
    graph = record(network, {"first": torch.ones(2, 3), "second": torch.tensor([3])})
    assert names(graph).count("relu") == 3
    assert "a" in {operation.module for operation in graph.operations}
    assert "b" not in {operation.module for operation in graph.operations}


def test_a_change_in_place_is_a_new_tensor() -> None:
    graph = record(Function(lambda _, x: x.clone().add_(1).mul_(2)), torch.ones(2, 3))
    before, after = (graph.operations[place].outputs[0] for place in (1, 2))
    assert graph.operations[2].inputs == [before]
    assert before != after
    assert graph.outputs == [after]


def test_what_is_written_into_a_part_changes_the_whole() -> None:
    def how(_: Any, x: Tensor) -> Tensor:
        y = torch.zeros(2, 4)
        y[:, :3] = x
        return y

    graph = record(Function(how), torch.ones(2, 3))
    assert names(graph)[-1] == "as_strided_scatter"
    assert graph.outputs == [graph.operations[-1].outputs[0]]


def test_results_that_nothing_reads_are_not_needed() -> None:
    def how(_: Any, x: Tensor) -> Tensor:
        torch.relu(x)
        return x + 1

    graph = record(Function(how), torch.ones(2, 3))
    needed = [graph.operations[place].name for place in sorted(graph.needed)]
    assert needed == ["aten.add"]


def test_the_network_and_random_states_are_as_before() -> None:
    network = nn.Sequential(nn.Linear(3, 3), nn.Dropout()).requires_grad_(False)
    state = torch.get_rng_state()
    record(network, torch.ones(2, 3))
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
