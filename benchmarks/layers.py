"""Convolutions beside dense PyTorch: two of 64 channels on 32×32×3, then 256-256-10, at 5% of the weights.

    python -m benchmarks.layers

Each side trains the same steps on the same batches of 60 from the same weights, Adam, on one thread.
"""

from __future__ import annotations

from typing import Annotated

import torch
import typer
from rich.table import Table
from threadpoolctl import threadpool_limits
from torch import nn

from benchmarks.common import agree, console, machine, median, take_turns, write
from benchmarks.step import CPU
from tombola.engines.modules import ModuleLearner
from tombola.engines.sparse.speeds import Speeds
from tombola.engines.sparse.swap import swap
from tombola.engines.sparse.swapped_learner import SwappedLearner
from tombola.length import Length
from tombola.mask import Mask
from tombola.run import Training
from tombola.zoo.data.split import Examples, Split
from tombola.zoo.networks.initialise import initialise


def network(channels: int) -> nn.Module:
    """Conv-2 of Frankle & Carbin (2019), figure 2, if `channels` is 64."""
    made = nn.Sequential(
        nn.Conv2d(3, channels, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(channels, channels, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(channels * 256, 256),
        nn.ReLU(),
        nn.Linear(256, 256),
        nn.ReLU(),
        nn.Linear(256, 10),
    )
    initialise(made, "glorot-normal")
    return made


def main(
    density: Annotated[float, typer.Option(help="Fraction of each layer's weights left.")] = 0.05,
    channels: Annotated[int, typer.Option(help="Of both convolutions.")] = 64,
    steps: Annotated[int, typer.Option(help="Steps of a turn.")] = 3,
    turns: Annotated[int, typer.Option(help="Turns of each side.")] = 7,
    save: Annotated[bool, typer.Option(help="Write results/layers.json.")] = True,
) -> None:
    """Measure, compare losses, print the ratio and which layers were sparse, write results/layers.json."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    examples = Examples(torch.randn(600, 3, 32, 32), torch.randint(0, 10, (600,)))
    split = Split(examples, examples, examples)
    length = Length(iterations=steps)
    training = Training(optimizer="adam", lr=2e-4, batch_size=60, length=length, evaluate_every=length)
    ours, theirs = network(channels), network(channels)
    mask = Mask({name: torch.rand(kept.shape) < density for name, kept in Mask.full(ours).items()})
    mask.apply_(ours)
    theirs.load_state_dict(ours.state_dict())
    with threadpool_limits(1, user_api="blas"):
        swapped, dense = swap(ours, mask, examples.x[:60], Speeds.default())
        sparse = SwappedLearner(swapped, mask, training, split, CPU)
        eager = ModuleLearner(theirs, mask, training, split, CPU)
        orders = torch.arange(600).view(10, 60)[None, :steps]
        sides = {"sparse layers": lambda: sparse.train(orders), "dense PyTorch": lambda: eager.train(orders)}
        seconds = {name: median(times) for name, times in take_turns(sides, turns).items()}
    agree(eager.take_losses()[0], sparse.take_losses()[0])
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
