from __future__ import annotations

import linecache
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.conftest import outcome_of, tiny
from tests.studies.test_search import answer
from tombola.experiments.experiment import Experiment, expected_runs
from tombola.experiments.recipe import load_recipe
from tombola.pruning.scores import SCORES
from tombola.pruning.scores.inputs import ScoreInputs
from tombola.pruning.scores.weights import magnitude
from tombola.runs.outcome import Outcome
from tombola.studies.request import RunRequest
from tombola.utils.errors import InputError
from tombola.zoo.batches import batches
from tombola.zoo.datasets import prepare
from tombola.zoo.models import build


def test_each_replicate_has_its_own_weights_split_and_order() -> None:
    experiment = Experiment(tiny(replicates=3))
    runs = [experiment.dense(replicate) for replicate in range(3)]
    for seeds in zip(*((run.start.seed, run.data.seed, run.seed) for run in runs), strict=True):
        assert len(set(seeds)) == 3
    assert experiment.dense(1) == Experiment(tiny(replicates=9)).dense(1)  # more replicates change none of them
    assert experiment.dense(1) != Experiment(tiny(seed=1)).dense(1)


@pytest.mark.parametrize("one_shot", [False, True])
def test_a_study_searches_and_then_controls(one_shot: bool) -> None:
    recipe = tiny(search__one_shot=one_shot)
    asked, _ = answer(Experiment(recipe).study(0))
    asks = [ask for question in asked for ask in question]
    assert len(asks) * recipe.replicates == expected_runs(recipe)
    assert [ask.level for ask in asks if ask.branch == "ticket"] == [0, 1, 2, 3]
    assert [(ask.level, ask.draw) for ask in asks if ask.branch == "reinit"] == [
        (level, draw) for level in (1, 2, 3) for draw in (0, 1)
    ]
    assert len({ask.run.key for ask in asks}) == len(asks)
    assert [len(question) for question in asked] == ([1, 3, 6] if one_shot else [1, 1, 1, 1, 6])


def test_keys_of_recipes_never_change() -> None:
    """Golden: purposes of seeds, defaults of options and the digest of the data are all in them."""
    experiment = Experiment(load_recipe("digits"))
    dense = experiment.dense(0)
    assert dense.key == "2e071eff9608a717bc193d3a073669ae"
    asked, _ = answer(Experiment(tiny()).study(1))
    assert asked[-1][-1].run.start.seed == 4727628469097597687
    for explicit in ("model.dropout=0.0", "model.init=glorot-normal", "training.weight_decay=0"):
        assert Experiment(load_recipe("digits", [explicit])).dense(0).key == dense.key


def test_a_network_that_was_edited_is_another_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    text = "from torch import nn\ndef net():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.{}())\n"
    keys = set()
    for activation in ("ReLU", "Tanh"):
        (tmp_path / "my_own_net.py").write_text(text.format(activation))
        sys.modules.pop("my_own_net", None)
        linecache.clearcache()
        keys.add(Experiment(tiny(model={"name": "my_own_net:net"})).dense(0).key)
    assert len(keys) == 2


def test_a_final_density_is_reached() -> None:
    asked, _ = answer(Experiment(tiny(search={"levels": 5, "density": 0.1})).study(0))
    last = max((ask for question in asked for ask in question), key=lambda ask: ask.level)
    assert last.run.mask.density == pytest.approx(0.1, abs=0.002)


def test_random_scores_differ_by_level_and_replicate() -> None:
    experiment = Experiment(tiny(search__score="random"))
    masks = [answer(experiment.study(r))[0][1][0].run.mask for r in (0, 1)]
    assert masks[0] != masks[1]
    assert masks[0].counts == masks[1].counts
    assert answer(experiment.study(0))[0][1][0].run.mask == masks[0]


