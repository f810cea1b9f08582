from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from tests.support.outcomes import outcome_of, random_mask
from tests.support.recipes import tiny
from tests.support.studies import drive, requests_of
from tombola.engines.stacked.stackability import why_not_stackable
from tombola.experiments.experiment import count_runs
from tombola.experiments.recipe_experiment import RecipeExperiment
from tombola.pruning.ranking import keep_best
from tombola.runs.run import Run
from tombola.studies.supermask import supermask_search
from tombola.utils.errors import InputError
from tombola.zoo.models import build
from tombola.zoo.models.description import Network, Start
from tombola.zoo.models.parametrizations.edge_popup import scores_of

POPUP = {"search": {"levels": 1, "density": 0.3, "method": "edge-popup"}}


def plain_network(of: str, inputs: tuple[int, ...], options: dict[str, Any]) -> nn.Module:
    return build(Start(network=Network(name=of, options=options, inputs=inputs, classes=10), seed=3))


def scored(of: str = "mlp", inputs: tuple[int, ...] = (8, 8), **options: Any) -> Start:
    """A network of scores that keeps half of each layer's weights."""
    plain = plain_network(of, inputs, options)
    keep = {n: p.numel() // 2 for n, p in plain.named_parameters() if p.ndim > 1}
    wrapped: dict[str, Any] = {"of": of, "options": options, "keep": keep}
    return Start(network=Network(name="supermask", options=wrapped, inputs=inputs, classes=10), seed=3)


def buffers_of(network: nn.Module) -> dict[str, torch.Tensor]:
    """By the names of the plain network's weights."""
    return {n.replace("parametrizations.", "").removesuffix(".original"): b for n, b in network.named_buffers()}


CASES: list[tuple[str, tuple[int, ...], dict[str, Any]]] = [
    ("mlp", (8, 8), {"widths": [20, 10]}),
    ("conv-2", (8, 8), {"width": 0.1}),
    ("resnet", (8, 8), {"depth": 8, "width": 2}),
]


@pytest.mark.parametrize(("of", "inputs", "options"), CASES)
def test_only_scores_are_trained_and_weights_are_those_of_the_plain_network(
    of: str, inputs: tuple[int, ...], options: dict[str, Any]
) -> None:
    start = scored(of, inputs, **options)
    network = build(start)
    plain = plain_network(of, inputs, options)
    assert all(name.endswith(".scores") for name, _ in network.named_parameters())
    for name, value in plain.state_dict().items():
        assert torch.equal(buffers_of(network)[name], value)
    keep = start.network.options["keep"]
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
    statistics = {name for name, _ in plain.named_buffers()}  # of batch norm, which training may change
    for name in set(plain.state_dict()) - statistics:  # biases and normalisation too
        assert torch.equal(buffers_of(network)[name], plain.state_dict()[name]), name


class Tied(nn.Module):
    """Two layers of one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.output = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 10)
        self.second.weight = self.first.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.output(self.second(self.first(x.flatten(1))))
        return found


def test_networks_with_tied_weights_are_refused() -> None:
    recipe = tiny(**POPUP, model={"name": f"{__name__}:Tied"})
    with pytest.raises(InputError, match=r"first\.weight and second\.weight"):
        RecipeExperiment(recipe)


def test_scores_of_unused_weights_have_gradients_too() -> None:
    network = build(scored(widths=[20, 10]))
    x = torch.rand(12, 8, 8, generator=torch.Generator().manual_seed(0))
    nn.functional.cross_entropy(network(x), torch.arange(12) % 10).backward()  # type: ignore[no-untyped-call]
    layer = network.get_submodule("output")
    slope = layer.get_parameter("parametrizations.weight.0.scores").grad
    assert slope is not None
    away = layer.weight == 0
    assert (slope[away] != 0).float().mean() > 0.5


def test_the_mask_read_from_the_scores_is_the_one_that_was_trained() -> None:
    start = scored(widths=[20, 10])
    network = build(start)
    for parameter in network.parameters():  # many equal scores
        parameter.data = (parameter.data * 20).round()
    plain = plain_network("mlp", (8, 8), {"widths": [20, 10]})
    full = RecipeExperiment(tiny()).dense(0).mask
    keep = {(name,): count for name, count in start.network.options["keep"].items()}
    keep_best(scores_of(network.state_dict()), full, keep).apply_(plain)
    x = torch.rand(4, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(plain(x), network(x))


def test_supermask_and_random_mask_are_evaluated_untrained_then_the_supermask_is_trained(dense: Run) -> None:
    masks = random_mask(dense, 0.3, 1), random_mask(dense, 0.3, 2)
    other = dense.model_copy(update={"seed": 99})
    yielded, tickets = drive(supermask_search(dense, other, lambda _outcome: masks[0], masks[1]))
    requests = [request for each in yielded for request in each]
    assert [(request.branch, request.run.begin, request.run.last) for request in requests] == [
        ("ticket", 0, 60),
        ("edge_popup", 0, 60),
        ("supermask", 0, 0),
        ("untrained", 0, 0),
        ("ticket", 0, 60),
    ]
    assert requests[1].run == other
    assert [request.run.mask for request in requests[2:]] == [masks[0], masks[1], masks[0]]
    assert tickets == [requests[0], requests[-1]]
    assert requests[-1].run == dense.masked(masks[0])


def test_an_experiment_trains_scores_of_its_network() -> None:
    def outcome(request: Any) -> Any:
        made_up = outcome_of(request.run)
        if request.branch == "edge_popup":
            made_up.final.update(build(request.run.start).state_dict())
        return made_up

    recipe = tiny(**POPUP, edge_popup={"lr": 0.7})
    requests = requests_of(RecipeExperiment(recipe).study(0), outcome=outcome)
    assert len(requests) * recipe.replicates == count_runs(recipe)
    runs = {request.branch: request.run for request in requests}
    assert (runs["edge_popup"].training.lr, runs["ticket"].training.lr) == (0.7, 5e-3)
    assert runs["ticket"].mask.counts == runs["untrained"].mask.counts
    assert runs["ticket"].mask.counts == {
        n: size - round(0.7 * size) for n, size in runs["ticket"].mask.sizes.items()
    }
    assert runs["ticket"].mask != runs["untrained"].mask


@pytest.mark.parametrize(("of", "inputs", "options"), CASES[:2])
def test_such_networks_can_be_stacked(of: str, inputs: tuple[int, ...], options: dict[str, Any], dense: Run) -> None:
    run = dense.model_copy(update={"start": scored(of, inputs, **options)})
    assert why_not_stackable(run) is None
