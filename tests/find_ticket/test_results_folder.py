"""A search with own functions ends in the same verdict, folder and page as a recipe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.support.custom_search import Small, X, Y, evaluate, small, train
from tests.support.errors import raises_input_error
from tests.support.recipes import tiny
from tombola._find_ticket import SearchResult, find_ticket
from tombola._run_experiment import run_experiment
from tombola.experiments.recipe_experiment import RecipeExperiment
from tombola.experiments.results import read_results
from tombola.report.comparison_page import comparison
from tombola.report.document import Table
from tombola.report.figures.figure import Figure
from tombola.report.page import write_comparison, write_report
from tombola.report.printable_results import read_results as read_printable
from tombola.report.report_data import read_report_data
from tombola.stats.summarise import build_summary, summarise
from tombola.tickets.ticket import Ticket
from tombola.zoo.batches import batches
from tombola.zoo.datasets import prepare
from tombola.zoo.models import build


def figures(network: nn.Module) -> dict[str, Tensor]:
    logits = network(X[:100])
    return {"loss": functional.cross_entropy(logits, Y[:100]), "hits": (logits.argmax(1) == Y[:100]).sum()}


def held_out(network: nn.Module) -> Tensor:
    return functional.cross_entropy(network(X[100:]), Y[100:])


OPTIONS: dict[str, Any] = {"levels": 2, "rate": 0.4, "replicates": 3, "controls": {"reinit": 1}, "progress": False}


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[SearchResult, Path]:
    folder = tmp_path_factory.mktemp("own") / "search"
    return find_ticket(Small, train, evaluate=figures, test=held_out, every=10, out=folder, **OPTIONS), folder


def test_the_folder_has_the_same_results(searched: tuple[SearchResult, Path]) -> None:
    found, folder = searched
    read = read_results(folder)
    assert [row.to_dict() for row in read.rows] == [row.to_dict() for row in found.levels.rows]
    assert read.metric == found.levels.metric
    assert (read.metric.name, read.metric.split, read.metric.maximize) == ("loss", "test", False)
    assert summarise(read) == summarise(found.levels)
    assert read.finished
    assert read.config.replicates == 3
    assert str(read_printable(folder)) == str(found.levels)


def test_the_tables_have_the_users_figures(searched: tuple[SearchResult, Path]) -> None:
    _, folder = searched
    levels = pq.read_table(folder / "levels.parquet").to_pylist()
    assert len(levels) == 3 * (1 + 2 * 2)
    assert {"validation_loss_at_stop", "validation_hits_at_stop", "test_loss_at_stop"} <= levels[0].keys()
    assert "test_accuracy" not in levels[0]
    curves = pq.read_table(folder / "curves.parquet").to_pylist()
    assert [row["iteration"] for row in curves[:3]] == [10, 20, 30]
    assert {"validation_loss", "validation_hits"} <= curves[0].keys()
    for row in levels:
        own = [c for c in curves if all(c[key] == row[key] for key in ("replicate", "level", "branch", "draw"))]
        losses = [float(f"{c['validation_loss']:.7g}") for c in own]
        assert row["validation_loss_at_stop"] == min(losses)
        assert row["stop_iteration"] == own[losses.index(min(losses))]["iteration"]


def test_json_names_the_metric(searched: tuple[SearchResult, Path]) -> None:
    found, _ = searched
    document = json.loads(json.dumps(summarise(found.levels)))
    assert document["metric"] == {"name": "loss", "split": "test", "maximize": False, "fraction": False}
    ticket = document["levels"][1]["branches"]["ticket"]
    assert len(ticket["test_loss_at_stop"]["values"]) == 3
    assert "loss_difference" in document["levels"][1]["verdict"]
    difference = document["levels"][1]["verdict"]["loss_difference"]["mean"]
    dense = document["levels"][0]["branches"]["ticket"]["test_loss_at_stop"]["mean"]
    assert difference == pytest.approx(ticket["test_loss_at_stop"]["mean"] - dense)


def test_the_page_is_written(searched: tuple[SearchResult, Path], tmp_path: Path) -> None:
    _, folder = searched
    write_report(folder, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "test loss at early stop" in page
    assert "accuracy at early stop" not in page


def test_the_ticket_has_the_provenance_of_recipes(searched: tuple[SearchResult, Path], tmp_path: Path) -> None:
    found, _ = searched
    provenance = found.ticket.provenance
    assert provenance["recipe"]["functions"]["train"] == "tests.support.custom_search:train"
    assert provenance["measures"]["test_loss_at_stop"] > 0
    assert provenance["dense"].keys() == provenance["measures"].keys()
    assert provenance["verdict"]["state"] in ("winning", "not winning", "cannot tell")
    found.ticket.save(tmp_path / "ticket.safetensors")
    assert Ticket.load(tmp_path / "ticket.safetensors").provenance == json.loads(json.dumps(provenance))


def test_the_same_call_resumes_and_another_is_refused(tmp_path: Path) -> None:
    options: dict[str, Any] = {"evaluate": evaluate, "levels": 1, "out": tmp_path / "out"}
    first = find_ticket(small(), train, **options)
    assert (tmp_path / ".tombola").is_dir()
    again = find_ticket(small(), train, **options)
    assert (first.levels.tally.trained, again.levels.tally.trained, again.levels.tally.from_store) == (2, 0, 2)
    assert first.levels.rows == again.levels.rows
    with raises_input_error("another configuration", "functions.fingerprint"):
        find_ticket(small(), lambda network: train(network, 5), **options)


def test_early_stop_is_not_asked_for_without_evaluations_during_training() -> None:
    def nearly(network: nn.Module) -> float:  # noqa: ARG001
        return 0.9 + (torch.initial_seed() % 97) / 1e4

    options: dict[str, Any] = {"levels": 2, "rate": 0.5, "replicates": 5}
    _, levels = find_ticket(Small, train, evaluate=nearly, **options)
    assert not levels.summary.timed
    assert [level.state for level in levels] == ["dense", "winning", "winning"]
    assert levels[1].verdict.fast is None
    assert levels[1].verdict.stop_difference is None
    assert "Training time was not compared" in str(levels).replace("\n", " ")
    (head,) = [line for line in str(levels).splitlines() if line.startswith("level")]
    assert "validation figure" in head
    assert "stop" not in head


@pytest.mark.parametrize(
    ("margin", "state"), [(0.05, "not winning"), (0.2, "winning"), ("5%", "not winning"), ("20%", "winning")]
)
def test_margins_are_absolute_or_relative(margin: Any, state: str) -> None:
    """Tickets are 10% worse than the dense network's 1.0."""

    def worse(network: nn.Module) -> float:
        left = sum(int((p != 0).sum()) for p in network.parameters() if p.dim() > 1)
        return (1.0 if left == 160 else 1.1) * (1 + (torch.initial_seed() % 7) / 1e4)

    options: dict[str, Any] = {"levels": 1, "rate": 0.5, "replicates": 5, "minimize": True, "margin": margin}
    assert find_ticket(Small, train, evaluate=worse, **options).levels[1].state == state