@pytest.mark.parametrize("rewind", [0, 7])
def test_scores_are_shown_the_trained_network_its_start_and_the_batches_it_trained_on(
    rewind: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[ScoreInputs] = []

    def score(grounds: ScoreInputs) -> dict[str, Tensor]:
        seen.append(grounds)
        return magnitude(grounds)

    def outcome(ask: RunRequest) -> Outcome:
        made = outcome_of(ask.run)
        state = build(ask.run.start).state_dict()
        return replace(made, final={name: value + 1 for name, value in state.items()} | made.final)

    monkeypatch.setitem(SCORES, "seen", score)
    recipe = tiny(search={"levels": 2, "rate": 0.5, "score": "seen"}, rewind={"to": f"{rewind}it"})
    asked, _ = answer(Experiment(recipe).study(0), outcome=outcome)
    tickets = [ask for question in asked for ask in question if ask.branch == "ticket"][:2]
    for ask, grounds in zip(tickets, seen, strict=True):
        run, final = ask.run, outcome(ask).final
        network = grounds.network()
        assert not network.training
        assert grounds.network() is not network
        for name, value in network.state_dict().items():
            assert torch.equal(value, final[name])
            assert name not in run.mask or not value[~run.mask[name]].any()
        initial = build(run.start).state_dict()
        assert all(torch.equal(value, initial[name]) for name, value in grounds.start().items())
        train = prepare(run.data).train
        wanted = batches(run.seed, len(train), 40, rewind, 20)
        for (x, y), order in zip(grounds.batches(), wanted, strict=True):
            assert torch.equal(x, train[order][0])
            assert torch.equal(y, train[order][1])


def test_a_search_of_neurons_counts_neurons() -> None:
    asked, _ = answer(Experiment(tiny(search={"levels": 2, "rate": 0.5, "structure": "neurons"})).study(0))
    masks = [asks[0].run.mask for asks in asked[:3]]
    assert [int(mask["fc1.weight"].any(1).sum()) for mask in masks] == [20, 10, 5]
    assert [int(mask["fc2.weight"].any(1).sum()) for mask in masks] == [10, 5, 3]  # half of 5 is rounded to even, 2
    assert all(mask["output.weight"].all() for mask in masks)


def test_a_search_reaches_a_pattern_in_one_level() -> None:
    search = {"levels": 1, "density": 0.5, "structure": "2:4", "leave_out": ["output"]}
    asked, _ = answer(Experiment(tiny(search=search)).study(0))
    mask = asked[1][0].run.mask
    assert all((mask[f"{layer}.weight"].view(-1, 4).sum(1) == 2).all() for layer in ("fc1", "fc2"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data__name": "digit"}, 'unknown data set "digit": did you mean "digits"?'),
        ({"data__validation": 1197}, "data.validation: should be from 1 to 1,196, not 1,197"),
        ({"data__validation": 5000}, "data.validation: should be from 1 to 1,196, not 5,000"),
        ({"training__batch_size": 998}, "training.batch_size: should be at most the 997 training examples"),
        ({"model__name": "lenet"}, 'unknown network "lenet"'),
        ({"model__name": "lenet-300"}, 'did you mean "lenet-300-100"?'),
        ({"model__width": [3]}, 'unknown option of network "mlp" "width": did you mean "widths"?'),
        ({"model": {"name": "mlp"}}, "model.widths: missing"),
        ({"model__widths": "wide"}, "model.widths: input should be a valid list"),
        (
            {"model__init": "normal"},
            "model.init: input should be 'glorot-normal', 'kaiming-normal' or 'signed-constant'",
        ),
        ({"model": {"name": "no_such_module:Network"}}, 'cannot import "no_such_module:Network"'),
        ({"model": {"name": "torch.nn:Linear"}}, 'cannot call "torch.nn:Linear": missing a required argument'),
        ({"model": {"name": "torch:zeros", "size": [3]}}, "cannot be called"),
        ({"model": {"name": "torch.nn:Lienar"}}, "has no attribute 'Lienar'"),
        (
            {"model": {"name": f"{__name__}:Broken"}},
            'cannot call "tests.experiments.test_experiment:Broken": no such thing',
        ),
        ({"model": {"name": f"{__name__}:WeightNorm"}}, "fc.weight is computed from other parameters"),
        ({"model__dropout": 1.5}, "model.dropout: input should be less than 1, not 1.5"),
        ({"model__widths": [0]}, "model.widths.0: input should be greater than 0, not 0"),
        ({"model": {"name": f"{__name__}:not_a_module"}}, "made a int, not a torch.nn.Module"),
        ({"model": {"name": "torch.nn:Linear", "in_features": 8, "out_features": 4}}, "not (2, 10)"),
        ({"model": {"name": "torch.nn:Linear", "in_features": 9, "out_features": 4}}, "does not take 2 examples of"),
        ({"model": {"name": f"{__name__}:Unprunable"}}, "no linear or convolutional layer"),
        ({"search__levels": 40}, "would remove nothing; set levels to at most"),
        ({"search": {"levels": 9, "rate": 0.6}}, "leaves layer output.weight (100 weights) empty at level 6"),
        ({"search__leave_out": ["fc9"]}, "unknown layer"),
        (
            {"search": {"levels": 1, "rate": 0.5, "structure": "channels"}},
            "search.structure: no layer that is pruned has",
        ),
        (
            {"search": {"levels": 1, "rate": 0.5, "structure": "heads"}},
            "qkv and proj",
        ),
        (
            {"search": {"levels": 1, "rate": 0.5, "structure": "2:4"}},
            "2:4 needs a multiple of 4 inputs, output has 10",
        ),
        (
            {"search": {"levels": 5, "rate": 0.6, "structure": "neurons"}},
            "layer fc1.weight (20 units) empty at level 4",
        ),
    ],
)
def test_what_would_not_work_is_said_before_anything_is_trained(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        Experiment(tiny(**changes))
    assert message.lower() in str(caught.value).lower()
    assert "\n" not in str(caught.value)


def not_a_module() -> int:
    return 3


class Broken(nn.Module):
    def __init__(self) -> None:
        raise RuntimeError("no such thing\nat all")


class WeightNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.utils.parametrizations.weight_norm(nn.Linear(64, 10))

    def forward(self, x):  # type: ignore[no-untyped-def]
        return self.fc(x.flatten(1))


class Unprunable(nn.Module):
    def forward(self, x):  # type: ignore[no-untyped-def]
        return x.flatten(1)[:, :10]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rewind": {"to": "60it"}}, "rewind.to: should be before the end of training, 60it, not 60it"),
        (
            {"rewind": {"to": "auto"}, "stability": {"candidates": ["0it", "9ep"]}},
            "stability.candidates: should be before the end of training, 60it, not 9ep",
        ),
        (
            {"stability": {"candidates": ["20it", "10it", "10it"]}},
            "stability.candidates: should be in order, not 20it, 10it, 10it",
        ),
        ({"training__warmup": "60it"}, "training.warmup: should be shorter than the length, 60it, not 60it"),
        (
            {"training__schedule": "step", "training__milestones": ["2ep", "9it"]},
            "training.milestones: should be in order, between 0it and the length, 60it, not 2ep, 9it",
        ),
    ],
)
def test_lengths_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        Experiment(tiny(**changes))
    assert str(caught.value) == message
