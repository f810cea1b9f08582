"""docs/reference/files.md has every column of the tables, and every key of the JSON."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pydantic import BaseModel

from tests.support.recipes import tiny
from tests.support.verdict_rows import experiment_rows, verdict_row
from tombola.experiments.experiment_log import LOG
from tombola.experiments.metric import ACCURACY
from tombola.experiments.results import Results
from tombola.experiments.results_schema import TABLES, Status, Tally
from tombola.experiments.sections import VerdictSection
from tombola.experiments.session import Session
from tombola.stats.double_descent_summary import CurveSummary, DoubleDescentLevel, DoubleDescentSummary
from tombola.stats.experiment_comparison import ExperimentComparison
from tombola.stats.summarise import summarise
from tombola.stats.summary import (
    BaselineComparison,
    BaselineSummary,
    BranchSummary,
    ComparisonSummary,
    DenseTraining,
    DifferenceSummary,
    LevelSummary,
    LineSummary,
    LookSummary,
    StabilitySummary,
    Summary,
    VerdictSummary,
)

PAGE = (Path(__file__).parents[2] / "docs/reference/files.md").read_text(encoding="utf-8")

MODELS: dict[str, type[BaseModel]] = {
    "`status.json`": Status,
    "A session": Session,
    "The summary": Summary,
    "A level": LevelSummary,
    "A branch": BranchSummary,
    "A verdict": VerdictSummary,
    "A comparison": ComparisonSummary,
    "A difference": DifferenceSummary,
    "The criteria": VerdictSection,
    "Looks": LookSummary,
    "The tuned baseline": BaselineSummary,
    "A training of the dense network": DenseTraining,
    "A comparison with the tuned baseline": BaselineComparison,
    "The stability analysis": StabilitySummary,
    "Barriers": LineSummary,
    "Sparse double descent": DoubleDescentSummary,
    "A level of sparse double descent": DoubleDescentLevel,
    "A curve of sparse double descent": CurveSummary,
    "JSON of `tombola compare --json`": ExperimentComparison,
}
"""By the heading of their section."""


def section_rows(heading: str) -> list[list[str]]:
    """The rows of the table under a heading, without its head."""
    found = re.search(rf"^##+ {re.escape(heading)}\n(.*?)(?=^##|\Z)", PAGE, re.M | re.S)
    assert found, heading
    return [re.split(r" ?\| ?", line)[1:-1] for line in found[1].splitlines() if line.startswith("| `")]


def named(rows: list[list[str]]) -> list[str]:
    return [row[0].strip("`") for row in rows]


def keys(model: type[BaseModel]) -> set[str]:
    """The keys of the model in JSON."""
    fields = {name: field for name, field in model.model_fields.items() if not field.exclude}
    return {field.serialization_alias or name for name, field in fields.items()}


@pytest.mark.parametrize("table", TABLES)
def test_every_column_is_described(table: str) -> None:
    schema: pa.Schema = TABLES[table]
    rows = section_rows(f"`{table}.parquet`")
    described = [(row[0].strip("`"), row[1].strip("`").replace("element", "item")) for row in rows]
    assert described == [(field.name, str(field.type).replace("element", "item")) for field in schema]
    assert all(len(row) == 4 for row in rows)


def test_the_log_is_among_the_files() -> None:
    assert f"| `{LOG}` |" in PAGE


@pytest.mark.parametrize("heading", MODELS)
def test_every_key_is_described(heading: str) -> None:
    model = MODELS[heading]
    expected = keys(model)
    if model is BranchSummary:
        expected -= {"measures"}  # they stand beside the others
    if model is VerdictSummary:
        expected -= keys(ComparisonSummary)
    if model is BaselineComparison:
        expected -= keys(DifferenceSummary)
    if model is ComparisonSummary:
        expected = {"METRIC_difference" if key == "difference" else key for key in expected}
    found = named(section_rows(heading))
    assert len(found) == len(set(found))
    assert set(found) == expected


def test_the_json_of_an_experiment_has_the_keys_described() -> None:
    rows = experiment_rows([0.95, 0.951, 0.949, 0.952, 0.95], [300, 310, 290, 300, 305])
    rows += [verdict_row(r, 2, 0.9, 400, branch="reinit") for r in range(5)]
    found = summarise(Results(tiny(replicates=5), rows, True, Tally()))
    level = found["levels"][1]
    branch = level["branches"]["ticket"]
    comparison = {name.replace("METRIC", ACCURACY.name) for name in named(section_rows("A comparison"))}
    described: dict[str, Any] = {
        "The summary": found,
        "A level": level,
        "A measure": branch["stop_iteration"],
        "The criteria": found["criteria"],
        "A difference": level["against"]["reinit"]["accuracy_difference"],
    }
    assert {heading: set(shown) for heading, shown in described.items()} == {
        heading: set(named(section_rows(heading))) for heading in described
    }
    assert set(level["against"]["reinit"]) == comparison
    assert {*level["verdict"], "tuned_baseline"} == {*named(section_rows("A verdict")), *comparison}
    columns = set(TABLES["levels"].names) | {"gap", "gap_at_stop"}
    assert set(branch) - set(named(section_rows("A branch"))) <= columns
