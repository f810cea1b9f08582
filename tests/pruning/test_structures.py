"""Structures: neurons, channels, tiles, n of m weights, attention heads."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import tombola
from tests.support.errors import raises_input_error
from tests.support.prunable import prunable_network
from tests.support.prunable_networks import Experts, GraphConvolution, tiny_gpt2
from tombola.pruning.mask import Mask
from tombola.pruning.options import PruningOptions
from tombola.pruning.prunable_network import PrunableNetwork
from tombola.pruning.scores.weights import uniform
from tombola.pruning.structures import STRUCTURES, NMPattern, Structure, UnitStructure, parse_pattern, parse_structure
from tombola.pruning.structures.heads import Heads, heads
from tombola.pruning.structures.layer_units import blocks, channels, neurons
from tombola.zoo.models.vit import vit


def network(*widths: int, seed: int = 0) -> nn.Module:
    """Linear layers `0`, `1`, ... of these widths."""
    torch.manual_seed(seed)
    return nn.Sequential(*(nn.Linear(a, b) for a, b in pairwise(widths)))


def n_of_m(n: int, m: int, made: nn.Module) -> NMPattern:
    return NMPattern(n, m, PrunableNetwork(made).layers)


def prune(
    structure: Structure, mask: Mask, rate: float, scores: dict[str, Tensor] | None = None, **scope_options: Any
) -> Mask:
    """One pruning step, at random if no scores are given."""
    chosen = PruningOptions(rate=rate, **scope_options).scope_of(prunable_network(mask.shapes))
    counts = chosen.keeps(structure.units_left(mask, chosen))
    return structure.keep_best(uniform(mask, 0) if scores is None else scores, mask, counts)


def test_structures_are_made_by_name() -> None:
    made = nn.Sequential(nn.Conv2d(1, 4, 2), nn.Linear(4, 4), nn.Linear(4, 2))
    assert set(STRUCTURES) == {"weights", "neurons", "channels", "heads"}
    assert isinstance(parse_structure("neurons")(PrunableNetwork(made)), UnitStructure)
    assert parse_structure("2:4")(PrunableNetwork(made)) == n_of_m(2, 4, made)
    tiles = parse_structure("blocks:2x3")(PrunableNetwork(made))
    assert isinstance(tiles, UnitStructure)
    assert tiles.ids["1.weight"].tolist() == [[4, 4, 4, 5]] * 2 + [[6, 6, 6, 7]] * 2  # the first layer has 4
    assert parse_pattern("blocks:2x3") is None


@pytest.mark.parametrize(
    ("name", "fact"),
    [("neuron", '"neurons"'), ("blocks:0x4", '"blocks:4x4"'), ("4:4", "at most 3"), ("0:4", "at least 1")],
)
def test_invalid_names_are_refused_with_a_suggestion(name: str, fact: str) -> None:
    with raises_input_error("structure", f'"{name}"', fact):
        parse_structure(name)


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.integers(1, 9), min_size=3, max_size=5),
    st.lists(st.floats(0.01, 0.9), min_size=1, max_size=3),
    st.sampled_from(["layer", "global"]),
)
def test_neurons_are_pruned_whole_and_an_exact_number_of_them(
    widths: list[int], rates: list[float], scope: str
) -> None:
    made = network(*widths)
    mask = Mask.full(made)
    *hidden, output = mask
    for rate in rates:
        before, mask = mask, prune(neurons(PrunableNetwork(made)), mask, rate, scope=scope)
        assert mask <= before
        rows = {name: (int(before[name].any(1).sum()), int(mask[name].any(1).sum())) for name in hidden}
        for name in hidden:
            assert torch.equal(mask[name].any(1), mask[name].all(1))
        if scope == "layer":
            assert all(left == had - round(rate * had) for had, left in rows.values())
        else:
            had, left = (sum(pair) for pair in zip(*rows.values(), strict=True))
            assert left == had - round(rate * had)
        assert mask[output].all()


def test_a_neurons_score_is_the_mean_of_its_weights_and_the_first_of_equals_is_pruned() -> None:
    made, full = neurons(PrunableNetwork(network(2, 4, 1))), Mask.full(network(2, 4, 1))

    def kept(*scores: list[float], rate: float = 0.5) -> list[int]:
        mask = prune(made, full, rate, {"0.weight": torch.tensor(scores), "1.weight": torch.ones(1, 4)})
        return mask["0.weight"].any(1).nonzero().flatten().tolist()

    scores = [[0.0, 4.0], [1.0, 1.0], [2.0, 0.0], [9.0, -9.0]]
    assert kept(*scores) == [0, 2]
    assert kept(*scores, rate=0.75) == [0]
    assert kept(*[[1.0, 1.0]] * 4) == [2, 3]


def test_weights_pruned_before_do_not_count_in_the_mean_and_stay_pruned() -> None:
    mask = Mask({"0.weight": torch.tensor([[True, False], [True, True]]), "1.weight": torch.ones(1, 2).bool()})
    scores = {"0.weight": torch.tensor([[3.0, -100.0], [2.0, 3.0]]), "1.weight": torch.ones(1, 2)}
    assert prune(neurons(PrunableNetwork(network(2, 2, 1))), mask, 0.5, scores)["0.weight"].tolist() == [
        [True, False],
        [False, False],
    ]


def test_channels_are_filters_of_convolutions_only() -> None:
    made = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 6, 3, groups=2), nn.Linear(6, 5), nn.Linear(5, 2))
    mask = prune(channels(PrunableNetwork(made)), Mask.full(made), 0.5, scope="global")
    filters = [mask[name].flatten(1) for name in ("0.weight", "1.weight")]
    assert all(torch.equal(each.any(1), each.all(1)) for each in filters)
    assert sum(int(each.any(1).sum()) for each in filters) == 7
    assert mask["2.weight"].all()
    assert mask["3.weight"].all()


def test_channels_of_transposed_convolutions_are_counted_over_their_groups() -> None:
    made = nn.Sequential(nn.ConvTranspose1d(4, 6, 3, groups=2), nn.Conv1d(6, 1, 1))
    mask = prune(channels(PrunableNetwork(made)), Mask.full(made), 0.5)["0.weight"]  # [4, 3, 3]
    outputs = torch.cat([mask[:2].transpose(0, 1), mask[2:].transpose(0, 1)]).flatten(1)
    assert torch.equal(outputs.any(1), outputs.all(1))
    assert int(outputs.any(1).sum()) == 3


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 4), st.integers(1, 4), st.floats(0.01, 0.9))
def test_tiles_are_pruned_whole_also_at_the_edges(
    rows: int, columns: int, height: int, width: int, rate: float
) -> None:
    made = nn.Linear(columns, rows)
    mask = prune(blocks(PrunableNetwork(made), height, width), Mask.full(made), rate)["weight"]
    tiles = [tile for band in mask.split(height, 0) for tile in band.split(width, 1)]
    assert all(tile.all() or not tile.any() for tile in tiles)
    assert sum(bool(tile.any()) for tile in tiles) == len(tiles) - round(rate * len(tiles))


@pytest.mark.parametrize("kind", [nn.Conv1d, nn.ConvTranspose1d])
@pytest.mark.parametrize("groups", [1, 2])
def test_tiles_of_convolutions_are_those_of_outputs_by_inputs(kind: type[nn.Module], groups: int) -> None:
    made = kind(4, 8, 2, groups=groups)
    mask = prune(blocks(PrunableNetwork(made), 2, 4), Mask.full(made), 0.5)["weight"]
    if kind is nn.ConvTranspose1d:  # [4, 8 / groups, 2]
        mask = torch.cat([part.transpose(0, 1) for part in mask.chunk(groups)])
    tiles = [tile for band in mask.flatten(1).split(2, 0) for tile in band.split(4, 1)]
    assert all(tile.all() or not tile.any() for tile in tiles)
    assert sum(bool(tile.any()) for tile in tiles) == len(tiles) // 2


def test_the_groups_of_a_scope_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """With many rounds it would take most of the time."""
    made = network(9, 8, 7, 2)
    units, mask = neurons(PrunableNetwork(made)), Mask.full(made)
    prune(units, mask, 0.5, scope="global")
    monkeypatch.setattr(torch, "unique", None)
    assert prune(units, prune(units, mask, 0.5, scope="global"), 0.5, scope="layer") <= mask


def test_networks_without_such_units_are_refused() -> None:
    made = network(3, 4, 2)
    with raises_input_error("structure:", "channels"):
        prune(channels(PrunableNetwork(made)), Mask.full(made), 0.5)
    with raises_input_error("structure:", "neurons"):
        prune(neurons(PrunableNetwork(nn.Linear(3, 2))), Mask.full(nn.Linear(3, 2)), 0.5)
    with raises_input_error('scope: "erk"', "neurons"):
        prune(neurons(PrunableNetwork(made)), Mask.full(made), 0.5, scope="erk")


def test_nan_scores_of_units_are_refused() -> None:
    made = network(2, 2, 1)
    scores = {"0.weight": torch.full((2, 2), torch.nan), "1.weight": torch.ones(1, 2)}
    with raises_input_error("0.weight are NaN"):
        prune(neurons(PrunableNetwork(made)), Mask.full(made), 0.5, scores)


@settings(deadline=None, max_examples=40)
@given(st.data(), st.integers(2, 8), st.integers(1, 5), st.integers(1, 4), st.sampled_from(["layer", "global"]))
def test_the_n_best_of_every_m_are_kept(data: st.DataObject, m: int, rows: int, times: int, scope: str) -> None:
    n = data.draw(st.integers(1, m - 1))
    made = nn.Sequential(nn.Linear(m * times, rows), nn.Conv2d(2 * m, rows, times, groups=2 - rows % 2))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    scores = {name: torch.randint(-3, 3, w.shape, generator=generator).float() for name, w in Mask.full(made).items()}
    mask = prune(n_of_m(n, m, made), Mask.full(made), 1 - n / m, scores, scope=scope)
    for name, kept in mask.items():
        in_rows = (each.movedim(1, -1).reshape(-1, m).tolist() for each in (kept, scores[name]))
        for stay, worth in zip(*in_rows, strict=True):
            best = sorted(range(m), key=lambda place: (worth[place], place))[m - n :]
            assert [place for place in range(m) if stay[place]] == sorted(best)


def test_input_channels_of_a_convolution_compete_at_each_kernel_position() -> None:
    made = nn.Conv2d(8, 6, 3)
    mask = prune(n_of_m(2, 4, made), Mask.full(made), 0.5)["weight"]
    for place in mask.permute(2, 3, 0, 1).reshape(9, 6, 8):
        assert (place.view(6, 2, 4).sum(2) == 2).all()
    grouped = nn.Sequential(nn.Conv2d(4, 6, 2, groups=2))
    with raises_input_error("multiple of 4 input channels, 0 has 2"):
        prune(n_of_m(2, 4, grouped), Mask.full(grouped), 0.5)


def test_pruned_weights_are_not_among_the_n_best_and_their_scores_may_be_nan() -> None:
    made = nn.Linear(4, 2)
    scores = {"weight": torch.tensor([[1.0, 2, torch.nan, 4], [5, 6, 7, 8]])}
    with raises_input_error("weight are NaN"):
        prune(n_of_m(2, 4, made), Mask.full(made), 0.5, scores)
    before = Mask({"weight": ~scores["weight"].isnan()})
    kept = n_of_m(2, 4, made).keep_best(scores, before, {("weight",): 4})["weight"]
    assert kept.tolist() == [[False, True, False, True], [False, False, True, True]]
    before = Mask({"weight": torch.tensor([[False, True, True, True], [False, False, False, True]])})
    mask = n_of_m(2, 4, made).keep_best({"weight": torch.tensor([[9.0, 1, 2, 3]] * 2)}, before, {("weight",): 3})
    assert mask["weight"].tolist() == [[False, False, True, True], [False, False, False, True]]


def test_intermediate_counts_prune_the_worst_outside_the_n_best() -> None:
    made = nn.Linear(4, 2)
    scores = {"weight": torch.tensor([[1.0, 2, 3, 4], [5, 6, 7, 8]])}
    mask = n_of_m(2, 4, made).keep_best(scores, Mask.full(made), {("weight",): 5})
    assert mask["weight"].tolist() == [[False, False, True, True], [False, True, True, True]]


def test_layers_with_inputs_that_are_no_multiple_of_m_are_refused() -> None:
    made = nn.Sequential(nn.Linear(6, 4), nn.ConvTranspose2d(4, 4, 2))
    with raises_input_error("structure: 2:4", "multiple of 4 inputs, 0 has 6", '["0"]'):
        prune(n_of_m(2, 4, made), Mask.full(made), 0.5)
    with raises_input_error("transposed", '["1"]'):
        prune(n_of_m(2, 4, made), Mask.full(made), 0.5, leave_out=["0"])


def test_less_than_n_of_m_is_refused() -> None:
    made = nn.Linear(8, 4)
    with raises_input_error("structure: 2:4", "0.5 "):
        prune(n_of_m(2, 4, made), Mask.full(made), 0.6)


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


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_heads_of_the_vit_are_pruned_in_all_projections(scope: str) -> None:
    made = small_vit()
    mask = prune(heads(PrunableNetwork(made)), Mask.full(made), 1 / 3, scope=scope)
    gone = [heads_left(mask, block).count(False) for block in (1, 2)]
    assert gone == [1, 1] if scope == "layer" else sum(gone) == 2
    assert all(kept.all() for name, kept in mask.items() if "attention" not in name)


def test_a_pruned_head_outputs_zeros() -> None:
    made = small_vit()
    attention = made.block1.attention
    for layer in (attention.qkv, attention.proj):
        nn.init.zeros_(layer.bias)
    scores = {name: torch.ones(kept.shape) for name, kept in Mask.full(made).items()}
    scores["block1.attention.proj.weight"][:, 4:8] = -1  # head 1 is the worst, by its columns alone
    prune(heads(PrunableNetwork(made)), Mask.full(made), 1 / 3, scores).apply_(made)
    given = []
    attention.proj.register_forward_pre_hook(lambda _, x: given.append(x[0]))
    attention(torch.randn(2, 4, 12))
    assert [bool(part.any()) for part in given[0].split(4, -1)] == [True, False, True]


def test_heads_of_other_networks_are_described_by_layer_names() -> None:
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
    detected = heads(PrunableNetwork(made))
    assert described.ids.keys() == detected.ids.keys()
    assert all(torch.equal(described.ids[name], detected.ids[name]) for name in detected.ids)


@pytest.mark.parametrize(
    ("description", "fact"),
    [
        (Heads(3, query="*.query", key="*.key", output="*.dense"), "query, key and value"),
        (Heads(3, query="*.qury", key="*.key", value="*.value", output="*.dense"), 'linear layer "*.qury"'),
        (Heads(3, query="0.query", key="*.key", value="*.value", output="*.dense"), "different numbers of layers"),
        (Heads(4, query="*.query", key="*.key", value="*.value", output="*.dense"), "4 equal parts"),
    ],
)
def test_invalid_descriptions_are_refused(description: Heads, fact: str) -> None:
    with raises_input_error(fact):
        description(bert())


@pytest.mark.parametrize(
    ("layers", "facts"),
    [
        ({"key": 2, "value": 2}, ["keys of dense", "2 rows", "6"]),
        ({"value": 3}, ["values", "6 rows", "dense", "not 3"]),
        ({"qkv": 12}, ["qkv", "18 rows", "dense", "not 12"]),
    ],
)
def test_heads_that_share_keys_or_values_are_refused(layers: dict[str, int], facts: list[str]) -> None:
    rows = {"query": 6, "key": 6, "value": 6, "dense": 6} | layers
    made = nn.ModuleDict({name: nn.Linear(6, count) for name, count in rows.items()})
    names = ["qkv"] if "qkv" in layers else ["query", "key", "value"]
    with raises_input_error(*facts):
        Heads(1, output="dense", **{name: name for name in names})(made)


def test_an_error_for_unknown_attention_points_to_heads() -> None:
    with raises_input_error("qkv and proj", "tombola.pruning.structures.Heads"):
        heads(PrunableNetwork(bert()))


def test_a_head_cannot_be_pruned_in_part() -> None:
    made = bert()
    with raises_input_error("0.dense", "shares its heads"):
        prune(BERT(made), Mask.full(made), 1 / 3, leave_out=["0.dense"])


def conv1d(inputs: int, outputs: int) -> nn.Module:
    """Hugging Face's layer, of weight [in, out]."""
    from transformers.pytorch_utils import Conv1D

    made: nn.Module = Conv1D(outputs, inputs)
    return made


