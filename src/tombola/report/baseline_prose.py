"""How tickets compare with a tuned dense network, in a sentence."""

from __future__ import annotations

from tombola.report.formatting import mean, percent
from tombola.report.units import margin_amount, units_of
from tombola.stats.summary import BaselineSummary, LevelSummary, MeasureSummary, Summary

NOT_TUNED = "The dense network was not tuned: it was trained only with the options of the tickets."


def baseline_sentence(summary: Summary) -> str:
    """How tickets compare with the best of the dense network's trainings; empty if there is only one."""
    baseline = summary.baseline
    if baseline is None or not summary.levels:
        return ""
    tried = f"{len(baseline.trainings)} trainings of the dense network"
    if baseline.best is None:
        return f"The best of {tried} is not known: some runs are not finished, or diverged."
    best = baseline.trainings[baseline.best]
    if baseline.best == 0:
        return f"Of {tried}, the one with the options of the tickets ({best.training}) is the best."
    named = f"the best of {tried} ({best.training}: {_figure(summary, best.figures[summary.metric.at_stop])})"
    level = _compared_level(summary, baseline)
    if level is None or level.verdict.tuned_baseline is None:
        return f"No tickets can be compared with {named}."
    denser = next((each for each in summary.levels if each.level == baseline.smallest_winning), level)
    also = "" if denser is level else f"; down to {percent(denser.weights_left)} they are {_within(summary)}"
    return f"Against {named}, {_comparison(summary, level)}{also}."


def _figure(summary: Summary, measure: MeasureSummary) -> str:
    """The mean of the judged metric: `96.9%`, or `test loss 0.212`."""
    units = units_of(summary)
    if summary.metric.fraction:
        return f"{mean(measure, '.1f', units.factor)}%"
    return f"{units.name} {mean(measure, units.form)}"


def _compared_level(summary: Summary, baseline: BaselineSummary) -> LevelSummary | None:
    """The first winning level that is not as good as the best training; if all are, the smallest. If no level wins,
    the first that is sparse enough."""
    held = baseline.smallest_winning or 0
    winning = [level for level in summary.levels if level.verdict.winning]
    first = next((level for level in summary.levels if level.verdict.sparse_enough), None)
    return next((level for level in winning if level.level > held), winning[-1] if winning else first)


def _comparison(summary: Summary, level: LevelSummary) -> str:
    found, tickets = level.verdict.tuned_baseline, f"tickets at {percent(level.weights_left)} of the weights are"
    assert found is not None
    if found.accurate:
        return f"{tickets} {_within(summary)}"
    units = units_of(summary)
    form, points = ("+.2g", " points") if summary.metric.fraction else (f"+{units.form}", "")
    average = f"{units.factor * found.mean:{form}}{points} on average".replace("-", "−")
    if found.worse:
        return f"{tickets} {summary.metric.worse} ({average})"
    return f"it cannot be told whether {tickets} {_within(summary)} ({average})"


def _within(summary: Summary) -> str:
    return f"at most {margin_amount(summary.criteria.margin, summary.metric.fraction)} {summary.metric.worse}"
