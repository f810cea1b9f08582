"""What all commands share: the application, exit statuses and output."""

from __future__ import annotations

import functools
import json
import logging
import math
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Annotated, Any, ParamSpec

import typer
from rich.console import Console
from rich.logging import RichHandler

from tombola.utils.errors import InputError

out_console = Console()
err_console = Console(stderr=True)

app = typer.Typer(
    help="Find, prove and ship winning lottery tickets.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
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
                say(f"error: {error}", "red")
                raise typer.Exit(2) from None
            except KeyboardInterrupt:
                say(INTERRUPTED, "yellow")
                raise typer.Exit(130) from None
            except Exception as error:  # noqa: BLE001 - the last line of defence: say so, keep the traceback
                if interrupts:
                    say(INTERRUPTED, "yellow")
                    raise typer.Exit(130) from None
                err_console.print(traceback.format_exc(), markup=False, highlight=False, soft_wrap=True)
                say(f"failed: {error or type(error).__name__}; everything finished is kept", "red")
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


def say(line: str, style: str) -> None:
    err_console.print(line, style=style, markup=False, highlight=False, soft_wrap=True)


def tell(line: str, console: Console = out_console) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)


def print_json(document: Any) -> None:
    typer.echo(json.dumps(_numbers(document), indent=1, allow_nan=False))


def _numbers(document: Any) -> Any:
    """The same with null where JSON has no number: NaN and infinities."""
    if isinstance(document, dict):
        return {name: _numbers(value) for name, value in document.items()}
    if isinstance(document, list | tuple):
        return [_numbers(value) for value in document]
    return None if isinstance(document, float) and not math.isfinite(document) else document
