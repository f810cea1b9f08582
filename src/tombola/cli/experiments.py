"""The commands for experiments: run, show, report, compare.

Here and in the other modules of commands, what a command needs is imported when it runs: help needs none of it.
"""

from __future__ import annotations

from contextlib import ExitStack, closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
from tombola.cli.output import (
    err_console,
    out_console,
    print_command,
    print_json,
    print_line,
    print_list,
    print_message,
)
from tombola.utils.text import plural

if TYPE_CHECKING:
    from tombola.experiments.results import Results


@app.command()
@handle_errors
def run(
    recipe: Annotated[str, typer.Argument(help="A recipe's name (see `tombola recipes`) or a TOML file.")],
    out: Annotated[Path | None, typer.Option(help="Results folder (default: results/NAME).")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a value.")
    ] = None,
    engine: EngineName = "auto",
    device: DeviceName = "auto",
    workers: Workers = None,
    cluster: Cluster = None,
    resources: ClusterResources = None,
    checkpoint_every: Annotated[float, typer.Option(min=0.0, metavar="SECONDS", help="Checkpoint interval.")] = 30.0,
    data_dir: DataDir = None,
    store: Annotated[
        str | None,
        typer.Option(
            envvar="TOMBOLA_STORE",
            help="Store of runs: a folder or s3://BUCKET/PREFIX (default: .tombola beside --out).",
        ),
    ] = None,
    part: Annotated[
        str | None,
        typer.Option(metavar="I/N", help="Only the I-th of N parts of the replicates; write no results."),
    ] = None,
    log: Annotated[
        list[str] | None,
        typer.Option(metavar="LOGGER", help="tensorboard[:FOLDER], wandb[:PROJECT] or mlflow[:EXPERIMENT]."),
    ] = None,
    report: Annotated[bool, typer.Option(help="Write report.html at the end.")] = True,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Only say what would be trained, and the time, disk and memory it takes."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Search for winning tickets. The same command resumes an interrupted run."""

    from tombola._run_experiment import run_experiment
    from tombola.experiments.experiment import count_runs
    from tombola.experiments.experiment_log import LOG, append_to_log
    from tombola.experiments.growth import growth_of_folder, growth_text
    from tombola.experiments.part import Part
    from tombola.experiments.recipe import load_recipe
    from tombola.experiments.results import TICKET
    from tombola.integrations.loggers import Logging, logger
    from tombola.report.page import REPORT, write_report
    from tombola.report.progress import ProgressDisplay
    from tombola.report.prose import counts
    from tombola.report.terminal import show_summary
    from tombola.stats.summarise import build_summary
    from tombola.utils.files import writing

    chosen = load_recipe(recipe, overrides or [])
    folder = out or Path("results") / chosen.name
    own = None if part is None else Part.parse(part)
    if grown := growth_of_folder(folder, chosen):
        print_line(growth_text(folder, grown), err_console)
    if dry_run:
        from tombola._plan_experiment import plan_experiment
        from tombola.report.plan_text import show_plan

        beside = store or folder.parent / ".tombola"
        planned = plan_experiment(
            chosen,
            beside,
            engine=engine,
            device=device,
            workers=workers,
            cluster=cluster,
            resources=resources or (),
            part=part,
            data_dir=data_dir,
        )
        if as_json:
            print_json(planned.model_dump(mode="json"))
        else:
            show_plan(out_console, planned)
        return
    with ExitStack() as stack:
        loggers = [stack.enter_context(closing(logger(spec))) for spec in log or []]
        for each in loggers:
            print_command(f"{each.where}. To look at it:", each.view)
        progress = stack.enter_context(ProgressDisplay(err_console, count_runs(chosen, own)))
        results = run_experiment(
            chosen,
            folder,
            store=store,
            engine=engine,
            device=device,
            workers=workers,
            cluster=cluster,
            resources=resources or (),
            part=part,
            data_dir=data_dir,
            checkpoint_every=checkpoint_every,
            listeners=[progress, *map(Logging, loggers)],
            progress=False,  # shown above, on the console of messages
            command=run_command(recipe, out, overrides or []),
        )
        progress.stage("computing the verdict")
        summary = build_summary(results)
        page = folder / REPORT
        if own is None:
            with writing(page):
                page.unlink(missing_ok=True)  # an earlier report may have fewer runs
            if report:
                progress.stage("writing the report")
                write_report(results, page)
                append_to_log(folder, f"The report is {page}.")
    if as_json:
        print_json(summary.to_dict())
    elif own is None:
        show_summary(out_console, summary)
    if own is not None:
        later = f"when all are trained, the same command without --part writes the results to {folder}"
        print_line(f"{counts(results.tally)} This is part {own}: {later}.", err_console if as_json else out_console)
        return
    if as_json:
        return
    print_line(f"\n{counts(results.tally)}")
    print_list(
        [
            ("results", f"{folder}"),
            *([("ticket", f"{folder / TICKET}")] if summary.smallest_winning else []),
            *([("report", f"{page}")] if report else []),
            ("log", f"{folder / LOG}"),
            *(("curves", each.view) for each in loggers),
        ]
    )


@app.command()
@handle_errors
def show(folder: Annotated[Path, typer.Argument(help="A results folder.")], as_json: Json = False) -> None:
    """Show the results of an experiment: levels, branches, intervals, verdict."""

    from tombola.experiments.results import read_results
    from tombola.report.terminal import show_summary
    from tombola.stats.summarise import build_summary

    results = read_results(folder)
    for problem in results.problems:
        print_message(problem, "yellow")
    summary = build_summary(results)
    if as_json:
        print_json(summary.to_dict())
    else:
        show_summary(out_console, summary)
        if not summary.finished:
            _show_state(folder, results)


def _show_state(folder: Path, results: Results) -> None:
    """Whether an experiment that is not finished is still running, and how to resume it."""

    from tombola.report.unfinished import resume_text, state_text

    print_line(f"\n{state_text(folder, results)}")
    intro, command = resume_text(folder, results)
    print_command(intro, command, out_console)


@app.command("report")
@handle_errors
def report_(
    folder: Annotated[Path, typer.Argument(help="A results folder.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File (default: FOLDER/report.html).")] = None,
    figures: Annotated[Path | None, typer.Option(help="Folder for all figures as SVG and CSV.")] = None,
) -> None:
    """Write the report of an experiment, finished or not, as one self-contained HTML file."""

    from tombola.experiments.results import read_results
    from tombola.report.page import REPORT, write_figures, write_report

    results = read_results(folder, lenient=True)
    page = output or folder / REPORT
    write_report(results, page)
    drawn = write_figures(results, figures) if figures else []
    print_list([("report", f"{page}"), *([("figures", f"{figures} ({len(drawn) // 2})")] if figures else [])])


@app.command()
@handle_errors
def compare(
    folders: Annotated[list[Path], typer.Argument(help="Results folders.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File (default: comparison.html beside the first folder).")
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare experiments: a table, and an HTML page with overlaid figures."""

    from tombola.experiments.results import read_results
    from tombola.report.page import write_comparison
    from tombola.report.terminal import show_comparison
    from tombola.stats.experiment_comparison import compare as compare_results

    results = [read_results(folder, lenient=True) for folder in folders]
    for problem in (problem for found in results for problem in found.problems):
        print_message(problem, "yellow")
    comparison = compare_results(folders, results)
    if as_json:
        print_json(comparison.to_dict())
        if output is None:
            return
    else:
        show_comparison(out_console, comparison)
    first = folders[0] if folders[0].name else folders[0].resolve()  # the path "." has no parent
    page = output or first.parent / "comparison.html"
    write_comparison(results, page)
    print_list([("page", f"{page}")], err_console if as_json else out_console)


@app.command()
@handle_errors
def recipes(as_json: Json = False) -> None:
    """List the built-in recipes."""

    from rich.table import Table

    from tombola.experiments.recipe_files import opening_comment
    from tombola.experiments.recipe_files import recipes as known_recipes

    described = {name: opening_comment(text) for name, text in known_recipes().items()}
    if as_json:
        print_json(described)
        return
    table = Table("recipe", "description", box=None, pad_edge=False)
    for name, text in described.items():
        table.add_row(name, text)
    out_console.print(table)


@app.command()
@handle_errors
def speeds(as_json: Json = False) -> None:
    """Show the measured speeds of sparse and dense layers on this machine."""

    from tombola.engines.sparse.engine import known_speeds
    from tombola.report.terminal import show_speeds

    path, known = known_speeds()
    if as_json:
        print_json({"file": str(path), "layers": [asdict(speed) for speed in known]})
        return
    show_speeds(out_console, known)
    print_list([(plural(len(known), "measurement"), f"{path}")])
