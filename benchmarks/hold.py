"""What `hold` costs: a training step of ResNet-18 (He et al. 2015) with 20% of its weights, and a dense one.

    python -m benchmarks.hold

Both sides train the same steps on the same batches of CIFAR's shape from the same weights, with SGD, momentum and
weight decay. The pruned weights begin at zero, and are held there on one side. The learning rate is so small that the
losses of both sides agree.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import torch
import typer
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.common import check_first_losses, console, machine, median, take_turns, write
from tombola.pruning.hold import hold
from tombola.pruning.mask import Mask
from tombola.zoo.models.resnet import resnet_18

INPUTS = (3, 32, 32)


class Side:
    """A network and its training; `loss` is the sum over all steps so far."""

    def __init__(self, network: nn.Module, lr: float) -> None:
        self.network = network
        self.optimizer = torch.optim.SGD(network.parameters(), lr=lr, momentum=0.9, weight_decay=5e-4)
        self.loss = torch.zeros((), device=next(network.parameters()).device)

    def train(self, x: Tensor, y: Tensor, steps: int) -> None:
        for _ in range(steps):
            self.optimizer.zero_grad()
            loss = functional.cross_entropy(self.network(x), y)
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            self.loss += loss.detach()


def training(side: Side, x: Tensor, y: Tensor, steps: int, wait: Callable[[], None]) -> Callable[[], None]:
    """Train this many steps of one side, and wait for the device."""

    def call() -> None:
        side.train(x, y, steps)
        wait()

    return call


def main(
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cuda" if torch.cuda.is_available() else "cpu",
    density: Annotated[float, typer.Option(help="Fraction of each layer's weights left.")] = 0.2,
    batch: Annotated[int, typer.Option(help="Images of a step.")] = 64,
    width: Annotated[int, typer.Option(help="Channels of the first stage; 64 is ResNet-18.")] = 64,
    lr: Annotated[float, typer.Option(help="Learning rate; small, so that the losses agree.")] = 1e-7,
    steps: Annotated[int, typer.Option(help="Steps of a turn.")] = 1,
    turns: Annotated[int, typer.Option(help="Turns of each side.")] = 15,
    save: Annotated[bool, typer.Option(help="Write results/hold.json, or hold-cuda.json.")] = True,
) -> None:
    """Compare losses, measure, print the ratio, write results/hold.json, or hold-cuda.json."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    place = torch.device(device)
    ours, theirs = (resnet_18(INPUTS, classes=10, width=width).to(place) for _ in range(2))
    mask = Mask({name: torch.rand(kept.shape) < density for name, kept in Mask.full(ours).items()})
    hold(ours, mask)
    theirs.load_state_dict(ours.state_dict())
    x, y = torch.randn(batch, *INPUTS, device=place), torch.randint(0, 10, (batch,), device=place)
    wait = torch.cuda.synchronize if place.type == "cuda" else (lambda: None)
    held, dense = Side(ours, lr), Side(theirs, lr)
    sides = {"held": training(held, x, y, steps, wait), "dense": training(dense, x, y, steps, wait)}
    for train in sides.values():
        train()
    check_first_losses({"held": float(held.loss), "dense": float(dense.loss)})
    ms = {name: median(times) / steps * 1e3 for name, times in take_turns(sides, turns).items()}
    ratio = ms["held"] / ms["dense"]
    table = Table("side", "ms per step", "times as long")
    for name, each in ms.items():
        table.add_row(name, f"{each:.2f}", f"{each / ms['dense']:.4f}")
    console.print(f"{mask.count:,} of {mask.size:,} weights on {device}, batches of {batch}")
    console.print(table)
    console.print(machine())
    if save:
        result = {"device": device, "density": density, "batch": batch, "width": width, "ms": ms, "ratio": ratio}
        console.print(f"Written to {write('hold' if place.type == 'cpu' else f'hold-{place.type}', result)}.")


if __name__ == "__main__":
    typer.run(main)
