"""Eleven mistakes found in public pruning code, one test each; `docs/architecture.md` lists more thorough tests."""

from __future__ import annotations

import copy
import logging
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.support.recipes import tiny
from tests.support.studies import drive, prune_by_magnitude
from tests.support.training import Interrupted, InterruptingCheckpoint, same_bits, train_alone
from tombola._find_ticket import find_ticket
from tombola.engines.eager import Eager, ModuleLearner
from tombola.experiments.recipe_experiment import RecipeExperiment
from tombola.pruning.hold import hold
from tombola.pruning.mask import Mask
from tombola.pruning.options import PruningOptions
from tombola.pruning.prunable_network import PrunableNetwork
from tombola.pruning.prune_model import prune
from tombola.pruning.ranking import keep_best
from tombola.pruning.scopes import weights_left
from tombola.runs.checkpoint import Checkpoint
from tombola.runs.initial_state import initial_network
from tombola.runs.run import Run
from tombola.studies.controls import ControlPlan, reinit, shuffled
from tombola.studies.search import iterative_search

X, Y = torch.randn(40, 8, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 3


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 10), nn.Tanh(), nn.Linear(10, 3))


def half(model: nn.Module, seed: int = 0) -> Mask:
    generator = torch.Generator().manual_seed(seed)
    return Mask({n: torch.rand(kept.shape, generator=generator) < 0.5 for n, kept in Mask.full(model).items()})


def steps(model: nn.Module, optimizer: torch.optim.Optimizer, count: int = 1) -> None:
    for _ in range(count):
        optimizer.zero_grad()
        functional.cross_entropy(model(X), Y).backward()
        optimizer.step()


def test_1_gradients_are_masked_where_the_mask_is_off_not_where_the_weight_is_small_or_negative() -> None:
    model = network()
    weight, kept = model[0].weight, half(model)["0.weight"]
    with torch.no_grad():
        weight.mul_(1e-6)  # tiny weights of either sign
    with hold(model, Mask({"0.weight": kept})):
        functional.cross_entropy(model(X), Y).backward()
    assert weight.grad is not None
    assert torch.equal(weight.grad != 0, kept)
    assert (weight[kept] < 0).any()


def test_2_shuffled_and_reinitialised_controls_differ_from_the_ticket(dense: Run) -> None:
    tickets = drive(iterative_search(dense, 2, prune_by_magnitude))[1]
    plan = ControlPlan(tickets, 2, lambda level, draw: 10 * level + draw)
    for ask in drive(shuffled(plan))[0][0]:
        assert ask.run.mask != tickets[ask.level].run.mask
        assert ask.run.mask.counts == tickets[ask.level].run.mask.counts
    for ask in drive(reinit(plan))[0][0]:
        ours, theirs = (initial_network(run.start) for run in (ask.run, tickets[ask.level].run))
        assert all((ours.get_parameter(n) != theirs.get_parameter(n)).all() for n in ask.run.mask)


def test_3_rewinding_rewinds() -> None:
    starts = []

    def train_and_record(model: nn.Module) -> None:
        starts.append(copy.deepcopy(model.state_dict()))
        steps(model, torch.optim.SGD(model.parameters(), 0.1), 5)

    find_ticket(network(), train_and_record, levels=3, rate=0.4)
    for start in starts[1:]:
        for name, tensor in start.items():
            kept = tensor != 0
            assert torch.equal(tensor[kept], starts[0][name][kept])
    assert (starts[3]["0.weight"] == 0).sum() > (starts[1]["0.weight"] == 0).sum() > 0


