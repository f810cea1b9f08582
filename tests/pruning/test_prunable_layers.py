from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrizations
from torch.nn.utils import prune as torch_prune

from tests.support.errors import raises_input_error
from tests.support.prunable_networks import Experts, GraphConvolution, Recurrent, Transformer, tiny_gpt2
from tombola import hold, prunable, prune
from tombola.pruning.mask import Mask
from tombola.pruning.prunable_layers import find_layers, matrix_weights


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_weights_of_recurrent_layers_are_prunable(kind: type[nn.RNNBase]) -> None:
    network = Recurrent(kind)
    names = ["rnn.weight_ih_l0", "rnn.weight_hh_l0", "head.weight"]
    assert prunable(network) == names
    mask = prune(network, 0.1)
    rows = network.rnn.weight_ih_l0.shape[0]
    assert mask.sizes == dict(zip(names, (rows * 3, rows * 4, 8), strict=True))
    assert mask.counts == {name: size - round(0.9 * size) for name, size in mask.sizes.items()}
    assert mask.size == matrix_weights(network)


def test_projected_bidirectional_layers_and_cells_have_all_their_matrices() -> None:
    names = prunable(nn.LSTM(3, 4, num_layers=2, bidirectional=True, proj_size=2))
    assert len(names) == 12
    assert {"weight_hr_l1_reverse", "weight_ih_l0", "weight_hh_l1"} <= {*names}
    assert prunable(nn.GRUCell(3, 4)) == ["weight_ih", "weight_hh"]


def test_query_key_and_value_of_fused_attention_are_layers_of_their_own() -> None:
    attention = nn.MultiheadAttention(8, 2)
    assert prunable(attention) == ["in_proj_weight", "out_proj.weight"]
    mask = prune(attention, 0.25)
    assert mask.counts == dict.fromkeys(("query.weight", "key.weight", "value.weight", "out_proj.weight"), 16)
    assert [int((part != 0).sum()) for part in attention.in_proj_weight.chunk(3)] == [16, 16, 16]
    mask = prune(nn.MultiheadAttention(8, 2), {"query": 0.5, "out_proj": 0.125})
    assert mask.counts == {"query.weight": 32, "key.weight": 64, "value.weight": 64, "out_proj.weight": 8}
    assert mask["in_proj_weight"].shape == (24, 8)


def test_attention_with_inputs_of_other_widths_has_three_parameters() -> None:
    names = prunable(nn.MultiheadAttention(8, 2, kdim=4, vdim=6))
    assert names == ["q_proj_weight", "k_proj_weight", "v_proj_weight", "out_proj.weight"]


def test_stacked_experts_bilinear_and_hugging_face_layers_are_prunable() -> None:
    assert prunable(Experts()) == ["experts", "gate.weight", "head.weight"]  # not the position embedding
    assert prunable(nn.Bilinear(2, 3, 4)) == ["weight"]
    blocks = ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"]
    assert prunable(tiny_gpt2()) == [f"transformer.h.0.{name}.weight" for name in blocks]


def test_other_parameters_are_included_by_name_or_pattern() -> None:
    network = GraphConvolution()
    assert prunable(network) == []
    assert prunable(network, include=["first"]) == ["first"]
    assert prunable(network, include=["*"]) == ["first", "second"]  # patterns leave vectors out
    assert prunable(network, include=["bias"]) == ["bias"]
    assert prune(network, 0.5, include=["first", "second"]).counts == {"first": 20, "second": 12}
    with raises_input_error("include:", '"frist"', '"first"'):
        prune(network, 0.5, include=["frist"])
    with raises_input_error("include:", '["first"]'):
        prune(network, 0.5, include="first")


@pytest.mark.parametrize("encoder_first", [True, False])
def test_a_tied_embedding_is_pruned_only_if_included_whatever_is_defined_first(encoder_first: bool) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            if encoder_first:
                self.encoder = nn.Embedding(100, 32)
            self.decoder = nn.Linear(32, 100, bias=False)
            if not encoder_first:
                self.encoder = nn.Embedding(100, 32)
            self.encoder.weight = self.decoder.weight
            self.other = nn.Linear(32, 32)

    network = Tied()
    assert prune(network, 0.1).size == 32 * 32
    assert int((network.encoder.weight != 0).sum()) == 3200
    for name in ("encoder", "decoder.weight"):
        network = Tied()
        assert prune(network, 0.1, include=[name]).count == 320 + 102
        assert int((network.encoder.weight != 0).sum()) == 320


def test_a_parameter_that_another_module_defines_first_is_pruned_with_its_layer() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)
            self.matrix = self.fc.weight

    assert prunable(Shared()) == ["matrix"]


WEIGHT_NORM = [parametrizations.weight_norm, parametrizations.spectral_norm]


