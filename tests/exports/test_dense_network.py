"""What is known of the dense network that a ticket was found in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.crafted_tickets import small_ticket
from tests.support.report_data import report_data, report_row
from tombola.experiments.results import Results
from tombola.exports import dense_network as module
from tombola.exports.dense_network import dense_network
from tombola.exports.export_result import DenseNetwork
from tombola.tickets.ticket import Ticket


def ticket_with(**provenance: Any) -> Ticket:
    ticket = small_ticket()
    return Ticket(ticket.mask, ticket.start, provenance, ticket.trained, drawn=ticket.drawn)


ROWS = [
    replace(report_row(replicate, level, branch), run=f"{branch} {replicate} {level}")
    for branch in ("ticket", "reinit")
    for replicate in (0, 1)
    for level in (0, 1, 2)
]


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A results folder with these rows."""

    def read(folder: Path, lenient: bool) -> Results:
        assert (folder, lenient) == (tmp_path, True)
        return report_data(ROWS).results

    monkeypatch.setattr(module, "read_results", read)
    return tmp_path


def test_what_the_ticket_says_comes_first(results: Path) -> None:
    ticket = ticket_with(key="ticket 0 2", dense={"test_accuracy": 0.75, "validation_accuracy": 0.5})
    assert dense_network(ticket) == dense_network(ticket, results) == DenseNetwork(0.75)


@pytest.mark.parametrize(
    "dense", [None, 5, [], {}, {"test_accuracy": "1"}, {"test_accuracy": 1.5}, {"test_loss": 0.5}]
)
def test_a_ticket_may_not_say_it(tmp_path: Path, dense: Any) -> None:
    assert dense_network(ticket_with(dense=dense, key="key"), tmp_path) is None
    assert dense_network(ticket_with(dense=dense)) is None


def test_older_tickets_have_it_in_their_results_folder(results: Path) -> None:
    expected = {replicate: report_row(replicate, 0).measures["test_accuracy"] for replicate in (0, 1)}
    assert expected[0] != expected[1]
    for replicate, accuracy in expected.items():
        found = dense_network(ticket_with(key=f"ticket {replicate} 2"), results)
        assert found is not None
        assert found.accuracy == accuracy
    assert dense_network(ticket_with(key="of another experiment"), results) is None
    assert dense_network(ticket_with(), results) is None
