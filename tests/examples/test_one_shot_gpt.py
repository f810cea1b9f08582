"""The example that prunes a language model in one shot."""

from __future__ import annotations

import importlib
import re

import torch
from torch import nn


def test_its_tables_have_every_method_density_and_text() -> None:
    example = importlib.import_module("examples.one_shot_gpt")

    def train(model: nn.Module) -> None:
        torch.optim.SGD(model.parameters(), 0.1)  # not a step: this is about the tables

    one_shot, finetuned = example.main(seeds=2, densities=(0.5,), train=train, steps=2).split("\n\n")
    assert one_shot.splitlines()[0] == "| pruned by | 50% |"
    assert len(one_shot.splitlines()) == 2 + 1 + 2 * len(example.METHODS)
    assert finetuned.splitlines()[0] == "| fine-tuned | first text | code |"
    assert [line.split(" | ")[0] for line in finetuned.splitlines()[2:]] == [
        "| none", "| full", "| LoTA, 10%", "| random, 10%"
    ]  # fmt: skip
    figures = re.findall(r"(\d+\.\d\d) ± \d+\.\d\d", one_shot + finetuned)
    assert len(figures) == 1 + 2 * len(example.METHODS) + 2 * 4
    assert all(float(figure) > 1 for figure in figures)
