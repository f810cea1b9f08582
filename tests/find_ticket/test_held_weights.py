"""However `train` changes weights: `evaluate` sees those that the table claims, or there is an error."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

import tombola
from tests.support.errors import raises_input_error
from tests.support.weight_changes import COUNTED, UNCOUNTED, Assign, average, descend, descend_functionally

JIT = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
X = torch.randn(40, 10, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] + X[:, 1] > 0).long()
CLAIMED = [768, 77, 7]


def make() -> nn.Sequential:
    return nn.Sequential(nn.Linear(10, 64), nn.ReLU(), nn.Linear(64, 2))


def weights(model: nn.Module) -> int:
    return sum(int(p.count_nonzero()) for p in model.parameters() if p.ndim > 1)


def accuracy(model: Callable[[torch.Tensor], torch.Tensor]) -> float:
    return float((model(X).argmax(1) == Y).float().mean())


def adam(model: nn.Module, steps: int = 3) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(steps):
        optimizer.zero_grad()
        functional.cross_entropy(model(X), Y).backward()
        optimizer.step()


def search(train: Callable[[nn.Module], Any]) -> list[int]:
    """Numbers of weights that `evaluate` sees in each run; asserts that the table says the same."""
    seen: list[int] = []

    def evaluate(model: nn.Module) -> float:
        figure = accuracy(model)
        seen.append(weights(model))
        return figure

    ticket, levels = tombola.find_ticket(make, train, evaluate=evaluate, levels=2, rate=0.9, progress=False)
    assert [row.weights for row in levels.rows] == seen
    assert ticket.trained is not None
    for name, kept in ticket.mask.items():
        assert not ticket.trained[name][~kept].any()
    return seen


def test_training_with_an_optimizer_is_held() -> None:
    assert search(adam) == CLAIMED


@pytest.mark.parametrize("assign", COUNTED)
def test_hand_written_training_is_held(assign: Assign) -> None:
    assert search(lambda model: descend(model, X, Y, assign)) == CLAIMED


@pytest.mark.parametrize("assign", COUNTED)
def test_hand_written_training_may_return_its_figure(assign: Assign) -> None:
    seen: list[int] = []

    def train(model: nn.Module) -> float:
        descend(model, X, Y, assign)
        figure = accuracy(model)
        seen.append(weights(model))
        return figure

    ticket, _ = tombola.find_ticket(make, train, levels=2, rate=0.9, progress=False)
    assert seen == CLAIMED
    assert ticket.mask.count in seen


@pytest.mark.parametrize("assign", UNCOUNTED)
@pytest.mark.parametrize("evaluate", [None, accuracy])
def test_changes_that_are_not_counted_are_refused(assign: Assign, evaluate: Any) -> None:
    def train(model: nn.Module) -> float:
        descend(model, X, Y, assign)
        return accuracy(model)

    with raises_input_error("train", "0.weight", "not zero"):
        tombola.find_ticket(make, train, evaluate=evaluate, levels=2, rate=0.9, progress=False)


def test_a_parameter_that_has_the_id_of_a_former_one_is_new() -> None:
    def train(model: nn.Sequential) -> float:
        layer, others = model[0], []
        number = id(layer.weight)
        layer.weight = nn.Parameter(torch.randn(64, 10))
        accuracy(model)
        while id(layer.weight) != number:
            others.append(layer.weight)
            layer.weight = nn.Parameter(torch.randn(64, 10))
        return accuracy(model)

    with raises_input_error("train", "0.weight", "not zero"):
        tombola.find_ticket(make, train, evaluate=accuracy, levels=1, rate=0.9, progress=False)


def test_the_training_loss_before_the_last_step_may_be_the_figure() -> None:
    def train(model: nn.Module) -> float:
        losses = []
        for _ in range(2):
            loss = functional.cross_entropy(model(X), Y)
            losses.append(loss.item())
            gradients = torch.autograd.grad(loss, [*model.parameters()])
            with torch.no_grad():
                torch._foreach_sub_([*model.parameters()], gradients)
        return -losses[-1]

    assert tombola.find_ticket(make, train, levels=1, rate=0.9, progress=False).ticket.mask.count == 77


def test_training_with_functional_call_is_held_where_it_is_evaluated() -> None:
    assert search(lambda model: descend_functionally(model, X, Y)) == CLAIMED


@JIT
@pytest.mark.parametrize("how", ["functional", "compiled", "weights"])
def test_a_figure_of_weights_that_are_not_held_is_refused(how: str) -> None:
    def train(model: nn.Module) -> float:
        if how == "functional":
            return accuracy(descend_functionally(model, X, Y))
        if how == "compiled":
            torch.compiler.reset()
            compiled: Any = torch.compile(model, backend="eager")
            descend(compiled, X, Y, COUNTED[0])
            return accuracy(compiled)
        first, _, last = model.children()

        def forward(x: torch.Tensor) -> torch.Tensor:
            return functional.linear(functional.linear(x, first.weight).relu(), last.weight)

        for _ in range(2):
            parameters = [first.weight, last.weight]
            gradients = torch.autograd.grad(functional.cross_entropy(forward(X), Y), parameters)
            with torch.no_grad():
                torch._foreach_sub_(parameters, gradients)
        return accuracy(forward)

    with raises_input_error("train", "0.weight", "`evaluate`"):
        tombola.find_ticket(make, train, levels=1, rate=0.9, progress=False)


def test_a_state_is_not_saved_with_pruned_weights_that_are_not_counted() -> None:
    def train(model: nn.Module) -> float:
        descend(model, X, Y, UNCOUNTED[0])
        figure, best = accuracy(model), copy.deepcopy(model.state_dict())
        model.load_state_dict(best)
        return figure

    with raises_input_error("0.weight", "not zero"):
        tombola.find_ticket(make, train, levels=1, rate=0.9, progress=False)


def direct(model: Any, x: torch.Tensor) -> torch.Tensor:
    """The network's forward pass without a call of its modules."""
    hidden = functional.linear(x, model[0].weight, model[0].bias).relu()
    return functional.linear(hidden, model[2].weight, model[2].bias)


