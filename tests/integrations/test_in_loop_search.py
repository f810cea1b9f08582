from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.support.custom_search import X, Y
from tests.support.errors import raises_input_error
from tests.support.in_loop_training import Training
from tests.support.renamed_states import RENAMED
from tests.support.step_recorder import StepRecorder, copy_state
from tests.support.training import same_state
from tombola.integrations.in_loop_search import InLoopSearch
from tombola.integrations.search_config import SearchConfig
from tombola.integrations.state_serialization import cpu_copy, flatten, unflatten
from tombola.pruning.network_state import network_state
from tombola.tickets.ticket import Ticket


def test_each_level_is_rewound_and_keeps_pruned_weights_at_zero() -> None:
    training = Training()
    with StepRecorder(training.network, lambda: training.search) as recorder:
        training.run()
    assert recorder.steps == training.search.total == 12 + 3 * 9
    recorder.assert_rewound()
    assert len(recorder.moments[0, 3]) == 3 * 8  # Adam's step and both moments, of every parameter
    assert not same_state(recorder.weights[0, 11], recorder.weights[0, 3])


def test_counts_of_weights_are_exact_and_each_level_has_its_metrics() -> None:
    training = Training().run()
    table = training.search.levels
    sizes = [6 * 16, 16 * 16, 16 * 3]
    expected = [sum(sizes)]
    for _ in range(3):
        sizes = [size - round(size * 0.5) for size in sizes]
        expected.append(sum(sizes))
    assert [row.weights for row in table] == expected
    assert [row.level for row in table] == [0, 1, 2, 3]
    assert table[-1].density == expected[-1] / expected[0]
    assert table[-1].metrics == {"loss": training.loss}
    assert len({row.metrics["loss"] for row in table}) == 4
    assert len({row.run for row in table}) == 4
    for row in table:
        assert row.measures["loss"] == pytest.approx(row.metrics["loss"])
        assert (row.branch, row.replicate, row.weights_total, row.measures.iterations) == ("ticket", 0, 400, 12)


def test_levels_are_known_after_the_network_has_changed() -> None:
    training = Training().run(lambda t: t.seen == 25)
    levels = training.search.levels
    training.network[5] = nn.Identity()
    assert training.search.levels == levels


def test_a_level_that_could_not_be_pruned_is_not_finished(tmp_path: Path) -> None:
    def score(inputs: Any) -> dict[str, Tensor]:
        factor = math.nan if broken else 1.0
        return {name: weight.abs() * factor for name, weight in inputs.weights.items()}

    broken = False
    training = Training(score=score).run(lambda t: t.seen == 21)
    broken = True
    with raises_input_error("NaN"):
        training.step()
    checkpoint = training.checkpoint(tmp_path / "search")
    assert len(training.search.levels) == 1
    broken = False
    assert len(Training(score=score).resume(checkpoint).run().search.levels) == 4


def test_metrics_may_have_any_name_and_value() -> None:
    training = Training(levels=1)
    metrics = {"iterations": 3.0, "diverged": 1.0, "stop_iteration": 0.5, "weights": 2.0, "{}": 4.0, "loss": math.nan}
    training.metrics = lambda: metrics  # type: ignore[method-assign]
    training.search._read_metrics = training.metrics
    training.run()
    assert training.search.levels[-1].metrics == metrics
    assert training.search.levels[-1].measures.figures == {"weights": 2.0, "{}": 4.0}
    assert training.search.levels[-1].measures.iterations == 12


def test_the_last_level_reaches_the_density() -> None:
    training = Training(rate=None, density=0.1, scope="global", leave_out=["5"]).run()
    mask = training.search.mask
    assert mask.counts["5.weight"] == 16 * 3
    assert mask.counts["0.weight"] + mask.counts["3.weight"] == pytest.approx(0.1 * (6 * 16 + 16 * 16), abs=1)


def test_a_level_is_pruned_by_its_trained_weights() -> None:
    training = Training().run(lambda t: t.search.iteration == t.search.end)
    trained = copy_state(training.network)
    training.search.before_step()
    for name, kept in training.search.mask.items():
        assert trained[name][kept].abs().min() >= trained[name][~kept].abs().max()


def test_the_ticket_has_the_weights_at_the_rewinding_point(tmp_path: Path) -> None:
    training = Training()
    training.run(lambda t: t.search.iteration == 3)
    start = copy_state(training.network)
    training.run()
    training.search.ticket.save(tmp_path / "ticket.safetensors")
    ticket = Ticket.load(tmp_path / "ticket.safetensors")
    assert ticket.mask == training.search.mask == training.search.ticket_at(3).mask
    assert ticket.mask <= training.search.ticket_at(2).mask
    assert set(ticket.start) == set(start)
    for name, tensor in start.items():
        assert torch.equal(ticket.start[name], tensor * ticket.mask[name] if name in ticket.mask else tensor)
    ticket.into(Training(seed=5).network)


