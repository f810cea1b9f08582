"""What a search may call evidence: independent replicates, figures the right way up, batches under the seed, and
answers of the store that belong to this very network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import apply_activation_checkpointing

from tests.support.custom_search import Small, X, Y, evaluate, small, train
from tests.support.errors import raises_input_error
from tests.support.renamed_states import RENAMED
from tombola._find_ticket import SearchResult, find_ticket
from tombola.runs.outcome import Outcome
from tombola.studies.conductor import Listener
from tombola.studies.request import RunRequest
from tombola.utils.errors import InputError


def seeding(network: nn.Module) -> None:
    """As frameworks do that set their own seed."""
    torch.manual_seed(42)
    train(network)


def full_batch(network: nn.Module) -> None:
    """Nothing in it is random."""
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    for _ in range(3):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(X), Y).backward()
        optimizer.step()


def made_from_one_seed() -> Small:
    return small()


class Seeds:
    """Trains with these seeds, one for each replicate."""

    def __init__(self, *seeds: int) -> None:
        self.seeds, self.replicates = seeds, dict[int, int]()

    def __call__(self, network: nn.Module) -> None:
        replicate = self.replicates.setdefault(torch.initial_seed(), len(self.replicates))
        torch.manual_seed(self.seeds[replicate])
        train(network)


@pytest.mark.parametrize(
    ("model", "training"),
    [(small(), seeding), (small(), full_batch), (made_from_one_seed, seeding), (made_from_one_seed, full_batch)],
)
def test_replicates_that_are_copies_are_no_evidence(
    model: Any, training: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for answered_by_the_store in (False, True):
        caplog.clear()
        ticket, levels = find_ticket(model, training, evaluate=lambda _: 0.5, levels=2, replicates=5, store=tmp_path)
        assert levels.copies == [0, 1, 2, 3, 4], answered_by_the_store
        assert [level.state for level in levels] == ["dense", "cannot tell", "cannot tell"]
        assert ticket.provenance["verdict"]["state"] == "cannot tell"
        (message,) = caplog.messages
        assert "torch.initial_seed()" in message


def test_two_equal_replicates_of_five_are_no_evidence() -> None:
    _, levels = find_ticket(small(), Seeds(1, 2, 3, 1, 5), evaluate=lambda _: 0.5, levels=1, replicates=5)
    assert levels.copies == [0, 3]
    assert levels[1].state == "cannot tell"


@pytest.mark.parametrize(("model", "training"), [(small(), train), (Small, seeding), (Small, full_batch)])
def test_replicates_with_other_batches_or_initial_weights_are_tested(
    model: Any, training: Any, caplog: pytest.LogCaptureFixture
) -> None:
    options: dict[str, Any] = {"replicates": 5, "verdict": {"max_density": 0.9}}
    _, levels = find_ticket(model, training, evaluate=lambda _: 0.5, levels=1, **options)
    assert levels.copies == []
    assert levels[1].state == "winning"
    assert not caplog.messages


class WithUnused(Small):
    """A buffer holds the seed, one layer is not used, and a bias of each network differs a little."""

    def __init__(self) -> None:
        super().__init__()
        self.load_state_dict(small().state_dict(), strict=False)
        self.unused = nn.Linear(4, 4)
        self.register_buffer("seed", torch.tensor(float(torch.initial_seed() % 1000)))
        with torch.no_grad():
            self.output.bias.normal_(std=1e-4)


def seeding_with_noise(network: nn.Module) -> None:
    """As a GPU whose sums have no fixed order."""
    seed = torch.initial_seed()
    seeding(network)
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter *= 1 + 1e-7 * torch.randn_like(parameter)


@pytest.mark.parametrize(
    ("model", "training"), [(WithUnused, seeding), (WithUnused, full_batch), (small(), seeding_with_noise)]
)
def test_copies_that_differ_in_what_does_not_matter_are_no_evidence(model: Any, training: Any) -> None:
    _, levels = find_ticket(model, training, evaluate=lambda _: 0.5, levels=1, replicates=3)
    assert levels.copies == [0, 1, 2]


def frozen_body(network: nn.Module) -> None:
    """Only the last layer is trained."""
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name.startswith("output"))
    train(network)


def test_replicates_that_share_a_frozen_body_are_tested() -> None:
    _, levels = find_ticket(small(), frozen_body, evaluate=lambda _: 0.5, levels=1, replicates=3)
    assert levels.copies == []


def test_reinit_with_a_function_that_always_draws_the_same_is_refused() -> None:
    """The control would be the ticket."""
    with raises_input_error("controls:", "reinit", "global random states"):
        find_ticket(made_from_one_seed, train, levels=1, controls={"reinit": 1})


def returning(**figures: Callable[[nn.Module], Any]) -> Callable[[nn.Module], Any]:
    def training(network: nn.Module) -> dict[str, Any]:
        train(network)
        return {name: figure(network) for name, figure in figures.items()}

    return training


def loss(network: nn.Module) -> Any:
    """A tensor that requires gradients, larger with fewer weights: the sum of a mask is not rounded."""
    left = sum(int((p != 0).sum()) for p in network.parameters() if p.dim() > 1)
    return torch.tensor(1 - left / 1000, requires_grad=True) * 1.0


def test_a_loss_that_grows_wins_only_where_higher_is_said_to_be_better(caplog: pytest.LogCaptureFixture) -> None:
    options: dict[str, Any] = {"levels": 1, "rate": 0.5, "replicates": 5}
    _, levels = find_ticket(Small, returning(loss=loss), minimize=False, **options)
    assert levels[1].state == "winning"
    (message,) = caplog.messages
    assert 'minimize="loss"' in message
    for minimize in (None, True, "loss", ["loss"]):
        caplog.clear()
        _, levels = find_ticket(Small, returning(loss=loss), minimize=minimize, **options)
        assert (levels[1].state, levels[1].verdict.reason) == ("not winning", "worse in loss")
        assert levels.smallest_winning is None
        assert not caplog.messages


def test_the_ticket_is_of_the_replicate_with_the_lowest_loss() -> None:
    def of_replicate(network: nn.Module) -> float:
        train(network)
        return float(torch.initial_seed() % 1000)

    for minimize, best in ((True, min), (False, max)):
        ticket, levels = find_ticket(Small, of_replicate, levels=1, replicates=4, minimize=minimize, margin=1e9)
        values = levels[1].branches["ticket"][levels.metric.at_stop].values
        assert values[ticket.provenance["replicate"]] == best(values)


@pytest.mark.parametrize("minimize", [1, [1]])
def test_minimize_is_checked(minimize: Any) -> None:
    with raises_input_error("minimize:", repr(minimize)):
        find_ticket(small(), train, minimize=minimize)
    with raises_input_error("minimize", '"los"', '"loss"?'):
        find_ticket(small(), returning(loss=loss), levels=1, minimize="los")


def loader(generator: torch.Generator | None) -> Any:
    dataset = torch.utils.data.TensorDataset(X, Y)
    sampler = torch.utils.data.RandomSampler(dataset, num_samples=8, generator=generator)
    return torch.utils.data.DataLoader(dataset, batch_size=8, sampler=sampler)


@pytest.mark.parametrize("own", [False, True])
def test_batches_for_scores_are_drawn_under_the_seed(own: bool, tmp_path: Path) -> None:
    class Count(Listener):
        trained = 0

        def answered(self, study: int, request: RunRequest, outcome: Outcome, trained: bool) -> None:  # noqa: ARG002
            self.trained += trained

    count = Count()

    def search(batches: Any, seed: int = 0) -> SearchResult:
        options: dict[str, Any] = {"replicates": 2, "seed": seed, "store": tmp_path, "listeners": [count]}
        return find_ticket(small(), train, levels=2, score="snip", data=batches, **options)

    generator = torch.Generator().manual_seed(3) if own else None
    batches = loader(generator)
    before = torch.get_rng_state(), generator and generator.get_state()
    first = search(batches)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert generator is None or torch.equal(generator.get_state(), before[1])
    list(batches)  # other random states
    torch.rand(5)
    again = search(batches)
    assert again.ticket.mask == first.ticket.mask
    assert count.trained == 6  # those of the first search
    assert search(batches, seed=1).ticket.mask != first.ticket.mask


def test_losses_have_names() -> None:
    def regression() -> nn.Module:
        return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1))

    def fit(network: nn.Module) -> None:
        optimizer = torch.optim.SGD(network.parameters(), 0.1)
        nn.functional.mse_loss(network(X), X[:, :1]).backward()
        optimizer.step()

    options: dict[str, Any] = {"levels": 1, "score": "snip", "data": [(X, X[:, :1])]}
    with raises_input_error("model:", 'loss="mse"'):
        find_ticket(regression, fit, **options)
    assert find_ticket(regression, fit, loss="mse", **options).ticket.mask.count == 44
    with raises_input_error('"mes"', '"mse"?'):
        find_ticket(regression, fit, loss="mes", **options)


@pytest.mark.parametrize("seed", [-1, 0.5, None])
def test_invalid_seeds_are_refused(seed: Any) -> None:
    with raises_input_error("seed:", repr(seed)):
        find_ticket(small(), train, seed=seed)


def constant(*arguments: Any) -> Any:
    return arguments[-1] * 0 + torch.tensor([1.0, 0.0])


def test_the_store_tells_a_network_with_a_hook_from_one_without(tmp_path: Path) -> None:
    def figure(network: nn.Module) -> float:
        return float(network(X)[0, 0])

    def search(model: nn.Module, **options: Any) -> float:
        levels = find_ticket(model, nudge, evaluate=figure, levels=1, **options).levels
        return levels[0].branches["ticket"][levels.metric.at_stop].values[0]

    def nudge(network: nn.Module) -> None:
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.mul_(1.5)

    hooked = small()
    hooked.register_forward_hook(constant)
    plain = search(small(), store=tmp_path)
    assert search(hooked, store=tmp_path) == search(hooked) == 1 != plain
    assert search(small(), store=tmp_path) == plain


def test_hooks_that_copies_lose_are_refused() -> None:
    model = small()
    model.fc1.weight.register_hook(lambda gradient: 2 * gradient)
    with raises_input_error("model:", "fc1.weight", "hooks", "function"):
        find_ticket(model, train, levels=1)


@pytest.mark.parametrize("kind", RENAMED)
def test_networks_that_rename_or_shorten_their_state_are_searched(kind: str, tmp_path: Path) -> None:
    make = RENAMED[kind]
    options: dict[str, Any] = {"levels": 2, "rewind": 3, "score": "distance", "store": tmp_path}
    ticket, levels = find_ticket(make, train, evaluate=evaluate, controls={"reinit": 1}, **options)
    plain, expected = find_ticket(Small, train, evaluate=evaluate, levels=2, rewind=3, score="distance")
    assert [row.measures for row in levels.rows if row.branch == "ticket"] == [row.measures for row in expected.rows]
    assert ticket.mask == plain.mask
    for state, other in ((ticket.start, plain.start), (ticket.trained, plain.trained)):
        assert state is not None
        assert other is not None
        assert state.keys() == other.keys()
        assert all(torch.equal(tensor, other[name]) for name, tensor in state.items())
    ticket.save(tmp_path / "ticket.safetensors")
    network = type(ticket).load(tmp_path / "ticket.safetensors").into(make(), trained=True)
    assert torch.equal(network.fc1.weight, plain.trained["fc1.weight"])  # type: ignore[index]


def test_train_may_wrap_layers_in_place() -> None:
    def checkpointing(network: nn.Module) -> None:
        apply_activation_checkpointing(network, check_fn=lambda layer: isinstance(layer, nn.Linear))
        train(network)

    ours, plain = (find_ticket(small(), how, evaluate=evaluate, levels=2) for how in (checkpointing, train))
    assert ours.ticket.mask == plain.ticket.mask
    assert [row.measures for row in ours.levels.rows] == [row.measures for row in plain.levels.rows]


def test_a_model_that_is_not_what_it_was_is_still_refused() -> None:
    def replacing(network: Any) -> None:
        train(network)
        network.wrapped = network.fc1
        del network.fc1

    with pytest.raises(InputError, match=r"removed fc1\.weight"):
        find_ticket(RENAMED["Prefixed"](), replacing, levels=1)


@pytest.mark.parametrize("truth", [True, np.True_, torch.tensor(True), np.array([True])])
def test_truth_values_are_no_figures(truth: Any) -> None:
    with raises_input_error("evaluate:", repr(truth)):
        find_ticket(small(), train, evaluate=lambda _: truth, levels=1)
    with raises_input_error("evaluate:"):
        find_ticket(small(), train, evaluate=lambda _: {"right": truth}, levels=1)


@pytest.mark.parametrize("other", [[0.1, 0.2], "text", None, True, {"a": 1.0}, torch.zeros(2), 1j])
@pytest.mark.parametrize("evaluated", [False, True])
def test_values_that_are_no_numbers_are_passed_over_where_others_are(other: Any, evaluated: bool) -> None:
    def figures(_: nn.Module) -> dict[str, Any]:
        return {"other": other, "accuracy": np.float32(0.5)}

    def training(network: nn.Module) -> dict[str, Any]:
        train(network)
        return figures(network)

    _, levels = find_ticket(small(), training, evaluate=figures if evaluated else None, levels=1)
    assert [row.measures["validation_accuracy"] for row in levels.rows] == [0.5] * 2
    assert levels.metric.name == "accuracy"


@pytest.mark.parametrize(
    ("sparse", "fact"), [({"accuracy": float("nan")}, "not finite"), ({"loss": 0.5}, "missing"), ({}, "missing")]
)
def test_figures_that_cannot_be_compared_are_warned_of_once(
    sparse: dict[str, float], fact: str, caplog: pytest.LogCaptureFixture
) -> None:
    def training(network: nn.Module) -> dict[str, float]:
        dense = all(bool(p.all()) for p in network.parameters() if p.dim() > 1)
        train(network)
        return {"accuracy": 0.9} if dense else sparse

    _, levels = find_ticket(Small, training, levels=2)
    (message,) = caplog.messages
    assert fact in message
    assert "level 1" in message
    assert [level.state for level in levels] == ["dense", "cannot tell", "cannot tell"]
