"""The commands for ticket files: show, export, check."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tombola.cli.application import App
from tombola.cli.common import DataDir, DeviceName, EngineName, Force, Json, Workers, app, handle_errors
from tombola.cli.output import (
    check_new_folder,
    err_console,
    out_console,
    print_json,
    print_line,
    print_list,
    print_message,
)
from tombola.exports.artefact_files import FILES
from tombola.tickets.precision import Precision
from tombola.utils.errors import InputError
from tombola.utils.import_paths import import_object
from tombola.utils.text import plural

TicketFile = Annotated[Path, typer.Argument(metavar="TICKET", help="A ticket file.", show_default=False)]
Trust = Annotated[bool, typer.Option("--trust", help="Import and run the code that the file names.")]

ticket_app = App(help="Show, export and check ticket files.")
app.add_typer(ticket_app, name="ticket")


@ticket_app.command("show")
@handle_errors
def ticket_show(file: TicketFile, as_json: Json = False) -> None:
    """Show the content of a ticket: layers, weights left, provenance.

    \b
    Example:
      tombola ticket show results/digits/ticket.safetensors
    """

    from tombola.report.terminal import show_ticket, ticket_summary
    from tombola.tickets.ticket import Ticket

    summary = ticket_summary(Ticket.load(file))
    if as_json:
        print_json(summary)
    else:
        show_ticket(out_console, summary)


@ticket_app.command("export")
@handle_errors
def ticket_export(
    file: TicketFile,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="DIR", help="Output folder.", show_default="shipped, beside the ticket"),
    ] = None,
    force: Force = False,
    kinds: Annotated[
        list[str] | None,
        typer.Option(
            "--as",
            metavar="KIND",
            help=f"What to write: {', '.join(FILES)}. May be given several times.",
            show_default="all that are possible",
            autocompletion=lambda: [*FILES],
        ),
    ] = None,
    precision: Annotated[Precision, typer.Option(help="Precision of the weights in the ticket file.")] = "fp16",
    threads: Annotated[int, typer.Option(min=1, metavar="N", help="Threads for each measurement.")] = 1,
    factory: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:NAME", help="The function that makes the network.", show_default="as the file says"
        ),
    ] = None,
    examples: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Examples to measure accuracy and speed on: .npz with x and y, or MODULE:NAME.",
            show_default="the test set",
        ),
    ] = None,
    calibration: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Examples to measure the ranges of int8 on, in the form of --examples.",
            show_default="the training set",
        ),
    ] = None,
    data_dir: DataDir = None,
    trust: Trust = False,
    as_json: Json = False,
) -> None:
    """Export a ticket as smaller and faster files, and measure them beside its weights stored densely.

    The ticket should have trained weights. Files in its folder `shipped` are renewed.

    \b
    Example:
      tombola ticket export results/digits/ticket.safetensors --as onnx
    """

    from tombola.exports.examples import read_examples
    from tombola.exports.export import export
    from tombola.exports.export_result import EXPORT_FOLDER
    from tombola.report.export_tables import show_export
    from tombola.report.page import REPORT, write_report
    from tombola.tickets.ticket import Ticket

    folder, beside = out or file.parent / EXPORT_FOLDER, file.resolve().parent
    if folder.resolve() == beside:
        raise InputError(f"--out: {folder} is the ticket's folder, whose files could be overwritten; choose another")
    if out is not None and folder.resolve() != beside / EXPORT_FOLDER:
        check_new_folder(folder, force)
    with err_console.status("") as status:
        exported = export(
            Ticket.load(file),
            folder,
            kinds=kinds or tuple(FILES),
            strict=bool(kinds),
            factory=None if factory is None else import_object("--factory", factory),
            examples=None if examples is None else read_examples(examples),
            calibration=None if calibration is None else read_examples(calibration, "--calibration"),
            results=file.parent,
            precision=precision,
            threads=threads,
            data_dir=data_dir,
            trust=trust,
            progress=status.update,
        )
    if as_json:
        print_json({"folder": str(folder), **exported.to_json()})
    else:
        show_export(out_console, exported)
    page = file.parent / REPORT
    if folder.resolve() == beside / EXPORT_FOLDER and page.exists():
        try:
            write_report(file.parent, page)
        except InputError as error:  # the files are written all the same
            print_message(f"{page} was not updated: {error}", "yellow")
        else:
            print_list([("report", f"{page}")], err_console if as_json else out_console)


@ticket_app.command("check")
@handle_errors
def ticket_check(
    file: TicketFile,
    repeats: Annotated[int, typer.Option(min=1, metavar="N", help="Trainings with other orders of batches.")] = 5,
    reinit: Annotated[
        int, typer.Option(min=0, metavar="N", help="Draws of other initial weights for each order.")
    ] = 1,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Seed of these orders and draws.")] = 0,
    engine: EngineName = "auto",
    device: DeviceName = "auto",
    workers: Workers = None,
    data_dir: DataDir = None,
    store: Annotated[
        str | None,
        typer.Option(
            metavar="STORE",
            help="Store of the check's own runs: a folder or s3://BUCKET/PREFIX. Not the experiment's store, where "
            "its results would be found instead of being trained again.",
            show_default="in the user's cache",
        ),
    ] = None,
    trust: Trust = False,
    as_json: Json = False,
) -> None:
    """Train a ticket again from its own provenance, with controls, and test its claim.

    Exit status: 0 if the claim holds; 1 if it does not, or cannot be decided.

    \b
    Example:
      tombola ticket check results/digits/ticket.safetensors
    """

    from tombola.report.progress import ProgressDisplay
    from tombola.report.verification_report import show_verification, verification_conclusion
    from tombola.tickets.provenance import read_claim
    from tombola.tickets.verify import expected_runs, verify_ticket

    claim = read_claim(file, data_dir, trust)
    with ProgressDisplay(err_console, expected_runs(claim, repeats, reinit), "checking") as progress:
        verification = verify_ticket(
            claim,
            repeats=repeats,
            reinit=reinit,
            seed=seed,
            store=store,
            engine=engine,
            device=device,
            workers=workers,
            listeners=[progress],
        )
    summary = verification.build_summary()
    if as_json:
        print_json(summary.to_dict() | {"answer": verification_conclusion(summary)})
    else:
        show_verification(out_console, summary)
        print_line(f"{plural(summary.runs.trained, 'run')} trained, {summary.runs.from_store:,} from the store.")
    if summary.state != "holds":
        raise SystemExit(1)  # typer.Exit would be handled as a failure
