"""Callbacks that change weights beside `LotteryTicket`: right, or refused by name, or an error."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, ModelPruning, StochasticWeightAveraging
from lightning.pytorch.callbacks.weight_averaging import EMAWeightAveraging, WeightAveraging
from torch import nn

from tests.support.errors import raises_input_error
from tests.support.lightning_modules import EPOCH, ByEpoch, Loader, Module, trainer, validation
from tests.support.weight_changes import COUNTED, UNCOUNTED, Assign
from tombola.integrations.lightning import LotteryTicket

pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{message}")
    for message in (
        ".*isinstance.treespec, LeafSpec.",
        "Checkpoint directory",
        ".*swa_start",
        "You defined a `validation_step` but have no",
    )
]


def searched(folder: Path, *callbacks: Any, module: Any = None, **options: Any) -> tuple[Any, LotteryTicket]:
    module, ticket = module or Module(), LotteryTicket(levels=1, every="1ep", rate=0.8)
    trainer(folder, *callbacks, ticket, **options).fit(module, Loader(), validation())
    return module, ticket


class Averaging(WeightAveraging):
    """Of the user's own."""


@pytest.mark.parametrize(
    "callback",
    [
        EMAWeightAveraging,
        Averaging,
        lambda: StochasticWeightAveraging(swa_lrs=0.01, swa_epoch_start=1),
        lambda: ModelPruning("l1_unstructured", amount=0.5),
    ],
)
def test_callbacks_of_lightning_that_change_pruned_weights_are_refused_by_name(tmp_path: Path, callback: Any) -> None:
    made = callback()
    with raises_input_error(type(made).__name__, "callbacks"):
        searched(tmp_path, made, max_epochs=10)


class Average(Callback):
    """A moving average of the weights since the dense training, put in place for validation."""

    def __init__(self, assign: Assign, back: bool) -> None:
        self.assign, self.back = assign, back

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        self.values = [p.detach().clone() for p in pl_module.parameters()]

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:  # noqa: ARG002
        for value, parameter in zip(self.values, pl_module.parameters(), strict=True):
            value.lerp_(parameter.detach(), 0.1)

    def on_validation_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        if not trainer.sanity_checking:
            self.former = [p.detach().clone() for p in pl_module.parameters()]
            self.assign(pl_module, self.values)

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        if not trainer.sanity_checking and self.back:
            self.assign(pl_module, self.former)


class Counting(Module):
    """Records how many weights the last validation used."""

    seen = 0

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        super().validation_step(batch, batch_idx)
        weights = [self.body[0].weight, self.head.weight]
        self.seen = sum(int(weight.count_nonzero()) for weight in weights)


@pytest.mark.parametrize("assign", COUNTED[:2])
def test_an_average_of_the_users_validates_as_many_weights_as_the_table_says(tmp_path: Path, assign: Assign) -> None:
    module, ticket = searched(tmp_path, Average(assign, back=True), module=Counting())
    assert module.seen == ticket.levels[1].weights == ticket.ticket.mask.count


@pytest.mark.parametrize("back", [False, True])
def test_an_average_that_is_not_counted_is_an_error(tmp_path: Path, back: bool) -> None:
    with raises_input_error("0.weight", "not zero"):
        searched(tmp_path, Average(UNCOUNTED[0], back))


class Revive(Callback):
    """Changes pruned weights after each step."""

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:  # noqa: ARG002
        values = [torch.linspace(1, 2, p.numel()).view_as(p) for p in pl_module.parameters()]
        UNCOUNTED[0](pl_module, values)


def test_revived_weights_are_not_saved_in_a_checkpoint(tmp_path: Path) -> None:
    keep = ModelCheckpoint(tmp_path, every_n_train_steps=EPOCH + 1, save_top_k=-1)
    with raises_input_error("weight", "not zero"):
        searched(tmp_path, Revive(), keep, enable_checkpointing=True)
    assert not list(tmp_path.glob("*.ckpt"))


def test_revived_weights_are_not_scored(tmp_path: Path) -> None:
    ticket = LotteryTicket(levels=2, every="3it", rate=0.5)
    with raises_input_error("weight", "not zero"):
        trainer(tmp_path, Revive(), ticket).fit(Module(), Loader())
    assert ticket.levels[-1].level == 0


class Replace(Callback):
    """Replaces the head after this many steps."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        if trainer.global_step == self.step:
            pl_module.head = nn.Linear(32, 10)


@pytest.mark.parametrize("step", [3, EPOCH + 3])
@pytest.mark.parametrize("validated", [False, True])
def test_a_layer_that_a_callback_replaces_is_an_error(tmp_path: Path, step: int, validated: bool) -> None:
    ticket = LotteryTicket(levels=1, every="1ep", rate=0.8)
    made = trainer(tmp_path, Replace(step), ticket, limit_val_batches=1 if validated else 0)
    with raises_input_error("head.weight", "replaced"):
        made.fit(Module(), Loader(), validation())
    assert step > EPOCH or not ticket.levels


class SwapCopy(Callback):
    """Validates a copy of the body that was made before the training."""

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        self.other = copy.deepcopy(pl_module.body)

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        pl_module.body, self.other = self.other, pl_module.body

    on_validation_end = on_validation_start


def test_a_copy_in_place_of_a_layer_is_not_validated(tmp_path: Path) -> None:
    with raises_input_error("body.0.weight", "replaced"):
        searched(tmp_path, SwapCopy(), num_sanity_val_steps=0)


class WithAverage(Module):
    """Contains an average of itself from the beginning."""

    def __init__(self) -> None:
        super().__init__()
        self.average = torch.optim.swa_utils.AveragedModel(self.body)


def test_an_average_within_the_module_is_one_of_its_layers(tmp_path: Path) -> None:
    _, ticket = searched(tmp_path, module=WithAverage())
    assert "average.module.0.weight" in ticket.ticket.mask


class Unfreezing(Callback):
    """Adds a group of parameters to the optimizer, as Lightning's `BaseFinetuning` does."""

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:  # noqa: ARG002
        if batch_idx == 1:
            trainer.optimizers[0].add_param_group({"params": [nn.Parameter(torch.zeros(1))]})


def test_an_optimizer_that_cannot_be_rewound_is_an_error(tmp_path: Path) -> None:
    with raises_input_error("optimizers", "SGD", "rewound"):
        searched(tmp_path, Unfreezing(), module=ByEpoch())


def test_a_copy_of_the_module_is_held_too(tmp_path: Path) -> None:
    copies: list[nn.Module] = []

    class Copy(Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:  # noqa: ARG002
            copies.append(copy.deepcopy(pl_module.body))

    _, ticket = searched(tmp_path, Copy())
    with torch.no_grad():
        copies[-1][0].weight.add_(1)
        copies[-1].eval()(torch.ones(1, 64))
    assert torch.equal(copies[-1][0].weight != 0, ticket.ticket.mask["body.0.weight"])
