"""Copies: trainings of different replicates that are one and the same training."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from tombola.experiments.results_schema import Row

ADVICE = (
    "Either train sets its own seed (let it use torch.initial_seed()), or nothing in it is random and the model is "
    "one network (give a function that makes it)."
)


def copied_replicates(rows: Iterable[Row]) -> list[int]:
    """The replicates that have a training which ended in the same weights as that of another replicate. They are no
    independent evidence. Rows without a digest of their weights are passed over."""
    alike: defaultdict[tuple[object, ...], set[int]] = defaultdict(set)
    for row in rows:
        if row.final:
            alike[row.branch, row.level, row.draw, row.final].add(row.replicate)
    return sorted({replicate for replicates in alike.values() if len(replicates) > 1 for replicate in replicates})


def copies_text(replicates: Iterable[int]) -> str:
    """Why nothing is tested, and what to do; empty if there are no copies."""
    named = ", ".join(map(str, replicates))
    return named and f"Replicates {named} ended in the same weights: they are copies, and prove nothing. {ADVICE}"