def test_the_same_loop_as_a_recipe_gives_the_same_rows(tmp_path: Path) -> None:
    """The zoo's network, data, batches, optimizer and evaluations, by hand."""
    recipe = tiny(replicates=1, controls={}, search={"levels": 2, "rate": 0.4})
    theirs = run_experiment(recipe, tmp_path / "recipe", engine="eager", workers=1)
    run = RecipeExperiment(recipe).dense(0)
    split, training = prepare(run.data), run.training

    def by_hand(network: nn.Module) -> None:
        optimizer = torch.optim.SGD(network.parameters(), training.lr, training.momentum)
        if training.optimizer == "adam":
            optimizer = torch.optim.Adam(network.parameters(), training.lr)  # type: ignore[assignment]
        network.train()
        for batch in batches(run.seed, len(split.train), training.batch_size, 0, run.last):
            x, y = split.train[batch]
            optimizer.zero_grad()
            functional.cross_entropy(network(x), y).backward()
            optimizer.step()

    def measured(network: nn.Module, examples: Any) -> dict[str, Tensor]:
        x, y = examples[torch.arange(len(examples))]
        logits = network(x)
        return {"accuracy": (logits.argmax(1) == y).double().mean(), "loss": functional.cross_entropy(logits, y)}

    search = recipe.search
    _, ours = find_ticket(
        lambda: build(run.start),
        by_hand,
        evaluate=lambda network: measured(network, split.validation),
        test=lambda network: measured(network, split.test),
        every=training.evaluate_every.iterations,
        stop_on="loss",
        levels=search.levels,
        rate=search.rate,
        scope=search.scope,
    )
    assert len(ours.rows) == len(theirs.rows)
    for one, other in zip(ours.rows, theirs.rows, strict=True):
        assert (one.weights, one.measures.iterations) == (other.weights, other.measures.iterations)
        assert one.measures.stop_iteration == other.measures.stop_iteration
        for name in ("validation_loss_at_stop", "test_accuracy_at_stop", "validation_accuracy_at_stop"):
            assert one.measures[name] == pytest.approx(other.measures[name], abs=2e-3), name


