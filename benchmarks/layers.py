"""Sparse convolutions compared with dense PyTorch: Conv-2 (Frankle & Carbin 2019, figure 2) at 5% of the weights.

    python -m benchmarks.layers

Both sides train the same steps on the same batches of 60 from the same weights, with Adam, on one thread.
"""

from __future__ import annotations

from typing import Annotated

import torch
import typer
from rich.table import Table
from threadpoolctl import threadpool_limits

from benchmarks.common import ContinuedTraining, check_first_losses, console, machine, median, take_turns, write
from benchmarks.step import CPU
from tombola.engines.eager import ModuleLearner
from tombola.engines.sparse.sparsify import SparsifiedLearner, sparsify
from tombola.engines.sparse.speeds import Speeds
from tombola.pruning.mask import Mask
from tombola.runs.run import Run, Training
from tombola.utils.duration import Duration
from tombola.zoo.datasets.description import Data
from tombola.zoo.datasets.split import ExampleSet, Split
from tombola.zoo.models.conv import conv
from tombola.zoo.models.description import Network, Start

INPUTS = (3, 32, 32)


def run_of(mask: Mask, steps: int) -> Run:
    """The description of a training."""
    length = Duration(iterations=steps)
    return Run(
        start=Start(network=Network(name="conv-2", inputs=INPUTS, classes=10), seed=0),
        mask=mask,
        data=Data(name="made up", digest="", seed=0, validation=1),
        training=Training(optimizer="adam", lr=2e-4, batch_size=60, length=length, evaluate_every=length),
        seed=0,
    )


def main(
    density: Annotated[float, typer.Option(help="Fraction of each layer's weights left.")] = 0.05,
    width: Annotated[float, typer.Option(help="Of its layers; 1 is the paper's.")] = 1.0,
    steps: Annotated[int, typer.Option(help="Steps of a turn.")] = 3,
    turns: Annotated[int, typer.Option(help="Turns of each side.")] = 7,
    save: Annotated[bool, typer.Option(help="Write results/layers.json.")] = True,
) -> None:
    """Compare losses, measure, print the ratio and which layers were sparse, write results/layers.json."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    examples = ExampleSet(torch.randn(600, *INPUTS), torch.randint(0, 10, (600,)))
    split = Split(examples, examples, examples)
    ours, theirs = (conv(2, INPUTS, classes=10, width=width) for _ in range(2))
    mask = Mask({name: torch.rand(kept.shape) < density for name, kept in Mask.full(ours).items()})
    mask.apply_(ours)
    theirs.load_state_dict(ours.state_dict())
    run = run_of(mask, steps)
    with threadpool_limits(1, user_api="blas"):
        swapped, dense = sparsify(ours, mask, examples.x[:60], Speeds.default())
        orders = torch.arange(600).view(10, 60)[None, :steps]
        sides = {
            "sparse layers": ContinuedTraining(SparsifiedLearner(swapped, run, split, CPU), orders),
            "dense PyTorch": ContinuedTraining(ModuleLearner(theirs, run, split, CPU), orders),
        }
        for training in sides.values():
            training()
        check_first_losses({name: training.learner.take_losses()[0] for name, training in sides.items()})
        seconds = {name: median(times) for name, times in take_turns(sides, turns).items()}
    ratio = seconds["dense PyTorch"] / seconds["sparse layers"]
    table = Table("side", "ms per step", "times as long")
    for name, times in seconds.items():
        table.add_row(name, f"{times / steps * 1e3:.1f}", f"{times / seconds['sparse layers']:.1f}")
    console.print(
        f"{mask.count:,} of {mask.size:,} weights; sparse: {', '.join(swapped.layers) or 'none'}; dense: {dense}"
    )
    console.print(table)
    console.print(machine())
    if save:
        ms = {name: times / steps * 1e3 for name, times in seconds.items()}
        result = {"density": density, "ms": ms, "ratio": ratio, "sparse": [*swapped.layers], "dense": dense}
        console.print(f"Written to {write('layers', result)}.")


if __name__ == "__main__":
    typer.run(main)
