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
    """For each fraction of weights left that all have, about, the level of each experiment."""


def unique_labels(folders: Sequence[str | Path], names: Sequence[str]) -> list[str]:
    """A different label for each experiment: the recipes' names; if these are not all different, the folders' names;
    else the folders' paths, numbered if a folder is given twice."""
    full = [Path(folder).resolve() for folder in folders]
    numbered = [f"{folder} ({number})" for number, folder in enumerate(full, 1)]
    candidates = (list(names), [folder.name for folder in full], [str(folder) for folder in full], numbered)
    return next(column for column in candidates if len(set(column)) == len(column))


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
