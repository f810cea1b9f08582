"""Tickets, levels and figures of a search; rewinding; invalid arguments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.support.custom_search import Recorder, Small, X, Y, evaluate, small, train
from tombola._find_ticket import find_ticket
from tombola.engines.custom.model import seeded
from tombola.engines.custom.step_counter import mark
from tombola.pruning.hold import held
from tombola.pruning.mask import Mask
from tombola.tickets.ticket import Ticket
from tombola.utils.errors import InputError
from tombola.utils.seeds import Purpose, derive


def test_every_level_trains_the_kept_initial_weights() -> None:
    model, recorder = small(), Recorder()
    initial = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    ticket, levels = find_ticket(model, recorder, evaluate=evaluate, levels=3, rate=0.5)
    assert [level.level for level in levels] == [0, 1, 2, 3]
    assert len(recorder.starts) == 4
    for level, start in enumerate(recorder.starts):
        (row,) = levels.rows_of("ticket", level)
        left = 0
        for name in ("fc1.weight", "output.weight"):
            kept = start[name] != 0
            left += int(kept.sum())
            assert torch.equal(start[name][kept], initial[name][kept])
        assert row.weights == left == 120 // 2**level + 40 // 2**level
        assert row.weights_total == 160
        for name in ("fc1.bias", "norm.running_mean", "norm.running_var", "norm.num_batches_tracked"):
            assert torch.equal(start[name], initial[name])
    assert ticket.mask.count in {row.weights for row in levels.rows}
    for name, kept in ticket.mask.items():
        assert torch.equal(ticket.start[name], initial[name] * kept)


def test_one_shot_prunes_the_dense_network_to_the_same_counts() -> None:
    iterative = find_ticket(small(), train, levels=3, rate=0.4).levels
    at_once = find_ticket(small(), train, levels=3, rate=0.4, one_shot=True).levels
    assert [row.weights for row in at_once.rows] == [row.weights for row in iterative.rows]


def test_a_density_is_reached_in_equal_steps_and_layers_can_be_left_out() -> None:
    ticket, levels = find_ticket(small(), train, levels=3, density=0.125, leave_out=["output"], scope="global")
    assert ticket.mask.counts == {"fc1.weight": 15, "output.weight": 40}
    assert [row.weights for row in levels.rows] == [160, 100, 70, 55]


def test_the_first_of_several_figures_is_judged() -> None:
    _, levels = find_ticket(small(), train, evaluate=lambda m: {"z": 1.0, "a": evaluate(m), "iteration": 3}, levels=1)
    assert levels.metric.name == "z"
    assert levels[1].state == "cannot tell"
    at_end = [f"validation_{name}{when}" for when in ("_at_stop", "") for name in ("z", "a", "iteration")]
    assert [list(row.measures.figures) for row in levels.rows] == [at_end] * 2


def test_without_evaluate_the_result_of_train_is_judged() -> None:
    def judged(network: nn.Module) -> float:
        train(network)
        return 0.5

    assert find_ticket(small(), judged, levels=1).levels.rows[1].measures["validation_figure"] == 0.5
    nothing = find_ticket(small(), lambda m: train(m) or "done", levels=1)
    assert nothing.levels[1].state == "cannot tell"
    assert not nothing.levels.rows[1].measures.figures
    assert nothing.ticket.mask.density < 1


def test_a_search_ends_where_training_diverges() -> None:
    def exploding(network: nn.Module) -> None:
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.mul_(1.5)
        mask = held(network)
        if mask is not None and mask.density < 0.7:
            network.output.bias.data.fill_(float("nan"))  # type: ignore[union-attr, operator]

    _, levels = find_ticket(small(), exploding, evaluate=lambda _: 1.0, levels=5)
    assert [level.state for level in levels] == ["dense", "cannot tell", "not winning"]
    assert levels[2].verdict.reason == "1 of 1 diverged"


def test_replicates_and_controls_have_other_initial_weights() -> None:
    draws = {"reinit": 2, "random": 1}
    recorder = Recorder()
    _, levels = find_ticket(Small, recorder, evaluate=evaluate, levels=2, replicates=2, controls=draws)
    assert [*levels[1].branches] == ["ticket", "random", "reinit"]
    assert len(recorder.starts) == len(levels.rows) == 2 * (3 + 2 * 2 + 2)
    assert len({tuple(start["fc1.bias"].tolist()) for start in recorder.starts}) == 2 * (1 + 2 * 2)
    for level in (1, 2):
        (weights,) = {row.weights for row in levels.rows if row.level == level}
        assert weights == levels.rows_of("ticket", level)[0].weights


@pytest.mark.parametrize("score", ["snip", "grasp", "taylor", "fisher", "wanda"])
def test_scores_that_need_data(score: str) -> None:
    ticket, _ = find_ticket(small(), train, levels=2, score=score, data=[(X[:50], Y[:50]), (X[50:], Y[50:])])
    assert ticket.mask.counts == {"fc1.weight": 77, "output.weight": 26}


def test_a_custom_score() -> None:
    ticket, _ = find_ticket(
        small(), train, levels=1, rate=0.5, score=lambda g: {n: w for n, w in g.start().items() if n in g.mask}
    )
    initial = small().fc1.weight
    kept = ticket.mask["fc1.weight"]
    assert initial[kept].min() >= initial[~kept].max()


def test_tied_weights_are_pruned_once() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Linear(6, 6)
            self.two = nn.Linear(6, 6)
            self.two.weight = self.one.weight
            self.output = nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.output(self.two(self.one(x).relu()).relu())
            return logits

    ticket, _ = find_ticket(Tied, train, evaluate=evaluate, levels=2, rate=0.5)
    assert ticket.mask.counts == {"one.weight": 9, "output.weight": 3}
    network = ticket.into(Tied())
    assert network.one.weight is network.two.weight


@pytest.mark.parametrize(
    ("structure", "levels", "counts"),
    [("neurons", 2, {"fc1.weight": 78, "output.weight": 26}), ("2:4", 1, None), ("blocks:2x2", 1, None)],
)
def test_structures_are_pruned(structure: str, levels: int, counts: dict[str, int] | None) -> None:
    class Even(Small):
        def __init__(self) -> None:
            super().__init__()
            self.fc1 = nn.Linear(8, 20)

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(functional.pad(x, (0, 2)))

    ticket, table = find_ticket(Small if counts else Even, train, levels=levels, structure=structure)
    assert len(list(table)) == levels + 1
    if counts:
        assert ticket.mask.counts == counts
        assert set(ticket.mask["fc1.weight"].sum(1).tolist()) == {0, 6}
    if structure == "2:4":
        assert (ticket.mask["fc1.weight"].view(-1, 4).sum(1) == 2).all()


def test_an_iterator_of_batches_serves_all_levels() -> None:
    batches = iter([(X[:50], Y[:50]), (X[50:], Y[50:])])
    assert find_ticket(small(), train, levels=3, score="synflow", data=batches).ticket.mask.density < 0.6


def test_a_network_of_half_precision_is_searched_saved_and_loaded(tmp_path: Path) -> None:
    def half(model: nn.Module) -> None:
        functional.cross_entropy(model(X.bfloat16()).float(), Y).backward()
        torch.optim.SGD(model.parameters(), 0.1).step()

    ticket, _ = find_ticket(small().bfloat16(), half, levels=2, store=tmp_path / "store")
    ticket.save(tmp_path / "half.safetensors")
    loaded = Ticket.load(tmp_path / "half.safetensors")
    assert loaded.provenance == ticket.provenance
    assert torch.equal(loaded.start["fc1.weight"], ticket.start["fc1.weight"])
    network = loaded.into(small(9).bfloat16())
    assert network.fc1.weight.dtype == torch.bfloat16
    assert Mask({n: p != 0 for n, p in network.named_parameters() if n in ticket.mask}) == ticket.mask


def test_rewound_weights_equal_those_of_the_same_training_without_tombola() -> None:
    by_hand = small()
    with seeded(derive(0, Purpose.TRAINING, 0)):
        train(by_hand, steps=7)
    ticket, _ = find_ticket(small(), train, levels=1, rewind=7)
    for name, tensor in by_hand.state_dict().items():
        kept = ticket.mask.get(name, torch.ones(tensor.shape, dtype=torch.bool))
        assert torch.equal(ticket.start[name], tensor * kept)


def test_weights_are_rewound_to_step_k() -> None:
    """The trunk ends there, and everything else begins there."""
    model, recorder, begins = small(), Recorder(), []

    def from_k(network: nn.Module, begin: int = 0) -> None:
        begins.append(begin)
        recorder.train = lambda m: train(m, begin=begin)
        recorder(network)

    ticket, levels = find_ticket(model, from_k, evaluate=evaluate, levels=2, rate=0.5, rewind=7, seed=3)
    assert begins == [0, 7, 7, 7]
    assert [row.measures.iterations for row in levels.rows] == [30, 30, 30]
    at_k = recorder.starts[1]
    assert not torch.equal(at_k["fc1.bias"], recorder.starts[0]["fc1.bias"])
    for start in recorder.starts[2:]:
        kept = start["fc1.weight"] != 0
        assert torch.equal(start["fc1.weight"][kept], at_k["fc1.weight"][kept])
        for name in ("fc1.bias", "norm.running_mean", "norm.num_batches_tracked"):
            assert torch.equal(start[name], at_k[name])
    assert int(at_k["norm.num_batches_tracked"]) == 7
    assert torch.equal(ticket.start["fc1.bias"], at_k["fc1.bias"])


def test_weights_are_rewound_to_the_mark() -> None:
    recorder = Recorder()

    def marking(network: nn.Module) -> None:
        recorder(network)
        mark()
        train(network)

    _, levels = find_ticket(small(), marking, evaluate=evaluate, levels=2, rewind="mark")
    assert [row.measures.iterations for row in levels.rows] == [90] * 3  # those before the mark, and all of them
    assert len(recorder.starts) == 4
    assert [int(start["norm.num_batches_tracked"]) for start in recorder.starts] == [0, 30, 30, 30]


@pytest.mark.parametrize(("rewind", "message"), [(31, "30 optimizer steps.*31"), ("mark", "mark")])
def test_a_rewind_point_that_is_not_reached_is_an_error(rewind: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        find_ticket(small(), train, levels=1, rewind=rewind)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ({"levels": 0}, ["levels", "0"]),
        ({"levels": 99}, ["levels", "at most"]),
        ({"rate": 1.5}, ["rate", "1.5"]),
        ({"rate": 0.2, "density": 0.1}, ["rate", "density"]),
        ({"rewind": -1}, ["rewind", "-1"]),
        ({"rewind": "marc"}, ["rewind", '"mark"', "'marc'"]),
        ({"score": "magnitud"}, ['score "magnitud"', '"magnitude"?']),
        ({"score": "snip"}, ["data"]),
        ({"structure": "2:4"}, ["levels", "1", '"2:4"']),
        ({"scope": "globl"}, ['scope "globl"', '"global"?']),
        ({"leave_out": ["outptu"]}, ["leave_out", '"outptu"', '"output"?']),
        ({"leave_out": "output"}, ["leave_out", "list"]),
        ({"controls": {"reinti": 1}}, ['control "reinti"', '"reinit"?']),
        ({"controls": {"reinit": 1}}, ["reinit", "function"]),
        ({"controls": {"random": 1.5}}, ["controls", "random", "1.5"]),
        ({"controls": {"rewound": 1}}, ["controls.rewound", "already rewound"]),
        ({"controls": {"large_init": 2}}, ["controls.large_init", "2"]),
        ({"verdict": {"control": "reinti"}}, ['"reinti"', '"reinit"?']),
        ({"evaluate": lambda _: "good"}, ["evaluate", "good"]),
        ({"replicates": 0}, ["replicates", "0"]),
        ({"margin": -1}, ["margin", "-1"]),
        ({"margin": "1 %%"}, ["margin", "'1 %%'"]),
        ({"margin": True}, ["margin", "True"]),
        ({"every": 0, "evaluate": evaluate}, ["every", "0"]),
        ({"every": 5}, ["every", "evaluate"]),
        ({"test": evaluate}, ["test", "evaluate"]),
        ({"verdict": {"max_densty": 0.5}}, ["verdict", '"max_densty"', '"max_density"?']),
    ],
)
def test_invalid_arguments_are_named(arguments: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        find_ticket(small(), train, **arguments)
    assert all(part in str(caught.value) for part in parts), str(caught.value)


def test_models_that_cannot_be_pruned_are_refused() -> None:
    with pytest.raises(InputError, match=r"model: should make a torch\.nn\.Module, not str"):
        find_ticket(lambda: "network", train)  # type: ignore[arg-type, return-value]
    with pytest.raises(InputError, match="no layer to prune"):
        find_ticket(nn.ReLU(), train)


def test_a_layer_in_float8_may_be_left_out() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.frozen = nn.Linear(4, 4).to(torch.float8_e4m3fn).requires_grad_(False)
            self.head = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.head(functional.linear(x, self.frozen.weight.float()))
            return logits

    def train(network: nn.Module) -> float:
        optimizer = torch.optim.SGD(network.parameters(), 0.1)
        loss = network(torch.ones(1, 4)).square().sum()
        loss.backward()
        optimizer.step()
        return 1.0

    ticket, _ = find_ticket(Mixed, train, levels=1, rate=0.5, leave_out=["frozen"])
    assert ticket.mask.counts == {"head.weight": 4}
