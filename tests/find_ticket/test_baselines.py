"""Tickets of own functions compared with a dense network that is trained in other ways."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.support.custom_search import Small, X, Y
from tests.support.errors import raises_input_error
from tests.support.reports import document_of, section_names
from tombola._find_ticket import SearchResult, find_ticket
from tombola.experiments.results import read_results
from tombola.report.printable_results import PrintableResults
from tombola.stats.summary import BaselineSummary

OPTIONS: dict[str, Any] = {"levels": 1, "rate": 0.5, "replicates": 3, "progress": False}


def train(network: nn.Module, lr: float = 1e-5) -> None:
    optimizer = torch.optim.SGD(network.parameters(), lr)
    for _ in range(12):
        chosen = torch.randint(0, 100, (20,))
        optimizer.zero_grad()
        functional.cross_entropy(network(X[chosen]), Y[chosen]).backward()
        optimizer.step()


def loss(network: nn.Module) -> Tensor:
    return functional.cross_entropy(network(X[:100]), Y[:100])


def losses(network: nn.Module) -> dict[str, Tensor]:
    return {"loss": loss(network)}


def accuracy(network: nn.Module) -> dict[str, Tensor]:
    return {"accuracy": (network(X[100:]).argmax(1) == Y[100:]).float().mean()}


def baseline_of(levels: PrintableResults) -> BaselineSummary:
    assert levels.summary.baseline is not None
    return levels.summary.baseline


def search(baselines: Any, **options: Any) -> SearchResult:
    return find_ticket(Small, train, evaluate=losses, **OPTIONS | {"baselines": baselines} | options)


def test_the_best_of_several_trainings_is_chosen_by_validation_and_compared_by_what_is_judged() -> None:
    faster = partial(train, lr=0.3)
    levels = search([partial(train, lr=1e-4), faster], test=accuracy).levels
    baseline = baseline_of(levels)
    assert [each.training.rpartition(":")[2] for each in baseline.trainings] == [
        "train",
        "train(lr=0.0001)",
        "train(lr=0.3)",
    ]
    assert (baseline.chosen_by.name, baseline.chosen_by.split, baseline.chosen_by.maximize) == (
        "loss",
        "validation",
        False,
    )
    assert baseline.best == 2
    found = levels.summary.levels[1].verdict.tuned_baseline
    assert found is not None
    tickets = [row.measures["test_accuracy_at_stop"] for row in levels.rows if row.level == 1]
    tuned = [row.measures["test_accuracy_at_stop"] for row in levels.rows if row.branch == "baseline" and row.draw]
    assert found.mean == pytest.approx(sum(tickets) / 3 - sum(tuned) / 3)
    assert "train(lr=0.3)" in str(levels)


def test_all_other_rows_are_as_without_baselines() -> None:
    plain, tuned = (search(baselines).levels.rows for baselines in ([], [partial(train, lr=0.1)]))
    assert [row.measures for row in tuned if row.branch != "baseline"] == [row.measures for row in plain]
    assert len(tuned) == len(plain) + 3


def test_it_begins_with_the_initial_weights_of_the_dense_network(tmp_path: Path) -> None:
    """The same function gives the same figures, as the seeds are the same."""

    def again(network: nn.Module) -> None:
        train(network)

    rows = search([again], out=tmp_path / "out").levels.rows
    dense = [row.measures for row in rows if (row.level, row.branch) == (0, "ticket")]
    assert [row.measures for row in rows if row.branch == "baseline"] == dense


def test_a_folder_is_extended_by_baselines_and_not_changed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    out = tmp_path / "out"
    first, other = partial(train, lr=0.1), partial(train, lr=0.2)

    def run(*baselines: Any) -> SearchResult:
        return search(baselines, out=out)

    run()
    caplog.set_level("INFO")
    run(first)
    assert "baseline from not set to train(lr=0.1)" in caplog.text
    grown = run(first, other)
    assert (grown.levels.tally.trained, grown.levels.tally.from_store) == (3, 9)
    assert len(baseline_of(grown.levels).trainings) == 3
    read = read_results(out)
    assert read.config.baseline_labels == [each.training for each in baseline_of(grown.levels).trainings]
    assert "baseline" in section_names(document_of(out))
    with raises_input_error("baseline", "another configuration"):
        run(other, first)


def test_names_may_be_given_and_are_told_apart() -> None:
    named = search({"slow": partial(train, lr=1e-6), "fast": partial(train, lr=0.3)}).levels
    assert [each.training for each in baseline_of(named).trainings[1:]] == ["slow", "fast"]
    alike = search([lambda network: train(network, 0.1), lambda network: train(network, 0.2)]).levels
    labels = [each.training for each in baseline_of(alike).trainings]
    assert len(set(labels)) == 3


@pytest.mark.parametrize("baselines", [train, [0.1], {"fast": 0.1}, "train"])
def test_what_is_no_function_is_refused(baselines: Any) -> None:
    with raises_input_error("baselines", "function"):
        search(baselines)


def test_curves_are_those_of_the_early_stop_where_the_judged_figure_has_none(tmp_path: Path) -> None:
    search([], test=accuracy, every=4, out=tmp_path / "out")
    page = document_of(tmp_path / "out")
    (curves,) = (figure for figure in page.figures if figure.name == "validation-curves")
    assert curves.title == "Validation loss during training"
    assert {row["iteration"] for row in curves.rows} == {4, 8, 12}


@pytest.mark.parametrize("option", ["controls", "stability", "verdict"])
def test_tables_should_be_dictionaries(option: str) -> None:
    with raises_input_error(option, "dictionary", "True"):
        search([], **{option: True})


def test_trainings_of_one_length_are_compared() -> None:
    with raises_input_error("baselines", "begin"):
        search([partial(train, lr=0.1)], rewind=3)