@pytest.mark.parametrize("normalise", WEIGHT_NORM)
def test_weights_computed_from_others_are_refused_unless_left_out(normalise: Any) -> None:
    network = nn.Sequential(normalise(nn.Linear(4, 4)), nn.Linear(4, 2))
    with raises_input_error("0.weight", "computed from other parameters", 'leave_out=["0"]'):
        prune(network, 0.5)
    assert prune(network, 0.5, leave_out=["0"]).counts == {"1.weight": 4}
    assert prune(network, 0.5, leave_out=["0.weight"]).counts == {"1.weight": 4}


def test_wav2vec2_can_be_pruned_without_its_weight_normed_layer() -> None:
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    convolutions = {"conv_dim": (8,), "conv_stride": (2,), "conv_kernel": (3,), "num_conv_pos_embedding_groups": 2}
    model = Wav2Vec2Model(Wav2Vec2Config(**small, **convolutions, num_conv_pos_embeddings=4))
    assert prune(model, 0.5, leave_out=["encoder.pos_conv_embed.conv"]).density == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(
    ("network", "facts"),
    [
        (nn.LazyLinear(3), ["weight", "no shape yet", "batch"]),
        (nn.Linear(3, 2, device="meta"), ["weight", "meta device"]),
        (nn.Linear(3, 2).to(torch.float8_e4m3fn), ["weight", "float8_e4m3fn", "float32"]),
        (nn.Sequential(nn.ReLU()), ["no layer to prune", "include"]),
        (torch_prune.random_unstructured(nn.Linear(3, 2), "weight", 0.5), ["tombola.pruning.torch_prune.absorb"]),
        (torch_prune.random_unstructured(nn.GRU(3, 2), "weight_ih_l0", 0.5), ["tombola.pruning.torch_prune.absorb"]),
    ],
)
def test_weights_that_cannot_be_pruned_are_refused_in_a_line(network: nn.Module, facts: list[str]) -> None:
    with raises_input_error("model:", *facts):
        prune(network, 0.5)


def test_complex_weights_are_refused_unless_left_out() -> None:
    network = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    network[0].weight = nn.Parameter(torch.zeros(2, 3, dtype=torch.complex64))
    with raises_input_error("0.weight", "complex64"):
        prune(network, 0.5)
    assert prune(network, 0.5, leave_out=["0"]).counts == {"1.weight": 2}


@pytest.mark.filterwarnings("ignore:Initializing zero-element")
def test_layers_without_weights_are_no_obstacle() -> None:
    network = nn.Sequential(nn.Linear(0, 5), nn.Linear(5, 4))
    assert prune(network, 0.5).counts == {"1.weight": 10}


def test_leave_out_knows_every_name_of_a_layer() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.add_module("layer[0]", nn.Linear(2, 2))
            self.add_module("layer0", nn.Linear(2, 2))
            self.fc = nn.Linear(2, 2)

    full = dict.fromkeys(("layer[0].weight", "layer0.weight", "fc.weight"), 2)
    for name in ("layer[0]", "layer[0].weight"):
        assert prune(Odd(), 0.5, leave_out=[name]).counts == full | {"layer[0].weight": 4}
    assert prune(Odd(), 0.5, leave_out=["fc.weight"]).counts == full | {"fc.weight": 4}
    network = Recurrent()
    assert prune(network, 0.5, leave_out=["rnn"]).counts == {
        "rnn.weight_ih_l0": 48,
        "rnn.weight_hh_l0": 64,
        "head.weight": 4,
    }
    attention = prune(nn.MultiheadAttention(8, 2), 0.5, leave_out=["in_proj_weight"])
    assert list(attention.counts.values()) == [64, 64, 64, 32]


def test_names_and_order_are_those_of_the_parameters() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ConvTranspose2d(2, 1, 3), nn.EmbeddingBag(4, 2))
    layers = find_layers(network, include=["3"])
    assert [(layer.name, layer.kind) for layer in layers] == [
        ("0.weight", "convolution"),
        ("2.weight", "transposed convolution"),
        ("3.weight", "embedding"),
    ]


def test_all_matrix_weights_count_embeddings_and_positions() -> None:
    network = Experts()
    assert matrix_weights(network) == 20 + 12 + 48 + 8
    assert matrix_weights(Transformer()) == 80 + 2 * (4 * 64 + 2 * 128)  # tied weights count once


NETWORKS = {
    "lstm": (Recurrent, [], torch.randn(2, 5, 3)),
    "transformer": (Transformer, ["embedding"], torch.zeros(2, 5, dtype=torch.int64)),
    "experts": (Experts, [], torch.randn(2, 5, 4)),
    "gpt2": (tiny_gpt2, ["*.wpe"], torch.zeros(2, 5, dtype=torch.int64)),
    "bilinear": (lambda: nn.Bilinear(4, 4, 3), [], (torch.randn(2, 4), torch.randn(2, 4))),
    "attention": (lambda: nn.MultiheadAttention(4, 2), [], (torch.randn(2, 1, 4),) * 3),
}


