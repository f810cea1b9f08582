from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import lr_scheduler

from tests.integrations.helpers import Witness, copy_of, same
from tombola.integrations.in_loop_search import InLoopSearch
from tombola.integrations.search_config import SearchConfig
from tombola.integrations.state_serialization import copied, flatten, unflatten
from tombola.tickets.ticket import Ticket
from tombola.utils.errors import InputError
from tombola.utils.files import read_tensors, write_tensors

BASE: dict[str, Any] = {"levels": 3, "every": "12it", "rewind": "3it", "rate": 0.5}


class Training:
    """A small network, its optimizer and its schedules, and a loop in which a search goes on."""

    def __init__(self, seed: int = 0, per_epoch: int | None = 4, **options: Any) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = nn.Sequential(
                nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3)
            )
        self.optimizer = torch.optim.Adam(self.network.parameters(), 0.05, weight_decay=1e-2)
        self.schedules = [
            lr_scheduler.OneCycleLR(self.optimizer, 0.1, total_steps=13),
            lr_scheduler.MultiStepLR(self.optimizer, [5, 5, 8]),
        ]
        search = SearchConfig(**BASE | options)
        self.rounds = InLoopSearch(search, self.network, [self.optimizer], self.schedules, per_epoch, self.metrics)
        self.seen = 0
        self.loss: float | None = None

    def metrics(self) -> dict[str, float]:
        return {} if self.loss is None else {"loss": self.loss}

    def step(self) -> None:
        self.rounds.before_step()
        generator = torch.Generator().manual_seed(self.seen)
        x = torch.randn(20, 6, generator=generator)
        loss = functional.cross_entropy(self.network(x), x[:, :3].argmax(1))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        for schedule in self.schedules:
            schedule.step()
        self.seen, self.loss = self.seen + 1, loss.item()
        self.rounds.after_step()

    def run(self, until: Callable[[Training], bool] = lambda training: training.rounds.complete) -> Training:
        while not until(self):
            self.step()
        return self

    def checkpoint(self, path: Path) -> dict[str, Any]:
        tensors, about = self.rounds.state()
        write_tensors(path, tensors, about)
        file = io.BytesIO()
        parts = [self.network, self.optimizer, *self.schedules]
        torch.save([part.state_dict() for part in parts], file)
        return {"file": file.getvalue(), "seen": self.seen, "rounds": path}

    def resume(self, checkpoint: dict[str, Any]) -> Training:
        parts: list[Any] = [self.network, self.optimizer, *self.schedules]
        states = torch.load(io.BytesIO(checkpoint["file"]), weights_only=False)
        for part, state in zip(parts, states, strict=True):
            part.load_state_dict(state)
        self.seen = checkpoint["seen"]
        self.rounds.load(*read_tensors(checkpoint["rounds"]))
        return self


def test_each_level_begins_where_the_dense_network_was_and_keeps_pruned_weights_at_zero() -> None:
    training = Training()
    with Witness(training.network) as witness:
        witness.rounds = training.rounds
        training.run()
    assert witness.steps == training.rounds.total == 12 + 3 * 9
    witness.assert_rewound()
    assert len(witness.moments[0, 3]) == 3 * 8  # Adam's step and both moments, of every parameter
    trained = witness.before[0, 11]
    assert not same(trained, witness.before[0, 3])  # there was something to go back from


def test_counts_are_exact_and_the_table_says_what_was_measured() -> None:
    training = Training().run()
    table = training.rounds.levels
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


def test_a_density_is_reached_by_all_levels_together() -> None:
    training = Training(rate=None, density=0.1, scope="global", leave_out=["5"]).run()
    mask = training.rounds.mask
    assert mask.counts["5.weight"] == 16 * 3
    assert mask.counts["0.weight"] + mask.counts["3.weight"] == pytest.approx(0.1 * (6 * 16 + 16 * 16), abs=1)


def test_a_level_is_pruned_by_its_trained_weights() -> None:
    training = Training().run(lambda t: t.rounds.iteration == t.rounds.end)
    trained = copy_of(training.network)
    training.rounds.before_step()
    for name, kept in training.rounds.mask.items():
        assert trained[name][kept].abs().min() >= trained[name][~kept].abs().max()


def test_the_ticket_has_the_weights_at_the_rewinding_point(tmp_path: Path) -> None:
    training = Training()
    training.run(lambda t: t.rounds.iteration == 3)
    start = copy_of(training.network)
    training.run()
    training.rounds.ticket.save(tmp_path / "ticket.safetensors")
    ticket = Ticket.load(tmp_path / "ticket.safetensors")
    assert ticket.mask == training.rounds.mask == training.rounds.ticket_at(3).mask
    assert ticket.mask <= training.rounds.ticket_at(2).mask
    assert set(ticket.start) == set(start)
    for name, tensor in start.items():
        assert torch.equal(ticket.start[name], tensor * ticket.mask[name] if name in ticket.mask else tensor)
    assert ticket.provenance["search"]["every"] == "12it"
    assert [row["weights"] for row in ticket.provenance["levels"]] == [r.weights for r in training.rounds.levels]
    ticket.into(Training(seed=5).network)


def test_there_is_no_ticket_before_the_rewinding_point() -> None:
    training = Training()
    training.step()
    with pytest.raises(InputError, match="no ticket of level 0 yet"):
        training.rounds.ticket  # noqa: B018
    training.run(lambda t: t.rounds.iteration == 5)
    assert training.rounds.ticket.mask.density == 1
    with pytest.raises(InputError, match="no ticket of level 1 yet"):
        training.rounds.ticket_at(1)


