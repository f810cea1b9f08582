"""The command that examines the installation."""

from __future__ import annotations

import textwrap
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from tombola.cli.common import DataDir, Json, app, handle_errors
from tombola.cli.output import err_console, out_console, print_json, print_line
from tombola.utils.text import plural

LINE = 72
"""The width of texts, in characters; they are pasted into reports."""

STYLES = {"ok": "green", "warning": "yellow", "error": "red"}


@app.command()
@handle_errors
def doctor(
    data_dir: DataDir = None,
    store: Annotated[
        str | None,
        typer.Option(
            envvar="TOMBOLA_STORE", metavar="STORE", help="Store of trained runs.", show_default="results/.tombola"
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Examine the installation: versions, devices, caches, data. Paste the output into reports of bugs.

    Exit status: 0; 1 if there are errors. Nothing is downloaded, trained or sent.
    """
    from tombola.report.diagnosis import diagnose

    with err_console.status("") as status:
        found = diagnose(data_dir, store, lambda name: status.update(f"examining {name}"))
    counts = {state: sum(each.state == state for each in found) for state in STYLES}
    if as_json:
        print_json({"counts": counts, "findings": [each.to_dict() for each in found]})
    else:
        for section in dict.fromkeys(each.section for each in found):
            table = Table.grid(padding=(0, 2, 0, 0))
            for overflow in ("ignore", "ignore", "fold"):
                table.add_column(overflow=overflow, no_wrap=overflow == "ignore")
            print_line(section)
            for each in found:
                if each.section == section:
                    text = Text(textwrap.fill(each.text, LINE, break_long_words=False, break_on_hyphens=False))
                    if each.advice:
                        text.append(f"\n→ {each.advice}")
                    table.add_row(Text(f"  {each.state}", STYLES[each.state]), Text(each.name), text)
            out_console.print(table)
        print_line(f"{plural(counts['error'], 'error')}, {plural(counts['warning'], 'warning')}.")
    if counts["error"]:
        raise SystemExit(1)  # typer.Exit would be handled as a failure
