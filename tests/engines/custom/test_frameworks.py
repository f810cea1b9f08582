"""Evaluations within the training loops of frameworks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader

from tests.support.custom_runs import custom_run, iterations, trained
from tests.support.lightning_modules import EPOCH, Loader, Manual, Module, Plateau, X, Y, validation
from tests.support.lightning_modules import trainer as lightning_trainer
from tests.support.transformers_trainer import Tokens, bert, trainer
from tombola.pruning.network_state import same_state

pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{message}")
    for message in (".*isinstance.treespec, LeafSpec.", "You defined a `validation_step` but have no")
]


def of_digits(network: nn.Module) -> float:
    return float((network(X[1000:]).argmax(1) == Y[1000:]).float().mean())


def of_sentences(network: Any) -> dict[str, float]:
    tokens = Tokens(50, seed=1)
    logits = network(input_ids=tokens.tokens).logits
    loss = torch.nn.functional.cross_entropy(logits, tokens.labels)
    return {"loss": float(loss), "accuracy": float((logits.argmax(1) == tokens.labels).float().mean())}


def assert_undisturbed(model: Any, train: Any, evaluate: Any, steps: int) -> None:
    outcome = trained(custom_run(model, every=5), train, evaluate, model=model)
    assert iterations(outcome) == [*range(5, steps, 5), steps]
    alone = trained(custom_run(model), train, model=model)
    assert same_state(outcome.final, alone.final)


@pytest.mark.parametrize("module", [Module, Manual, Plateau])
def test_lightning(tmp_path: Path, module: Any) -> None:
    def train(network: Any) -> None:
        fit = lightning_trainer(tmp_path, max_epochs=2, num_sanity_val_steps=0)
        fit.fit(network, Loader(), validation())

    assert_undisturbed(module, train, of_digits, 2 * EPOCH)


def test_trainer_with_accumulated_gradients(tmp_path: Path) -> None:
    def train(network: Any) -> None:
        trainer(tmp_path, network, max_steps=12, gradient_accumulation_steps=2, seed=4).train()

    assert_undisturbed(bert, train, of_sentences, 12)


def test_accelerate_with_accumulated_gradients() -> None:
    def train(network: Any) -> None:
        accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
        optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
        prepared: Any = accelerator.prepare(network, optimizer, DataLoader(Tokens(192), 8, shuffle=True))
        model, optimizer, batches = prepared
        for batch in batches:
            with accelerator.accumulate(model):
                accelerator.backward(model(**batch).loss)
                optimizer.step()
                optimizer.zero_grad()

    assert_undisturbed(bert, train, of_sentences, 12)
