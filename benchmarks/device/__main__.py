"""The command: `python -m benchmarks.device`, or `make gpu`.

    python -m benchmarks.device                  # about 7 minutes on a CUDA device
    python -m benchmarks.device --cpu            # a rehearsal, in a minute, with tiny sizes
    python -m benchmarks.device --only bits      # one part; --only may be repeated

Results are written after every part. The exit status is 1 if a part failed or something is wrong.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from benchmarks.common import RESULTS, console, machine, write_to
from benchmarks.device.beside import beside
from benchmarks.device.output import print_part, print_verdicts
from benchmarks.device.parts import Part, Place, is_wrong, perform
from benchmarks.device.rightness import agreement, bits, networks
from benchmarks.device.speed import ceilings, first_release, profile, speed
from benchmarks.device.targets import targets
from benchmarks.device.tests import tests
from benchmarks.device.tools import holding, two_four

PARTS = [
    Part("ceilings", "what the device reaches", 20, ceilings),
    Part("agreement", "losses beside those of the eager engine on the CPU in float32, relative", 30, agreement),
    Part("bits", "trained twice, launched without a CUDA graph, and resumed: the same bits", 30, bits),
    Part("networks", "other networks, stacked beside one by one: summed losses of the first steps", 40, networks),
    Part("speed", "LeNet-300-100: replicate-steps per second", 60, speed),
    Part("release", "the first release's 19,220 trainings: its steps, and projected minutes", 30, first_release),
    Part("profile", "a step of a stack by kernel, launched without a CUDA graph", 20, profile),
    Part("beside", "what is beside the steps of a stack", 30, beside),
    Part("tests", "the tests marked `cuda`", 40, tests),
    Part("hold", "a step of ResNet-18 with 20% of its weights held, and dense", 90, holding),
    Part("two-four", "linear layers with 2:4 weights, dense and by sparse kernels", 15, two_four),
]
NAMES = [part.name for part in PARTS]


def main(
    cpu: Annotated[bool, typer.Option("--cpu", help="Rehearse on the CPU, with tiny sizes.")] = False,
    only: Annotated[list[str] | None, typer.Option(help=f"A part: {', '.join(NAMES)}.")] = None,
    limit: Annotated[
        float, typer.Option(help="Seconds for all parts; those that would take longer are skipped.")
    ] = 480,
    out: Annotated[Path | None, typer.Option(help="Write the results here; by default to results/gpu.json.")] = None,
) -> None:
    """Measure all parts, print what they found, and write it after each."""
    if unknown := set(only or []) - set(NAMES):
        raise typer.BadParameter(f"--only: should be one of {', '.join(NAMES)}, not {', '.join(unknown)}")
    if not cpu and not torch.cuda.is_available():
        raise typer.BadParameter("torch finds no CUDA device; --cpu rehearses on the CPU")
    # Before anything is computed: cuBLAS reads it once, and is deterministic only with it.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if cpu:
        torch.set_num_threads(1)
    elif out is None:
        out = RESULTS / "gpu.json"
    place = Place(torch.device("cpu" if cpu else "cuda"), rehearsal=cpu, limit=limit)
    console.print(machine())
    results: dict[str, dict[str, Any]] = {}
    for part in PARTS:
        if only and part.name not in only:
            continue
        results[part.name] = perform(part, place)
        print_part(part.name, results[part.name])
        if out:
            write_to(out, {"rehearsal": cpu, "targets": targets(results), "parts": results})
    print_verdicts(results, targets(results), cpu)
    if out:
        console.print(f"Written to {out}.")
    raise typer.Exit(int(any(map(is_wrong, results.values()))))


if __name__ == "__main__":
    typer.run(main)
