from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tombola._find_ticket import SearchResult, find_ticket
from tombola.engines.custom.run import seeded
from tombola.engines.custom.step_counter import mark
from tombola.pruning.hold import held, hold
from tombola.pruning.mask import Mask
from tombola.tickets.ticket import Ticket
from tombola.utils.errors import InputError
from tombola.utils.seeds import Purpose, derive

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(200, 6, generator=GENERATOR)
Y = (X[:, 0] * X[:, 1] > 0).long()


class Small(nn.Module):
    """It has everything that must be put back: batch norm, and a buffer that is no part of its state_dict."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(6, 20)
        self.norm = nn.BatchNorm1d(20)
        self.output = nn.Linear(20, 2)
        self.register_buffer("calls", torch.zeros(()), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        logits: Tensor = self.output(self.norm(self.fc1(x)).relu())
        return logits


def small(seed: int = 0) -> Small:
    torch.manual_seed(seed)
    return Small()


def train(model: nn.Module, steps: int = 30, begin: int = 0) -> None:
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(begin, steps):
        batch = torch.randint(len(X), (32,))
        optimizer.zero_grad()
        functional.cross_entropy(model(X[batch]), Y[batch]).backward()
        optimizer.step()


def evaluate(model: nn.Module) -> float:
    assert not model.training
    return float((model(X).argmax(1) == Y).float().mean())


class Recorder:
    """Trains, and notes what each training began with and how it ended."""

    def __init__(self, model_train: Callable[..., Any] = train) -> None:
        self.train = model_train
        self.starts: list[dict[str, Tensor]] = []
        self.draws: list[float] = []

    def __call__(self, model: nn.Module) -> None:
        self.draws.append(draw())
        self.starts.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        self.train(model)


class Tally:
    """Counts trainings. What it holds is no part of a training's key."""

    def __init__(self) -> None:
        self.n = self.stop_at = 0

    def __getstate__(self) -> None:
        return None

    def train(self, model: nn.Module, steps: int = 30) -> None:
        self.n += 1
        if self.n == self.stop_at:
            raise KeyboardInterrupt
        train(model, steps)


def draw() -> float:
    """From each of the global random states."""
    return random.random() + float(np.random.rand()) + float(torch.rand(()))  # noqa: NPY002


def seed_everything() -> None:
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)


def everything(model: nn.Module) -> dict[str, Tensor]:
    return {name: t.clone() for name, t in (*model.named_parameters(), *model.named_buffers())}


def traces(model: nn.Module) -> list[list[str]]:
    return [
        [f"{key} {len(v) if hasattr(v, '__len__') else ''}" for key, v in m.__dict__.items()] for m in model.modules()
    ]


def test_every_ticket_begins_with_the_initial_weights_and_its_mask() -> None:
    model, recorder = small(), Recorder()
    initial = everything(model)
    ticket, levels = find_ticket(model, recorder, evaluate=evaluate, levels=3, rate=0.5)
    assert [level.level for level in levels] == [0, 1, 2, 3]
    assert len(recorder.starts) == 4
    for level, start in enumerate(recorder.starts):
        (answer,) = levels.of("ticket", level)
        left = 0
        for name in ("fc1.weight", "output.weight"):
            kept = start[name] != 0
            left += int(kept.sum())
            assert torch.equal(start[name][kept], initial[name][kept])
        assert answer.weights == left == 120 // 2**level + 40 // 2**level
        assert answer.weights_total == 160
        for name in ("fc1.bias", "norm.running_mean", "norm.running_var", "norm.num_batches_tracked"):
            assert torch.equal(start[name], initial[name])
    assert ticket.mask.count in {answer.weights for answer in levels.answers}
    for name, kept in ticket.mask.items():
        assert torch.equal(ticket.start[name], initial[name] * kept)


def careless(network: nn.Module) -> None:
    """Leaves everything else than it found it."""
    train(network)
    functional.cross_entropy(network(X), Y).backward()  # gradients that the next training would begin with
    network.register_forward_hook(lambda *_: None)
    network.extra = 1  # type: ignore[assignment]
    network.eval().bfloat16().requires_grad_(False)