@pytest.mark.parametrize("interrupted", [1, 3, 4, 11, 12, 13, 20, 21, 30, 38])
def test_a_resumed_search_gives_the_same_bits(tmp_path: Path, interrupted: int) -> None:
    whole = Training().run()
    begun = Training().run(lambda t: t.seen == interrupted)
    checkpoint = begun.checkpoint(tmp_path / "search.safetensors")
    resumed = Training(seed=9).resume(checkpoint)
    assert resumed.rounds.ticket_at(0) if interrupted > 3 else True
    resumed.run()
    assert same(resumed.network.state_dict(), whole.network.state_dict())
    assert resumed.rounds.mask == whole.rounds.mask
    assert resumed.rounds.levels == whole.rounds.levels
    assert same(resumed.rounds.ticket.start, whole.rounds.ticket.start)


def test_going_back_twice_goes_back_to_the_same() -> None:
    """An optimizer trains on the very tensors that its state was loaded from."""
    training = Training().run()
    tensors, about = training.rounds.state()
    before = {name: tensor.clone() for name, tensor in tensors.items()}
    training.rounds._rewind()
    training.run()
    assert same(training.rounds.state()[0], before)
    assert training.rounds.state()[1] == about | training.rounds.state()[1]


def test_when_it_is_finished_the_network_is_let_go() -> None:
    training = Training()
    names = [list(training.network.state_dict()), [n for n, _ in training.network.named_parameters()]]
    training.run()
    assert [list(training.network.state_dict()), [n for n, _ in training.network.named_parameters()]] == names
    training.rounds.finish()
    assert not any(layer._load_state_dict_post_hooks for layer in training.network.modules())
    assert training.rounds.levels[-1].metrics == {"loss": training.loss}
    training.loss = -1.0
    assert training.rounds.levels[-1].metrics != {"loss": -1.0}


def test_epochs_are_counted_in_iterations() -> None:
    assert Training(every="3ep", rewind="1ep1it").rounds.end == 12
    assert Training(every="3ep", rewind="1ep1it").rounds.begin == 5
    with pytest.raises(InputError, match="every: say it in iterations"):
        Training(every="3ep", per_epoch=None)


@pytest.mark.parametrize("score", ["magnitude", "random", "movement", "large_init", "magnitude_increase"])
def test_scores_of_trained_and_initial_weights_work(tmp_path: Path, score: str) -> None:
    whole = Training(score=score).run()
    assert whole.rounds.mask.count == Training().run().rounds.mask.count
    begun = Training(score=score).run(lambda t: t.seen == 15)
    resumed = Training(score=score, seed=9).resume(begun.checkpoint(tmp_path / "search")).run()
    assert resumed.rounds.mask == whole.rounds.mask


def test_scores_that_look_at_the_initial_weights_get_those_before_the_rewinding_point() -> None:
    seen: list[Tensor] = []

    def score(grounds: Any) -> dict[str, Tensor]:
        seen.append(grounds.start()["0.weight"].clone())
        return {name: weight.abs() for name, weight in grounds.weights.items()}

    training = Training(score=score, levels=1)
    initial = training.network.state_dict()["0.weight"].clone()
    training.run()
    assert len(seen) == 2  # once to see whether it works
    assert all(torch.equal(start, initial) for start in seen)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"levels": 0}, "levels: should be at least 1"),
        ({"levels": 40}, "set levels to at most"),
        ({"every": "three"}, 'every: should be a length such as "500it"'),
        ({"every": "0it"}, "should be before the end of a level, 0it"),
        ({"rewind": "12it"}, "rewind: should be before the end of a level, 12it, not 12it"),
        ({"density": 0.1}, "rate, density: give one of them"),
        ({"rate": 1.5}, "rate: should be between 0 and 1"),
        ({"scope": "globl"}, 'did you mean "global"?'),
        ({"score": "magnitud"}, 'did you mean "magnitude"?'),
        ({"score": "snip"}, "score: within a training there are weights to look at, and nothing else"),
        ({"leave_out": ["head"]}, 'unknown layer "head"'),
    ],
)
def test_what_would_not_work_is_refused_before_training(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message.replace("?", r"\?")):
        Training(**options)


def test_a_network_without_layers_to_prune_is_refused() -> None:
    with pytest.raises(InputError, match="no linear or convolutional layer"):
        InLoopSearch(SearchConfig(1, "2it"), nn.Embedding(3, 2), [], [], None)


def test_checkpoints_that_do_not_fit_are_refused() -> None:
    begun = Training().run(lambda t: t.seen == 20)
    tensors, about = begun.rounds.state()
    with pytest.raises(InputError, match="of another search: levels is 3 there and 4 here"):
        Training(levels=4).rounds.load(tensors, about)
    with pytest.raises(InputError, match=r"not that of the weights: 0\.weight is not pruned"):
        Training().rounds.load(tensors, about)


def test_states_survive_json_and_tensors_of_any_type_and_are_copies() -> None:
    value = {
        "state": {0: {"exp_avg": torch.randn(2, 3).bfloat16(), "step": torch.tensor(3.0)}, 1: {}},
        "eight": torch.randn(3).to(torch.float8_e4m3fn),
        "kept": torch.tensor([True, False]),
        "strange": torch.arange(6).view(2, 3).t(),
        "betas": (0.9, 0.999),
        "milestones": Training().schedules[1].state_dict()["milestones"],
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
    assert copied(value)["state"][0]["step"] is not value["state"][0]["step"]


def test_a_state_that_only_pickle_could_keep_is_refused_by_name() -> None:
    with pytest.raises(InputError, match="states/lr_lambdas/0: a function cannot be kept"):
        flatten({"lr_lambdas": [lambda epoch: epoch]}, "states", {})