def test_a_null_experiment_is_called_winning_no_more_often_than_alpha_allows() -> None:
    """Tickets that are worse by exactly the margin, with noise; 40 searches by random scores."""
    noise = np.random.default_rng(0)

    def at_margin(network: nn.Module) -> float:
        dense = all(bool(p.all()) for p in network.parameters() if p.dim() > 1)
        return float(noise.normal(0.9 if dense else 0.88, 0.01))

    def untrained(network: nn.Module) -> None:
        with torch.no_grad():
            next(network.parameters()).mul_(0.5)

    options: dict[str, Any] = {"levels": 1, "rate": 0.5, "replicates": 5, "margin": 0.02, "score": "random"}
    wins = sum(
        find_ticket(Small, untrained, evaluate=at_margin, seed=seed, **options).levels[1].state == "winning"
        for seed in range(40)
    )
    assert wins <= 5  # binomial: more than 5 of 40 at 5% has a probability of 1.4%


def test_random_tickets_are_not_better_than_random_controls(tmp_path: Path) -> None:
    """With random scores, tickets and their control are alike; so no level may win but by chance."""
    options: dict[str, Any] = {"levels": 1, "rate": 0.5, "replicates": 5, "score": "random", "margin": 1.0}
    wins = 0
    for seed in range(8):
        _, levels = find_ticket(
            Small,
            lambda network: train(network, 3),
            evaluate=evaluate,
            controls={"random": 1},
            verdict={"control": "random"},
            seed=seed,
            store=tmp_path,
            **options,
        )
        wins += build_summary(levels).smallest_winning is not None
    assert wins <= 2


def test_experiments_with_different_metrics_are_compared_each_in_its_own(
    searched: tuple[SearchResult, Path], tmp_path: Path
) -> None:
    _, folder = searched
    other = tmp_path / "accuracies"
    find_ticket(Small, train, evaluate=lambda network: {"accuracy": evaluate(network)}, out=other, **OPTIONS)
    page = comparison([read_report_data(folder), read_report_data(other)])
    drawn = {each.name: {row["experiment"] for row in each.rows} for each in page.figures if isinstance(each, Figure)}
    assert drawn["metric"] == {"search"}
    assert drawn["accuracy"] == {"accuracies"}
    tables = {table.name: table for section in page.sections for table in section.of(Table)}
    dense = [row[3].rpartition(" ")[0] for row in tables["experiments-table"].rows]
    assert dense == ["test loss", "validation accuracy"]
    assert write_comparison([folder, other], tmp_path / "page.html") is None