def test_the_model_is_left_as_it_was_given_and_no_training_sees_what_another_left() -> None:
    model = small()
    model.norm.eval()
    initial, before = everything(model), traces(model)
    starts = []

    def noting(network: nn.Module) -> None:
        parameters = dict(network.named_parameters())
        starts.append(
            (
                [module.training for module in network.modules()],
                {(p.dtype, p.requires_grad, p.grad) for p in parameters.values()},
                len(network._forward_hooks),
                hasattr(network, "extra"),
            )
        )
        careless(network)

    with hold(model, Mask.full(model)) as own:
        find_ticket(model, noting, levels=2)
        assert held(model) == own.mask
    assert starts[0] == starts[1] == starts[2]
    assert starts[0][1:] == ({(torch.float32, True, None)}, 0, False)
    assert starts[0][0] == [module.training for module in model.modules()]
    for name, tensor in everything(model).items():
        assert torch.equal(tensor, initial[name]), name
    assert traces(model) == before


def test_what_train_raises_comes_through() -> None:
    def failing(network: nn.Module) -> None:
        train(network)
        raise RuntimeError("out of patience")

    model = small()
    with pytest.raises(RuntimeError, match="out of patience"):
        find_ticket(model, failing, levels=2)
    assert held(model) is None


def test_a_function_that_makes_the_same_network_again_is_refused() -> None:
    """That would be rewinding that does not rewind."""
    model = small()
    with pytest.raises(InputError, match="gave other initial weights when it was called again"):
        find_ticket(lambda: model, train, levels=2)


def test_a_training_of_something_else_is_refused() -> None:
    other = small()
    with pytest.raises(InputError, match="left the network that it was given as it was"):
        find_ticket(small(), lambda _: train(other), levels=1)


def test_what_cannot_be_pruned_and_rewound_is_refused_in_one_line() -> None:
    def another_head(network: Any) -> None:
        network.output = nn.Linear(20, 3)
        optimizer = torch.optim.SGD(network.parameters(), 0.1)
        network(X).sum().backward()
        optimizer.step()

    def renaming(network: Any) -> None:
        network.wrapped = network.fc1
        del network.fc1

    with pytest.raises(InputError, match=r"train: took fc1\.weight away"):
        find_ticket(small(), renaming, levels=1)
    with pytest.raises(InputError, match=r"give the network as it is before torch\.compile"):
        find_ticket(torch.compile(small(), backend="eager"), train)  # type: ignore[arg-type]
    with pytest.raises(InputError) as caught:
        find_ticket(small(), another_head, levels=1)
    assert "output.weight" in str(caught.value)


def test_masks_come_from_the_weights_as_trained_whatever_evaluate_does() -> None:
    def breaking(network: nn.Module) -> float:
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.zero_()
        return 1.0

    ours = find_ticket(small(), train, evaluate=breaking, levels=2).ticket
    assert ours.mask == find_ticket(small(), train, evaluate=lambda _: 1.0, levels=2).ticket.mask


def test_rewound_weights_are_those_of_a_training_by_hand() -> None:
    by_hand = small()
    with seeded(derive(0, Purpose.TRAINING, 0)):
        train(by_hand, steps=7)
    ticket, _ = find_ticket(small(), train, levels=1, rewind=7)
    for name, tensor in by_hand.state_dict().items():
        kept = ticket.mask.get(name, torch.ones(tensor.shape, dtype=torch.bool))
        assert torch.equal(ticket.start[name], tensor * kept)


def test_pruned_weights_are_zero_at_every_step_and_while_it_is_evaluated() -> None:
    looked = []

    def look(model: nn.Module) -> None:
        mask = held(model)
        if mask is not None:
            looked.append(all(p[~mask[n]].count_nonzero() == 0 for n, p in model.named_parameters() if n in mask))

    def watched(model: nn.Module) -> None:
        optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=0.01)
        for _ in range(10):
            optimizer.zero_grad()
            functional.cross_entropy(model(X), Y).backward()
            optimizer.step()
            look(model)

    def judged(model: nn.Module) -> float:
        look(model)
        return evaluate(model)

    find_ticket(small(), watched, evaluate=judged, levels=2, rate=0.6)
    assert looked == [True] * 33  # of the dense network too: nothing is pruned there


