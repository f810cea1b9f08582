"""Several experiments side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tombola.experiments.results import Results
from tombola.stats.common_levels import common_levels
from tombola.stats.summarise import build_summary
from tombola.stats.summary import Summary, SummaryModel
from tombola.utils.differences import differences


class LabelledSummary(SummaryModel):
    """One of the experiments."""

    label: str
    folder: str
    summary: Summary


class ExperimentComparison(SummaryModel):
    """The experiments, and the configuration keys whose values differ among them."""

    experiments: list[LabelledSummary]
    differences: dict[str, list[Any]]
    common_levels: list[list[int]]
    """For each fraction of weights left that all experiments share approximately, the level of each experiment."""


def unique_labels(folders: Sequence[str | Path | None], names: Sequence[str]) -> list[str]:
    """A different label for each experiment: the names of the folders, or as much of the ends of their paths as tells
    them apart, numbered if a folder is given twice; for an experiment without a folder, its own name."""
    parts = [
        (name,) if folder is None else Path(folder).resolve().parts
        for folder, name in zip(folders, names, strict=True)
    ]
    ends = (["/".join(each[-depth:]) for each in parts] for depth in range(1, max(map(len, parts), default=0) + 1))
    numbered = [f"{Path(*each)} ({number})" for number, each in enumerate(parts, 1)]
    return next(column for column in (*ends, numbered) if len(set(column)) == len(column))


def compare(folders: Sequence[str | Path], results: Sequence[Results]) -> ExperimentComparison:
    """Compare the results in several folders."""
    labels = unique_labels(folders, [each.config.name for each in results])
    experiments = [
        LabelledSummary(label=label, folder=str(folder), summary=build_summary(each))
        for label, folder, each in zip(labels, folders, results, strict=True)
    ]
    return ExperimentComparison(
        experiments=experiments,
        differences=differences([each.config.resolved() for each in results]),
        common_levels=[[level.level for level in group] for group in common_levels([e.summary for e in experiments])],
    )
