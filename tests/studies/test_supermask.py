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
from tombola.studies.supermask import SupermaskPlan, supermask_search
from tombola.utils.errors import InputError
from tombola.zoo.models import build
from tombola.zoo.models.description import Network, Start
from tombola.zoo.models.reparametrization import effective_state, scores_of

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
    ranked = {name: scores.abs() for name, scores in scores_of(network.state_dict()).items()}
    keep_best(ranked, full, keep).apply_(plain)
    x = torch.rand(4, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(plain(x), network(x))


def test_supermask_and_random_mask_are_evaluated_untrained_then_the_supermask_is_trained(dense: Run) -> None:
    masks = random_mask(dense, 0.3, 1), random_mask(dense, 0.3, 2)
    other = dense.model_copy(update={"seed": 99})
    yielded, tickets = drive(
        supermask_search(dense, SupermaskPlan(other, lambda _outcome: masks[0], dense, masks[1]))
    )
    requests = [request for each in yielded for request in each]
    assert [(request.branch, request.run.begin, request.run.last) for request in requests] == [
        ("ticket", 0, 60),
        ("scores", 0, 60),
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
        if request.branch == "scores":
            made_up.final.update(build(request.run.start).state_dict())
        return made_up

    recipe = tiny(**POPUP, edge_popup={"lr": 0.7})
    requests = requests_of(RecipeExperiment(recipe).study(0), outcome=outcome)
    assert len(requests) * recipe.replicates == count_runs(recipe)
    runs = {request.branch: request.run for request in requests}
    assert (runs["scores"].training.lr, runs["ticket"].training.lr) == (0.7, 5e-3)
    assert runs["ticket"].mask.counts == runs["untrained"].mask.counts
    assert runs["ticket"].mask.counts == {
        n: size - round(0.7 * size) for n, size in runs["ticket"].mask.sizes.items()
    }
    assert runs["ticket"].mask != runs["untrained"].mask


def requests_for(method: str, **changes: Any) -> dict[str, Run]:
    """The runs of the first replicate, by branch, of a search in which nothing is trained."""

    def outcome(request: Any) -> Any:
        made_up = outcome_of(request.run)
        if request.branch == "scores":
            made_up.final.update(build(request.run.start).state_dict())
        return made_up

    recipe = tiny(search={"levels": 1, "density": 0.3, "method": method}, **changes)
    requests = requests_of(RecipeExperiment(recipe).study(0), outcome=outcome)
    assert len(requests) * recipe.replicates == count_runs(recipe)
    return {request.branch: request.run for request in requests if request.level}


def test_scale_fan_divides_the_weights_of_all_subnetworks_by_the_root_of_the_density() -> None:
    runs = requests_for("edge-popup", edge_popup={"scale_fan": True}, controls={"reinit": 1, "random": 1})
    plain = RecipeExperiment(tiny()).dense(0)
    initial = build(plain.start).state_dict()
    counts, sizes = runs["ticket"].mask.counts, runs["ticket"].mask.sizes
    for branch in ("ticket", "supermask", "untrained", "random", "reinit"):
        start = runs[branch].start.model_copy(update={"seed": plain.start.seed})
        for name, value in build(start).state_dict().items():
            factor = (sizes[name] / counts[name]) ** 0.5 if name in sizes else 1.0
            assert torch.allclose(value, factor * initial[name], rtol=1e-6), (branch, name)
    effective = effective_state(build(runs["scores"].start))
    rescaled = build(runs["ticket"].start).state_dict()
    for name, count in counts.items():
        kept = effective[name] != 0
        assert int(kept.sum()) == count
        assert torch.equal(effective[name][kept], rescaled[name][kept])
    assert RecipeExperiment(tiny(**POPUP, edge_popup={"scale_fan": True})).config.no_ticket_reason
    assert RecipeExperiment(tiny(**POPUP, edge_popup={})).config.no_ticket_reason is None


def test_options_that_are_not_given_do_not_change_runs() -> None:
    absent, given = (requests_for("edge-popup", edge_popup=o) for o in ({}, {"scale_fan": False}))
    assert {b: r.key for b, r in absent.items()} == {b: r.key for b, r in given.items()}
    assert absent["scores"].start.network.name == "supermask"
    assert absent["supermask"].start == absent["ticket"].start  # without statistics, as before


@pytest.mark.parametrize("method", ["biprop", "bernoulli-gates"])
def test_subnetworks_are_evaluated_with_the_weights_that_were_computed(method: str) -> None:
    runs = requests_for(method, **{method.replace("-", "_"): {"lr": 0.7, "schedule": "cosine"}})
    assert runs["ticket"].start.trained is None
    for branch in ("supermask", "untrained"):
        trained = runs[branch].start.trained
        assert trained is not None
        assert trained.through is not None
        assert trained.through.options["by"] == method
        assert (runs[branch].begin, runs[branch].last) == (0, 0)
        assert runs[branch].mask.counts == runs["ticket"].mask.counts
    assert runs["supermask"].start != runs["untrained"].start


def test_statistics_of_normalisation_come_from_the_training_of_the_scores() -> None:
    runs = requests_for("edge-popup", model={"name": "resnet", "depth": 8, "width": 2})
    trained = runs["supermask"].start.trained
    assert trained is not None
    assert trained.through == runs["scores"].start.network
    assert runs["ticket"].start.trained is None


@pytest.mark.parametrize(("of", "inputs", "options"), CASES[:2])
def test_such_networks_can_be_stacked(of: str, inputs: tuple[int, ...], options: dict[str, Any], dense: Run) -> None:
    run = dense.model_copy(update={"start": scored(of, inputs, **options)})
    assert why_not_stackable(run) is None