def test_global_random_states_are_the_same_for_all_trainings_of_a_replicate_and_are_put_back() -> None:
    recorder = Recorder()
    model = small()
    seed_everything()
    expected = draw()
    seed_everything()
    find_ticket(model, recorder, levels=2, replicates=2)
    assert draw() == expected
    assert len(recorder.draws) == 6
    assert len(set(recorder.draws)) == 2


def test_the_same_call_gives_the_same_table() -> None:
    first, second = (find_ticket(Small, train, evaluate=evaluate, levels=2, replicates=2) for _ in range(2))
    assert first.levels.answers == second.levels.answers
    assert first.ticket.mask == second.ticket.mask
    other = find_ticket(Small, train, evaluate=evaluate, levels=2, replicates=2, seed=1)
    assert other.ticket.mask != first.ticket.mask


def test_a_search_that_was_stopped_goes_on_and_nothing_is_trained_twice(tmp_path: Path) -> None:
    tally = Tally()

    def search(store: Path) -> SearchResult:
        tally.n = 0
        return find_ticket(
            small(), lambda model: tally.train(model), evaluate=evaluate, levels=4, rate=0.4, store=store
        )

    whole = search(tmp_path / "whole")
    assert tally.n == 5
    tally.stop_at = 4
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path / "parts")
    tally.stop_at = 0
    resumed = search(tmp_path / "parts")
    assert tally.n == 2
    assert resumed.levels.answers == whole.levels.answers
    assert resumed.ticket.mask == whole.ticket.mask
    search(tmp_path / "parts")
    assert tally.n == 0


def test_what_a_training_depends_on_is_not_mistaken(tmp_path: Path) -> None:
    tally = Tally()

    def search(steps: int = 5, settings: object = None, weights: int = 0, judge: Any = evaluate) -> int:
        tally.n = 0
        model = small(weights)
        find_ticket(
            model,
            lambda network: tally.train(network, steps),
            evaluate=judge,
            levels=1,
            store=tmp_path,
            settings=settings,
        )
        return tally.n

    assert search() == 2
    assert search() == 0
    assert search(steps=6) == 2
    assert search(settings={"data": "version 2"}) == 2
    assert search(weights=1) == 2
    assert search(judge=lambda network: -evaluate(network)) == 2
    assert search() == 0


def test_weights_go_back_to_what_they_were_after_k_steps() -> None:
    """The trunk ends there, and everything else begins there."""
    model, recorder, begins = small(), Recorder(), []

    def from_k(network: nn.Module, begin: int = 0) -> None:
        begins.append(begin)
        recorder.train = lambda m: train(m, begin=begin)
        recorder(network)

    ticket, levels = find_ticket(model, from_k, evaluate=evaluate, levels=2, rate=0.5, rewind=7, seed=3)
    assert begins == [0, 7, 7, 7]
    assert [answer.iterations for answer in levels.answers] == [30, 30, 30]
    at_k = recorder.starts[1]
    assert not torch.equal(at_k["fc1.bias"], recorder.starts[0]["fc1.bias"])
    for start in recorder.starts[2:]:
        kept = start["fc1.weight"] != 0
        assert torch.equal(start["fc1.weight"][kept], at_k["fc1.weight"][kept])
        for name in ("fc1.bias", "norm.running_mean", "norm.num_batches_tracked"):
            assert torch.equal(start[name], at_k[name])
    assert int(at_k["norm.num_batches_tracked"]) == 7
    assert torch.equal(ticket.start["fc1.bias"], at_k["fc1.bias"])


def test_or_to_what_they_were_at_a_mark() -> None:
    recorder = Recorder()

    def marking(network: nn.Module) -> None:
        recorder(network)
        mark()
        train(network)

    _, levels = find_ticket(small(), marking, evaluate=evaluate, levels=2, rewind="mark")
    assert [answer.iterations for answer in levels.answers] == [90] * 3  # those before the mark, and all of them
    assert len(recorder.starts) == 4
    assert [int(start["norm.num_batches_tracked"]) for start in recorder.starts] == [0, 30, 30, 30]


