from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.graph.test_recording import Function
from tombola.graph.coupling import Coupling, coupling

IMAGES = torch.ones(2, 3, 8, 8)


def found(how: Any, example: Any = IMAGES, **layers: nn.Module) -> Coupling:
    return coupling(Function(how, **layers), example)


def ids(units: Coupling, name: str, axis: int = 0) -> list[int]:
    axes = units.parameters[name]
    assert axes[axis] is not None
    return axes[axis].tolist()  # type: ignore[union-attr]


def test_a_residual_stream_is_one_set() -> None:
    def how(n: Any, x: Tensor) -> Tensor:
        x = torch.relu(n.norm(n.stem(x)))
        x = x + n.b(torch.relu(n.a(x)))
        return n.head(x.mean((2, 3)))  # type: ignore[no-any-return]

    units = found(
        how,
        stem=nn.Conv2d(3, 6, 3, padding=1),
        norm=nn.BatchNorm2d(6),
        a=nn.Conv2d(6, 4, 3, padding=1),
        b=nn.Conv2d(4, 6, 3, padding=1),
        head=nn.Linear(6, 2),
    )
    stream, inner, head = units.sets
    assert (stream.kind, len(stream.units), stream.producers) == ("channels", 6, ("stem.weight", "b.weight"))
    assert (inner.kind, len(inner.units)) == ("channels", 4)
    assert (head.units, head.whole) == ((), "the network returns them")
    for name, axis in (("norm.running_var", 0), ("a.weight", 1), ("b.bias", 0), ("head.weight", 1)):
        assert ids(units, name, axis) == list(stream.units)
    assert not set(ids(units, "stem.weight", 1)) & set(stream.units)  # channels of the images
    assert units.output_layers == {"head.weight"}


def test_concatenated_and_flattened_channels_keep_their_units() -> None:
    def how(n: Any, x: Tensor) -> Tensor:
        return n.head(torch.cat([n.a(x), n.b(x)], 1).flatten(1))  # type: ignore[no-any-return]

    layers = {"a": nn.Conv2d(3, 2, 1), "b": nn.Conv2d(3, 3, 1), "head": nn.Linear(5 * 64, 2)}
    units = found(how, **layers)
    assert ids(units, "head.weight", 1)[::64] == ids(units, "a.weight") + ids(units, "b.weight")
    assert [each.kind for each in units.sets] == ["channels", "channels", "neurons"]


@pytest.mark.parametrize(("groups", "expected"), [(8, 8), (4, 4), (2, 4)])
def test_grouped_convolutions_lose_whole_groups_or_the_same_channels_of_each(groups: int, expected: int) -> None:
    def how(n: Any, x: Tensor) -> Tensor:
        return n.head(n.b(n.a(x)))  # type: ignore[no-any-return]

    layers = {"a": nn.Conv2d(3, 8, 1), "b": nn.Conv2d(8, 8, 3, groups=groups), "head": nn.Conv2d(8, 2, 1)}
    units = found(how, **layers)
    assert len(units.sets[0].units) == expected
    if groups == 2:  # the same channels of each
        first = ids(units, "a.weight")
        assert first[:4] == first[4:]


def test_the_heads_of_attention_are_units() -> None:
    network = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(12, 3, 20, batch_first=True), 1, enable_nested_tensor=False
    )
    units = coupling(nn.Sequential(nn.Linear(5, 12), network, nn.Linear(12, 2)), torch.ones(2, 4, 5))
    kinds = {each.name: (each.kind, len(each.units)) for each in units.sets}
    assert kinds == {
        "0.weight": ("width", 12),
        "1.layers.0.self_attn.in_proj_weight": ("heads", 3),
        "1.layers.0.linear1.weight": ("neurons", 20),
        "2.weight": ("neurons", 0),
    }
    rows = ids(units, "1.layers.0.self_attn.in_proj_weight")
    columns = ids(units, "1.layers.0.self_attn.out_proj.weight", 1)
    assert rows == columns * 3
    assert all(len(set(columns[4 * head : 4 * head + 4])) == 1 for head in range(3))


def test_attention_weights_that_are_returned_keep_the_heads() -> None:
    def how(n: Any, x: Tensor, needed: bool) -> Any:
        x = n.a(x)
        mixed, weights = n.attention(x, x, x)
        return n.head(mixed), weights if needed else None

    layers = {"a": nn.Linear(5, 12), "attention": nn.MultiheadAttention(12, 3), "head": nn.Linear(12, 2)}
    counts = []
    for needed in (False, True):
        units = found(how, (torch.ones(2, 4, 5), needed), **layers)
        counts.append([len(each.units) for each in units.sets if "in_proj" in each.name])
    assert counts == [[3], [0]]


def test_layers_that_are_called_twice_and_tied_weights_have_one_set_of_units() -> None:
    def how(n: Any, x: Tensor) -> Tensor:
        code = torch.relu(n.a(torch.relu(n.first(x))))
        again = torch.relu(n.a(torch.relu(n.second(x))))
        return n.out(functional.linear(code + again, n.a.weight.t()))  # type: ignore[no-any-return]

    layers = {"first": nn.Linear(5, 6), "second": nn.Linear(5, 6), "a": nn.Linear(6, 4), "out": nn.Linear(6, 2)}
    units = found(how, torch.ones(2, 5), **layers)
    assert ids(units, "first.weight") == ids(units, "second.weight") == ids(units, "a.weight", 1)
    assert ids(units, "out.weight", 1) == ids(units, "a.weight", 1)


def test_parts_of_equal_size_lose_the_same_units() -> None:
    def how(n: Any, x: Tensor) -> Tensor:
        left, right = n.a(x).chunk(2, 1)
        return n.head(torch.cat([left, n.b(right)], 1))  # type: ignore[no-any-return]

    layers = {"a": nn.Conv2d(3, 8, 1), "b": nn.Conv2d(4, 2, 1), "head": nn.Conv2d(6, 2, 1)}
    rows = ids(found(how, **layers), "a.weight")
    assert rows[:4] == rows[4:]
    assert len(set(rows)) == 4


@pytest.mark.parametrize(
    ("how", "why"),
    [
        (lambda n, x: n.b(n.a(x).cumsum(1)), ""),  # tied to each other
        (lambda n, x: n.b(n.a(x) + torch.arange(6)), "fixed size"),
        (lambda n, x: n.b(n.a(x)[:, torch.tensor([5, 4, 3, 2, 1, 0])]), "indices"),
        (lambda n, x: n.b(functional.layer_norm(n.a(x), (6,))), "normalises"),
        (lambda n, x: n.b(n.a(x)) + n.a(x).sum(1, keepdim=True), "sums over them"),
        (lambda n, x: n.b(torch.linalg.matrix_exp(n.a(x)[:, :, None] * torch.ones(1, 1, 6))[:, 0]), "not understood"),
    ],
)
def test_what_is_not_understood_stays_whole(how: Any, why: str) -> None:
    units = found(how, torch.ones(2, 5), a=nn.Linear(5, 6), b=nn.Linear(6, 2)).sets[0]
    assert why in units.whole
    assert len(units.units) == (0 if why else 1)


def test_units_that_are_not_zero_stay_in_a_layer_norm() -> None:
    def how(n: Any, x: Tensor) -> Tensor:
        return n.b(n.norm(torch.sigmoid(n.a(x))))  # type: ignore[no-any-return]

    layers = {"a": nn.Linear(5, 6), "norm": nn.LayerNorm(6), "b": nn.Linear(6, 2)}
    assert "sigmoid" in found(how, torch.ones(2, 5), **layers).sets[0].whole
