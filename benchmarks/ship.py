"""What a ticket is worth once it is shipped: sizes, speeds and accuracies beside dense PyTorch and ONNX Runtime.

    python -m benchmarks.ship

Trains tickets on MNIST and CIFAR-10, exports each as `tombola ticket export` does, and measures the artefacts on the
whole test set, with as many threads as there are cores, the smallest also with one. Then it compacts every network of
the zoo at 5% of the weights, and a ResNet-20 and a transformer that lose half of their channels, heads and hidden
units. Where accuracies or outputs differ, it says so and fails.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.table import Table
from torch import nn

from benchmarks.common import console, machine, median, take_turns, write
from benchmarks.structured import measure_structured
from tombola._run_experiment import run_experiment
from tombola.experiments.recipe import load_recipe
from tombola.exports.benchmark import BATCH_SIZES, Figures
from tombola.exports.compaction import compact
from tombola.exports.export import export
from tombola.pruning.mask import Mask
from tombola.pruning.prune_model import prune
from tombola.report.export_tables import show_export
from tombola.runs.outcome import Outcome
from tombola.studies.conductor import Listener
from tombola.studies.request import RunRequest
from tombola.tickets.mask_codec import entropy
from tombola.tickets.ticket import Ticket
from tombola.utils.workers import cores
from tombola.zoo.models import MODELS, build
from tombola.zoo.models.description import Network, Start


@dataclass(frozen=True)
class Case:
    """A ticket to train, and by how many times it should be faster than the better dense side."""

    recipe: str
    overrides: Sequence[str]
    throughput: float
    latency: float | None = None


VGG = ["model.width=1", "data.size=", "data.crop=4", "data.fraction=0.05", "replicates=1", "controls.random=0"]
VGG += ["verdict.beat=", "rewind.to=0it", "training.length=40it", "training.milestones=['30it']", "training.lr=0.02"]
CASES = {
    "LeNet-300-100, 3.6%": Case(
        "lenet-mnist",
        ["search.levels=15", "replicates=1", "controls.reinit=0", "controls.one_shot=0", "training.length=3000it"],
        throughput=5.0,
        latency=3.0,
    ),
    "VGG-16, 5%": Case(
        "vgg16-cifar10-openlth-small",
        [*VGG, "search.levels=1", "search.rate=0.95"],
        2.0,
    ),
}


class Last(Listener):
    """Notes the ticket of the last level."""

    def __init__(self) -> None:
        self.level = 0
        self.ticket: Ticket | None = None

    def answered(self, study: int, ask: RunRequest, outcome: Outcome, trained: bool) -> None:  # noqa: ARG002
        """Note it, if it is one."""
        if ask.branch == "ticket" and ask.level > self.level:
            self.level = ask.level
            run = ask.run
            start = build(run.start)
            run.mask.apply_(start)
            about = {"run": run.description, "key": run.key, "level": ask.level}
            about["measures"] = outcome.measures.model_dump()
            self.ticket = Ticket(run.mask, start.state_dict(), about, outcome.final, drawn=run.start)


def trained(case: Case, folder: Path, overrides: Sequence[str]) -> Ticket:
    """The ticket of the last level."""
    last = Last()
    recipe = load_recipe(case.recipe, [*case.overrides, *overrides])
    run_experiment(recipe, folder / case.recipe, listeners=[last], workers=1)
    assert last.ticket is not None
    return last.ticket


def ratios(figures: Sequence[Figures]) -> dict[str, float]:
    """How many times as fast as the better dense side the sparse runtime is."""
    dense = [each for each in figures if each.is_reference and each.device == "cpu"]
    (sparse,) = (each for each in figures if each.name == "sparse")
    found = {f"batch {b}": sparse.throughput[b] / max(d.throughput[b] for d in dense) for b in BATCH_SIZES[1:]}
    latencies = [each.latency for each in dense if each.latency is not None]
    assert sparse.latency is not None
    return {"batch 1": min(latencies) / sparse.latency, **found}


def sizes(ticket: Ticket, folder: Path) -> dict[str, float]:
    """Bytes of the ticket's files."""
    path, bits = folder / "size.safetensors", entropy(ticket.mask)
    ticket.save(path, start="seed", trained="none")
    by_seed = path.stat().st_size
    ticket.save(path, start="seed", trained="fp16")
    dense = sum(4 * tensor.numel() for tensor in ticket.start.values())
    return {
        "entropy of the mask": bits / 8,
        "ticket by seed": by_seed,
        "at most": 1.3 * bits / 8 + 2048,
        "with fp16 weights": path.stat().st_size,
        "dense checkpoint": dense,
        "times smaller": dense / path.stat().st_size,
    }


def disagreements(name: str, figures: Sequence[Figures]) -> list[str]:
    """Artefacts that are not as accurate as the ticket: those that keep its weights' precision exactly, those in half
    precision up to a tenth of a point, in 8 bits up to a point."""
    wrong = []
    for each in figures:
        if each.difference is not None and each.accuracy is None:
            wrong.append(f"{name}: {each.name} has no accuracy: is the data there?")
        elif each.accuracy is not None and figures[0].accuracy is not None:
            allowed = 1e-3 if "fp16" in each.name else 1e-2 if "int8" in each.name else 0.0
            if abs(each.accuracy - figures[0].accuracy) > allowed:
                wrong.append(f"{name}: {each.name} has accuracy {each.accuracy}, the ticket {figures[0].accuracy}")
    return wrong


