"""How often weights are multiplied."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.support.prunable_networks import tiny_gpt2
from tests.support.structures import conv1d
from tombola.graph.recording import record
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
