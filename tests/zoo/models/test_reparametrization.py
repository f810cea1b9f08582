from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from tombola.runs.initial_state import initial_network
from tombola.runs.run import Run
from tombola.zoo.models import build, describe_parametrized
from tombola.zoo.models.description import Network, Start
from tombola.zoo.models.parametrizations import PARAMETRIZATIONS
from tombola.zoo.models.reparametrization import effective_state, original_name, reparametrize, scores_of


class Doubled(nn.Module):
    """A parametrization that trains the weight too."""

    def __init__(self, weight: torch.Tensor, factor: float = 2.0) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.full_like(weight, factor))

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return self.factor * weight


NETWORK = Network(name="resnet", options={"depth": 8, "width": 2}, inputs=(8, 8), classes=10)


def test_the_original_weight_is_where_its_name_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PARAMETRIZATIONS, "doubled", Doubled)
    network = reparametrize(nn.Sequential(nn.Linear(3, 2)), "doubled", {"0.weight": {}})
    assert original_name("0.weight") in dict(network.named_parameters())
    alone = reparametrize(nn.Linear(3, 2), "doubled", {"weight": {}})
    assert original_name("weight") in dict(alone.named_parameters())
    assert set(effective_state(alone)) == {"weight", "bias"}


def test_a_run_continues_with_the_weights_that_a_parametrization_computed(
    monkeypatch: pytest.MonkeyPatch, dense: Run
) -> None:
    monkeypatch.setitem(PARAMETRIZATIONS, "doubled", Doubled)
    plain = build(Start(network=NETWORK, seed=3))
    layers: dict[str, dict[str, Any]] = {n: {"factor": 3.0} for n, p in plain.named_parameters() if p.ndim > 1}
    wrapped = Start(network=describe_parametrized(NETWORK, "doubled", layers), seed=3)
    trained = build(wrapped)
    assert {original_name(name) for name in layers} <= {name for name, _ in trained.named_parameters()}
    before = dense.model_copy(update={"start": wrapped})
    run = dense.model_copy(update={"start": Start(network=NETWORK, seed=3)}).after(before, begin=5)
    states = {before.key: trained.state_dict()}
    loaded = initial_network(run.start, lambda key, **_: states[key])
    for name, parameter in plain.named_parameters():
        expected = 3 * parameter if name in layers else parameter
        assert torch.equal(loaded.get_parameter(name), expected), name
    x = torch.rand(4, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(loaded.eval()(x), trained.eval()(x))


def test_the_weights_of_edge_popup_are_those_of_its_mask() -> None:
    keep = {n: p.numel() // 2 for n, p in build(Start(network=NETWORK, seed=3)).named_parameters() if p.ndim > 1}
    layers = {name: {"keep": count} for name, count in keep.items()}
    popup = build(Start(network=describe_parametrized(NETWORK, "edge-popup", layers), seed=3))
    assert describe_parametrized(NETWORK, "edge-popup", layers).name == "supermask"  # the name in stored keys
    state = effective_state(popup)
    scores = scores_of(popup.state_dict())
    for name, count in keep.items():
        ranked = scores[name].abs()
        lowest_kept = ranked.flatten().topk(count).values[-1]
        assert torch.equal(state[name] != 0, ranked >= lowest_kept), name


def test_runs_of_the_same_network_do_not_name_another(dense: Run) -> None:
    trained = dense.after(dense, begin=1).start.trained
    assert trained is not None
    assert trained.through is None
