"""Whether there is sparse double descent: sentences and tables for the terminal and the page."""

from __future__ import annotations

from rich.table import Table as TerminalTable
from rich.text import Text

from tombola.report.document import Section, Table
from tombola.report.figures.double_descent_figure import double_descent_figure, values_of
from tombola.report.formatting import mean, means_text, p_value, percent, text_table
from tombola.report.units import plain_form
from tombola.stats.double_descent_summary import CurveSummary, DoubleDescentLevel, DoubleDescentSummary
from tombola.stats.summary import Summary
from tombola.utils.text import plural

TITLE = "Sparse double descent"


def curves_table(summary: Summary, found: DoubleDescentSummary) -> TerminalTable:
    """Errors and distances by level, for the terminal."""
    head, rows = _cells(summary, found)
    means = means_text(found.replicates, summary.criteria.confidence)
    table = text_table(head, left=(), title=f"{TITLE}: errors in %, {means}", gap=2)
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def double_descent_sections(summary: Summary) -> list[Section]:
    """The section of the page; empty if it was not asked for."""
    found = summary.double_descent
    if found is None:
        return []
    labels = f" Here, the labels of {percent(found.label_noise)} of the training examples were drawn at random."
    paragraphs = [
        "He et al. (2022) find that pruning can aggravate overfitting: as weights are removed, test error at the end "
        "of training first rises, then falls, when the network no longer fits noisy labels, and rises again when too "
        f"few weights are left.{labels if found.label_noise else ''}",
        *double_descent_sentences(summary, found),
        "The p-values are of “the mean curve has no bump”, that is, no level is worse than both a denser and a "
        "sparser one. The test flips the signs of paired differences, takes all pairs of levels into account, and "
        "lets no data choose a level. Heights are measured in each replicate at the levels that the other replicates "
        "choose.",
    ]
    head, rows = _cells(summary, found)
    caption = f"Errors (%) and distance travelled: {means_text(found.replicates, summary.criteria.confidence)}"
    figure = double_descent_figure(found, summary.criteria.confidence)
    return [
        Section("double-descent", TITLE, paragraphs, [figure, Table("double-descent-levels", caption, head, rows)])
    ]


def double_descent_sentences(summary: Summary, found: DoubleDescentSummary) -> list[str]:
    """What the tests say."""
    if found.end.bump is None:
        few = plural(found.replicates, "replicate")
        return [f"{TITLE} cannot be tested with {few} finished at all levels: the test needs more."]
    sentences = [_errors(found), f"At early stop, {_with_p('test error', found.stop)}."]
    if found.distance:
        sentences.append(f"{_distance(summary, found, found.distance)}.")
    if found.interpolates_to is None:
        sentences.append("The dense network does not fit 99% of its training labels.")
    else:
        left = percent(_level(found, found.interpolates_to).weights_left)
        sentences.append(f"Tickets fit at least 99% of their training labels down to {left} of the weights.")
    return sentences


def _errors(found: DoubleDescentSummary) -> str:
    end = found.end
    if not end.bump or end.before is None or end.peak is None or end.after is None:
        return f"{TITLE} is not seen: at the end of training, {_with_p('test error', end)}."
    before, peak, after = (percent(_level(found, lv).weights_left) for lv in (end.before, end.peak, end.after))
    rise, fall, again = (100 * (height or 0) for height in (end.rise, end.fall, end.final_rise))
    final = (
        f", and rises again by {again:.1f} points (p {p_value(end.p_rises_again)})"
        if end.rises_again
        else f"; that it rises again is not significant (p {p_value(end.p_rises_again)})"
    )
    return (
        f"{TITLE}: at the end of training, test error rises by {rise:.1f} points from {before} to {peak} of the "
        f"weights, falls by {fall:.1f} points to {after} (p {p_value(end.p_bump)}){final}."
    )


def _distance(summary: Summary, found: DoubleDescentSummary, shape: CurveSummary) -> str:
    where = ""
    if shape.bump and shape.peak is not None:
        where = f" at {percent(_level(found, shape.peak).weights_left)} of the weights"
    tau = mean(values_of(found.correlation, summary.criteria.confidence), ".2f", 1, " ± ")
    return (
        f"{_with_p('The distance travelled', shape, where)}; its rank correlation with test error over "
        f"levels is {tau} (Kendall's τ)"
    )


def _with_p(what: str, shape: CurveSummary, where: str = "") -> str:
    return f"{what} has {'a' if shape.bump else 'no significant'} bump{where} (p {p_value(shape.p_bump)})"


def _level(found: DoubleDescentSummary, level: int) -> DoubleDescentLevel:
    return next(each for each in found.levels if each.level == level)


def _cells(summary: Summary, found: DoubleDescentSummary) -> tuple[list[str], list[list[str]]]:
    confidence = summary.criteria.confidence
    head = ["level", "left", "test, end", "test, stop", "train, end", *(["distance"] if found.distance else [])]
    rows, form = [], plain_form(values_of(found.levels[0].distance, confidence))
    for level in found.levels:
        errors = [level.test_error, level.test_error_at_stop, level.train_error]
        cells = [mean(values_of(values, confidence), ".1f", 100, " ±") for values in errors]
        moved = [mean(values_of(level.distance, confidence), form, 1, " ±")] if found.distance else []
        rows.append([str(level.level), percent(level.weights_left), *cells, *moved])
    return head, rows
