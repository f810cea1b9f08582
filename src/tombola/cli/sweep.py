"""The command that runs a recipe with every combination of several values."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tombola.cli.common import (
    Cluster,
    ClusterResources,
    DataDir,
    DeviceName,
    EngineName,
    Json,
    Workers,
    app,
    handle_errors,
    run_command,
)
from tombola.cli.output import err_console, out_console, print_json, print_line, print_list
from tombola.utils.errors import InputError
from tombola.utils.text import plural


@app.command()
@handle_errors
def sweep(
    recipe: Annotated[str, typer.Argument(help="A recipe's name (see `tombola recipes`) or a TOML file.")],
    grid: Annotated[
        list[str], typer.Option(metavar="KEY=VALUE,VALUE...", help="Values of a key; several give all combinations.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder for the results folders (default: results/NAME-sweep).")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a value in all experiments.")
    ] = None,
    engine: EngineName = "auto",
    device: DeviceName = "auto",
    workers: Workers = None,
    cluster: Cluster = None,
    resources: ClusterResources = None,
    checkpoint_every: Annotated[float, typer.Option(min=0.0, metavar="SECONDS", help="Checkpoint interval.")] = 30.0,
    data_dir: DataDir = None,
    store: Annotated[
        str | None, typer.Option(envvar="TOMBOLA_STORE", help="Store of runs (default: .tombola in --out).")
    ] = None,
    report: Annotated[bool, typer.Option(help="Write the report of each experiment at the end.")] = True,
    as_json: Json = False,
) -> None:
    """Run an experiment for each combination of values, side by side, and compare them.

    All are checked before anything is trained; what several need is trained once. The same command resumes.
    """

    from tombola._sweep import sweep as sweep_recipes
    from tombola.experiments.experiment import count_runs
    from tombola.experiments.experiment_log import append_to_log
    from tombola.experiments.file_names import CONFIGURATION
    from tombola.experiments.grid import grid_recipes, overrides_of, parse_grid
    from tombola.experiments.growth import growth_of_folder, growth_text
    from tombola.report.page import REPORT, write_comparison, write_report
    from tombola.report.progress import ProgressDisplay
    from tombola.report.terminal import show_comparison
    from tombola.stats.experiment_comparison import compare

    given = overrides or []
    values = parse_grid(grid)
    recipes = grid_recipes(recipe, values, given)
    folder = out or Path("results") / f"{next(iter(recipes.values())).name}-sweep"
    folders = {name: folder / name for name in recipes}
    if (folder / CONFIGURATION).exists():
        raise InputError(f"--out: {folder} is a results folder; name a folder for several")
    for name, chosen in recipes.items():
        if grown := growth_of_folder(folders[name], chosen):
            print_line(growth_text(folders[name], grown), err_console)
    commands = {
        folders[name]: run_command(recipe, folders[name], [*given, *own])
        for name, own in overrides_of(values).items()
    }
    with ProgressDisplay(err_console, sum(map(count_runs, recipes.values())), "sweeping") as progress:
        results = sweep_recipes(
            {folders[name]: chosen for name, chosen in recipes.items()},
            store or folder / ".tombola",
            engine=engine,
            device=device,
            workers=workers,
            cluster=cluster,
            resources=resources or (),
            checkpoint_every=checkpoint_every,
            data_dir=data_dir,
            listeners=[progress],
            commands=commands,
        )
        compared = [*folders.values()]
        if report:
            for number, (each, found) in enumerate(zip(compared, results, strict=True), 1):
                progress.stage(f"writing report {number} of {len(compared)}")
                write_report(found, each / REPORT)
                append_to_log(each, f"The report is {each / REPORT}.")
        progress.stage("comparing the experiments")
        page = folder / "comparison.html"
        write_comparison(results, page)
    comparison = compare(compared, results)
    if as_json:
        print_json(comparison.to_dict())
        return
    show_comparison(out_console, comparison)
    trained = sum(each.tally.trained for each in results)
    print_line(f"\n{plural(len(compared), 'experiment')}, {plural(trained, 'run')} trained.")
    print_list([("results", f"{folder}"), ("page", f"{page}")])
