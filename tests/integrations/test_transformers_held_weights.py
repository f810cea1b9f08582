"""Optimizers and callbacks that average weights, beside `LotteryTicketCallback`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import TrainerCallback

from tests.support.errors import raises_input_error
from tests.support.transformers_trainer import bert, trainer
from tests.support.weight_changes import COUNTED, UNCOUNTED, Assign
from tombola.integrations.transformers import LotteryTicketCallback
from tombola.pruning.mask import prunable

EVALUATED: dict[str, Any] = {"eval_strategy": "steps", "eval_steps": 4, "max_steps": 14}


class Record(TrainerCallback):
    """How many of the prunable weights, and of their values in the optimizer, are not zero at each evaluation."""

    def __init__(self) -> None:
        self.weights: list[int] = []
        self.states: list[int] = []

    def on_prediction_step(self, args: Any, state: Any, control: Any, **parts: Any) -> None:  # noqa: ARG002
        self.weights.append(
            sum(int(parts["model"].get_parameter(n).count_nonzero()) for n in prunable(parts["model"]))
        )

    def on_step_end(self, args: Any, state: Any, control: Any, **parts: Any) -> None:  # noqa: ARG002
        states = parts["optimizer"].state
        values = [states[parts["model"].get_parameter(name)]["z"] for name in prunable(parts["model"])]
        self.states.append(sum(int(value.count_nonzero()) for value in values))


class ScheduleFree(torch.optim.Optimizer):
    """Schedule-free SGD (Defazio et al. 2024): trains at y, evaluates the average x; z is in its state."""

    def __init__(self, parameters: Any, lr: float = 0.05, beta: float = 0.9) -> None:
        super().__init__(parameters, {"lr": lr, "beta": beta, "k": 0, "training": True})

    @torch.no_grad()
    def _turn(self, training: bool) -> None:
        for group in self.param_groups:
            if group["training"] != training:
                weight = 1 - group["beta"] if training else 1 - 1 / group["beta"]
                for parameter in group["params"]:
                    if parameter in self.state:
                        parameter.lerp_(self.state[parameter]["z"], weight)
                group["training"] = training

    def train(self) -> None:
        self._turn(True)

    def eval(self) -> None:
        self._turn(False)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # noqa: ARG002
        for group in self.param_groups:
            group["k"] += 1
            for y in group["params"]:
                if y.grad is not None:
                    state = self.state[y]
                    z = state.setdefault("z", y.detach().clone())
                    y.lerp_(z, 1 / group["k"])
                    y.sub_(y.grad, alpha=group["lr"] * (1 - group["beta"] * (1 - 1 / group["k"])))
                    z.sub_(y.grad, alpha=group["lr"])


def test_an_optimizer_that_averages_weights_is_rewound_without_pruned_ones(tmp_path: Path) -> None:
    model, record = bert(), Record()
    ticket = LotteryTicketCallback(levels=2, every="6it", rewind="2it", rate=0.5)
    optimizer = ScheduleFree(model.parameters())
    schedule = torch.optim.lr_scheduler.ConstantLR(optimizer)
    trainer(tmp_path, model, ticket, record, optimizers=(optimizer, schedule), **EVALUATED).train()
    dense, half, quarter = (row.weights for row in ticket.levels)
    assert record.states == [dense] * 6 + [half] * 4 + [quarter] * 4
    assert set(record.weights) == {dense, half, quarter}
    assert record.weights[-1] == quarter


class Average(TrainerCallback):
    """Puts an average of the dense weights in place at the end of a step, before evaluation."""

    def __init__(self, assign: Assign) -> None:
        self.assign = assign

    def on_train_begin(self, args: Any, state: Any, control: Any, **parts: Any) -> None:  # noqa: ARG002
        self.values = [p.detach().clone() for p in parts["model"].parameters()]

    def on_step_end(self, args: Any, state: Any, control: Any, **parts: Any) -> None:  # noqa: ARG002
        model: nn.Module = parts["model"]
        if state.global_step == 12:
            self.assign(model, self.values)


def test_an_average_of_the_users_is_evaluated_as_sparse_as_the_table_says(tmp_path: Path) -> None:
    record = Record()
    record.on_step_end = lambda *_, **__: None  # type: ignore[method-assign]
    ticket = LotteryTicketCallback(levels=1, every="8it", rewind="2it", rate=0.5)
    trainer(tmp_path, bert(), ticket, record, Average(COUNTED[1]), **EVALUATED).train()
    assert record.weights[-1] == ticket.ticket.mask.count


@pytest.mark.parametrize(
    "options",
    [
        EVALUATED,
        {"save_strategy": "steps", "save_steps": 12, "max_steps": 14},
        {"max_steps": 14, "eval_strategy": "no"},
    ],
)
def test_an_average_that_is_not_counted_is_an_error(tmp_path: Path, options: dict[str, Any]) -> None:
    ticket = LotteryTicketCallback(levels=2, every="7it", rewind="2it", rate=0.5)
    with raises_input_error("weight", "not zero"):
        trainer(tmp_path, bert(), ticket, Average(UNCOUNTED[0]), **options | {"max_steps": 17}).train()


class Replace(TrainerCallback):
    """Replaces the classifier at the end of this step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **parts: Any) -> None:  # noqa: ARG002
        if state.global_step == self.step:
            parts["model"].classifier = nn.Linear(24, 2)


@pytest.mark.parametrize("step", [3, 10])
@pytest.mark.parametrize("evaluated", ["no", "steps"])
def test_a_layer_that_a_callback_replaces_is_an_error(tmp_path: Path, step: int, evaluated: str) -> None:
    ticket = LotteryTicketCallback(levels=1, every="8it", rate=0.5)
    options = EVALUATED | {"eval_strategy": evaluated, "max_steps": 16}
    with raises_input_error("classifier.weight", "replaced"):
        trainer(tmp_path, bert(), ticket, Replace(step), **options).train()
    assert step > 8 or not ticket.levels
