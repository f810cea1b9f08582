"""Results that were never trained, of any size, to make pages and figures of."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.conftest import tiny
from tombola.experiments.layer_stats import BINS
from tombola.experiments.results import Results, RunCost, Tally
from tombola.experiments.row import Row
from tombola.report.report_data import ReportData
from tombola.runs.outcome import Measures
from tombola.stats.summary import summarise

HOSTILE = "<script>alert(1)</script></script><img src=x onerror=alert(2)>\"'&"


def row(replicate: int, level: int, branch: str = "ticket", diverged: bool = False) -> Row:
    """A row with round numbers: accuracy 0.9 and 0.01 less by level, stop at 100 and 10 later, half the weights."""
    figures: dict[str, Any] = {
        "stop_iteration": 100 + 10 * level + replicate,
        "validation_loss_at_stop": 0.1,
        "validation_accuracy_at_stop": 0.9,
        "train_accuracy_at_stop": 1.0,
        "test_accuracy_at_stop": 0.9 - 0.01 * level + 0.001 * replicate - (0.02 if branch != "ticket" else 0),
        "train_accuracy": 1.0,
        "test_accuracy": 0.9,
    }
    measures = Measures(diverged=diverged, iterations=500, **({} if diverged else figures))
    return Row(replicate, level, branch, 0, 1024 // 2**level or 1, 1024, f"{replicate}{level}{branch}", measures)


def layer(replicate: int, level: int, name: str = "fc.weight", branch: str = "ticket") -> dict[str, Any]:
    """Of 64 weights half are left after each level; all began in the middle bin."""
    weights = 64 // 2**level
    histogram = [0] * BINS
    histogram[BINS // 2] = weights
    return {
        "replicate": replicate,
        "level": level,
        "branch": branch,
        "draw": 0,
        "layer": name,
        "weights": weights,
        "weights_total": 64,
        "sign_changes": weights // 4,
        "distance": 3.0,
        "start_norm": 2.0,
        "start_histogram": histogram,
        "input_connections": [weights // 4 + replicate, 0, 0, weights // 4],
    }


def curve(replicate: int, level: int, iterations: Sequence[int], branch: str = "ticket") -> list[dict[str, Any]]:
    """Validation accuracy and loss that depend on the iteration only."""
    place = {"replicate": replicate, "level": level, "branch": branch, "draw": 0}
    return [
        {**place, "iteration": i, "train_loss": 1 / i, "validation_accuracy": i / 1000 + 0.1 * replicate}
        for i in iterations
    ]


def material(
    rows: Sequence[Row],
    layers: Sequence[dict[str, Any]] = (),
    curves: Sequence[dict[str, Any]] = (),
    inputs: tuple[int, ...] = (2, 2),
    replicates: int = 2,
) -> ReportData:
    """Results made of these."""
    costs = [
        RunCost(level, branch, 2, 3.0 / (1 + level)) for level, branch in sorted({(r.level, r.branch) for r in rows})
    ]
    results = Results(
        tiny(replicates=replicates), list(rows), True, Tally(len(rows)), list(layers), {}, costs, inputs, {}
    )
    return ReportData(Path("results/made"), results, summarise(results), list(curves))


def rename(folder: Path, table: str, column: str, names: dict[str, str]) -> None:
    """Change texts in a table of a results folder."""
    path = folder / f"{table}.parquet"
    read = pq.read_table(path)
    values = [names.get(value, value) for value in read[column].to_pylist()]
    index = read.schema.get_field_index(column)
    pq.write_table(read.set_column(index, read.schema.field(index), pa.array(values)), path)


def poison(folder: Path) -> None:
    """Make every name in a results folder `HOSTILE` that may be any text."""
    configuration, noted = folder / "experiment.toml", folder / "status.json"
    text = configuration.read_text().replace('name = "mlp"', f"name = {json.dumps(HOSTILE)}")
    configuration.write_text(text.replace('name = "digits"', f"name = {json.dumps(HOSTILE)}"))
    status = json.loads(noted.read_text())
    status["engines"] = {HOSTILE: {"runs": 1, "seconds": 1.0}}
    status["versions"] = {HOSTILE: HOSTILE}
    status["command"] = HOSTILE
    status["costs"] = [{**cost, "branch": HOSTILE} for cost in status["costs"]]
    noted.write_text(json.dumps(status))
    for table in ("levels", "layers", "curves"):
        rename(folder, table, "branch", {"reinit": HOSTILE})
    first = pq.read_table(folder / "layers.parquet")["layer"][0].as_py()
    rename(folder, "layers", "layer", {first: HOSTILE})
