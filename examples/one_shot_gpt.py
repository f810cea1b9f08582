"""A tiny GPT, trained once and then pruned in one shot; and a sparse update of it for another text.

The first table has the perplexity of each character of held-out text after pruning by magnitude, by Wanda within
layers and within rows, and by SparseGPT, with the same density in every layer or OWL's. Nothing is trained after
pruning; the calibration batches are windows of the training text. The second table fine-tunes the dense network on
source code of Python: all of it, only the weights that changed most in a first fine-tuning (LoTA), and as many random
ones. Means over seeds, with the half-width of their 95% interval.

The network is that of `tiny_gpt.py`: 102,208 weights in linear layers. As in the papers, the output layer is not
pruned. docs/how-to/language-models.md has the tables and what can be read from them.
"""

from __future__ import annotations

import argparse
import copy
import inspect
import math
import random
from collections.abc import Callable, Mapping, Sequence

import torch
from examples.tiny_gpt import BATCH, CONTEXT, characters, known, loss, unseen
from torch import Tensor, nn

import tombola
from examples import tiny_gpt
from tombola.pruning.owl import owl_densities
from tombola.pruning.sparse_update import train_only
from tombola.stats.summary import mean_interval

DENSITIES = (0.7, 0.5, 0.4, 0.3, 0.2)
METHODS: dict[str, dict[str, str]] = {
    "magnitude": {"score": "magnitude"},
    "Wanda, by layer": {"score": "wanda"},
    "Wanda, by row": {"score": "wanda", "scope": "row"},
    "SparseGPT": {"score": "sparsegpt"},
}
DENSE = ["head"]
"""The layers that are not pruned."""

code = torch.tensor([characters.index(c) for c in inspect.getsource(random) if c in characters])
code_known, code_unseen = code[: int(0.9 * len(code))], code[int(0.9 * len(code)) :]

Row = tuple[str, str, str]
Figures = dict[Row, float]


def perplexity(model: nn.Module, text: Tensor) -> float:
    """exp of the mean loss per character; 1 is perfect, and the number of characters chance."""
    with torch.no_grad():
        return math.exp(loss(model.eval(), text.unfold(0, CONTEXT + 1, CONTEXT)).item())


def calibration(batches: int = 8) -> list[Tensor]:
    """Random windows of the training text, 16 a batch."""
    windows = known.unfold(0, CONTEXT + 1, 1)
    return [windows[torch.randint(len(windows), (16,))] for _ in range(batches)]


def one_shot(dense: nn.Module, densities: Sequence[float]) -> Figures:
    """Perplexity by method, density of the layers, and density."""
    data, found = calibration(), Figures()
    for density in densities:
        owl = owl_densities(dense, density, data, loss=loss, leave_out=DENSE)
        tables: dict[str, float | Mapping[str, float]] = {"uniform": density, "OWL": owl}
        for name, options in METHODS.items():
            for layers, wanted in tables.items():
                pruned = copy.deepcopy(dense)
                tombola.prune(pruned, wanted, data=data, loss=loss, leave_out=DENSE, **options)
                found[name, layers, f"{density:.0%}"] = perplexity(pruned, unseen)
    return found


def finetune(model: nn.Module, steps: int) -> nn.Module:
    """Adam on windows of the code, at a tenth of the learning rate of the first training."""
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    windows = code_known.unfold(0, CONTEXT + 1, 1)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(model, windows[torch.randint(len(windows), (BATCH,))]).backward()
        optimizer.step()
    return model


def lottery_ticket_adaptation(dense: nn.Module, density: float, steps: int) -> Figures:
    """Perplexity on both texts without fine-tuning, after a full one, and after those of a share of the weights."""
    full = finetune(copy.deepcopy(dense), steps)
    masks = {
        f"LoTA, {density:.0%}": tombola.prune(
            copy.deepcopy(full), density, score="distance", scope="global", start=dense.state_dict()
        ),
        f"random, {density:.0%}": tombola.prune(
            copy.deepcopy(full), density, score="random", scope="global", seed=int(torch.randint(2**31, ()))
        ),
    }
    models = {"none": dense, "full": full}
    for name, mask in masks.items():
        models[name] = copy.deepcopy(dense)
        with train_only(models[name], mask):
            finetune(models[name], steps)
    texts = {"first text": unseen, "code": code_unseen}
    return {
        (name, "", text): perplexity(model, part) for name, model in models.items() for text, part in texts.items()
    }


def table(figures: Sequence[Figures], head: str) -> str:
    """Means ± half-widths in Markdown; a row for each method, a column for each density or text."""
    columns = list(dict.fromkeys(column for *_, column in figures[0]))
    rows = list(dict.fromkeys((name, layers) for name, layers, _ in figures[0]))
    lines = [f"| {head} | " + " | ".join(columns) + " |", "|-|" + "-:|" * len(columns)]
    for name, layers in rows:
        cells = [_cell([seed[name, layers, column] for seed in figures]) for column in columns]
        lines.append(f"| {', '.join(filter(None, (name, layers)))} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(values: Sequence[float]) -> str:
    found = mean_interval(values, 0.95)
    half = "" if found.high is None else f" ± {found.high - found.mean:.2f}"
    return f"{found.mean:.2f}{half}"


def main(
    seeds: int = 5,
    densities: Sequence[float] = DENSITIES,
    train: Callable[[nn.Module], None] = tiny_gpt.train,
    steps: int = 300,
) -> str:
    """Both tables, with a dense network of each seed."""
    pruned, finetuned = [], []
    for seed in range(seeds):
        torch.manual_seed(seed)
        dense = tiny_gpt.make()
        train(dense)
        of_dense: Figures = {("dense", "", f"{d:.0%}"): perplexity(dense, unseen) for d in densities}
        pruned.append(of_dense | one_shot(dense, densities))
        finetuned.append(lottery_ticket_adaptation(dense, 0.1, steps))
    return f"{table(pruned, 'pruned by')}\n\n{table(finetuned, 'fine-tuned')}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    print(main(parser.parse_args().seeds))
