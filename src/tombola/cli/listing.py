"""The command that lists experiments."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tombola.cli.common import Json, app, handle_errors
from tombola.cli.output import err_console, out_console, print_json, print_message


@app.command("list")
@handle_errors
def list_(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder of results folders.")] = Path("results"),
    as_json: Json = False,
) -> None:
    """List the experiments below a folder: finished or not, progress, and verdict in a word.

    \b
    Example:
      tombola list results
    """

    from tombola.report.experiment_table import experiment_table
    from tombola.stats.experiment_list import ListedExperiment, list_experiments

    experiments: list[ListedExperiment] = []
    damaged: list[str] = []
    with err_console.status("reading") as status:
        for found in list_experiments(folder):
            if isinstance(found, ListedExperiment):
                experiments.append(found)
                status.update(f"reading {found.folder}")
            else:
                damaged.append(str(found))
    if as_json:
        print_json({"experiments": [each.to_dict() for each in experiments], "damaged": damaged})
        return
    out_console.print(experiment_table(folder, experiments))
    for problem in [*(line for each in experiments for line in each.problems), *damaged]:
        print_message(problem, "yellow")