@pytest.mark.parametrize(
    ("rewind", "message"),
    [(31, "before the end of training, which took 30 optimizer steps, not 31"), ("mark", "returned without")],
)
def test_a_rewind_point_that_is_never_reached_is_an_error(rewind: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        find_ticket(small(), train_without_mark, levels=1, rewind=rewind)


def train_without_mark(network: nn.Module) -> None:
    train(network)


def test_one_shot_prunes_the_dense_network_to_the_same_counts() -> None:
    iterative = find_ticket(small(), train, levels=3, rate=0.4).levels
    at_once = find_ticket(small(), train, levels=3, rate=0.4, one_shot=True).levels
    assert [a.weights for a in at_once.answers] == [a.weights for a in iterative.answers]


def test_a_density_is_reached_in_equal_steps_and_layers_can_be_left_out() -> None:
    ticket, levels = find_ticket(small(), train, levels=3, density=0.125, leave_out=["output"], scope="global")
    assert ticket.mask.counts == {"fc1.weight": 15, "output.weight": 40}
    assert [answer.weights for answer in levels.answers] == [160, 100, 70, 55]


def test_figures_have_names_and_the_first_is_judged() -> None:
    _, levels = find_ticket(small(), train, evaluate=lambda m: {"z": 1.0, "a": evaluate(m), "iteration": 3}, levels=1)
    assert levels.judged == "z"
    assert levels[1].state == "within the margin"
    assert [list(answer.figures) for answer in levels.answers] == [["z", "a", "iteration"]] * 2
    assert {"z", "replicate", "weights"} <= levels.rows()[0].keys()


def test_without_evaluate_what_train_returns_is_taken() -> None:
    def judged(network: nn.Module) -> float:
        train(network)
        return 0.5

    assert find_ticket(small(), judged, levels=1).levels[1].state == "within the margin"
    nothing = find_ticket(small(), lambda m: train(m) or "done", levels=1)
    assert nothing.levels[1].state == "not evaluated"
    assert nothing.ticket.mask.density < 1


def test_a_search_ends_where_training_diverges() -> None:
    def exploding(network: nn.Module) -> None:
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.mul_(1.5)
        mask = held(network)
        if mask is not None and mask.density < 0.7:
            network.output.bias.data.fill_(float("nan"))  # type: ignore[union-attr, operator]

    _, levels = find_ticket(small(), exploding, evaluate=evaluate, levels=5)
    assert [level.state for level in levels] == ["dense", "within the margin", "diverged"]
    assert levels.sparsest_match == levels[1]


def test_replicates_of_a_function_have_other_initial_weights_and_controls_too() -> None:
    starts: list[Tensor] = []

    def noting(network: nn.Module) -> None:
        starts.append(network.fc1.bias.detach().clone())  # type: ignore[union-attr, operator]
        train(network)

    _, levels = find_ticket(
        Small, noting, evaluate=evaluate, levels=2, replicates=2, controls={"reinit": 2, "random": 1}
    )
    assert levels.branches == ["ticket", "reinit", "random"]
    assert len(starts) == len(levels.answers) == 2 * (3 + 2 * 2 + 2)
    assert len({tuple(start.tolist()) for start in starts}) == 2 * (1 + 2 * 2)
    for level in (1, 2):
        assert {a.weights for a in levels.answers if a.level == level} == {levels.of("ticket", level)[0].weights}


@pytest.mark.parametrize("score", ["snip", "grasp", "taylor", "fisher", "wanda"])
def test_scores_may_look_at_data(score: str) -> None:
    ticket, _ = find_ticket(small(), train, levels=2, score=score, data=[(X[:50], Y[:50]), (X[50:], Y[50:])])
    assert ticket.mask.counts == {"fc1.weight": 77, "output.weight": 26}


def test_a_score_may_be_a_function_of_ones_own() -> None:
    ticket, _ = find_ticket(
        small(), train, levels=1, rate=0.5, score=lambda g: {n: w for n, w in g.start().items() if n in g.mask}
    )
    initial = small().fc1.weight
    kept = ticket.mask["fc1.weight"]
    assert initial[kept].min() >= initial[~kept].max()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"levels": 0}, "levels: should be at least 1, not 0"),
        ({"rate": 1.5}, "rate: should be between 0 and 1, not 1.5"),
        ({"rate": 0.2, "density": 0.1}, "rate, density: give one of them"),
        ({"rewind": -1}, "rewind: should be a number of optimizer steps"),
        ({"rewind": "marc"}, "rewind: should be a number of optimizer steps, or \"mark\", not 'marc'"),
        ({"score": "magnitud"}, 'unknown score "magnitud": did you mean "magnitude"?'),
        ({"scope": "globl"}, 'unknown scope "globl": did you mean "global"?'),
        ({"leave_out": ["outptu"]}, 'leave_out: unknown layer "outptu": did you mean "output"?'),
        ({"controls": {"reinti": 1}}, 'unknown control "reinti": did you mean "reinit"?'),
        ({"controls": {"reinit": 1}}, "give a function that makes the model, not a model"),
        ({"levels": 99}, "would remove nothing; set levels to at most"),
        ({"score": "snip"}, "data=BATCHES"),
        ({"evaluate": lambda _: "good"}, "evaluate: should return a number"),
        ({"replicates": 0}, "replicates: should be at least 1"),
        ({"margin": -1}, "margin: should be at least 0"),
        ({"margin": "1%"}, "margin: should be at least 0, not '1%'"),
        ({"leave_out": "output"}, "leave_out: should be a list of names"),
        ({"controls": {"random": 1.5}}, 'controls: "random" should have a number of draws'),
    ],
)
def test_mistakes_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        find_ticket(small(), train, **arguments)
    assert message in str(caught.value)


