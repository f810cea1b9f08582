"""What is known of the dense network that a ticket was found in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tombola.experiments.results import read_results
from tombola.exports.export_result import DenseNetwork
from tombola.tickets.ticket import Ticket
from tombola.utils.errors import InputError


def dense_network(ticket: Ticket, results: str | Path | None = None) -> DenseNetwork | None:
    """The dense network of the ticket's replicate, as the ticket's provenance says; of an older ticket, as the folder
    of its `results` does. None if neither has its accuracy on the test set."""
    for measures in (ticket.provenance.get("dense"), *_rows(ticket, results)):
        accuracy = measures.get("test_accuracy") if isinstance(measures, dict) else None
        if isinstance(accuracy, float) and 0 <= accuracy <= 1:  # a file can say anything
            return DenseNetwork(accuracy)
    return None


def _rows(ticket: Ticket, results: str | Path | None) -> Iterator[dict[str, Any]]:
    """The measures of the dense network of the replicate whose ticket this is."""
    key = ticket.provenance.get("key")
    if results is None or key is None:
        return
    try:
        rows = [row for row in read_results(results, lenient=True).rows if row.branch == "ticket"]
    except InputError:  # no results folder
        return
    replicates = {row.replicate for row in rows if row.run == key}
    yield from (row.measures.figures for row in rows if row.level == 0 and row.replicate in replicates)
