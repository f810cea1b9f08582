"""The table of a comparison of methods: for the terminal, as Markdown and as LaTeX."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from tombola.report.console import print_text
from tombola.report.fitting_table import print_table
from tombola.report.formatting import NONE, mean, means_text, p_value, percent, text_table
from tombola.report.units import Units, metric_units
from tombola.stats.method_comparison import MethodComparison, MethodRow
from tombola.utils.text import plural

TEXT_COLUMNS = ("method", "ticket")
DROPPED_FIRST = ("length", "weights", "ticket")
"""The columns that a narrow terminal leaves out first."""


def method_units(comparison: MethodComparison) -> Units:
    """The units of the judged metric."""
    return metric_units(comparison.metric, None, timed=True)


def head(comparison: MethodComparison) -> list[str]:
    """The heads of the columns."""
    judged = method_units(comparison).short
    return [
        "method", "ticket", "weights", "length", f"{judged} at stop", f"{judged} at end", "difference", "p",
        "training", "with search",
    ]  # fmt: skip


def cells(comparison: MethodComparison, row: MethodRow) -> list[str]:
    """The cells of a row as plain text."""
    units = method_units(comparison)
    name = row.name if row.budget is None else f"{row.name.partition('-budget-')[0]}, budget {row.budget:.3g}"
    diverged = f" ({row.diverged} diverged)" if row.diverged else ""
    return [
        f"{name}{diverged}",
        "yes" if row.ticket else row.no_ticket or row.kind,
        f"{row.weights:,}",
        f"{row.length:.3g}",
        *(mean(each, units.form, units.factor, " ± ") for each in (row.at_stop, row.at_end)),
        *_difference(row, units),
        f"{row.training_cost:.2f}",
        f"{row.cost:.2f}",
    ]


def _difference(row: MethodRow, units: Units) -> list[str]:
    """The difference from the ticket with its interval, and the corrected p-value."""
    found = row.difference
    if found is None:
        return [NONE, NONE]
    shown = _signed(found.mean, units)
    if found.low is not None and found.high is not None:
        shown += f" [{_signed(found.low, units)}, {_signed(found.high, units)}]"
    return [shown, p_value(found.p_holm)]


def _signed(value: float, units: Units) -> str:
    return f"{units.factor * value:+{units.form}}".replace("-", "−")


LEVEL_CHOSEN = "The level was chosen by the same results, which favours the ticket."


def notes(comparison: MethodComparison) -> list[str]:
    """What the columns are, and what was left out; a sentence or two each."""
    ticket = next(row for row in comparison.rows if row.kind == "ticket")
    tests = {row.difference.exact for row in comparison.rows if row.difference}
    names = {True: "exact sign-flip tests", False: "Student's t tests (too few replicates for exact ones)"}
    test = " and ".join(names[exact] for exact in sorted(tests, reverse=True)) or "not tested"
    units = method_units(comparison)
    measure = f"{comparison.metric.split} {comparison.metric.name}"
    points = " in points" if units.factor != 1 else ""
    return [
        f"Level {comparison.level}: {percent(ticket.weights_left)} of the weights left; "
        f"{plural(comparison.replicates, 'replicate')}; "
        f"{means_text(comparison.replicates, comparison.confidence)}.",
        *([LEVEL_CHOSEN] if comparison.level_chosen else []),
        f"difference: {measure} at early stop minus the ticket's{points}, paired over replicates, with its "
        f"{percent(comparison.confidence)} confidence interval. p: two-sided, {test}, Holm-corrected over the rows.",
        "training, with search: multiply-adds of the training alone, and with everything that was trained to find "
        "the mask, in units of one dense training. length: in units of the recipe's.",
        *(f"Left out: {each.name} ({each.reason})." for each in comparison.skipped),
    ]


def show_methods(console: Console, comparison: MethodComparison) -> None:
    """Print the table."""
    table = text_table(
        head(comparison),
        left=TEXT_COLUMNS,
        title=f"{comparison.recipe}: what to put beside a ticket",
        gap=2,
        least=DROPPED_FIRST,
        always=("difference",),
    )
    for row in comparison.rows:
        table.add_row(*map(Text, cells(comparison, row)))
    print_table(console, table)
    for note in notes(comparison):
        print_text(console, note)


def markdown(comparison: MethodComparison) -> str:
    """The table and its notes as Markdown."""
    names = head(comparison)
    rule = ["-" if name in TEXT_COLUMNS else "-:" for name in names]
    lines = [names, rule, *(cells(comparison, row) for row in comparison.rows)]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return "\n\n".join([table, *notes(comparison)])


LATEX = {
    "\\": r"\textbackslash{}", "_": r"\_", "%": r"\%", "&": r"\&", "#": r"\#", "$": r"\$", "{": r"\{", "}": r"\}",
    "±": r"$\pm$", "−": "$-$", "–": "--", "<": "$<$", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
}  # fmt: skip


def latex(comparison: MethodComparison) -> str:
    """The table as a LaTeX `tabular`, which needs the package booktabs, with its notes as comments."""
    names = head(comparison)
    columns = "".join("l" if name in TEXT_COLUMNS else "r" for name in names)
    lines = [
        *(f"% {note}" for note in notes(comparison)),
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        _latex_row(names),
        r"\midrule",
        *(_latex_row(cells(comparison, row)) for row in comparison.rows),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines)


def _latex_row(row: Sequence[str]) -> str:
    escaped = ("".join(LATEX.get(letter, letter) for letter in cell) for cell in row)
    return " & ".join(escaped) + r" \\"
