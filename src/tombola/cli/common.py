"""The application; options and exit statuses that commands share."""

from __future__ import annotations

import functools
import logging
import shlex
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, ParamSpec

import typer

from tombola.cli.output import MessageHandler, err_console, print_message
from tombola.utils.errors import InputError, TrainingsFailed, Unreachable

app = typer.Typer(
    help="Find, verify and export winning lottery tickets.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
INTERRUPTED = "interrupted; finished runs are kept, and the same command resumes"

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
EngineName = Annotated[str, typer.Option("--engine", help="Training engine: eager, sparse, stacked or auto.")]
DeviceName = Annotated[str, typer.Option("--device", help="auto, cpu, cuda (all GPUs) or cuda:N.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Parallel runs (default: one per core, or per GPU).")]
Cluster = Annotated[
    str | None,
    typer.Option(metavar="CLUSTER", help="Train on a Ray cluster: ray (starts one here), auto or ray://HOST:PORT."),
]
ClusterResources = Annotated[
    list[str] | None,
    typer.Option(
        "--resources", metavar="NAME=NUMBER", help="Of a training on the cluster: cpu=2, gpu=0.25 (default: 1 each)."
    ),
]
DataDir = Annotated[Path | None, typer.Option(help="Folder that is searched for datasets first.")]

Parameters = ParamSpec("Parameters")


def handle_errors(function: Callable[Parameters, None]) -> Callable[Parameters, None]:
    """Print errors as one line and exit with a status: 2 for invalid input, 1 for a failure, 130 if interrupted."""

    @functools.wraps(function)
    def wrapper(*args: Parameters.args, **kwargs: Parameters.kwargs) -> None:
        logging.basicConfig(format="%(message)s", handlers=[MessageHandler()])
        for module in ("engines.device_choice", "kernels.ahead"):  # a line, where there is something to say
            logging.getLogger(f"tombola.{module}").setLevel(logging.INFO)
        with _count_interrupts() as interrupts:
            try:
                function(*args, **kwargs)
            except InputError as error:
                print_message(f"error: {error}", "red")
                raise typer.Exit(2) from None
            except KeyboardInterrupt:
                print_message(INTERRUPTED, "yellow")
                raise typer.Exit(130) from None
            except (TrainingsFailed, Unreachable) as error:
                print_message(f"failed: {error}; finished runs are kept, and the same command resumes", "red")
                raise typer.Exit(1) from None
            except Exception as error:  # noqa: BLE001 - any other error: print it with its traceback
                if interrupts:
                    print_message(INTERRUPTED, "yellow")
                    raise typer.Exit(130) from None
                err_console.print(traceback.format_exc(), markup=False, highlight=False, soft_wrap=True)
                print_message(f"failed: {error or type(error).__name__}; finished runs are kept", "red")
                raise typer.Exit(1) from None

    return wrapper


def run_command(recipe: str, out: Path | None, overrides: Sequence[str]) -> str:
    """The command that runs an experiment, independent of caller and machine."""
    where = [] if out is None else ["--out", str(out)]
    return shlex.join(["tombola", "run", recipe, *where, *(part for o in overrides for part in ("--set", o))])


@contextmanager
def _count_interrupts() -> Iterator[list[int]]:
    """Yields a list with one element for each Ctrl-C. Later errors are its consequence: libraries may turn a
    `KeyboardInterrupt` in compiled code, or while they acquire a lock, into an error of another type."""
    interrupts: list[int] = []
    before = signal.getsignal(signal.SIGINT)

    def interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        interrupts.append(number)
        raise KeyboardInterrupt

    if before is not signal.default_int_handler or threading.current_thread() is not threading.main_thread():
        yield interrupts  # another handler is installed, or the signal is ignored
        return
    signal.signal(signal.SIGINT, interrupt)
    try:
        yield interrupts
    finally:
        signal.signal(signal.SIGINT, before)
