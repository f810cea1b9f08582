"""The table of `tombola list`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from tombola.report.formatting import NONE, percent, text_table
from tombola.stats.experiment_list import ListedExperiment
from tombola.utils.text import byte_size


def experiment_table(folder: Path, experiments: Sequence[ListedExperiment]) -> Table:
    """One row for each of the experiments below `folder`."""
    columns = ("experiment", "state", "levels", "runs", "verdict", "written", "size")
    left_aligned, least = ("experiment", "state", "verdict", "written"), ("size", "written", "levels", "runs")
    table = text_table(columns, left=left_aligned, gap=2, least=least)
    for each in experiments:
        left = "" if each.weights_left is None else f" at {percent(each.weights_left)}"
        table.add_row(
            Text(_below(folder, each.folder)),
            each.state,
            f"{each.levels}/{each.expected_levels}",
            f"{each.runs:,}/{each.expected_runs:,}",
            NONE if each.verdict is None else f"{each.verdict}{left}",
            time.strftime("%Y-%m-%d", time.localtime(each.written)),
            byte_size(each.bytes),
        )
    return table


def _below(folder: Path, path: str) -> str:
    return path if Path(path) == folder else str(Path(path).relative_to(folder))
