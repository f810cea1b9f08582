"""The command line: a thin face over the public API."""

from __future__ import annotations

import functools
import json
import logging
import math
import os
import shlex
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, ParamSpec

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.table import Table

from tombola._run_experiment import run_experiment
from tombola.experiments.experiment import expected_runs
from tombola.experiments.recipe import describe, load_recipe
from tombola.experiments.recipe import recipes as known_recipes
from tombola.experiments.results import TICKET, Results, read_results
from tombola.exports.artefacts import ARTEFACTS
from tombola.exports.export import SHIPPED, export
from tombola.integrations.loggers import Logging, logger
from tombola.report.comparison_table import show_comparison
from tombola.report.export_tables import show_export
from tombola.report.page import REPORT, write_comparison, write_figures, write_report
from tombola.report.progress import ProgressDisplay
from tombola.report.terminal import show_speeds, show_summary, show_ticket, ticket_summary
from tombola.report.verification import answer, show_checked
from tombola.stats.experiment_comparison import compare as compare_results
from tombola.stats.summary import summarise
from tombola.tickets.provenance import read_claim
from tombola.tickets.ticket import Precision, Ticket
from tombola.tickets.verify import expected_runs as expected_in_check
from tombola.tickets.verify import verify_ticket
from tombola.utils.errors import InputError
from tombola.utils.text import plural
from tombola.utils.workers import cores

out_console = Console()
err_console = Console(stderr=True)

