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
    CheckpointEvery,
    Cluster,
    ClusterResources,
    DataDir,
    DeviceName,
    EngineName,
    Force,
    Json,
    Overrides,
    RecipeName,
    ResultsFolder,
    StoreBeside,
    Workers,
    app,
    handle_errors,
    run_command,
)
from tombola.cli.completion import LOGGERS, complete_results
from tombola.cli.output import (
    check_new_file,
    check_new_folder,
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
    recipe: RecipeName,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="DIR", help="Results folder.", show_default="results/NAME")
    ] = None,
    overrides: Overrides = None,
    data_dir: DataDir = None,
    store: StoreBeside = None,
    part: Annotated[
        str | None,
        typer.Option(metavar="I/N", help="Train only the I-th of N parts of the replicates; write no results."),
    ] = None,
    log: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LOGGER",
            help="Also log to tensorboard[:FOLDER], wandb[:PROJECT] or mlflow[:EXPERIMENT].",
            autocompletion=lambda: [*LOGGERS],
        ),
    ] = None,
    report: Annotated[bool, typer.Option(help="Write report.html at the end.")] = True,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Only say what would be trained, and the time, disk and memory that it takes."
        ),
    ] = False,
    save: Annotated[
        Path | None,
        typer.Option(metavar="FILE.toml", help="Only write the recipe, with all overrides and defaults, to a file."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace an existing --save file.")] = False,
    engine: EngineName = "auto",
    device: DeviceName = "auto",
    workers: Workers = None,
    checkpoint_every: CheckpointEvery = 30.0,
    cluster: Cluster = None,
    resources: ClusterResources = None,
    as_json: Json = False,
) -> None:
    """Search for winning tickets. The same command resumes an interrupted run.

    \b
    Examples:
      tombola run digits
      tombola run digits --set training.lr=0.002 --out results/faster
      tombola run digits --set replicates=5 --save my.toml
      tombola run my.toml --out results/my
    """

    from tombola._run_experiment import run_experiment
    from tombola.experiments.experiment import count_runs
    from tombola.experiments.experiment_log import LOG, append_to_log
    from tombola.experiments.growth import growth_of_folder, growth_text
    from tombola.experiments.part import Part
    from tombola.experiments.recipe import load_recipe, save_recipe
    from tombola.experiments.results import TICKET
    from tombola.integrations.loggers import Logging, logger
    from tombola.report.page import REPORT, write_report
    from tombola.report.progress import ProgressDisplay
    from tombola.report.prose import counts
    from tombola.report.terminal import show_summary
    from tombola.stats.summarise import build_summary
    from tombola.utils.files import writing

    chosen = load_recipe(recipe, overrides or [])
    if save is not None:
        check_new_file(save, force)
        save_recipe(chosen, save)
        command = run_command(str(save), out or Path("results") / save.stem, [])  # its name may have other results
        print_command(f"The recipe is {save}. To run it:", command, out_console)
        return
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
def show(folder: ResultsFolder, as_json: Json = False) -> None:
    """Show the results of an experiment: the verdict, and accuracies by level.

    \b
    Example:
      tombola show results/digits
    """

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
    folder: ResultsFolder,
    output: Annotated[
        Path | None,
        typer.Option(
            "--out", "--output", "-o", metavar="FILE", help="Where to write it.", show_default="DIR/report.html"
        ),
    ] = None,
    figures: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Also write all figures as SVG, PDF and PNG, and their numbers as CSV."),
    ] = None,
    force: Force = False,
) -> None:
    """Write the report of an experiment, finished or not, as one self-contained HTML file.

    The report in the results folder itself is always renewed.

    \b
    Example:
      tombola report results/digits --figures figures
    """

    from tombola.experiments.results import read_results
    from tombola.report.page import REPORT, write_figures, write_report

    results = read_results(folder, lenient=True)
    page = output or folder / REPORT
    own = page.resolve() == (folder / REPORT).resolve()
    check_new_file(page, force or own)
    if figures is not None:
        check_new_folder(figures, force)
    write_report(results, page)
    drawn = write_figures(results, figures) if figures else []
    count = sum(path.suffix == ".svg" for path in drawn)
    print_list([("report", f"{page}"), *([("figures", f"{figures} ({count})")] if figures else [])])


@app.command()
@handle_errors
def compare(
    folders: Annotated[
        list[Path],
        typer.Argument(
            metavar="DIR...", help="Results folders.", autocompletion=complete_results, show_default=False
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "--output",
            "-o",
            metavar="FILE",
            help="Where to write the page.",
            show_default="comparison.html beside the first folder",
        ),
    ] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Compare experiments: print a table, and write an HTML page with overlaid figures.

    With --json, the page is written only if --out is given.

    \b
    Example:
      tombola compare results/digits results/digits-less-data
    """

    from tombola.experiments.results import read_results
    from tombola.report.page import write_comparison
    from tombola.report.terminal import show_comparison
    from tombola.stats.experiment_comparison import compare as compare_results

    first = folders[0] if folders[0].name else folders[0].resolve()  # the path "." has no parent
    page = output or first.parent / "comparison.html"
    writes = output is not None or not as_json
    if writes:
        check_new_file(page, force)
    results = [read_results(folder, lenient=True) for folder in folders]
    for problem in (problem for found in results for problem in found.problems):
        print_message(problem, "yellow")
    comparison = compare_results(folders, results)
    if writes:
        write_comparison(results, page)
    if as_json:
        print_json(comparison.to_dict())
    else:
        show_comparison(out_console, comparison)
    if writes:
        print_list([("page", f"{page}")], err_console if as_json else out_console)


@app.command()
@handle_errors
def speeds(as_json: Json = False) -> None:
    """Show the measured speeds of sparse and dense layers on this machine, which decide how layers are trained."""

    from tombola.engines.sparse.engine import known_speeds
    from tombola.report.terminal import show_speeds

    path, known = known_speeds()
    if as_json:
        print_json({"file": str(path), "layers": [asdict(speed) for speed in known]})
        return
    show_speeds(out_console, known)
    print_list([(plural(len(known), "measurement"), f"{path}")])
