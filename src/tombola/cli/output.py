"""What commands print."""

from __future__ import annotations

import json
import math
from typing import Any

import typer
from rich.console import Console

out_console = Console()
err_console = Console(stderr=True)


def print_message(line: str, style: str) -> None:
    """Print a line to standard error."""
    err_console.print(line, style=style, markup=False, highlight=False, soft_wrap=True)


def print_line(line: str, console: Console = out_console) -> None:
    """Print a line, without markup or wrapping."""
    console.print(line, markup=False, highlight=False, soft_wrap=True)


def print_json(document: Any) -> None:
    typer.echo(json.dumps(_without_nan(document), indent=1, allow_nan=False))


def _without_nan(document: Any) -> Any:
    """The same with null instead of NaN and infinities, which JSON lacks."""
    if isinstance(document, dict):
        return {name: _without_nan(value) for name, value in document.items()}
    if isinstance(document, list | tuple):
        return [_without_nan(value) for value in document]
    return None if isinstance(document, float) and not math.isfinite(document) else document
