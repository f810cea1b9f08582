from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.pruning.structures.helpers import prune
from tombola.pruning.mask import Mask
from tombola.pruning.structures.heads import Heads, heads
from tombola.utils.errors import InputError
from tombola.zoo.models.vit import vit


def small_vit() -> nn.Module:
    torch.manual_seed(0)
    return vit(inputs=(1, 8, 8), classes=3, patch=4, width=12, depth=2, heads=3)


class Layer(nn.Module):
    """Attention with the names that BERT has."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query, self.key, self.value, self.dense = (nn.Linear(width, width) for _ in range(4))
        self.other = nn.Linear(width, width)


def bert() -> nn.Module:
    return nn.Sequential(Layer(6), Layer(6))


BERT = Heads(3, query="*.query", key="*.key", value="*.value", output="*.dense")


def heads_left(mask: Mask, block: int) -> list[bool]:
    """Which heads of the vit's block are left; each must be whole, or gone whole."""
    qkv, proj = (mask[f"block{block}.attention.{part}.weight"] for part in ("qkv", "proj"))
    found = []
    for head in range(3):
        parts = [*qkv.view(3, 3, 4, 12)[:, head], proj[:, 4 * head : 4 * head + 4]]
        assert all(part.all() or not part.any() for part in parts)
        assert len({bool(part.any()) for part in parts}) == 1
        found.append(bool(parts[0].any()))
    return found


@pytest.mark.parametrize(("scope", "gone"), [("layer", [1, 1]), ("global", [2])])
def test_heads_of_the_vit_die_in_all_projections_at_once(scope: str, gone: list[int]) -> None:
    made = small_vit()
    full = Mask.full(made)
    mask = prune(heads(made), full, 1 / 3, scope=scope)
    left = [heads_left(mask, block) for block in (1, 2)]
    if scope == "layer":
        assert [block.count(False) for block in left] == gone
    else:
        assert [sum(block.count(False) for block in left)] == gone
    others = [name for name in mask if "attention" not in name]
    assert all(mask[name].all() for name in others)


def test_a_head_that_is_pruned_gives_nothing() -> None:
    made = small_vit()
    attention = made.block1.attention
    for layer in (attention.qkv, attention.proj):
        nn.init.zeros_(layer.bias)
    scores = {name: torch.ones(kept.shape) for name, kept in Mask.full(made).items()}
    scores["block1.attention.proj.weight"][:, 4:8] = -1  # head 1 is the worst, by its columns alone
    prune(heads(made), Mask.full(made), 1 / 3, scores).apply_(made)
    given = []
    attention.proj.register_forward_pre_hook(lambda _, x: given.append(x[0]))
    attention(torch.randn(2, 4, 12))
    assert not given[0][..., 4:8].any()
    assert given[0][..., :4].any()
    assert given[0][..., 8:].any()


def test_heads_of_other_networks_are_described_by_names() -> None:
    made = bert()
    mask = prune(BERT(made), Mask.full(made), 1 / 3)
    for layer in "01":
        rows = [mask[f"{layer}.{part}.weight"].view(3, 2, 6) for part in ("query", "key", "value")]
        columns = mask[f"{layer}.dense.weight"].t().view(3, 2, 6)
        alive = [{bool(part[head].any()) for part in (*rows, columns)} for head in range(3)]
        assert sorted(map(sorted, alive)) == [[False], [True], [True]]
        assert all(bool(part[head].any()) == bool(part[head].all()) for part in (*rows, columns) for head in range(3))
        assert mask[f"{layer}.other.weight"].all()


def test_detected_heads_are_those_described() -> None:
    made = small_vit()
    described = Heads(3, qkv="*.attention.qkv", output="*.attention.proj")(made)
    detected = heads(made)
    assert described.ids.keys() == detected.ids.keys()
    assert all(torch.equal(described.ids[name], detected.ids[name]) for name in detected.ids)


@pytest.mark.parametrize(
    ("description", "message"),
    [
        (Heads(3, query="*.query", key="*.key", output="*.dense"), "have a query, a key and a value, or qkv"),
        (Heads(3, query="*.qury", key="*.key", value="*.value", output="*.dense"), 'unknown linear layer "*.qury"'),
        (Heads(3, query="0.query", key="*.key", value="*.value", output="*.dense"), "different numbers of layers"),
        (Heads(4, query="*.query", key="*.key", value="*.value", output="*.dense"), "is not made of 4 equal parts"),
    ],
)
def test_descriptions_that_do_not_fit_are_refused(description: Heads, message: str) -> None:
    with pytest.raises(InputError) as caught:
        description(bert())
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ({"key": 2, "value": 2}, "beside dense keys have other heads than queries, 2 rows and 6"),
        ({"value": 3}, "values have 3 rows, which do not fit the 6 columns of dense"),
        ({"qkv": 12}, "qkv, for three parts alike, has 12 rows, which do not fit the 6 columns of dense"),
    ],
)
def test_heads_that_share_keys_or_values_are_refused(layers: dict[str, int], message: str) -> None:
    rows = {"query": 6, "key": 6, "value": 6, "dense": 6} | layers
    made = nn.ModuleDict({name: nn.Linear(6, count) for name, count in rows.items()})
    names = ["qkv"] if "qkv" in layers else ["query", "key", "value"]
    with pytest.raises(InputError) as caught:
        Heads(1, output="dense", **{name: name for name in names})(made)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_network_without_known_attention_is_told_how_to_describe_it() -> None:
    with pytest.raises(InputError, match=r"qkv and proj.*tombola\.pruning\.structures\.Heads"):
        heads(bert())


def test_a_head_cannot_be_pruned_in_part() -> None:
    made = bert()
    with pytest.raises(InputError, match=r"0.dense shares its heads with layers that are pruned, and is not"):
        prune(BERT(made), Mask.full(made), 1 / 3, leave_out=["0.dense"])
