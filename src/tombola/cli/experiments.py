"""The commands about experiments: run them, show and compare their results."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from tombola._run_experiment import run_experiment
from tombola.cli.common import Json, app, command, err_console, out_console, print_json, say, tell
from tombola.experiments.experiment import expected_runs
from tombola.experiments.recipe import describe, load_recipe
from tombola.experiments.recipe import recipes as known_recipes
from tombola.experiments.results import TICKET, Results, read_results
from tombola.integrations.loggers import Logging, logger
from tombola.report.comparison_table import show_comparison
from tombola.report.page import REPORT, write_comparison, write_figures, write_report
from tombola.report.progress import ProgressDisplay
from tombola.report.terminal import show_speeds, show_summary
from tombola.stats.experiment_comparison import compare as compare_results
from tombola.stats.summary import summarise
from tombola.utils.text import plural
from tombola.utils.workers import cores


@app.command()
@command
def run(
    recipe: Annotated[str, typer.Argument(help="A recipe's name (see `tombola recipes`) or a TOML file.")],
    out: Annotated[Path | None, typer.Option(help="Results folder [default: results/NAME].")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a value of the recipe.")
    ] = None,
    engine: Annotated[str, typer.Option(help="What trains the runs: eager, sparse, stacked or auto.")] = "auto",
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    workers: Annotated[
        int | None, typer.Option(min=1, help="Runs side by side [default: one a core; on CUDA one].")
    ] = None,
    checkpoint_every: Annotated[
        float, typer.Option(min=0.0, metavar="SECONDS", help="How often a training saves itself.")
    ] = 30.0,
    data_dir: Annotated[Path | None, typer.Option(help="Folder to look for data in first.")] = None,
    store: Annotated[
        Path | None,
        typer.Option(
            envvar="TOMBOLA_STORE", help="Where runs are remembered [default: .tombola beside the results]."
        ),
    ] = None,
    log: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LOGGER", help="Also log to tensorboard[:FOLDER], wandb[:PROJECT] or mlflow[:EXPERIMENT]."
        ),
    ] = None,
    report: Annotated[bool, typer.Option(help="Whether to write report.html when it is finished.")] = True,
    as_json: Json = False,
) -> None:
    """Search for winning tickets. The same command again goes on where it was stopped."""
    chosen = load_recipe(recipe, overrides or [])
    folder = out or Path("results") / chosen.name
    with ExitStack() as stack:
        loggers = [stack.enter_context(closing(logger(spec))) for spec in log or []]
        progress = stack.enter_context(ProgressDisplay(err_console, expected_runs(chosen)))
        results = run_experiment(
            chosen,
            folder,
            store=store,
            engine=engine,
            device=device,
            workers=workers or (cores() if device == "cpu" else 1),
            data_dir=data_dir,
            checkpoint_every=checkpoint_every,
            listeners=[progress, *map(Logging, loggers)],
            command=_command(recipe, out, overrides or []),
        )
    summary = summarise(results)
    if as_json:
        print_json(summary)
    else:
        show_summary(out_console, summary)
    page = folder / REPORT
    page.unlink(missing_ok=True)  # it may be of fewer runs
    if report:
        write_report(folder, page)
    if as_json:
        return
    runs = results.tally
    if runs.trained:
        did = f"{plural(runs.trained, 'run')} trained, {runs.from_store:,} from the store."
    else:
        did = f"Nothing to train: all {plural(runs.from_store, 'run')} came from the store."
    where = f"Results are in {folder}."
    where += f" The ticket is {folder / TICKET}." if summary["smallest_winning"] else ""
    where += f" The report is {page}." if report else ""
    tell(f"{did} {where}")


def _command(recipe: str, out: Path | None, overrides: Sequence[str]) -> str:
    """The command that asks for this experiment, whoever called it and wherever it ran."""
    where = [] if out is None else ["--out", str(out)]
    return shlex.join(["tombola", "run", recipe, *where, *(part for o in overrides for part in ("--set", o))])


@app.command()
@command
def show(folder: Annotated[Path, typer.Argument(help="A results folder.")], as_json: Json = False) -> None:
    """Show what an experiment found: levels, branches, intervals, verdict."""
    results = read_results(folder)
    _warn(results)
    summary = summarise(results)
    if as_json:
        print_json(summary)
    else:
        show_summary(out_console, summary)


@app.command("report")
@command
def report_(
    folder: Annotated[Path, typer.Argument(help="A results folder.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The page [default: report.html there].")
    ] = None,
    figures: Annotated[
        Path | None, typer.Option(help="Also write every figure to this folder, as SVG and CSV files.")
    ] = None,
) -> None:
    """Write the report of an experiment, finished or not: one HTML file that needs nothing else."""
    page = output or folder / REPORT
    write_report(folder, page)
    drawn = write_figures(folder, figures) if figures else []
    also = f" {len(drawn) // 2} figures are in {figures}." if figures else ""
    tell(f"The report is {page}.{also}")


@app.command()
@command
def compare(
    folders: Annotated[list[Path], typer.Argument(help="Results folders.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The page [default: comparison.html beside the first].")
    ] = None,
    as_json: Json = False,
) -> None:
    """Put experiments side by side: a table, and a page with their figures overlaid."""
    results = [read_results(folder, lenient=True) for folder in folders]
    for found in results:
        _warn(found)
    comparison = compare_results(folders, results)
    if as_json:
        print_json(comparison)
        if output is None:
            return
    else:
        show_comparison(out_console, comparison)
    first = folders[0] if folders[0].name else folders[0].resolve()  # "." has no parent by itself
    page = output or first.parent / "comparison.html"
    write_comparison(folders, page)
    tell(f"The page is {page}.", err_console if as_json else out_console)


@app.command()
@command
def recipes(as_json: Json = False) -> None:
    """List the recipes that come with tombola."""
    described = {name: describe(text) for name, text in known_recipes().items()}
    if as_json:
        print_json(described)
        return
    table = Table("recipe", "what it is", box=None, pad_edge=False)
    for name, text in described.items():
        table.add_row(name, text)
    out_console.print(table)


@app.command()
@command
def speeds(as_json: Json = False) -> None:
    """Show which layers this machine trains faster sparse, as far as it had to find out."""
    from tombola.engines.sparse import known_speeds

    path, known = known_speeds()
    if as_json:
        print_json({"file": str(path), "layers": [asdict(speed) for speed in known]})
        return
    show_speeds(out_console, known)
    tell(f"{len(known)} measurements in {path}.")


def _warn(results: Results) -> None:
    """Say what is missing of results."""
    for problem in results.problems:
        say(problem, "yellow")
