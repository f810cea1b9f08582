"""The command that runs a recipe with every combination of several values."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tombola.cli.common import (
    CheckpointEvery,
    Cluster,
    ClusterResources,
    DataDir,
    DeviceName,
    EngineName,
    Json,
    Overrides,
    RecipeName,
    Workers,
    app,
    handle_errors,
    run_command,
)
from tombola.cli.completion import complete_setting
from tombola.cli.output import err_console, out_console, print_json, print_line, print_list
from tombola.utils.errors import InputError
from tombola.utils.text import plural


@app.command()
@handle_errors
def sweep(
    recipe: RecipeName,
    grid: Annotated[
        list[str],
        typer.Option(
            "--grid",
            metavar="KEY=VALUES",
            help="Values of a key of the recipe, with commas between them; several give all combinations.",
            autocompletion=complete_setting,
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="DIR", help="Folder for the results folders.", show_default="results/NAME-sweep"
        ),
    ] = None,
    overrides: Overrides = None,
    data_dir: DataDir = None,
    store: Annotated[
        str | None,
        typer.Option(
            envvar="TOMBOLA_STORE",
            metavar="STORE",
            help="Store of trained runs: a folder or s3://BUCKET/PREFIX.",
            show_default=".tombola in --out",
        ),
    ] = None,
    report: Annotated[bool, typer.Option(help="Write the report of each experiment at the end.")] = True,
    engine: EngineName = "auto",
    device: DeviceName = "auto",
    workers: Workers = None,
    checkpoint_every: CheckpointEvery = 30.0,
    cluster: Cluster = None,
    resources: ClusterResources = None,
    as_json: Json = False,
) -> None:
    """Run an experiment for each combination of values, side by side, and compare them.

    All are checked before anything is trained; what several need is trained once. The same command resumes.

    \b
    Example:
      tombola sweep digits --grid training.lr=0.1,0.2 --grid search.rate=0.2,0.4
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
