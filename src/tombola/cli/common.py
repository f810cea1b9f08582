"""The application; options and exit statuses that commands share."""

from __future__ import annotations

import functools
import inspect
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

from tombola.cli.about import ABOUT, options
from tombola.cli.application import App
from tombola.cli.completion import (
    CLUSTERS,
    DEVICES,
    ENGINES,
    complete_recipe,
    complete_results,
    complete_setting,
)
from tombola.cli.output import MessageHandler, err_console, error_console, print_error
from tombola.utils.errors import InputError, TrainingsFailed, Unreachable

app = App(help=ABOUT)
app.callback()(options)
INTERRUPTED = "interrupted; finished runs are kept, and the same command resumes"

TRAINING = "How runs are trained"
"""The panel of these options."""

RecipeName = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE",
        help="A recipe: a name from `tombola recipes`, or a TOML file.",
        autocompletion=complete_recipe,
        show_default=False,
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a value of the recipe, such as training.lr=0.01. May be given several times.",
        autocompletion=complete_setting,
    ),
]
ResultsFolder = Annotated[
    Path, typer.Argument(metavar="DIR", help="A results folder.", autocompletion=complete_results, show_default=False)
]
StoreBeside = Annotated[
    str | None,
    typer.Option(
        envvar="TOMBOLA_STORE",
        metavar="STORE",
        help="Store of trained runs: a folder or s3://BUCKET/PREFIX.",
        show_default=".tombola beside --out",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
EngineName = Annotated[
    str,
    typer.Option(
        "--engine",
        metavar="ENGINE",
        help="eager, sparse, stacked, or auto for the fastest.",
        autocompletion=lambda: [*ENGINES],
        rich_help_panel=TRAINING,
    ),
]
DeviceName = Annotated[
    str,
    typer.Option(
        "--device",
        metavar="DEVICE",
        help="cpu, cuda for all GPUs, cuda:N for one, or auto.",
        autocompletion=lambda: [*DEVICES],
        rich_help_panel=TRAINING,
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        "-j",
        min=1,
        metavar="N",
        help="How many runs are trained in parallel.",
        show_default="one per core, or per GPU",
        rich_help_panel=TRAINING,
    ),
]
Cluster = Annotated[
    str | None,
    typer.Option(
        metavar="CLUSTER",
        help="Train on a Ray cluster: ray starts one on this machine, auto finds one, ray://HOST:PORT names one.",
        autocompletion=lambda: [*CLUSTERS],
        rich_help_panel=TRAINING,
    ),
]
ClusterResources = Annotated[
    list[str] | None,
    typer.Option(
        "--resources",
        metavar="NAME=NUMBER",
        help="What each run on the cluster needs: cpu=2, gpu=0.25.",
        show_default="1 each",
        rich_help_panel=TRAINING,
    ),
]
CheckpointEvery = Annotated[
    float,
    typer.Option(
        min=0.0, metavar="SECONDS", help="Time between checkpoints of running trainings.", rich_help_panel=TRAINING
    ),
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        envvar="TOMBOLA_DATA",
        metavar="DIR",
        help="Folder that is searched for datasets before the user's cache.",
        rich_help_panel="Options",
    ),
]
Force = Annotated[bool, typer.Option("--force", "-f", help="Replace existing files.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only results and errors.")]
Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="Print details of the work, and tracebacks of errors.")
]

Parameters = ParamSpec("Parameters")


def handle_errors(function: Callable[Parameters, None]) -> Callable[Parameters, None]:
    """A command with the options --quiet and --verbose. It prints errors as one line and exits with a status: 2 for
    invalid input, 1 for a failure, 130 if interrupted."""

    @functools.wraps(function)
    def wrapper(*args: Parameters.args, **kwargs: Parameters.kwargs) -> None:
        quiet, verbose = bool(kwargs.pop("quiet", False)), bool(kwargs.pop("verbose", False))
        _set_verbosity(quiet, verbose)
        with _count_interrupts() as interrupts:
            try:
                function(*args, **kwargs)
            except InputError as error:
                if verbose:
                    _print_traceback()
                print_error(f"error: {error}")
                raise typer.Exit(2) from None
            except KeyboardInterrupt:
                print_error(INTERRUPTED, "yellow")
                raise typer.Exit(130) from None
            except (TrainingsFailed, Unreachable) as error:
                print_error(f"failed: {error}; finished runs are kept, and the same command resumes")
                raise typer.Exit(1) from None
            except Exception as error:  # noqa: BLE001 - any other error: print it with its traceback
                if interrupts:
                    print_error(INTERRUPTED, "yellow")
                    raise typer.Exit(130) from None
                _print_traceback()
                print_error(f"failed: {error or type(error).__name__}; finished runs are kept")
                raise typer.Exit(1) from None

    # Typer makes the options of a command from its signature and its annotations.
    signature = inspect.signature(function, eval_str=True)
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=option)
        for name, option in (("quiet", Quiet), ("verbose", Verbose))
    ]
    wrapper.__signature__ = signature.replace(parameters=[*signature.parameters.values(), *added])  # type: ignore[attr-defined]
    wrapper.__annotations__ = function.__annotations__ | {each.name: each.annotation for each in added}
    return wrapper


def _set_verbosity(quiet: bool, verbose: bool) -> None:
    """Which messages are printed on standard error."""
    err_console.quiet = quiet  # errors are printed on another one
    logging.basicConfig(format="%(message)s", handlers=[MessageHandler()])
    logging.getLogger("tombola").setLevel(logging.DEBUG if verbose else logging.NOTSET)
    for module in ("engines.device_choice", "kernels.ahead"):  # a line, where there is something to say
        logging.getLogger(f"tombola.{module}").setLevel(logging.DEBUG if verbose else logging.INFO)


def _print_traceback() -> None:
    error_console.print(traceback.format_exc(), markup=False, highlight=False, soft_wrap=True)


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
