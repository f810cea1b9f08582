"""Examples where none is given."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from tests.support.errors import raises_input_error
from tests.support.prunable_networks import ActorCritic, Recurrent, Transformer, tiny_gpt2
from tombola.pruning.example_inputs import first_inputs, plausible_inputs
from tombola.utils.model_inputs import call


class WithArray(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.example_input_array = torch.ones(2, 7, 3)
        self.layer = nn.Conv1d(7, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[-1] == 3
        found: Tensor = self.layer(x)
        return found


def hugging_face_vit() -> nn.Module:
    from transformers import ViTConfig, ViTForImageClassification

    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    made: nn.Module = ViTForImageClassification(ViTConfig(**sizes, image_size=12, patch_size=4))
    return made


@pytest.mark.parametrize(
    "make",
    [
        ActorCritic,
        Recurrent,
        Transformer,
        tiny_gpt2,
        WithArray,
        hugging_face_vit,
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(49, 2)),
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 26 * 26, 2)),
        lambda: nn.Sequential(nn.ConvTranspose1d(5, 4, 3)),
    ],
)
def test_a_network_takes_what_is_found(make: Any) -> None:
    network = make().eval()
    call(network, plausible_inputs(network))


def test_networks_of_unknown_inputs_need_an_example() -> None:
    class Two(nn.Linear):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:  # type: ignore[override]
            return super().forward(x + y)

    with raises_input_error("example"):
        plausible_inputs(Two(3, 2))


def test_the_inputs_of_the_first_batch_are_taken_without_moving_on() -> None:
    x, y = torch.randn(6, 3), torch.zeros(6)
    assert torch.equal(first_inputs([(x, y)]), x)  # type: ignore[arg-type]
    assert first_inputs([{"input_ids": x, "labels": y}]) == {"input_ids": x}
    assert first_inputs([x]) is None
    assert first_inputs(None) is None
    batches = iter([(x, y)])
    assert first_inputs(batches) is None
    assert next(batches)
    generator = torch.Generator().manual_seed(0)
    loader = DataLoader(TensorDataset(x, y), 2, shuffle=True, generator=generator)
    before, state = torch.get_rng_state(), generator.get_state()
    assert isinstance(first_inputs(loader), Tensor)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(generator.get_state(), state)