def assert_whole(parts: list[Tensor]) -> list[bool]:
    """Units, along the first axis of each part, are whole or gone whole. Returns which are left."""
    units = torch.cat([part.flatten(1) for part in parts], 1)
    assert torch.equal(units.any(1), units.all(1))
    return units.any(1).tolist()


@pytest.mark.parametrize(
    ("made", "gates"),
    [
        (nn.LSTM(3, 6, num_layers=2, bidirectional=True), 4),
        (nn.LSTM(3, 6, proj_size=4), 4),
        (nn.GRU(3, 6, num_layers=2), 3),
        (nn.RNN(3, 6, bidirectional=True), 1),
        (nn.LSTMCell(3, 6), 4),
        (nn.GRUCell(3, 6), 3),
    ],
)
@pytest.mark.parametrize("scope", ["layer", "global"])
def test_a_hidden_unit_has_its_rows_of_all_gates(made: nn.Module, gates: int, scope: str) -> None:
    network = nn.ModuleDict({"rnn": copy.deepcopy(made), "head": nn.Linear(6, 2)})
    mask = tombola.prune(network, 1 / 3, structure="neurons", scope=scope, outputs=["head"], score="random")
    units = []
    for name, kept in mask.items():
        if "weight_ih" in name:
            rows = [w.view(gates, 6, -1).transpose(0, 1) for w in (kept, mask[name.replace("_ih", "_hh")])]
            units.append(torch.cat([part.flatten(1) for part in rows], 1))
        elif "weight_hr" in name:  # [projected, hidden]: has its own neurons
            units.append(kept)
    left = [sum(assert_whole([each])) for each in units]
    if scope == "layer":
        assert left == [len(each) - round(2 / 3 * len(each)) for each in units]
    else:
        count = sum(map(len, units))
        assert sum(left) == count - round(2 / 3 * count)
    assert mask["head.weight"].all()


