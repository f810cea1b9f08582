from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from tests.conftest import outcome_of, random_mask, tiny
from tests.studies.test_search import answer
from tombola.engines.stacked.stackability import refusal
from tombola.experiments.experiment import Experiment, expected_runs
from tombola.pruning.ranking import keep_best
from tombola.runs.run import Run
from tombola.studies.supermask import supermask_search
from tombola.utils.errors import InputError
from tombola.zoo.models import build
from tombola.zoo.models.description import Network, Start
from tombola.zoo.models.supermask import scores_of

POPUP = {"search": {"levels": 1, "density": 0.3, "method": "edge-popup"}}


def scored(of: str = "mlp", inputs: tuple[int, ...] = (8, 8), **options: Any) -> Start:
    """A network of scores that keeps half of each layer's weights."""
    plain = build(Start(network=Network(name=of, options=options, inputs=inputs, classes=10), seed=3))
    keep = {n: p.numel() // 2 for n, p in plain.named_parameters() if p.ndim > 1}
    wrapped: dict[str, Any] = {"of": of, "options": options, "keep": keep}
    return Start(network=Network(name="supermask", options=wrapped, inputs=inputs, classes=10), seed=3)


CASES: list[tuple[str, tuple[int, ...], dict[str, Any]]] = [
    ("mlp", (8, 8), {"widths": [20, 10]}),
    ("conv-2", (8, 8), {"width": 0.1}),
    ("resnet", (8, 8), {"depth": 8, "width": 2}),
]


@pytest.mark.parametrize(("of", "inputs", "options"), CASES)
def test_only_scores_are_trained_and_weights_are_those_of_the_network_itself(
    of: str, inputs: tuple[int, ...], options: dict[str, Any]
) -> None:
    start = scored(of, inputs, **options)
    network = build(start)
    plain = build(Start(network=Network(name=of, options=options, inputs=inputs, classes=10), seed=3))
    assert all(name.endswith(".scores") for name, _ in network.named_parameters())
    buffers = {n.replace("parametrizations.", "").removesuffix(".original"): b for n, b in network.named_buffers()}
    for name, value in plain.state_dict().items():
        assert torch.equal(buffers[name], value)
    keep = start.network.options["keep"]
    before = {name: tensor.clone() for name, tensor in buffers.items()}
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0, momentum=0.9, weight_decay=1e-4)
    x = torch.rand(12, *inputs, generator=torch.Generator().manual_seed(0))
    for _ in range(3):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(x), torch.arange(12) % 10).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        for name, count in keep.items():
            layer, _, weight = name.rpartition(".")
            there = getattr(network.get_submodule(layer), weight)
            assert int((there != 0).sum()) == count
    after = {n.replace("parametrizations.", "").removesuffix(".original"): b for n, b in network.named_buffers()}
    for name in set(plain.state_dict()) - statistics(plain):  # biases and normalisation too
        assert torch.equal(before[name], after[name]), name


def statistics(network: nn.Module) -> set[str]:
    """What batch norm counts, the only thing that training may change."""
    return {name for name, _ in network.named_buffers()}


class Tied(nn.Module):
    """Two layers of one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.output = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 10)
        self.second.weight = self.first.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.output(self.second(self.first(x.flatten(1))))
        return found


def test_networks_that_share_weights_are_refused_as_each_layer_would_have_scores_of_its_own() -> None:
    recipe = tiny(**POPUP, model={"name": f"{__name__}:Tied"})
    with pytest.raises(InputError, match=r"model: first\.weight and second\.weight are one weight; edge-popup needs"):
        Experiment(recipe)


def test_scores_of_weights_that_are_not_there_learn_too() -> None:
    network = build(scored(widths=[20, 10]))
    x = torch.rand(12, 8, 8, generator=torch.Generator().manual_seed(0))
    nn.functional.cross_entropy(network(x), torch.arange(12) % 10).backward()  # type: ignore[no-untyped-call]
    layer = network.get_submodule("output")
    slope = layer.get_parameter("parametrizations.weight.0.scores").grad
    assert slope is not None
    away = layer.weight == 0
    assert (slope[away] != 0).float().mean() > 0.5


def test_the_mask_read_off_the_scores_is_the_one_that_was_trained() -> None:
    start = scored(widths=[20, 10])
    network = build(start)
    for parameter in network.parameters():  # many equal scores
        parameter.data = (parameter.data * 20).round()
    plain = build(Start(network=Network(name="mlp", options={"widths": [20, 10]}, inputs=(8, 8), classes=10), seed=3))
    full = Experiment(tiny()).dense(0).mask
    keep = {(name,): count for name, count in start.network.options["keep"].items()}
    keep_best(scores_of(network.state_dict()), full, keep).apply_(plain)
    x = torch.rand(4, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(plain(x), network(x))


def test_the_supermask_is_evaluated_untrained_beside_a_random_one_and_then_trained(dense: Run) -> None:
    masks = random_mask(dense, 0.3, 1), random_mask(dense, 0.3, 2)
    other = dense.model_copy(update={"seed": 99})
    asked, tickets = answer(supermask_search(dense, other, lambda _outcome: masks[0], masks[1]))
    asks = [ask for question in asked for ask in question]
    assert [(ask.branch, ask.run.begin, ask.run.last) for ask in asks] == [
        ("ticket", 0, 60),
        ("edge_popup", 0, 60),
        ("supermask", 0, 0),
        ("untrained", 0, 0),
        ("ticket", 0, 60),
    ]
    assert asks[1].run == other
    assert [ask.run.mask for ask in asks[2:]] == [masks[0], masks[1], masks[0]]
    assert tickets == [asks[0], asks[-1]]
    assert asks[-1].run == dense.masked(masks[0])


def test_an_experiment_trains_scores_of_its_own_network() -> None:
    def outcome(ask: Any) -> Any:
        made_up = outcome_of(ask.run)
        if ask.branch == "edge_popup":
            made_up.final.update(build(ask.run.start).state_dict())
        return made_up

    recipe = tiny(**POPUP, edge_popup={"lr": 0.7})
    asked, _ = answer(Experiment(recipe).study(0), outcome=outcome)
    asks = [ask for question in asked for ask in question]
    assert len(asks) * recipe.replicates == expected_runs(recipe)
    runs = {ask.branch: ask.run for ask in asks}
    assert (runs["edge_popup"].training.lr, runs["ticket"].training.lr) == (0.7, 5e-3)
    assert runs["ticket"].mask.counts == runs["untrained"].mask.counts
    assert runs["ticket"].mask.counts == {
        n: size - round(0.7 * size) for n, size in runs["ticket"].mask.sizes.items()
    }
    assert runs["ticket"].mask != runs["untrained"].mask


@pytest.mark.parametrize(("of", "inputs", "options"), CASES[:2])
def test_such_networks_can_be_stacked(of: str, inputs: tuple[int, ...], options: dict[str, Any], dense: Run) -> None:
    run = dense.model_copy(update={"start": scored(of, inputs, **options)})
    assert refusal(run) is None