def test_there_is_no_ticket_before_the_rewinding_point() -> None:
    training = Training()
    training.step()
    with raises_input_error("level 0"):
        training.search.ticket  # noqa: B018
    training.run(lambda t: t.search.iteration == 5)
    assert training.search.ticket.mask.density == 1
    with raises_input_error("level 1"):
        training.search.ticket_at(1)


@pytest.mark.parametrize("interrupted", [1, 3, 4, 11, 12, 13, 20, 21, 30, 38])
def test_a_resumed_search_gives_the_same_bits(tmp_path: Path, interrupted: int) -> None:
    whole = Training().run()
    begun = Training().run(lambda t: t.seen == interrupted)
    checkpoint = begun.checkpoint(tmp_path / "search.safetensors")
    resumed = Training(seed=9).resume(checkpoint)
    assert resumed.search.ticket_at(0) if interrupted > 3 else True
    resumed.run()
    assert same_state(resumed.network.state_dict(), whole.network.state_dict())
    assert resumed.search.mask == whole.search.mask
    assert resumed.search.levels == whole.search.levels
    assert same_state(resumed.search.ticket.start, whole.search.ticket.start)


def test_rewinding_twice_gives_the_same_state_state() -> None:
    """An optimizer updates the very tensors that its state was loaded from."""
    training = Training().run()
    tensors, about = training.search.state()
    before = {name: tensor.clone() for name, tensor in tensors.items()}
    training.search._rewind()
    training.run()
    assert same_state(training.search.state()[0], before)
    assert training.search.state()[1] == about | training.search.state()[1]


def test_a_finished_search_releases_the_network() -> None:
    training = Training()
    names = [list(training.network.state_dict()), [n for n, _ in training.network.named_parameters()]]
    training.run()
    assert [list(training.network.state_dict()), [n for n, _ in training.network.named_parameters()]] == names
    training.search.finish()
    assert not any(layer._load_state_dict_post_hooks for layer in training.network.modules())
    assert training.search.levels[-1].metrics == {"loss": training.loss}
    training.loss = -1.0
    assert training.search.levels[-1].metrics != {"loss": -1.0}


@pytest.mark.parametrize("steps", [1, 14])
def test_layers_that_change_within_a_level_are_an_error(steps: int) -> None:
    changes: list[Callable[[nn.Sequential], Any]] = [
        lambda network: network.__setitem__(5, nn.Linear(16, 3)),
        lambda network: network.__setitem__(5, nn.Identity()),
        lambda network: network.append(nn.Linear(3, 3)),
    ]
    for change in changes:
        training = Training().run(lambda training: training.seen == steps)
        change(training.network)
        for use in (training.search.state, training.search.check_layers, training.search.finish):
            with raises_input_error("training", "weight", "final layers"):
                use()


def test_a_layer_may_be_replaced_before_the_first_step() -> None:
    training = Training()
    training.search.state()
    training.network.append(nn.Linear(3, 3))
    training.step()
    training.search.check_layers()


def test_epochs_are_converted_to_iterations() -> None:
    assert Training(every="3ep", rewind="1ep1it").search.end == 12
    assert Training(every="3ep", rewind="1ep1it").search.begin == 5
    with raises_input_error("every", "iterations"):
        Training(every="3ep", steps_per_epoch=None)


@pytest.mark.parametrize("score", ["magnitude", "random", "movement", "large_init", "magnitude_increase"])
def test_scores_of_trained_and_initial_weights_work(tmp_path: Path, score: str) -> None:
    whole = Training(score=score).run()
    assert whole.search.mask.count == Training().run().search.mask.count
    begun = Training(score=score).run(lambda t: t.seen == 15)
    resumed = Training(score=score, seed=9).resume(begun.checkpoint(tmp_path / "search")).run()
    assert resumed.search.mask == whole.search.mask


def test_scores_get_the_initial_weights_not_those_at_the_rewinding_point() -> None:
    seen: list[Tensor] = []

    def score(inputs: Any) -> dict[str, Tensor]:
        seen.append(inputs.start()["0.weight"].clone())
        return {name: weight.abs() for name, weight in inputs.weights.items()}

    training = Training(score=score, levels=1)
    initial = training.network.state_dict()["0.weight"].clone()
    training.run()
    assert len(seen) == 2  # the first is the check before training
    assert all(torch.equal(start, initial) for start in seen)


