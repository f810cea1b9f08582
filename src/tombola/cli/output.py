"""What commands print."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from tombola.report.console import LineConsole, print_pairs, print_text, print_unbroken
from tombola.utils.errors import InputError

out_console = LineConsole()
err_console = LineConsole(stderr=True)
"""Progress, notes and warnings; quiet with --quiet."""
error_console = LineConsole(stderr=True)


def print_message(line: str, style: str | None = None) -> None:
    """Print sentences to standard error, unless --quiet is given."""
    print_text(err_console, line, style)


def print_error(line: str, style: str = "red") -> None:
    """Print why a command ends, to standard error."""
    print_text(error_console, line, style)


def print_line(line: str, console: Console = out_console) -> None:
    """Print sentences, without markup, broken between words."""
    print_text(console, line)


def print_command(intro: str, command: str, console: Console = err_console) -> None:
    """Print a sentence, and on a line of its own a command or a path that is not broken."""
    print_text(console, intro)
    print_unbroken(console, f"  {command}")


def print_list(pairs: Sequence[tuple[str, str]], console: Console = out_console) -> None:
    """Print names with their paths or commands, aligned; values are not broken."""
    print_pairs(console, pairs)


class MessageHandler(logging.Handler):
    """Prints log records to standard error, warnings as such."""

    def emit(self, record: logging.LogRecord) -> None:
        serious = record.levelno >= logging.WARNING
        level = f"{record.levelname.lower()}: " if serious else ""
        print_message(level + self.format(record), "yellow" if serious else None)


def check_new_file(path: Path, force: bool) -> None:
    """Raises `InputError` for a folder, and for a file that exists unless `force` is true."""
    if path.is_dir():
        raise InputError(f"{path} is a folder; name a file")
    if path.exists() and not force:
        raise InputError(f"{path} exists; name another file, or replace it with --force")


def check_new_folder(path: Path, force: bool) -> None:
    """Raises `InputError` for a file, and for a folder that has files unless `force` is true."""
    if path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file; name a folder")
    if path.is_dir() and not force and any(path.iterdir()):
        raise InputError(f"{path} has files; name another folder, or replace them with --force")


def print_json(document: Any) -> None:
    typer.echo(json.dumps(_without_nan(document), indent=1, allow_nan=False))


def _without_nan(document: Any) -> Any:
    """The same with null instead of NaN and infinities, which JSON lacks."""
    if isinstance(document, dict):
        return {name: _without_nan(value) for name, value in document.items()}
    if isinstance(document, list | tuple):
        return [_without_nan(value) for value in document]
    return None if isinstance(document, float) and not math.isfinite(document) else document
