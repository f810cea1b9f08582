from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Any

from rich.console import Console

from tests.conftest import outcome_of, tiny
from tests.stats.test_verdict import experiment, row
from tests.tickets.test_ticket import a_ticket
from tombola.experiments.results import Results, Tally
from tombola.experiments.row import Row
from tombola.report.progress import ProgressDisplay
from tombola.report.terminal import show_summary, show_ticket, ticket_summary
from tombola.runs.outcome import Measures
from tombola.runs.run import Run
from tombola.stats.summary import summarise
from tombola.studies.request import RunRequest


def console(width: int = 80) -> Console:
    return Console(file=io.StringIO(), width=width, color_system=None)


def printed(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def show(rows: list[Row], **kwargs: object) -> str:
    recipe = tiny(replicates=5, verdict__accuracy_margin=0.01, controls={})
    results = Results(
        recipe,
        rows,
        bool(kwargs.get("finished", True)),
        Tally(diverged=int(kwargs.get("diverged", 0))),  # type: ignore[call-overload]
        kwargs.get("layers", []),  # type: ignore[arg-type]
    )
    to = console(int(kwargs.get("width", 80)))  # type: ignore[call-overload]
    show_summary(to, summarise(results))
    return printed(to)


def replaced(row: Row, **changes: Any) -> Row:
    return dataclasses.replace(row, **changes)


def test_the_table_and_the_answer_fit_a_terminal_of_80_columns() -> None:
    rows = experiment([0.95, 0.951, 0.949, 0.952, 0.95], [300, 310, 290, 300, 305])
    rows += [row(r, 2, 0.9, 400, branch="reinit") for r in range(5)]
    text = show(rows)
    assert "100.0%" in text
    assert "95.04 ±0.14 100.0  5.0" in text
    assert "90.00 ±0.00 100.0 10.0" in text
    assert "winning, sooner" in text
    assert "…" not in text
    assert "Winning tickets down to 25.0% of the weights (250 of them, level 2)" in " ".join(text.split())
    assert "at most 1 point less accurate" in " ".join(text.split())


def test_wide_intervals_give_way_on_a_narrow_terminal() -> None:
    rows = experiment([0.95] * 5, [3000, 31000, 2900, 30000, 3050])
    rows += [row(r, 2, 0.9, 40000 * (r + 1), branch="random_global") for r in range(5)]
    text = show(rows, width=72)
    assert "13,990 " in text
    assert "±1" not in text
    assert "…" not in text


def test_it_says_what_speaks_against_a_level() -> None:
    text = " ".join(show(experiment([0.85] * 5, [600] * 5)).split())
    assert "less accurate" in text
    assert "No winning ticket" in text
    assert "slower" in show(experiment([0.95] * 5, [700] * 5))
    unsure = show(experiment([0.99, 0.91, 0.99, 0.91, 0.95], [300] * 5))
    assert "cannot tell (+" in unsure
    assert "Cannot tell yet whether there are winning tickets" in unsure
    assert "more replicates would probably decide" in " ".join(unsure.split())
    rows = experiment([0.95] * 5, [300] * 5)
    assert "too many weights" in show(rows[:5] + [replaced(r, weights=900) for r in rows[5:]])


def test_divergence_and_collapse_do_not_go_unsaid() -> None:
    rows = experiment([0.95] * 5, [300] * 5)
    rows[5:] = [Row(**{**r.__dict__, "measures": Measures(diverged=True, iterations=10)}) for r in rows[5:]]
    text = show(
        rows,
        diverged=5,
        layers=[
            {"replicate": replicate, "level": 3 + replicate, "branch": "ticket", "layer": "fc1.weight", "weights": 0}
            for replicate in (0, 1)
        ],
    )
    assert "diverged" in text
    assert "5 of 5 diverged" in text
    assert "5 runs diverged" in text
    assert "Layer collapse: fc1.weight has no weights left at level 3 of replicate 0 and 1 more" in " ".join(
        text.split()
    )


def test_unfinished_experiments_say_so() -> None:
    assert "runs still to do" in " ".join(show(experiment([0.95] * 5, [300] * 5), finished=False).split())
    assert "Nothing is finished yet" in show([], finished=False)


def test_a_ticket_is_shown_by_layer(dense: Run, tmp_path: Path) -> None:  # noqa: ARG001
    ticket = a_ticket(dense)
    to = console()
    show_ticket(to, ticket_summary(ticket) | {"provenance": {}})
    text = printed(to)
    assert f"{ticket.mask.counts['fc1.weight']:,}" in text
    assert "20 × 64" in text
    assert "does not say where it came from" in text
    show_ticket(to, ticket_summary(ticket))  # of somebody's own making
    assert '"name": "tiny"' in printed(to)


def test_the_progress_display_counts_runs_and_names_levels(dense: Run) -> None:
    to = Console(file=io.StringIO(), width=120, force_terminal=True, color_system=None)
    with ProgressDisplay(to, runs=4) as progress:
        asks = [RunRequest("ticket", 0, dense), RunRequest("reinit", 2, dense.reinitialised(1))]
        for study, ask in enumerate(asks):
            progress.started(study, ask)
        progress.answered(0, asks[0], outcome_of(dense), trained=True)
        progress._progress.refresh()
        text = printed(to)
    assert "1/4" in text
    assert "reinit level 2" in text
    assert "s left" in text
