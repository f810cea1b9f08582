"""How often weights are multiplied."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.support.prunable_networks import tiny_gpt2
from tests.support.structures import conv1d
from tombola.graph.recording import Graph, Operation, TensorIndex, record
from tombola.pruning.multiply_adds import multiply_adds


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.attention(x, x, x)[0]
        return found


def test_weights_of_attention_are_multiplied_for_every_token() -> None:
    graph = record(Attention(), torch.zeros(3, 5, 8))
    assert multiply_adds(graph, 3) == {"attention.in_proj_weight": 5 * 192, "attention.out_proj.weight": 5 * 64}


def test_weights_may_be_shared_transposed_or_in_parts() -> None:
    shared = nn.Linear(4, 4)
    network = nn.Sequential(shared, nn.Unflatten(1, (2, 2)), nn.Flatten(), shared, conv1d(4, 6))
    assert multiply_adds(record(network, torch.zeros(2, 4)), 2) == {"0.weight": 32, "4.weight": 24}


def test_a_language_model_multiplies_its_embedding_in_its_head_alone() -> None:
    model = tiny_gpt2().eval()
    found = multiply_adds(record(model, {"input_ids": torch.zeros(2, 6, dtype=torch.int64)}), 2)
    weights = {name: p.numel() for name, p in model.named_parameters() if ".c_" in name and p.dim() == 2}
    assert found == {name: 6 * size for name, size in weights.items()} | {"transformer.wte.weight": 6 * 20 * 16}


class Recurrent(nn.Module):
    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 12, **options)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.lstm(x)[0]
        return found


@pytest.mark.parametrize("options", [{}, {"bias": False}, {"batch_first": True}])
def test_weights_of_an_lstm_are_multiplied_in_every_step(options: dict[str, Any]) -> None:
    x = torch.zeros(3, 5, 8) if "batch_first" in options else torch.zeros(5, 3, 8)
    found = multiply_adds(record(Recurrent(**options), x), 3)
    assert found == {"lstm.weight_ih_l0": 5 * 48 * 8, "lstm.weight_hh_l0": 5 * 48 * 12}


def test_all_layers_and_directions_are_counted() -> None:
    found = multiply_adds(record(Recurrent(num_layers=2, bidirectional=True), torch.zeros(5, 3, 8)), 3)
    assert len(found) == 8
    assert sum(found.values()) == 5 * 48 * 2 * (8 + 12 + 24 + 12)


def test_recurrent_layers_on_a_gpu_are_one_operation() -> None:
    shapes = [(5, 3, 8), (48, 8), (48, 12), (48,), (48,), (5, 3, 12)]
    weights = [TensorIndex(index) for index in range(1, 5)]
    operation = Operation(torch.ops.aten._cudnn_rnn.default, (TensorIndex(0), weights, 4), {}, (5,), "")
    graph = Graph([operation], shapes, {1: "input", 2: "hidden", 3: "bias", 4: "other"})
    assert multiply_adds(graph, 3) == {"input": 5 * 48 * 8, "hidden": 5 * 48 * 12}


class Bilinear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.pair = nn.Bilinear(3, 4, 5)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.pair(x[..., :3], x[..., 3:])
        return found


def test_weights_of_a_bilinear_layer_are_multiplied_once_for_every_pair_of_vectors() -> None:
    assert multiply_adds(record(Bilinear(), torch.zeros(2, 6, 7)), 2) == {"pair.weight": 6 * 60}
