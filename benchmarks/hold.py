"""What `hold` costs: a training step of ResNet-18 (He et al. 2015) with 20% of its weights, and a dense one.

    python -m benchmarks.hold
    python -m benchmarks.hold --precision bf16 --compiled --steps 50

Both sides train the same steps on the same batches of CIFAR's shape from the same weights, with SGD, momentum and
weight decay. The pruned weights begin at zero, and are held there on one side. The learning rate is so small that the
losses of both sides agree.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import torch
import typer
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.common import check_first_losses, console, machine, median, take_turns, wait, write
from tombola.engines.precision import autocast, matmul_precision
from tombola.pruning.hold import hold
from tombola.pruning.mask import Mask
from tombola.runs.run import Precision
from tombola.zoo.models.resnet import resnet_18

INPUTS = (3, 32, 32)


class Side:
    """A network and its training; `loss` is the sum over all steps so far."""

    def __init__(self, network: nn.Module, lr: float, precision: Precision, compiled: bool) -> None:
        self.network = torch.compile(network) if compiled else network
        self.optimizer = torch.optim.SGD(network.parameters(), lr=lr, momentum=0.9, weight_decay=5e-4)
        self.device = next(network.parameters()).device
        self.loss = torch.zeros((), device=self.device)
        self.precision = precision

    def train(self, x: Tensor, y: Tensor, steps: int) -> None:
        """Train, and wait for the device."""
        with matmul_precision(self.precision, self.device):
            for _ in range(steps):
                self.optimizer.zero_grad()
                with autocast(self.precision, self.device):
                    outputs = self.network(x)
                loss = functional.cross_entropy(outputs.float(), y)
                loss.backward()  # type: ignore[no-untyped-call]
                self.optimizer.step()
                self.loss += loss.detach()
            wait(self.device)


def training(side: Side, x: Tensor, y: Tensor, steps: int) -> Callable[[], None]:
    return lambda: side.train(x, y, steps)


def measure(
    device: torch.device,
    density: float = 0.2,
    batch: int = 64,
    width: int = 64,
    lr: float = 1e-7,
    precision: Precision = "fp32",
    compiled: bool = False,
    steps: int = 1,
    turns: int = 15,
) -> dict[str, Any]:
    """Milliseconds per step, held and dense, and their ratio. Exits if the sides do not train alike."""
    torch.manual_seed(0)
    ours, theirs = (resnet_18(INPUTS, classes=10, width=width).to(device) for _ in range(2))
    mask = Mask({name: torch.rand(kept.shape) < density for name, kept in Mask.full(ours).items()})
    hold(ours, mask)
    theirs.load_state_dict(ours.state_dict())
    x, y = torch.randn(batch, *INPUTS, device=device), torch.randint(0, 10, (batch,), device=device)
    held, dense = (Side(network, lr, precision, compiled) for network in (ours, theirs))
    sides = {"held": training(held, x, y, steps), "dense": training(dense, x, y, steps)}
    for train in sides.values():
        train()
    check_first_losses({"held": float(held.loss), "dense": float(dense.loss)})
    ms = {name: median(times) / steps * 1e3 for name, times in take_turns(sides, turns).items()}
    return {
        "device": str(device),
        "precision": precision,
        "compiled": compiled,
        "density": density,
        "weights": [mask.count, mask.size],
        "batch": batch,
        "width": width,
        "ms": ms,
        "ratio": ms["held"] / ms["dense"],
    }


def main(
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cuda" if torch.cuda.is_available() else "cpu",
    density: Annotated[float, typer.Option(help="Fraction of each layer's weights left.")] = 0.2,
    batch: Annotated[int, typer.Option(help="Images of a step.")] = 64,
    width: Annotated[int, typer.Option(help="Channels of the first stage; 64 is ResNet-18.")] = 64,
    lr: Annotated[float, typer.Option(help="Learning rate; small, so that the losses agree.")] = 1e-7,
    precision: Annotated[str, typer.Option(help="fp32, tf32 or bf16.")] = "fp32",
    compiled: Annotated[bool, typer.Option(help="Compile both networks with torch.compile.")] = False,
    steps: Annotated[int, typer.Option(help="Steps of a turn.")] = 1,
    turns: Annotated[int, typer.Option(help="Turns of each side.")] = 15,
    save: Annotated[bool, typer.Option(help="Write results/hold.json, or hold-cuda.json.")] = True,
) -> None:
    """Compare losses, measure, print the ratio, write results/hold.json, or hold-cuda.json."""
    torch.set_num_threads(1)
    result = measure(torch.device(device), density, batch, width, lr, precision, compiled, steps, turns)  # type: ignore[arg-type]
    table = Table("side", "ms per step", "times as long")
    for name, each in result["ms"].items():
        table.add_row(name, f"{each:.2f}", f"{each / result['ms']['dense']:.4f}")
    left, whole = result["weights"]
    console.print(f"{left:,} of {whole:,} weights on {device}, batches of {batch}, {precision}")
    console.print(table)
    console.print(machine())
    if save:
        console.print(
            f"Written to {write('hold' if device == 'cpu' else f'hold-{torch.device(device).type}', result)}."
        )


if __name__ == "__main__":
    typer.run(main)