def compaction(names: Sequence[str], density: float, turns: int) -> list[dict[str, Any]]:
    """Every network without its dead units: outputs, sizes, and seconds for batches of 64."""
    rows = []
    for name in names:
        inputs = (1, 28, 28) if name.startswith("lenet") else (3, 32, 32)
        options = {"mlp": {"widths": [256, 128]}, "resnet": {"depth": 14}}.get(name, {})
        described = Network(name=name, inputs=inputs, classes=10, options=options)
        network = _lively(build(Start(network=described, seed=0))).eval()
        mask: Mask = prune(network, density)
        mask.apply_(network)
        x = torch.randn(64, *inputs)
        smaller = compact(network, x[:2])
        with torch.inference_mode():
            expected = network(x)
            off = ((smaller(x) - expected).abs().max() / expected.abs().max()).item()
            sides = {"dense": functools.partial(network, x), "compact": functools.partial(smaller, x)}
            seconds = {side: median(times) for side, times in take_turns(sides, turns).items()}
        before, after = (sum(p.numel() for p in each.parameters()) for each in (network, smaller))
        row = {"network": name, "off": off, "parameters": before, "left": after}
        rows.append(row | {"ratio": seconds["dense"] / seconds["compact"]})
    return rows


def _lively(network: nn.Module) -> nn.Module:
    """Batch norm as it might be after training: at initialisation it does nothing."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None and module.running_var is not None:
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.3, 0.3)
    return network


def main(
    only: Annotated[str, typer.Option(help="Cases whose name contains this.")] = "",
    overrides: Annotated[list[str] | None, typer.Option("--set", help="Override values of the recipes.")] = None,
    threads: Annotated[list[int] | None, typer.Option(help="How many [default: 1 and all cores].")] = None,
    networks: Annotated[list[str] | None, typer.Option(help="Of the zoo, to compact [default: all].")] = None,
    turns: Annotated[int, typer.Option(help="Turns of each side when compacting.")] = 7,
    work: Annotated[Path | None, typer.Option(help="Keep what was trained here, for next time.")] = None,
    save: Annotated[bool, typer.Option(help="Write results/ship.json.")] = True,
) -> None:
    """Train, export, measure, compare, print the ratios, write results/ship.json."""
    result: dict[str, Any] = {"cases": {}}
    wrong: list[str] = []
    summary = Table("ticket", "threads", "batch", "times as fast", "wanted")
    for name, case in CASES.items():
        if only not in name:
            continue
        with tempfile.TemporaryDirectory() as folder:
            ticket = trained(case, work or Path(folder), overrides or [])
            console.print(f"\n{name}: {ticket.mask.count:,} of {ticket.mask.size:,} weights", style="bold")
            about: dict[str, Any] = {
                "weights": ticket.mask.count,
                "sizes": sizes(ticket, Path(folder)),
                "threads": {},
            }
            console.print(about["sizes"])
            for count in threads or (sorted({1, cores()}) if case.latency else [cores()]):
                exported = export(ticket, Path(folder) / "shipped", threads=count)
                wrong += disagreements(name, exported.figures)
                show_export(console, exported)
                found = ratios(exported.figures)
                figures = [asdict(each) for each in exported.figures]
                about["threads"][count] = {"ratios": found, "artefacts": figures}
                wanted = {"batch 1": case.latency, "batch 64": case.throughput}
                for batch, ratio in found.items():
                    summary.add_row(name, str(count), batch, f"{ratio:.1f}", str(wanted.get(batch) or ""))
            result["cases"][name] = about
            if save:
                write("ship", result)  # what comes next takes a while
    result["compaction"] = compaction(networks or list(MODELS), 0.05, turns)
    table = Table("network", "parameters", "left", "off by", "times as fast")
    for row in result["compaction"]:
        table.add_row(
            row["network"], f"{row['parameters']:,}", f"{row['left']:,}", f"{row['off']:.0e}", f"{row['ratio']:.2f}"
        )
        if row["off"] > 1e-5 or row["left"] > row["parameters"]:
            wrong.append(f"compaction of {row['network']} is off by {row['off']}, or larger")
    result["structured"] = measure_structured(3 * turns)
    structures = Table(
        "coupled units", "parameters", "left", "multiply-adds left", "off by", "times as fast", "wanted"
    )
    for row in result["structured"]:
        faster = ", ".join(f"{ratio:.2f} ({side})" for side, ratio in row["ratios"].items())
        sizes_of = (f"{row['parameters']:,}", f"{row['left']:,}", f"{row['multiply_adds_left']:.1%}")
        structures.add_row(row["network"], *sizes_of, f"{row['off']:.0e}", faster, str(row["wanted"]))
        if row["off"] > 1e-5:
            wrong.append(f"{row['network']} is off by {row['off']}")
    console.print(summary, table, structures, machine())
    if save:
        console.print(f"Written to {write('ship', result)}.")
    if wrong:
        raise SystemExit("\n".join(wrong))


if __name__ == "__main__":
    typer.run(main)
