from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.support.errors import raises_input_error
from tests.support.prunable_networks import (
    ActorCritic,
    Experts,
    GraphConvolution,
    Recurrent,
    Transformer,
    tiny_gpt2,
)
from tests.support.zoo_networks import SMALL, make_start
from tombola import prune
from tombola.pruning.options import PruningOptions
from tombola.pruning.prunable_network import PrunableNetwork
from tombola.pruning.scopes import Layerwise
from tombola.zoo.models import build


def outputs(network: nn.Module, include: Sequence[str] = ()) -> set[str]:
    return {name.removesuffix(".weight") for name in PrunableNetwork(network, include).outputs}


class HeadFirst(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(8, 4)
        self.body = nn.Linear(3, 8)

    def forward(self, x: Tensor, scale: Tensor | None = None) -> dict[str, Tensor]:
        logits = self.head(functional.relu(self.body(x)))
        return {"logits": logits if scale is None else logits * scale}


class Residual(nn.Module):
    """Returns a stream that two layers add to."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.inner, self.out = nn.Linear(3, 4), nn.Linear(4, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        stream = self.embed(x)
        total: Tensor = stream + self.out(functional.gelu(self.inner(stream)))
        return total


class Branching(nn.Module):
    """Its body asks about the values of a tensor, so it cannot be traced; its head can."""

    class Body(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 8)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.fc(x)
            return y if y.sum() > 0 else -y

    def __init__(self) -> None:
        super().__init__()
        self.head, self.body = nn.Linear(8, 2), self.Body()

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(x))
        return logits


@pytest.mark.parametrize(
    ("make", "include", "expected"),
    [
        (ActorCritic, [], {"policy", "value"}),
        (HeadFirst, [], {"head"}),
        (Residual, [], {"embed", "out"}),
        (Branching, [], {"head"}),
        (Recurrent, [], {"head"}),
        (Experts, [], {"head"}),
        (GraphConvolution, ["first", "second"], {"second"}),
        (Transformer, ["head"], {"embedding"}),  # the head has the embedding's weight
        (lambda: nn.MultiheadAttention(8, 2), [], {"out_proj"}),
        (lambda: nn.Linear(3, 2), [], {""}),
        (lambda: nn.Sequential(nn.Conv2d(1, 2, 1), nn.Conv2d(2, 3, 1), nn.AvgPool2d(2), nn.Flatten()), [], {"1"}),
        (lambda: nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3), nn.Dropout(), nn.Softmax(-1)), [], {"0"}),
    ],
)
def test_output_layers_are_found_by_the_flow_of_data(
    make: Callable[[], nn.Module], include: Sequence[str], expected: set[str]
) -> None:
    assert {name.removesuffix("weight") for name in outputs(make(), include)} == expected


def test_composites_of_torch_add_to_a_stream() -> None:
    layer = nn.TransformerDecoderLayer(8, 2, 16)
    added = {"self_attn.out_proj", "multihead_attn.out_proj", "linear2"}
    assert outputs(layer) == added
    assert outputs(nn.TransformerDecoder(layer, 2)) == {f"layers.{i}.{name}" for i in (0, 1) for name in added}


def test_every_network_of_the_zoo_has_one_output_layer() -> None:
    for name, options in SMALL.items():
        assert outputs(build(make_start(name, **options))) == {"output"}, name


def test_all_actions_and_classes_are_left_by_structured_pruning() -> None:
    network = ActorCritic()
    mask = prune(network, 0.5, structure="neurons")
    assert mask["policy.weight"].any(1).all()
    assert mask["value.weight"].any(1).all()
    assert int(mask["body.0.weight"].any(1).sum()) == 8
    assert prune(HeadFirst(), 0.5, structure="neurons").counts == {"head.weight": 16, "body.weight": 12}


def test_the_output_rate_is_that_of_all_output_layers() -> None:
    options = PruningOptions(rate=0.4, output_rate=0.2)
    rates = {"policy.weight": 0.2, "value.weight": 0.2, "body.0.weight": 0.4}
    assert options.scope_of(options.prunable(ActorCritic())) == Layerwise(rates)


class Chosen(nn.Module):
    """Cannot be traced, and takes two tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(5, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor, which: Tensor) -> Tensor:
        y: Tensor = self.head(self.body(x if which.sum() > 0 else -x))
        return y


def test_output_layers_of_networks_that_cannot_be_traced_are_found_on_an_example() -> None:
    options = PruningOptions(output_rate=0.1)
    example = (torch.ones(2, 5), torch.ones(2))
    rates = {"body.weight": 0.2, "head.weight": 0.1}
    assert options.scope_of(options.prunable(Chosen(), example)) == Layerwise(rates)


def test_output_layers_of_networks_that_can_be_neither_traced_nor_run_are_named_by_the_user() -> None:
    options = PruningOptions(output_rate=0.1)
    with raises_input_error("outputs:", "control flow", "outputs=["):
        options.scope_of(options.prunable(Chosen()))
    for structure in ("neurons", "weights"):
        with raises_input_error("outputs:", '"hed"', '"head"'):
            prune(HeadFirst(), 0.5, structure=structure, outputs=["hed"])


def test_structures_need_no_tracing() -> None:
    for outputs in (None, ["lm_head"], []):
        mask = prune(tiny_gpt2(), 0.5, structure="neurons", outputs=outputs)
        columns = mask["transformer.h.0.mlp.c_fc.weight"]  # [in, out]
        assert int(columns.any(0).sum()) == 32
        assert torch.equal(columns.any(0), columns.all(0))
    with raises_input_error("neurons", "an output"):
        prune(tiny_gpt2(), 0.5, structure="neurons", outputs=["*.mlp.c_fc"])
