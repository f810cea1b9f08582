"""Every architecture, pruned by coupled units and compacted: the same outputs, and smaller by what was pruned."""

from __future__ import annotations

import logging

import pytest

from tests.support.architectures import ARCHITECTURES
from tests.support.coupled_units import assert_exact, assert_same, count_parameters, in_double, kinds_of
from tombola import compact, prune

NEURONS = {"mlp", "actor_critic", "tied_autoencoder", "two_towers", "highway", "gated_mlp", "shared_block"}
NEURONS |= {"attention_weights", "mlp_mixer", "convnext_torchvision", "zoo_mlp", "zoo_lenet_300_100"}
TRANSFORMERS = {"encoder_post_norm", "encoder_pre_norm", "llama", "swin", "zoo_vit"}
TRANSFORMERS |= {name for name in ARCHITECTURES if name.endswith(("_eager", "_sdpa"))}
KINDS: dict[str, set[str]] = {
    **{name: {"neurons"} for name in NEURONS},
    **{name: {"neurons", "heads", "width"} for name in TRANSFORMERS},
    **{name: {"neurons", "heads"} for name in ("hf_llama_eager", "hf_llama_sdpa", "sizes_in_code")},
    "wide_and_deep": {"neurons"},
    "query_key_norm": {"heads", "width"},
    "recurrent": {"neurons"},
    "channel_and_spatial_attention": {"channels", "neurons"},
    "einsum_attention": {"heads", "width"},
    "convnext": {"neurons", "width"},
    "self_attention": {"heads"},
    "multihead_attention": {"heads"},
}
"""The units that an architecture should at least have; by default channels."""
EXACT = [name for name in ARCHITECTURES if name != "sizes_in_code"]
"""Those whose code lets all units be removed."""


@pytest.mark.parametrize("name", EXACT)
def test_an_architecture_by_magnitude(name: str, caplog: pytest.LogCaptureFixture) -> None:
    kinds = kinds_of(*ARCHITECTURES[name]())
    assert kinds >= KINDS.get(name, {"channels"})
    for structure in sorted(kinds):
        assert_exact(*ARCHITECTURES[name](), structure, "magnitude", 0)
    assert not [record for record in caplog.records if record.name.startswith(compact.__module__)]


@pytest.mark.parametrize("name", EXACT)
def test_an_architecture_by_random_units_in_float64(name: str) -> None:
    for seed, structure in enumerate(sorted(kinds_of(*ARCHITECTURES[name]()))):
        if structure == "width" and name.startswith("hf_llama"):
            continue  # its RMS norm computes in float32, whatever the type
        assert_exact(*in_double(ARCHITECTURES[name]()), structure, "random", seed)


@pytest.mark.parametrize("name", ["resnet_20_like", "shufflenet_v2", "yolo", "encoder_pre_norm", "hf_gpt2_sdpa"])
def test_all_structures_one_after_the_other(name: str) -> None:
    network, example = in_double(ARCHITECTURES[name]())
    for seed, structure in enumerate(sorted(kinds_of(network, example))):
        assert_exact(network, example, structure, "random", seed)
        network = compact(network, example)


@pytest.mark.parametrize(("structure", "where"), [("neurons", "view"), ("heads", "view"), ("channels", "")])
def test_units_stay_where_their_number_is_in_the_code(
    structure: str, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    network, example = in_double(ARCHITECTURES["sizes_in_code"]())
    prune(network, 0.5, structure=structure, example=example)
    smaller = compact(network, example)
    assert_same(network, smaller, example)
    assert count_parameters(smaller) <= count_parameters(network)
    assert any(where in record.getMessage() for record in caplog.records if record.name == compact.__module__)
