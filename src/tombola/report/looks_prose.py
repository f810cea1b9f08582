"""Sentences about how often an experiment is judged while it grows."""

from __future__ import annotations

from tombola.report.formatting import percent
from tombola.stats.summary import Summary
from tombola.utils.text import enumeration, plural


def replicates(summary: Summary, won_at: int | None = None) -> str:
    """How many replicates there are, and which planned look was decisive."""
    counted, looks = plural(summary.replicates, "replicate"), summary.looks
    if looks is None or not looks.planned:
        return counted
    number = looks.number(won_at or summary.replicates)
    won = "" if won_at in (None, summary.replicates) else f"won at {won_at}, "
    return f"{counted}, {won}planned look {number} of {len(looks.replicates)} at α = {looks.alpha[number - 1]:.2g}"


def planned_looks(summary: Summary) -> list[str]:
    """When the experiment is judged, if looks are planned."""
    looks = summary.looks
    if looks is None or not looks.planned:
        return []
    levels = enumeration(f"{alpha:.2g}" for alpha in looks.alpha)
    return [
        f"Looks are planned at {_numbers(looks.replicates)} replicates. They test each statement at α = {levels}, so "
        f"that the probability of a false winner at any of them is {percent(looks.error_rate)} (a spending function "
        f"like O'Brien and Fleming's: Lan and DeMets 1983). This is look {looks.number(summary.replicates)}; all "
        f"bounds use its α. A level that won at an earlier look keeps the verdict of that look."
    ]


def unplanned_looks(summary: Summary) -> list[str]:
    """A warning about an experiment that was extended after it could be judged."""
    looks = summary.looks
    if looks is None or looks.planned:
        return []
    return [
        f"This experiment was extended after it could be judged. Testing at {_numbers(looks.replicates)} replicates "
        f"accepts a statement that is just false with a probability of about {percent(looks.error_rate)}, not "
        f"{percent(1 - summary.criteria.confidence)}. To avoid this, plan the looks with verdict.looks."
    ]


def _numbers(counts: list[int]) -> str:
    return enumeration(f"{count:,}" for count in counts)