@pytest.mark.parametrize("name", NETWORKS)
@settings(max_examples=5, deadline=None)
@given(density=st.sampled_from([0.05, 0.3, 0.5, 1.0]), scope=st.sampled_from(["layer", "global", "erk"]))
def test_counts_are_exact_and_hold_keeps_them_for_every_kind_of_layer(name: str, density: float, scope: str) -> None:
    make, include, x = NETWORKS[name]
    torch.manual_seed(0)
    network = make()
    full = Mask.full(network, include)
    mask = prune(network, density, scope=scope, include=include)
    assert mask.keys() == full.keys()
    if scope == "layer":
        assert mask.counts == {layer: n - round((1 - density) * n) for layer, n in full.sizes.items()}
    else:
        assert mask.count == full.size - round((1 - density) * full.size)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.1, weight_decay=0.1)
    with hold(network, mask):
        for _ in range(3):
            output = network(*x) if isinstance(x, tuple) else network(x)
            output = output[0] if isinstance(output, tuple) else getattr(output, "logits", output)
            optimizer.zero_grad()
            output.square().sum().backward()
            optimizer.step()
            for layer, kept in mask.items():
                assert not network.get_parameter(layer)[~kept].any()


def test_a_network_of_which_little_can_be_pruned_is_warned_about(caplog: pytest.LogCaptureFixture) -> None:
    prune(nn.Sequential(nn.Embedding(10, 4), nn.Linear(4, 10)), 0.5)
    assert not caplog.records  # exactly half
    prune(nn.Sequential(nn.Embedding(11, 4), nn.Linear(4, 10)), 0.5)
    (record,) = caplog.records
    assert all(fact in record.getMessage() for fact in ("only 40", "84", 'include=["0"]'))


def test_an_included_embedding_with_sparse_gradients_is_held() -> None:
    embedding = nn.Embedding(20, 4, sparse=True)
    network = nn.Sequential(embedding, nn.Flatten(), nn.Linear(8, 2))
    mask = prune(network, 0.5, include=["0"])
    optimizer = torch.optim.SparseAdam([embedding.weight], lr=0.1)
    with hold(network, mask):
        for step in range(3):
            optimizer.zero_grad()
            network(torch.tensor([[step, 7], [step, 9]])).square().sum().backward()
            assert embedding.weight.grad is not None
            assert not embedding.weight.grad.to_dense()[~mask["0.weight"]].any()
            optimizer.step()
            assert not embedding.weight[~mask["0.weight"]].any()
    assert int(embedding.weight.count_nonzero()) == 40


@pytest.mark.parametrize(
    "name", ["seg_embed", "position_table", "query_tokens", "relative_bias", "pos", "layer_scale"]
)
def test_embeddings_of_three_dimensions_are_not_stacked_matrices(name: str) -> None:
    network = nn.Sequential(nn.Linear(2, 2))
    network.register_parameter(name, nn.Parameter(torch.zeros(2, 3, 4)))
    assert prunable(network) == ["0.weight"]  # a container of torch
    module = Recurrent()
    module.register_parameter(name, nn.Parameter(torch.zeros(2, 3, 4)))
    module.register_parameter("kernel", nn.Parameter(torch.zeros(2, 3, 4)))
    assert set(prunable(module)) == {"kernel", "rnn.weight_ih_l0", "rnn.weight_hh_l0", "head.weight"}
    assert name in prunable(module, include=[name])


def test_parameters_that_share_memory_are_refused() -> None:
    class Autoencoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.decoder, self.other = nn.Linear(4, 3), nn.Linear(3, 4), nn.Linear(4, 4)
            self.decoder.weight.data = self.encoder.weight.data.t()

    with raises_input_error("encoder.weight", "memory in common with decoder.weight"):
        prune(Autoencoder(), 0.5)
    assert prune(Autoencoder(), 0.5, leave_out=["encoder", "decoder"]).counts == {"other.weight": 8}
    flat = torch.randn(24)  # parts of one tensor that do not overlap are no obstacle
    network = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 4))
    network[0].weight.data, network[1].weight.data = flat[:12].view(3, 4), flat[12:].view(4, 3)
    assert prune(network, 0.5).count == 12


def test_options_know_every_name_of_a_tied_weight() -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2))
    network[1].weight = network[0].weight
    assert prune(network, {"1": 0.25}).counts == {"0.weight": 4, "2.weight": 8}
    assert prune(network, 0.5, leave_out=["1.weight"]).counts == {"0.weight": 16, "2.weight": 4}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_scripted_networks_are_refused() -> None:
    with raises_input_error("model:", "torch.jit"):
        prune(torch.jit.script(nn.Sequential(nn.Linear(3, 2))), 0.5)