app = typer.Typer(
    help="Find, prove and ship winning lottery tickets.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
ticket_app = typer.Typer(help="Look at ticket files.", no_args_is_help=True)
app.add_typer(ticket_app, name="ticket")

INTERRUPTED = "interrupted; everything finished is kept, and the same command goes on from there"

Parameters = ParamSpec("Parameters")
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


def command(function: Callable[Parameters, None]) -> Callable[Parameters, None]:
    """Turn what goes wrong into one clear line and an exit status: 2 input, 1 failure, 130 interrupted."""

    @functools.wraps(function)
    def guarded(*args: Parameters.args, **kwargs: Parameters.kwargs) -> None:
        logging.basicConfig(
            format="%(message)s", handlers=[RichHandler(console=err_console, show_time=False, show_path=False)]
        )
        with _noting_interrupts() as interrupts:
            try:
                function(*args, **kwargs)
            except InputError as error:
                _say(f"error: {error}", "red")
                raise typer.Exit(2) from None
            except KeyboardInterrupt:
                _say(INTERRUPTED, "yellow")
                raise typer.Exit(130) from None
            except Exception as error:  # noqa: BLE001 - the last line of defence: say so, keep the traceback
                if interrupts:
                    _say(INTERRUPTED, "yellow")
                    raise typer.Exit(130) from None
                err_console.print(traceback.format_exc(), markup=False, highlight=False, soft_wrap=True)
                _say(f"failed: {error or type(error).__name__}; everything finished is kept", "red")
                raise typer.Exit(1) from None

    return guarded


@contextmanager
def _noting_interrupts() -> Iterator[list[int]]:
    """What it gives is empty until Ctrl-C is pressed. Whatever error comes after that came of it: libraries turn a
    `KeyboardInterrupt` that hits them in compiled code, or while they take a lock, into errors of their own."""
    noted: list[int] = []
    before = signal.getsignal(signal.SIGINT)

    def note(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        noted.append(number)
        raise KeyboardInterrupt

    if before is not signal.default_int_handler or threading.current_thread() is not threading.main_thread():
        yield noted  # somebody else deals with it, or it is ignored
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield noted
    finally:
        signal.signal(signal.SIGINT, before)


def _say(line: str, style: str) -> None:
    err_console.print(line, style=style, markup=False, highlight=False, soft_wrap=True)


def _tell(line: str, console: Console = out_console) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)


def _warn(results: Results) -> None:
    """Say what is missing of results."""
    for problem in results.problems:
        _say(problem, "yellow")


def _print_json(document: Any) -> None:
    typer.echo(json.dumps(_numbers(document), indent=1, allow_nan=False))


def _numbers(document: Any) -> Any:
    """The same with null where JSON has no number: NaN and infinities."""
    if isinstance(document, dict):
        return {name: _numbers(value) for name, value in document.items()}
    if isinstance(document, list | tuple):
        return [_numbers(value) for value in document]
    return None if isinstance(document, float) and not math.isfinite(document) else document


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
        _print_json(summary)
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
    _tell(f"{did} {where}")


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
        _print_json(summary)
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
    _tell(f"The report is {page}.{also}")


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
        _print_json(comparison)
        if output is None:
            return
    else:
        show_comparison(out_console, comparison)
    first = folders[0] if folders[0].name else folders[0].resolve()  # "." has no parent by itself
    page = output or first.parent / "comparison.html"
    write_comparison(folders, page)
    _tell(f"The page is {page}.", err_console if as_json else out_console)


@app.command()
@command
def recipes(as_json: Json = False) -> None:
    """List the recipes that come with tombola."""
    described = {name: describe(text) for name, text in known_recipes().items()}
    if as_json:
        _print_json(described)
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
        _print_json({"file": str(path), "layers": [asdict(speed) for speed in known]})
        return
    show_speeds(out_console, known)
    _tell(f"{len(known)} measurements in {path}.")


@ticket_app.command("show")
@command
def ticket_show(file: Annotated[Path, typer.Argument(help="A ticket file.")], as_json: Json = False) -> None:
    """Show what is in a ticket: layers, weights left, and where it came from."""
    summary = ticket_summary(Ticket.load(file))
    if as_json:
        _print_json(summary)
    else:
        show_ticket(out_console, summary)


@ticket_app.command("export")
@command
def ticket_export(
    file: Annotated[Path, typer.Argument(help="A ticket file with trained weights.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder for the files [default: shipped beside the ticket].")
    ] = None,
    kinds: Annotated[
        list[str] | None,
        typer.Option("--as", metavar="KIND", help=f"One of {', '.join(ARTEFACTS)} [default: all that can be made]."),
    ] = None,
    precision: Annotated[Precision, typer.Option(help="Of the weights in the ticket file.")] = "fp16",
    threads: Annotated[int, typer.Option(min=1, help="Threads that each side may use.")] = 1,
    data_dir: Annotated[Path | None, typer.Option(help="Folder to look for data in first.")] = None,
    trust: Annotated[bool, typer.Option("--trust", help="Import the network's code that the file names.")] = False,
    as_json: Json = False,
) -> None:
    """Make a ticket into smaller and faster files, and measure them beside the dense network."""
    folder, beside = out or file.parent / SHIPPED, file.resolve().parent
    if folder.resolve() == beside:
        raise InputError(f"--out: {folder} is where the ticket is, and files would take its place; choose another")
    with err_console.status("") as status:
        exported = export(
            Ticket.load(file),
            folder,
            kinds=kinds or tuple(ARTEFACTS),
            must=bool(kinds),
            precision=precision,
            threads=threads,
            data_dir=data_dir,
            trust=trust,
            tell=status.update,
        )
    if as_json:
        _print_json({"folder": str(folder), **exported.to_json()})
    else:
        show_export(out_console, exported)
    page = file.parent / REPORT
    if folder.resolve() == beside / SHIPPED and page.exists():
        try:
            write_report(file.parent, page)
        except InputError as error:  # the files are there all the same
            _say(f"{page} stays as it is: {error}", "yellow")
        else:
            _tell(f"The report shows it too: {page}.", err_console if as_json else out_console)


@ticket_app.command("check")
@command
def ticket_check(
    file: Annotated[Path, typer.Argument(help="A ticket file.")],
    repeats: Annotated[int, typer.Option(min=1, help="Other orders of batches that it is trained in.")] = 5,
    reinit: Annotated[int, typer.Option(min=0, help="Draws of other initial weights in each.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Decides these orders and draws.")] = 0,
    engine: Annotated[str, typer.Option(help="What trains the runs: eager, sparse, stacked or auto.")] = "auto",
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    workers: Annotated[
        int | None, typer.Option(min=1, help="Runs side by side [default: one a core; on CUDA one].")
    ] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Folder to look for data in first.")] = None,
    store: Annotated[Path | None, typer.Option(help="Where runs are remembered [default: the user's cache].")] = None,
    trust: Annotated[bool, typer.Option("--trust", help="Import the network's code that the file names.")] = False,
    as_json: Json = False,
) -> None:
    """Train a ticket again from its own record, with controls: does its claim hold?

    Exit status: 0 if it holds; 1 if it does not, or that cannot be told.
    """
    claim = read_claim(file, data_dir, trust)
    with ProgressDisplay(err_console, expected_in_check(claim, repeats, reinit), "checking") as progress:
        checked = verify_ticket(
            claim,
            repeats=repeats,
            reinit=reinit,
            seed=seed,
            store=store,
            engine=engine,
            device=device,
            workers=workers or (cores() if device == "cpu" else 1),
            listeners=[progress],
        )
    summary = checked.summary()
    if as_json:
        _print_json(summary | {"answer": answer(summary)})
    else:
        show_checked(out_console, summary)
        _tell(f"{plural(checked.tally.trained, 'run')} trained, {checked.tally.from_store:,} from the store.")
    if not checked.holds:
        raise SystemExit(1)  # an exception of typer's would count as a failure


def main() -> None:
    """The entry point of the `tombola` command."""
    # A training is one thread: workers need no pools of idle threads, which would get in each other's way.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.path.insert(0, str(Path.cwd()))  # so that a network of one's own is found by its import path
    app()
