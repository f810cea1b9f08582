"""The command that shows an experiment in the browser while it runs."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from tombola.cli.common import app, handle_errors
from tombola.cli.completion import complete_results
from tombola.cli.output import print_line
from tombola.utils.errors import InputError
from tombola.utils.text import plural


@app.command()
@handle_errors
def watch(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR",
            help="A results folder; it may be missing until the experiment begins.",
            autocompletion=complete_results,
            show_default=False,
        ),
    ],
    port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65535, metavar="PORT", help="Port.", show_default="8642, or any other if that is busy"
        ),
    ] = None,
    browser: Annotated[
        bool | None,
        typer.Option("--browser/--no-browser", help="Open the page.", show_default="if there is a display"),
    ] = None,
) -> None:
    """Show the report of an experiment in the browser, renewed as its runs end. Only this machine can see it."""

    from tombola.report.watch.server import WatchServer

    _check(folder)
    with WatchServer(folder, port) as server, suppress(KeyboardInterrupt):
        print_line(f"{folder} is shown at {server.url} until you press Ctrl-C.")
        if _has_display() if browser is None else browser:
            import webbrowser

            webbrowser.open(server.url)
        server.prepare()
        server.serve_forever()


def _check(folder: Path) -> None:
    """Raise `InputError` if `folder` has something else than an experiment."""
    from tombola.experiments.file_names import CONFIGURATION
    from tombola.experiments.folders import results_folders, unreadable

    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; name a results folder")
    if why := unreadable(folder):
        raise InputError(f"{folder} {why}")
    if not folder.exists() or (folder / CONFIGURATION).exists() or not any(folder.iterdir()):
        return
    below = results_folders(folder)
    found = f"; below it are {plural(len(below), 'results folder')}, such as {below[0]}" if below else ""
    raise InputError(f"{folder} is not a results folder: it has no {CONFIGURATION}{found}")


def _has_display() -> bool:
    """Whether the user sits at this machine. Elsewhere a browser would open in the terminal, or nowhere."""
    if not sys.stdout.isatty() or "SSH_CONNECTION" in os.environ:
        return False
    return sys.platform in ("win32", "darwin") or "DISPLAY" in os.environ or "WAYLAND_DISPLAY" in os.environ