@pytest.mark.parametrize(
    ("options", "facts"),
    [
        ({"levels": 0}, ["levels"]),
        ({"levels": 40}, ["levels", "at most"]),
        ({"every": "three"}, ["every", "500it"]),
        ({"every": "0it"}, ["rewind", "0it"]),
        ({"rewind": "12it"}, ["rewind", "12it"]),
        ({"density": 0.1}, ["rate", "density"]),
        ({"rate": 1.5}, ["rate"]),
        ({"scope": "globl"}, ['"global"']),
        ({"score": "magnitud"}, ['"magnitude"']),
        ({"score": "snip"}, ["score"]),
        ({"leave_out": ["head"]}, ['"head"']),
    ],
)
def test_invalid_options_are_refused_before_training(options: dict[str, Any], facts: list[str]) -> None:
    with raises_input_error(*facts):
        Training(**options)


@pytest.mark.parametrize("seed", [-1, 0.5])
def test_an_invalid_seed_is_refused(seed: Any) -> None:
    with raises_input_error("seed", seed):
        SearchConfig(1, "2it", seed=seed)


def test_a_network_without_prunable_layers_is_refused() -> None:
    with raises_input_error("no layer to prune"):
        InLoopSearch(SearchConfig(1, "2it"), nn.Embedding(3, 2), [], [], None)


def test_checkpoints_of_another_search_or_other_weights_are_refused() -> None:
    begun = Training().run(lambda t: t.seen == 20)
    tensors, about = begun.search.state()
    with raises_input_error("levels", 3, 4):
        Training(levels=4).search.load(tensors, about)
    with raises_input_error("0.weight"):
        Training().search.load(tensors, about)


def test_nested_states_are_restored_from_json_and_tensors_as_copies() -> None:
    value = {
        "state": {0: {"exp_avg": torch.randn(2, 3).bfloat16(), "step": torch.tensor(3.0)}, 1: {}},
        "eight": torch.randn(3).to(torch.float8_e4m3fn),
        "kept": torch.tensor([True, False]),
        "strange": torch.arange(6).view(2, 3).t(),
        "betas": (0.9, 0.999),
        "milestones": Training().schedulers[1].state_dict()["milestones"],
        "none": [None, True, float("inf"), "größe"],
    }
    tensors: dict[str, Tensor] = {}
    about = json.loads(json.dumps(flatten(value, "x", tensors)))
    back = unflatten(about, tensors)
    assert str(back) == str(value)
    assert type(back["milestones"]) is type(value["milestones"])
    assert back["state"][0]["exp_avg"].dtype == torch.bfloat16
    back["kept"].zero_()
    assert tensors["x/kept"].any()
    assert cpu_copy(value)["state"][0]["step"] is not value["state"][0]["step"]


def test_a_state_that_needs_pickle_is_refused() -> None:
    with raises_input_error("states/lr_lambdas/0", "function"):
        flatten({"lr_lambdas": [lambda epoch: epoch]}, "states", {})


@pytest.mark.parametrize("kind", RENAMED)
def test_networks_that_rename_or_shorten_their_state_have_tickets(kind: str) -> None:
    network = RENAMED[kind]()
    start = network_state(network)
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    search = InLoopSearch(SearchConfig(levels=1, every="2it", rate=0.5), network, [optimizer], [], None)
    while not search.complete:
        search.before_step()
        optimizer.zero_grad()
        functional.cross_entropy(network(X), Y).backward()
        optimizer.step()
        search.after_step()
    assert search.ticket.start.keys() == start.keys() - {"calls"}
    for name, tensor in search.ticket.start.items():
        assert torch.equal(tensor, start[name] * search.mask.get(name, 1)), name


def test_included_parameters_are_pruned_and_levels_say_what_is_left_of_all() -> None:
    network = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 3), nn.PReLU(3))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    for include, left in (((), 1 - 6 / 32), (("0",), 0.5)):
        config = SearchConfig(levels=1, every="1it", rate=0.5, include=include)
        search = InLoopSearch(config, network, [optimizer], [], None)
        for _ in range(2):
            search.before_step()
            search.after_step()
        assert [level.density for level in search.levels] == [1, 0.5]
        assert [level.density_of_all for level in search.levels] == [1, left]
        assert search.ticket.provenance["matrix_weights"] == 32
        search.finish()


def test_units_are_pruned_within_a_training() -> None:
    options: dict[str, Any] = {"structure": "neurons", "scope": "global", "round_to": 2, "example": torch.randn(2, 6)}
    whole = Training(**options).run()
    left = [int(whole.search.mask[name].any(1).sum()) for name in ("0.weight", "3.weight")]
    assert 2 <= sum(left) <= 4
    assert all(n % 2 == 0 and n for n in left)
    assert torch.equal(whole.search.mask["3.weight"].any(0), whole.search.mask["0.weight"].any(1))
    tensors, about = Training(**options).run(lambda training: training.seen == 20).search.state()
    with raises_input_error("another search", "round_to"):
        Training(**options | {"round_to": 1}).search.load(tensors, about)
