"""The commands about ticket files: show, export, check."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tombola.cli.common import Json, app, command, err_console, out_console, print_json, say, tell
from tombola.exports.artefacts import ARTEFACTS
from tombola.exports.export import SHIPPED, export
from tombola.report.export_tables import show_export
from tombola.report.page import REPORT, write_report
from tombola.report.progress import ProgressDisplay
from tombola.report.terminal import show_ticket, ticket_summary
from tombola.report.verification import answer, show_checked
from tombola.tickets.provenance import read_claim
from tombola.tickets.ticket import Precision, Ticket
from tombola.tickets.verify import expected_runs, verify_ticket
from tombola.utils.errors import InputError
from tombola.utils.text import plural
from tombola.utils.workers import cores

ticket_app = typer.Typer(help="Show, export and check ticket files.", no_args_is_help=True)
app.add_typer(ticket_app, name="ticket")


@ticket_app.command("show")
@command
def ticket_show(file: Annotated[Path, typer.Argument(help="A ticket file.")], as_json: Json = False) -> None:
    """Show what is in a ticket: layers, weights left, and where it came from."""
    summary = ticket_summary(Ticket.load(file))
    if as_json:
        print_json(summary)
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
        print_json({"folder": str(folder), **exported.to_json()})
    else:
        show_export(out_console, exported)
    page = file.parent / REPORT
    if folder.resolve() == beside / SHIPPED and page.exists():
        try:
            write_report(file.parent, page)
        except InputError as error:  # the files are there all the same
            say(f"{page} stays as it is: {error}", "yellow")
        else:
            tell(f"The report shows it too: {page}.", err_console if as_json else out_console)


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
    with ProgressDisplay(err_console, expected_runs(claim, repeats, reinit), "checking") as progress:
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
        print_json(summary | {"answer": answer(summary)})
    else:
        show_checked(out_console, summary)
        tell(f"{plural(checked.tally.trained, 'run')} trained, {checked.tally.from_store:,} from the store.")
    if not checked.holds:
        raise SystemExit(1)  # an exception of typer's would count as a failure
