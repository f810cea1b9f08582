"""Processor seconds of commands that train nothing, beside `import torch` alone.

    python -m benchmarks.startup

Each command runs in a process of its own; the commands take turns, and the medians are printed. The experiment is
trained first, unless --folder has it already.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from benchmarks.common import console, machine, median, write

ROUNDS = 5


def processor_seconds(arguments: Sequence[str]) -> float:
    """Those of a Python process with these arguments, its children included."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    # As the command line does; otherwise idle threads of torch would be counted.
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime)


def commands(recipe: str, folder: Path) -> dict[str, list[str]]:
    """By what is printed, the arguments of Python."""
    command, results = ["-m", "tombola"], str(folder)
    return {
        "import torch": ["-c", "import torch"],
        "import tombola": ["-c", "import tombola"],
        "all public names": ["-c", "from tombola import *"],
        "tombola --help": [*command, "--help"],
        "tombola run --help": [*command, "run", "--help"],
        "tombola recipes": [*command, "recipes"],
        "tombola list": [*command, "list", str(folder.parent)],
        "tombola show": [*command, "show", results],
        "tombola report": [*command, "report", results],
        "tombola store show": [*command, "store", "show", str(folder.parent / ".tombola")],
        f"tombola run {recipe}, trained before": [*command, "run", recipe, "--out", results],
    }


def main(
    recipe: Annotated[str, typer.Option(help="The experiment.")] = "digits",
    folder: Annotated[Path | None, typer.Option(help="Its results folder (default: a temporary one).")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Processes of each command.")] = ROUNDS,
    save: Annotated[bool, typer.Option(help="Write results/startup.json.")] = True,
) -> None:
    """Measure, print, write results/startup.json."""
    with tempfile.TemporaryDirectory() as temporary:
        measured = commands(recipe, folder or Path(temporary) / "results" / "experiment")
        for arguments in reversed(measured.values()):  # the experiment first; all once, so that caches are filled
            processor_seconds(arguments)
        seconds: dict[str, list[float]] = {name: [] for name in measured}
        for _ in range(rounds):
            for name, arguments in measured.items():
                seconds[name].append(processor_seconds(arguments))
    medians = {name: median(each) for name, each in seconds.items()}
    table = Table("command", "processor seconds")
    for name, each in medians.items():
        table.add_row(name, f"{each:.2f}")
    console.print(table)
    console.print(machine())
    if save:
        console.print(f"Written to {write('startup', {'recipe': recipe, 'seconds': medians})}.")


if __name__ == "__main__":
    typer.run(main)
