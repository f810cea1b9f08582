"""A plan in the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from tombola.experiments.planning.plan import Estimate, Plan, PlannedRuns
from tombola.report.console import print_text
from tombola.report.fitting_table import print_table
from tombola.report.formatting import NONE, percent, text_table
from tombola.utils.text import byte_size, plural, rough_time

COLUMNS = ("branch", "network", "levels", "left", "iterations", "runs", "in store", "each takes")

BASES = {
    "store": "from trainings in the store",
    "trial": "from a few iterations, trained just now",
    "store and trial": "from trainings in the store, and a few iterations, trained just now",
}


def show_plan(console: Console, plan: Plan) -> None:
    """Print a table with a line for each branch, and what all this takes."""
    several = len({each.network for each in plan.runs}) > 1
    table = text_table(
        [name for name in COLUMNS if several or name != "network"],
        left=COLUMNS[:2],
        gap=1 if several else 2,
        least=("in store", "left", "iterations"),
    )
    for runs in _groups(plan.runs):
        cells = _cells(runs)
        table.add_row(*(cells if several else cells[:1] + cells[2:]))
    print_table(console, table)
    for line in plan_lines(plan):
        print_text(console, line)


def _groups(runs: Sequence[PlannedRuns]) -> list[list[PlannedRuns]]:
    """Those of one branch and network together; trainings and evaluations apart."""
    groups: dict[tuple[str, str, bool], list[PlannedRuns]] = {}
    for each in runs:
        groups.setdefault((each.branch, each.network, each.iterations > 0), []).append(each)
    return [*groups.values()]


def _cells(runs: Sequence[PlannedRuns]) -> list[str]:
    first, levels, lengths = runs[0], [each.level for each in runs], [each.iterations for each in runs]
    left = [each.weights_left for each in runs]
    times = [each.seconds for each in runs if each.seconds is not None]
    shortest, longest = min((t.low for t in times), default=0), max((t.high for t in times), default=0)
    return [
        first.branch,
        first.network,
        _range(str(min(levels)), str(max(levels))),
        _range(percent(max(left)), percent(min(left))),
        _range(f"{min(lengths):,}", f"{max(lengths):,}"),
        f"{sum(each.trainings for each in runs):,}",
        f"{sum(each.in_store for each in runs):,}",
        _range(rough_time(shortest), rough_time(longest)) if times else NONE,
    ]


def plan_lines(plan: Plan) -> list[str]:
    """What is to be trained, and the time, disk and memory that takes, a line each."""
    if not plan.to_train:
        return [f"Nothing to train: all {plural(plan.in_store, 'run')} are in the store."]
    at_most = f"at most {plan.to_train:,}" if plan.at_most else f"{plan.to_train:,}"
    why = f" ({plan.at_most})" if plan.at_most else ""
    lines = [
        f"{plural(plan.trainings, 'run')}: {plan.in_store:,} in the store, {at_most} to train{why}, "
        f"{plan.workers:,} at once, by the {plan.engine} engine on {plan.device}."
    ]
    if plan.time is None:
        lines.append("Time: unknown, as no training of this kind was measured.")
    else:
        lines.append(f"Time: about {_times(plan.time)}, {BASES[plan.time.basis]}.")
    lines.append(f"Disk: about {byte_size(plan.disk_bytes)} in the store.")
    if plan.memory is not None:
        memory = plan.memory
        workers = f", {byte_size(memory.worker)} for each worker" if plan.workers > 1 else ""
        lines.append(f"Memory: about {byte_size(memory.total)}: {byte_size(memory.driver)} for the driver{workers}.")
    return lines


def _times(time: Estimate) -> str:
    return _range(rough_time(time.low), rough_time(time.high))


def _range(one: str, other: str) -> str:
    """`10–20 s`, `50 s–2 min`; a single value if both are equal."""
    if one == other:
        return one
    number, _, unit = one.partition(" ")
    return f"{number if unit and other.endswith(f' {unit}') else one}–{other}"
