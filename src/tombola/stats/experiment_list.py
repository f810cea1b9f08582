"""The experiments under a folder: the progress of each, and its verdict in one word."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

from tombola.experiments.experiment import count_runs
from tombola.experiments.folders import results_folders, unreadable
from tombola.experiments.live_mark import is_marked
from tombola.experiments.results import Results, read_results
from tombola.stats.summarise import verdicts_of
from tombola.stats.summary import SummaryModel
from tombola.stats.verdict import Verdict, VerdictState, is_undecided, smallest_winning
from tombola.utils.errors import InputError


class ListedExperiment(SummaryModel):
    """An experiment, in a few words."""

    folder: str
    name: str
    state: Literal["finished", "under way", "interrupted"]
    """`under way` if a process on this machine is running it."""
    levels: int
    """The number of prunings after which the tickets of all replicates have been trained."""
    expected_levels: int
    runs: int
    """The number of finished runs, including those without rows."""
    expected_runs: int
    """The maximum number of runs of the whole experiment."""
    verdict: VerdictState | None
    """`winning` if a level is winning, otherwise `cannot tell` if one may be; None if nothing can be judged yet."""
    weights_left: float | None
    """The fraction of weights left in the smallest winning ticket."""
    written: float
    """When the folder was last written, in seconds since the epoch."""
    bytes: int
    """The size of the folder."""
    problems: list[str]
    """What is missing or damaged, one line each."""


def list_experiments(folder: Path) -> Iterator[ListedExperiment | InputError]:
    """Each experiment at or below `folder`, or what is wrong with its folder. Raises `InputError` if `folder` is
    not one."""
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder")
    for found in results_folders(folder):
        if why := unreadable(found):
            yield InputError(f"{found} {why}")
            continue
        try:
            yield _listed(found, read_results(found, lenient=True))
        except InputError as error:
            yield error


def _listed(folder: Path, results: Results) -> ListedExperiment:
    config, verdicts = results.config, verdicts_of(results)
    done = sum(cost.runs for cost in results.costs)
    winner = smallest_winning(verdicts)
    files = [*_files(folder)]
    return ListedExperiment(
        folder=str(folder),
        name=config.name,
        state="finished" if results.finished else "under way" if is_marked(folder) else "interrupted",
        levels=_levels_done(results),
        expected_levels=config.search.levels,
        runs=done or len(results.rows),
        expected_runs=count_runs(config),
        verdict=_in_a_word(results, verdicts),
        weights_left=results.rows_of("ticket", winner.level)[0].weights_left if winner else None,
        written=max((file.st_mtime for file in files), default=0.0),
        bytes=sum(file.st_size for file in files),
        problems=results.problems,
    )


def _files(folder: Path) -> Iterator[os.stat_result]:
    for parent, _, names in os.walk(folder):  # not `rglob`, which fails if a temporary folder has just been removed
        for name in names:
            with suppress(OSError):  # so may a file be
                yield Path(parent, name).stat()


def _levels_done(results: Results) -> int:
    reached = dict.fromkeys(range(results.config.replicates), 0)
    for row in results.rows:
        if row.branch == "ticket":
            reached[row.replicate] = max(row.level, reached.get(row.replicate, 0))
    return min(reached.values())


def _in_a_word(results: Results, verdicts: Sequence[Verdict]) -> VerdictState | None:
    if smallest_winning(verdicts) is not None:
        return "winning"
    if all(verdict.state == "dense" for verdict in verdicts):
        return None
    undecided = results.config.no_ticket_reason is None and is_undecided(verdicts, results.finished)
    return "cannot tell" if undecided else "not winning"
