"""What a run costs: seconds against the weights left."""

from __future__ import annotations

from tombola.report.figures.figure import Absent, Figure, Numbers, figure
from tombola.report.figures.level_figures import lines
from tombola.report.figures.style import ordered
from tombola.report.report_data import ReportData

AXIS = "seconds per run"


def costs(material: ReportData) -> list[Numbers]:
    """Mean seconds of a run, by branch and level; tickets come last, which draws them above all others."""
    left = {level["level"]: 100 * level["weights_left"] for level in material.summary["levels"]}
    return [
        {
            "branch": cost.branch,
            "level": cost.level,
            "weights_left": left[cost.level],
            "mean": cost.seconds / cost.runs,
            "low": None,
            "high": None,
            "replicates": cost.runs,
        }
        for cost in sorted(
            material.results.costs, key=lambda cost: (cost.branch == "ticket", cost.branch, cost.level)
        )
        if cost.level in left and cost.runs
    ]


def cost_figure(material: ReportData) -> Figure | Absent:
    """Seconds of a run."""
    rows = costs(material)
    branches = ordered(str(row["branch"]) for row in rows)
    chart = lines(rows, branches, AXIS, ".3~r", zero=True)
    caption = "The mean time that one training took, whenever and on whatever engine it was done."
    return figure("cost", "Cost of a run", caption, chart, rows)