def test_gates_cannot_be_pruned_in_part() -> None:
    network = nn.ModuleDict({"rnn": nn.LSTM(3, 4), "head": nn.Linear(4, 2)})
    with raises_input_error("rnn.weight_hh_l0", "shares its neurons"):
        tombola.prune(network, 0.5, structure="neurons", outputs=["head"], leave_out=["rnn.weight_hh_l0"])


def test_neurons_of_conv1d_are_columns() -> None:
    network = nn.Sequential(conv1d(5, 8), nn.Linear(8, 2))
    mask = tombola.prune(network, 0.25, structure="neurons")
    assert sum(assert_whole([mask["0.weight"].t()])) == 2
    assert mask.counts == {"0.weight": 10, "1.weight": 16}


def test_neurons_of_a_bilinear_layer_are_its_outputs() -> None:
    network = nn.ModuleDict({"bilinear": nn.Bilinear(3, 4, 6), "head": nn.Linear(6, 2)})
    mask = tombola.prune(network, 0.5, structure="neurons", outputs=["head"])
    assert sum(assert_whole([mask["bilinear.weight"]])) == 3


def test_query_key_and_value_of_fused_attention_have_neurons_of_their_own() -> None:
    network = nn.ModuleDict({"attention": nn.MultiheadAttention(8, 2), "head": nn.Linear(8, 2)})
    mask = tombola.prune(network, {"attention.query": 0.25}, structure="neurons", outputs=["head"])
    assert mask.counts == {f"attention.{n}.weight": 64 for n in ("key", "value", "out_proj")} | {
        "attention.query.weight": 16,
        "head.weight": 16,
    }
    assert sum(assert_whole([mask.layers["attention.query.weight"]])) == 2


