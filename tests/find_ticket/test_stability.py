"""Barriers between trainings with the user's own functions, in the units of the user's own figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.support.custom_search import Small, X, Y, train
from tests.support.errors import raises_input_error
from tombola._find_ticket import SearchResult, find_ticket
from tombola.experiments.experiment import count_runs
from tombola.experiments.results import read_results
from tombola.report.document import Table
from tombola.report.html import static_svg
from tombola.report.page_sections import document
from tombola.report.report_data import report_data
from tombola.stats.summarise import build_summary, summarise
from tombola.stats.summary import StabilitySummary

OPTIONS: dict[str, Any] = {"levels": 2, "rate": 0.5, "replicates": 2, "progress": False}
LINES: dict[str, Any] = {"tickets": True, "candidates": [0, 10], "points": 3, "tolerance": 1.5}


def figures(network: nn.Module) -> dict[str, Any]:
    assert not network.training
    logits = network(X[:100])
    return {"loss": functional.cross_entropy(logits, Y[:100]), "hits": (logits.argmax(1) == Y[:100]).sum()}


def held_out(network: nn.Module) -> Any:
    return functional.cross_entropy(network(X[100:]), Y[100:])


def overfit(network: nn.Module) -> None:
    """Its best weights are not its last."""
    train(network)
    with torch.no_grad():
        network.get_parameter("output.bias")[0] += 3


@pytest.fixture(scope="module")
def joined(tmp_path_factory: pytest.TempPathFactory) -> tuple[SearchResult, Path]:
    folder = tmp_path_factory.mktemp("joined") / "own"
    return find_ticket(
        Small, overfit, evaluate=figures, test=held_out, every=10, stability=LINES, out=folder, **OPTIONS
    ), folder


def stability_of(found: SearchResult) -> StabilitySummary:
    stability = found.levels.summary.stability
    assert stability is not None
    return stability


def along(found: SearchResult, figure: str, **place: Any) -> list[float]:
    """The figures along a line, from end to end."""
    rows = [row for row in found.levels.stability if all(row[name] == value for name, value in place.items())]
    return [row[figure] for row in sorted(rows, key=lambda row: float(row["share"]))]


def test_every_network_on_a_line_has_the_users_figures(joined: tuple[SearchResult, Path]) -> None:
    found, folder = joined
    table = pq.read_table(folder / "stability.parquet")
    own = ["validation_loss", "validation_hits", "test_loss"]
    assert table.column_names == ["replicate", "k", "pair", "share", *own, "line", "level"]
    assert table.equals(found.levels.load_table("stability"))
    assert read_results(folder).stability == table.to_pylist()
    rows = table.to_pylist()
    assert len(rows) == 2 * 3 * (2 + 3 + 2)  # replicates, points, and lines: of candidates, orders and predecessors
    assert all(row[name] is not None for row in rows for name in own)
    assert {row["k"] for row in rows if row["line"] is None} == {0, 10}


def test_ends_are_evaluated_with_their_final_weights(joined: tuple[SearchResult, Path]) -> None:
    """The early stop of these trainings is before their end, and the test was only asked about that."""
    found, _ = joined
    by_place = {(row.replicate, row.level): row.measures for row in found.levels.rows}
    ends = [row for row in found.levels.stability if row["line"] and row["share"] == 0]
    assert {(row["replicate"], row["level"]) for row in ends} == set(by_place)
    for row in ends:
        measures = by_place[row["replicate"], row["level"]]
        assert measures.stop_iteration != measures.iterations
        assert row["validation_loss"] == measures["validation_loss"]
        assert row["test_loss"] > (measures["test_loss_at_stop"] or 0) + 0.1


def test_barriers_are_in_the_units_of_the_judged_figure(joined: tuple[SearchResult, Path]) -> None:
    found, folder = joined
    stability = stability_of(found)
    assert (stability.metric.name, stability.metric.split, stability.metric.maximize) == ("loss", "validation", False)
    assert summarise(read_results(folder))["stability"]["metric"]["name"] == "loss"
    predecessor = stability.tickets[2].predecessor
    assert predecessor is not None
    for replicate, barrier in enumerate(predecessor.test_barrier.values):
        line = along(found, "test_loss", replicate=replicate, line="predecessor", level=2)
        assert barrier == pytest.approx(max(line) - (line[0] + line[-1]) / 2)
    assert stability.splits == ["validation", "test"]
    assert [candidate.k for candidate in stability.candidates] == [0, 10]


def test_the_terminal_and_the_page_name_the_figure(joined: tuple[SearchResult, Path]) -> None:
    found, _ = joined
    shown = str(found.levels)
    assert "loss barrier, validation" in shown
    assert "Loss barriers of tickets" in shown
    assert "at most 1.5)" in shown
    page = document(report_data(found.levels))
    sections = {section.name: section for section in page.sections}
    heads = [table.head for table in sections["stability"].of(Table)]
    assert heads == [["k", "on validation examples", "on the test set", "stable replicates"]]
    drawn = {figure.name: figure for figure in page.figures}
    for name in ("ticket-barriers", "stability-barriers", "stability-lines"):
        svg, caption = static_svg(drawn[name]), drawn[name].caption
        assert "loss" in svg
        assert not any(word in svg + caption for word in ("error", "points", "%)")[: 2 if "ticket" in name else 3])
    lines = {(row["k"], row["share"]): row["mean"] for row in drawn["stability-lines"].rows}
    values = [r["test_loss"] for r in found.levels.stability if (r["k"], r["share"], r["line"]) == (10, 0.5, None)]
    assert lines[10, 0.5] == pytest.approx(sum(values) / 2, rel=1e-4)


def test_as_many_runs_are_requested_as_counted_and_the_same_call_resumes(joined: tuple[SearchResult, Path]) -> None:
    found, folder = joined
    options = OPTIONS | {"evaluate": figures, "test": held_out, "every": 10, "out": folder}
    again = find_ticket(Small, overfit, stability=LINES, **options)
    assert again.levels.tally.trained == 0
    requested = 1 + 3 + 7 * (3 + 2)  # a trunk, tickets, and on each line the ends, which are evaluated again
    assert count_runs(found.levels.config) == 2 * requested


@pytest.mark.parametrize(("test", "columns"), [(None, []), (held_out, ["test_figure"])])
def test_without_evaluations_during_the_training_ends_are_stops(test: Any, columns: list[str]) -> None:
    def loss(network: nn.Module) -> Any:
        return figures(network)["loss"]

    found = find_ticket(Small, train, evaluate=loss, test=test, minimize=True, stability={"tickets": True}, **OPTIONS)
    names = found.levels.load_table("stability").column_names
    assert names == ["replicate", "k", "pair", "share", "validation_figure", *columns, "line", "level"]
    assert stability_of(found).splits == ["validation", *(["test"] if test else [])]


def test_accuracies_have_the_words_of_recipes() -> None:
    def accuracy(network: nn.Module) -> dict[str, float]:
        return {"accuracy": figures(network)["hits"] / 100}

    found = find_ticket(Small, train, evaluate=accuracy, stability=LINES | {"tolerance": 0.02}, **OPTIONS)
    assert "Error barriers of tickets, points" in str(found.levels)
    assert "(barrier at most 2 points)" in str(found.levels).replace("\n", " ")
    line = along(found, "validation_accuracy", replicate=0, k=10)
    barrier = (line[0] + line[-1]) / 2 - min(line)
    assert stability_of(found).candidates[1].validation_barrier.values[0] == pytest.approx(barrier)


@pytest.mark.parametrize(("tolerance", "k"), [(1e9, 0), (0.0, 20)])
def test_auto_rewinds_to_the_smallest_stable_candidate(tolerance: float, k: int) -> None:
    """Halfway between trainings that share fewer than 20 steps the figure is 1 worse."""

    def train_to_a_point(network: nn.Module, begin: int = 0) -> None:
        train(network, 30, begin)
        with torch.no_grad():
            network.get_parameter("output.bias")[:] = 1.0 if begin == 20 or torch.initial_seed() % 2 else -1.0

    def height(network: nn.Module) -> dict[str, float]:
        return {"height": -1.0 if network.get_parameter("output.bias").abs().max() < 0.5 else 0.0}

    found = find_ticket(
        Small,
        train_to_a_point,
        evaluate=height,
        minimize=False,
        rewind="auto",
        stability={"candidates": [0, 20], "points": 3, "tolerance": tolerance, "pairs": 6},
        **OPTIONS,
    )
    stability = stability_of(found)
    assert stability.rewound_to == [k, k]
    assert {row["begin"] for row in [found.ticket.provenance["run"] | {}] if "begin" in row} == ({k} if k else set())
    if k:
        assert min(stability.candidates[0].validation_barrier.values) > 0
        assert stability.candidates[1].validation_barrier.values == [0.0, 0.0]


def test_lines_on_which_a_figure_is_not_finite_are_not_connected() -> None:
    def nowhere_between(network: nn.Module) -> dict[str, float]:
        """It has a value only where weights come from a training, which leaves a mark."""
        return {"loss": 1.0 if float(network.get_parameter("output.bias")[0]) in (1.0, 2.0) else float("inf")}

    def mark(network: nn.Module) -> None:
        train(network)
        with torch.no_grad():
            network.get_parameter("output.bias")[0] = 1.0 + mark_of[torch.initial_seed()]

    class Alternating(dict[int, int]):
        def __missing__(self, seed: int) -> int:
            self[seed] = len(self) % 2
            return self[seed]

    mark_of = Alternating()
    found = find_ticket(
        Small, mark, evaluate=nowhere_between, stability={"tickets": True, "points": 3}, **OPTIONS | {"replicates": 1}
    )
    stability = stability_of(found)
    order = stability.tickets[0].order
    assert order is not None
    assert (order.validation_barrier.values, order.stable, order.replicates) == ([], 0, 1)
    assert "0 of 1" in str(found.levels)
    document(report_data(found.levels))


def test_a_training_that_sets_its_own_seed_is_told(caplog: pytest.LogCaptureFixture) -> None:
    def fixed(network: nn.Module) -> None:
        torch.manual_seed(3)
        train(network)

    options = OPTIONS | {"replicates": 1, "levels": 1}
    find_ticket(Small, train, evaluate=figures, stability={"tickets": True}, **options)
    assert "stability" not in caplog.text
    find_ticket(Small, fixed, evaluate=figures, stability={"tickets": True}, **options)
    assert caplog.text.count("with another seed") == 1
    assert "level 0" in caplog.text


def test_lines_are_added_to_an_existing_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = OPTIONS | {"evaluate": figures, "out": tmp_path / "out", "progress": None}
    first = find_ticket(Small, train, **options)
    assert "Extending" not in capsys.readouterr().err
    lines = {"candidates": [0], "points": 3}
    grown = find_ticket(Small, train, stability=lines, **options)
    assert "Extending" in capsys.readouterr().err
    assert (grown.levels.rows, grown.levels.tally.trained) == (first.levels.rows, 2 * 2)  # other ends, and points
    more = find_ticket(Small, train, stability=lines | {"tickets": True, "candidates": [0, 10]}, **options)
    shown = capsys.readouterr().err
    assert "stability.tickets from False to True" in shown
    assert "stability.candidates from ['0it'] to ['0it', '10it']" in shown
    assert len(stability_of(more).tickets) == 3
    assert [stage.runs for stage in more.levels.stages] == [6]
    with raises_input_error("another configuration", "stability.tolerance"):
        find_ticket(Small, train, stability=lines | {"tolerance": 1.0}, **options)
    find_ticket(Small, train, stability=lines | {"tickets": True, "candidates": [0, 10, 20]}, **options)
    assert "Extending" in capsys.readouterr().err


def test_without_progress_growth_is_not_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = OPTIONS | {"evaluate": figures, "out": tmp_path / "out", "levels": 1}
    find_ticket(Small, train, **options)
    find_ticket(Small, train, **options | {"replicates": 3})
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("options", "facts"),
    [
        ({"evaluate": None, "stability": {"tickets": True}}, ["stability", "evaluate"]),
        ({"stability": {"pairs": 1}}, ["stability", "candidates", "tickets"]),
        ({"stability": {"candidates": ["1ep"]}}, ["stability.candidates", "optimizer steps", "1ep"]),
        ({"stability": {"candidates": [10, 0]}}, ["stability.candidates", "in order", "10it, 0it"]),
        ({"stability": {"candidates": [-1]}}, ["stability.candidates"]),
        ({"stability": {"candidates": 5}}, ["stability.candidates"]),
        ({"stability": {"candidates": [99]}}, ["candidates of stability", "30", "99"]),
        ({"stability": {"tickets": True, "tolerance": float("nan")}}, ["stability.tolerance"]),
        ({"stability": {"tickets": True, "tolerance": -1}}, ["stability.tolerance"]),
        ({"stability": {"ticket": True}}, ["[stability]", "ticket"]),
        ({"stability": {"tickets": True}, "rewind": "auto"}, ["rewind", "auto", "candidates"]),
        ({"rewind": "auto"}, ["rewind", "auto", "candidates"]),
    ],
)
def test_what_cannot_be_joined_is_refused(options: dict[str, Any], facts: list[str]) -> None:
    with raises_input_error(*facts):
        find_ticket(Small, train, **OPTIONS | {"evaluate": figures} | options)


def test_the_results_of_unfinished_lines_are_read(joined: tuple[SearchResult, Path]) -> None:
    results = read_results(joined[1])
    results.stability[:] = [row for row in results.stability if row["share"] != 0.5]
    summary = build_summary(results)
    assert summary.stability is not None
    assert summary.stability.tickets == summary.stability.candidates == []
