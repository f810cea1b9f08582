from __future__ import annotations

import linecache
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.support.outcomes import outcome_of
from tests.support.recipes import tiny
from tests.support.studies import drive
from tombola.experiments.experiment import count_runs
from tombola.experiments.recipe import load_recipe
from tombola.experiments.recipe_experiment import RecipeExperiment
from tombola.pruning.scores import SCORES
from tombola.pruning.scores.inputs import ScoreInputs
from tombola.pruning.scores.weights import magnitude
from tombola.runs.outcome import Outcome
from tombola.studies.request import RunRequest
from tombola.zoo.batches import batches
from tombola.zoo.datasets import prepare
from tombola.zoo.models import build


def test_each_replicate_has_its_own_weights_split_and_batch_order() -> None:
    experiment = RecipeExperiment(tiny(replicates=3))
    runs = [experiment.dense(replicate) for replicate in range(3)]
    for seeds in zip(*((run.start.seed, run.data.seed, run.seed) for run in runs), strict=True):
        assert len(set(seeds)) == 3
    assert experiment.dense(1) == RecipeExperiment(tiny(replicates=9)).dense(1)
    assert experiment.dense(1) != RecipeExperiment(tiny(seed=1)).dense(1)


@pytest.mark.parametrize("one_shot", [False, True])
def test_a_study_searches_and_then_trains_controls(one_shot: bool) -> None:
    recipe = tiny(search__one_shot=one_shot)
    yielded, _ = drive(RecipeExperiment(recipe).study(0))
    requests = [request for requests in yielded for request in requests]
    assert len(requests) * recipe.replicates == count_runs(recipe)
    assert [request.level for request in requests if request.branch == "ticket"] == [0, 1, 2, 3]
    assert [(request.level, request.draw) for request in requests if request.branch == "reinit"] == [
        (level, draw) for level in (1, 2, 3) for draw in (0, 1)
    ]
    assert len({request.run.key for request in requests}) == len(requests)
    assert [len(requests) for requests in yielded] == ([1, 3, 6] if one_shot else [1, 1, 1, 1, 6])


def test_keys_of_recipes_never_change() -> None:
    """Golden: they depend on the purposes of seeds, the defaults of options and the digest of the data."""
    experiment = RecipeExperiment(load_recipe("digits"))
    dense = experiment.dense(0)
    assert dense.key == "2e071eff9608a717bc193d3a073669ae"
    yielded, _ = drive(RecipeExperiment(tiny()).study(1))
    assert yielded[-1][-1].run.start.seed == 4727628469097597687
    for explicit in ("model.dropout=0.0", "model.init=glorot-normal", "training.weight_decay=0"):
        assert RecipeExperiment(load_recipe("digits", [explicit])).dense(0).key == dense.key


def test_editing_a_network_changes_its_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    text = "from torch import nn\ndef net():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.{}())\n"
    keys = set()
    for activation in ("ReLU", "Tanh"):
        (tmp_path / "my_own_net.py").write_text(text.format(activation))
        sys.modules.pop("my_own_net", None)
        linecache.clearcache()
        keys.add(RecipeExperiment(tiny(model={"name": "my_own_net:net"})).dense(0).key)
    assert len(keys) == 2


def test_a_final_density_is_reached() -> None:
    tickets = drive(RecipeExperiment(tiny(search={"levels": 5, "density": 0.1}, controls={})).study(0))[0]
    assert tickets[-1][0].run.mask.density == pytest.approx(0.1, abs=0.002)


def test_random_scores_differ_by_level_and_replicate() -> None:
    experiment = RecipeExperiment(tiny(search__score="random"))
    masks = [drive(experiment.study(r))[0][1][0].run.mask for r in (0, 1)]
    assert masks[0] != masks[1]
    assert masks[0].counts == masks[1].counts
    assert drive(experiment.study(0))[0][1][0].run.mask == masks[0]


@pytest.mark.parametrize("rewind", [0, 7])
def test_scores_get_the_trained_network_its_initial_state_and_its_training_batches(
    rewind: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[ScoreInputs] = []

    def score(inputs: ScoreInputs) -> dict[str, Tensor]:
        seen.append(inputs)
        return magnitude(inputs)

    def outcome(request: RunRequest) -> Outcome:
        made_up = outcome_of(request.run)
        state = build(request.run.start).state_dict()
        return replace(made_up, final={name: value + 1 for name, value in state.items()} | made_up.final)

    monkeypatch.setitem(SCORES, "seen", score)
    recipe = tiny(search={"levels": 2, "rate": 0.5, "score": "seen"}, rewind={"to": f"{rewind}it"})
    yielded, _ = drive(RecipeExperiment(recipe).study(0), outcome=outcome)
    tickets = [request for batch in yielded for request in batch if request.branch == "ticket"][:2]
    for request, inputs in zip(tickets, seen, strict=True):
        run, final = request.run, outcome(request).final
        network = inputs.network()
        assert not network.training
        assert inputs.network() is not network
        for name, value in network.state_dict().items():
            assert torch.equal(value, final[name])
            assert name not in run.mask or not value[~run.mask[name]].any()
        initial = build(run.start).state_dict()
        assert all(torch.equal(value, initial[name]) for name, value in inputs.start().items())
        train = prepare(run.data).train
        wanted = batches(run.seed, len(train), 40, rewind, 20)
        for (x, y), order in zip(inputs.batches(), wanted, strict=True):
            assert torch.equal(x, train[order][0])
            assert torch.equal(y, train[order][1])


def test_pruning_neurons_counts_neurons() -> None:
    yielded, _ = drive(RecipeExperiment(tiny(search={"levels": 2, "rate": 0.5, "structure": "neurons"})).study(0))
    masks = [requests[0].run.mask for requests in yielded[:3]]
    assert [int(mask["fc1.weight"].any(1).sum()) for mask in masks] == [20, 10, 5]
    assert [int(mask["fc2.weight"].any(1).sum()) for mask in masks] == [10, 5, 3]  # half of 5 is rounded to even, 2
    assert all(mask["output.weight"].any(1).all() for mask in masks)


def test_a_pattern_is_reached_in_one_level() -> None:
    search = {"levels": 1, "density": 0.5, "structure": "2:4", "leave_out": ["output"]}
    yielded, _ = drive(RecipeExperiment(tiny(search=search)).study(0))
    mask = yielded[1][0].run.mask
    assert all((mask[f"{layer}.weight"].view(-1, 4).sum(1) == 2).all() for layer in ("fc1", "fc2"))