def test_what_makes_no_module_is_refused() -> None:
    with pytest.raises(InputError, match=r"model: should make a torch\.nn\.Module, not str"):
        find_ticket(lambda: "network", train)  # type: ignore[arg-type, return-value]
    with pytest.raises(InputError, match="no linear or convolutional layer"):
        find_ticket(nn.ReLU(), train)


def test_a_ticket_can_be_saved_and_loaded_into_a_new_network(tmp_path: Path) -> None:
    ticket, _ = find_ticket(small(), train, evaluate=evaluate, levels=2)
    ticket.save(tmp_path / "mine.safetensors")
    loaded = Ticket.load(tmp_path / "mine.safetensors")
    assert loaded.mask == ticket.mask
    assert loaded.provenance == ticket.provenance
    network = loaded.into(small(9))
    assert Mask({n: p != 0 for n, p in network.named_parameters() if n in ticket.mask}) == ticket.mask


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
    [("neurons", 2, {"fc1.weight": 78, "output.weight": 40}), ("2:4", 1, None), ("blocks:2x2", 1, None)],
)
def test_structures_are_pruned_level_by_level(structure: str, levels: int, counts: dict[str, int] | None) -> None:
    class Even(Small):
        def __init__(self) -> None:
            super().__init__()
            self.fc1 = nn.Linear(8, 20)

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(functional.pad(x, (0, 2)))

    ticket, table = find_ticket(Small if counts else Even, train, levels=levels, structure=structure)
    assert len(list(table)) == levels + 1
    if counts:
        rows = ticket.mask["fc1.weight"].sum(1)
        assert ticket.mask.counts == counts
        assert set(rows.tolist()) == {0, 6}
    if structure == "2:4":
        assert (ticket.mask["fc1.weight"].view(-1, 4).sum(1) == 2).all()


def test_a_pattern_has_its_own_density() -> None:
    with pytest.raises(InputError, match='structure "2:4" has its own density, in levels=1'):
        find_ticket(Small, train, structure="2:4")


def test_an_iterator_of_batches_serves_all_levels() -> None:
    batches = iter([(X[:50], Y[:50]), (X[50:], Y[50:])])
    assert find_ticket(small(), train, levels=3, score="synflow", data=batches).ticket.mask.density < 0.6


def test_a_network_of_half_precision_is_searched_and_saved(tmp_path: Path) -> None:
    def half(model: nn.Module) -> None:
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        for _ in range(5):
            optimizer.zero_grad()
            functional.cross_entropy(model(X.bfloat16()).float(), Y).backward()
            optimizer.step()

    ticket, _ = find_ticket(small().bfloat16(), half, levels=2, store=tmp_path / "store")
    ticket.save(tmp_path / "half.safetensors")
    loaded = Ticket.load(tmp_path / "half.safetensors")
    assert loaded.start["fc1.weight"].dtype == torch.bfloat16
    assert torch.equal(loaded.start["fc1.weight"], ticket.start["fc1.weight"])