@pytest.mark.parametrize("name", ["layer", "global", "erk"])
def test_4_achieved_counts_equal_requested_counts_despite_ties_and_left_out_layers(name: str) -> None:
    network = PrunableNetwork(nn.Sequential(nn.Linear(7, 11), nn.Linear(11, 13), nn.Linear(13, 5)))
    mask = network.dense
    scores = {layer: torch.zeros(kept.shape) for layer, kept in mask.items()}  # all are equal
    chosen = PruningOptions(scope=name, rate=0.37, leave_out=["2"]).scope_of(network)
    pruned = keep_best(scores, mask, chosen.keeps(weights_left(mask, chosen.groups)))
    assert pruned.counts["2.weight"] == 65
    left = pruned.count - 65
    if name == "layer":
        assert pruned.counts == {
            "0.weight": 77 - round(0.37 * 77),
            "1.weight": 143 - round(0.37 * 143),
            "2.weight": 65,
        }
    else:
        assert left == 220 - round(0.37 * 220)


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.1, nesterov=True),
        lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.5),
        lambda p: torch.optim.Adam(p, 0.01, fused=True),
        lambda p: torch.optim.RMSprop(p, 0.01, momentum=0.9, foreach=True),
    ],
)
def test_5_neither_momentum_nor_weight_decay_revives_a_pruned_weight(optimizer: Any) -> None:
    model = network()
    mask = half(model)
    trained = optimizer(model.parameters())
    steps(model, trained, 5)  # its state includes pruned weights
    with hold(model, mask):
        for _ in range(10):
            steps(model, trained)
            for name, kept in mask.items():
                assert not model.get_parameter(name)[~kept].any()


def test_6_controls_depend_only_on_their_seed(dense: Run) -> None:
    tickets = drive(iterative_search(dense, 1, prune_by_magnitude))[1]

    def draw(seed: int) -> list[str]:
        for module in (random.seed, np.random.seed, torch.manual_seed):
            module(seed)
        plan = ControlPlan(tickets, 2, lambda level, draw: 10 * level + draw)
        return [ask.run.key for study in (shuffled, reinit) for ask in drive(study(plan))[0][0]]

    assert draw(1) == draw(2)
    assert len(set(draw(1))) == 4


def test_7_the_best_iteration_is_that_of_the_validation_set(dense: Run) -> None:
    run = dense.model_copy(update={"training": dense.training.model_copy(update={"test_curve": True, "lr": 0.05})})
    outcome = train_alone(run)
    best = int(outcome.curves["validation_loss"].argmin())
    assert outcome.measures.stop_iteration == int(outcome.curves["iteration"][best])
    assert outcome.measures["test_accuracy_at_stop"] == pytest.approx(float(outcome.curves["test_accuracy"][best]))


def test_8_a_held_network_can_be_copied_and_keeps_its_names(tmp_path: Path) -> None:
    model = network()
    names = list(model.state_dict())
    with hold(model, half(model)):
        assert list(model.state_dict()) == names == list(copy.deepcopy(model).state_dict())
        torch.save(model.state_dict(), tmp_path / "state.pt")
    assert network().load_state_dict(torch.load(tmp_path / "state.pt")).missing_keys == []


def test_9_a_step_does_not_wait_for_the_device(dense: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python waits for a number only in one of the methods below."""
    from tombola.zoo.datasets import prepare

    split = prepare(dense.data)
    learner = ModuleLearner(initial_network(dense.start), dense.masked(half_of(dense)), split, torch.device("cpu"))
    model = network()
    hold(model, half(model))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    order = torch.arange(40).view(1, 1, 40)

    def waits(*_: object) -> None:
        raise AssertionError("waits for the device")

    for name in ("item", "tolist", "numpy", "__bool__", "__float__", "__int__", "cpu", "nonzero"):
        monkeypatch.setattr(torch.Tensor, name, waits)
    learner.train(order, 0)
    steps(model, optimizer)


def half_of(run: Run) -> Mask:
    generator = torch.Generator().manual_seed(0)
    return Mask({n: torch.rand(kept.shape, generator=generator) < 0.5 for n, kept in run.mask.items()})


def test_10_a_resumed_run_is_the_same_run_dropout_included(tmp_path: Path) -> None:
    dropping = {"name": "mlp", "widths": [20, 10], "dropout": 0.3}
    run = RecipeExperiment(tiny(model=dropping, training__momentum=0.0)).dense(0)
    path = tmp_path / "checkpoint.safetensors"
    with pytest.raises(Interrupted):
        Eager().train([run], InterruptingCheckpoint(path))
    torch.manual_seed(99)
    (resumed,) = Eager().train([run], Checkpoint(path))
    assert same_bits(resumed, train_alone(run))


def test_11_a_fully_pruned_layer_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    model = network()
    with torch.no_grad():
        model[2].weight.mul_(1e-3)  # so small that a global pruning takes all of it
    with caplog.at_level(logging.WARNING, logger="tombola"):
        mask = prune(model, density=0.3, scope="global")
    assert mask.empty_layers == ["2.weight"]
    assert "2" in caplog.messages[-1]