@pytest.mark.parametrize("widths", [{}, {"kdim": 5, "vdim": 6}, {"kdim": 5, "vdim": 6, "add_bias_kv": True}])
def test_heads_of_torchs_attention_are_pruned_in_all_projections(widths: dict[str, Any]) -> None:
    torch.manual_seed(0)
    made = nn.MultiheadAttention(12, 4, batch_first=True, bias=False, **widths)
    nn.init.eye_(made.out_proj.weight)
    mask = tombola.prune(made, 0.5, structure="heads")
    *projections, output = mask.layers.values()
    assert [kept.shape[1] for kept in projections] == [12, widths.get("kdim", 12), widths.get("vdim", 12)]
    alive = assert_whole([*(kept.view(4, 3, -1) for kept in projections), output.t().reshape(4, 3, 12)])
    assert sum(alive) == 2
    assert mask.count == mask.size // 2
    x = torch.randn(2, 5, 12)
    found = made(x, x[..., : widths.get("kdim", 12)], x[..., : widths.get("vdim", 12)])[0]
    assert [bool(part.any()) for part in found.split(3, -1)] == alive


def test_heads_of_gpt2_are_columns_of_c_attn_and_rows_of_c_proj() -> None:
    model = tiny_gpt2()
    attention = model.transformer.h[0].attn
    mask = tombola.prune(model, 0.5, structure="heads")
    into, out = (mask[f"transformer.h.0.attn.{name}.weight"] for name in ("c_attn", "c_proj"))  # [in, out]
    assert (into.shape, out.shape) == ((16, 48), (16, 16))
    alive = assert_whole([into.view(16, 3, 2, 8).permute(2, 0, 1, 3), out.view(2, 8, 16)])
    assert sum(alive) == 1
    assert {name: mask.sizes[name] - count for name, count in mask.counts.items()} == {
        "transformer.h.0.attn.c_attn.weight": 384,
        "transformer.h.0.attn.c_proj.weight": 128,
        "transformer.h.0.mlp.c_fc.weight": 0,
        "transformer.h.0.mlp.c_proj.weight": 0,
    }
    given = []
    attention.c_proj.register_forward_pre_hook(lambda _, x: given.append(x[0]))
    model(torch.arange(6).view(1, 6))
    assert [bool(part.any()) for part in given[0].split(8, -1)] == alive