@pytest.mark.parametrize("use", ["save", "load", "forward"])
@pytest.mark.parametrize("how", ["functional", "direct"])
def test_a_figure_is_refused_if_pruned_weights_are_set_to_zero_after_it(how: str, use: str) -> None:
    def train(model: nn.Module) -> float:
        if how == "functional":
            figure = accuracy(descend_functionally(model, X, Y))
        else:
            for _ in range(2):
                parameters = [*model.parameters()]
                gradients = torch.autograd.grad(functional.cross_entropy(direct(model, X), Y), parameters)
                with torch.no_grad():
                    torch._foreach_sub_(parameters, gradients)
            figure = accuracy(lambda x: direct(model, x))
        if use == "save":
            model.state_dict()
        elif use == "load":
            model.load_state_dict({name: p.detach().clone() for name, p in model.named_parameters()})
        else:
            model(X)
        return figure

    with raises_input_error("train", "0.weight", "`evaluate`"):
        tombola.find_ticket(make, train, levels=1, rate=0.9, progress=False)


def test_an_evaluation_with_gradients_is_looked_at() -> None:
    def train(model: nn.Module) -> float:
        descend(model, X, Y, UNCOUNTED[0])
        figure = accuracy(model.eval())
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1)
        return figure

    with raises_input_error("0.weight", "not zero"):
        tombola.find_ticket(make, train, levels=1, rate=0.9, progress=False)


def test_a_state_loaded_before_training_with_an_optimizer_leaves_the_figure() -> None:
    def train(model: nn.Module) -> float:
        model.load_state_dict(make().state_dict())
        adam(model)
        model.load_state_dict(copy.deepcopy(model.state_dict()))
        return accuracy(model)

    assert tombola.find_ticket(make, train, levels=1, rate=0.9, progress=False).ticket.mask.count == 77


class Resizable(nn.Module):
    """A layer that is pruned, and parameters that are not."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.scale = make(), nn.Parameter(torch.ones(2))
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> Any:
        return self.body(x) * self.scale.mean()


def _add(model: Any) -> None:
    model.head = nn.Linear(2, 2)


def _remove(model: Any) -> None:
    del model.scale
    model.scale = torch.ones(2)


def _resize(model: Any) -> None:
    model.scale = nn.Parameter(torch.ones(3))


@pytest.mark.parametrize(("change", "name"), [(_add, "head.weight"), (_remove, "scale"), (_resize, "scale")])
def test_parameters_that_train_adds_removes_or_resizes_are_refused(change: Any, name: str) -> None:
    def train(model: nn.Module) -> float:
        change(model)
        adam(model)
        return accuracy(model)

    with raises_input_error("train", name, "final layers"):
        tombola.find_ticket(Resizable, train, levels=1, rate=0.9, progress=False)


def test_buffers_may_be_added_and_removed() -> None:
    def train(model: Any) -> float:
        del model.steps
        model.register_buffer("seen", torch.ones(()))
        adam(model)
        return accuracy(model)

    assert tombola.find_ticket(Resizable, train, levels=1, rate=0.9, progress=False).ticket.mask.count == 77


def test_a_layer_replaced_in_train_is_refused_in_the_dense_run() -> None:
    runs: list[nn.Module] = []

    def train(model: Any) -> None:
        runs.append(model)
        model[2] = nn.Linear(64, 2)
        adam(model)

    with raises_input_error("train", "2.weight", "replaced"):
        search(train)
    assert len(runs) == 1


def test_a_hold_that_train_removes_or_changes_is_refused() -> None:
    from tombola.pruning.hold import release

    def other(model: nn.Module) -> None:
        tombola.hold(model, tombola.prune(model, 0.5))

    for change in (release, other):

        def train(model: nn.Module, change: Callable[[nn.Module], None] = change) -> None:
            change(model)
            adam(model)

        with raises_input_error("train", "0.weight", "hold"):
            search(train)


def test_a_deep_copy_of_a_layer_may_be_put_in_its_place() -> None:
    def train(model: Any) -> None:
        model[2] = copy.deepcopy(model[2])
        adam(model)

    assert search(train) == CLAIMED


def test_an_average_that_is_loaded_at_the_end_is_held() -> None:
    def train(model: nn.Module) -> None:
        before = copy.deepcopy(model)
        adam(model)
        averaged = average(model, [before, make()])
        COUNTED[1](model, [parameter.detach() for parameter in averaged.parameters()])

    assert search(train) == CLAIMED


@pytest.mark.parametrize("back", [False, True])
def test_weights_that_evaluate_swaps_in_are_checked(back: bool) -> None:
    dense = [p.detach() + 1 for p in make().parameters()]

    def evaluate(model: nn.Module) -> float:
        former = [p.detach().clone() for p in model.parameters()]
        UNCOUNTED[0](model, dense)
        figure = accuracy(model) if back else 0.5
        if back:
            UNCOUNTED[0](model, former)
        return figure

    with raises_input_error("0.weight"):
        tombola.find_ticket(make, adam, evaluate=evaluate, levels=1, rate=0.9, progress=False)