def test_a_c_attn_that_is_divided_by_heads_first_is_not_detected() -> None:
    """Its names are those of GPT-2, but the query, key and value of a head are adjacent."""
    from transformers import GPTBigCodeConfig, GPTBigCodeForCausalLM

    options = {"vocab_size": 20, "n_positions": 8, "n_embd": 16, "n_layer": 1, "n_head": 2}
    model = GPTBigCodeForCausalLM(GPTBigCodeConfig(**options, multi_query=False, bos_token_id=0, eos_token_id=0))
    with raises_input_error("no attention module"):
        tombola.prune(model, 0.5, structure="heads")


def test_n_of_m_of_conv1d_is_along_its_rows() -> None:
    made = conv1d(8, 6)
    mask = tombola.prune(made, structure="2:4")["weight"]
    assert (mask.t().reshape(6, 2, 4).sum(2) == 2).all()
    with raises_input_error("multiple of 4 inputs", "has 6"):
        tombola.prune(conv1d(6, 8), structure="2:4")


def test_n_of_m_of_recurrent_layers_and_attention_is_along_the_input() -> None:
    network = nn.ModuleDict({"rnn": nn.GRU(4, 8), "attention": nn.MultiheadAttention(8, 2)})
    for kept in tombola.prune(network, structure="1:4").values():
        assert (kept.view(len(kept), -1, 4).sum(2) == 1).all()


@pytest.mark.parametrize(
    ("made", "include", "facts"),
    [
        (nn.Bilinear(4, 4, 4), [], ["weight", "bilinear"]),
        (Experts(), [], ["experts", "leave_out"]),
        (nn.Sequential(nn.Embedding(8, 4), nn.Linear(4, 4)), ["0"], ["0", "embedding"]),
        (GraphConvolution(), ["second"], ["second", "other"]),
    ],
)
def test_n_of_m_is_refused_where_the_axis_of_inputs_is_unknown(
    made: nn.Module, include: list[str], facts: list[str]
) -> None:
    with raises_input_error("structure: 2:4 does not support", *facts):
        tombola.prune(made, structure="2:4", include=include)


def whole_tiles(matrices: list[Tensor], height: int, width: int) -> list[bool]:
    """Which tiles are left of matrices [rows, columns]; each is whole or gone whole."""
    tiles = [tile for each in matrices for band in each.split(height, 0) for tile in band.split(width, 1)]
    assert all(tile.all() or not tile.any() for tile in tiles)
    return [bool(tile.any()) for tile in tiles]


def test_tiles_do_not_cross_experts_or_projections() -> None:
    mask = tombola.prune(Experts(), 0.5, structure="blocks:3x3", leave_out=["gate", "head"])
    left = whole_tiles(list(mask["experts"]), 3, 3)  # three of 4 x 4
    assert (len(left), sum(left)) == (12, 6)
    parts = tombola.prune(nn.MultiheadAttention(6, 2), 0.25, structure="blocks:4x4").layers.values()
    assert [(len(left), sum(left)) for left in (whole_tiles([part], 4, 4) for part in parts)] == [(4, 1)] * 4


def test_tiles_of_conv1d_and_bilinear_layers_are_of_outputs_by_inputs() -> None:
    left = whole_tiles([tombola.prune(conv1d(6, 4), 0.25, structure="blocks:2x3")["weight"].t()], 2, 3)
    assert (len(left), sum(left)) == (4, 1)
    mask = tombola.prune(nn.Bilinear(2, 3, 4), 0.25, structure="blocks:2x3")["weight"]
    left = whole_tiles([mask.flatten(1)], 2, 3)
    assert (len(left), sum(left)) == (4, 1)


def test_rows_of_embeddings_are_pruned_by_tiles() -> None:
    network = nn.Sequential(nn.Embedding(8, 4), nn.Linear(4, 2))
    mask = tombola.prune(network, {"0": 0.25}, structure="blocks:1x4", include=["0"])
    assert sum(assert_whole([mask["0.weight"]])) == 2
    assert mask["1.weight"].all()
