from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.support.triton_kernels import DEVICE, needs_triton, transposed
from tombola.engines import optimizers
from tombola.engines.stacked.stack import Stack, recognise_stack
from tombola.pruning.mask import State
from tombola.runs.run import Training
from tombola.utils.duration import Duration

pytestmark = [needs_triton, pytest.mark.cuda]

ITERATIONS = 3


def odd() -> nn.Module:
    """With odd sizes, more than a block has, a layer without bias, and one without ReLU."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(70, 17), nn.ReLU(), nn.Linear(17, 66, bias=False), nn.Linear(66, 3), nn.Identity()
    )


def single() -> nn.Module:
    return nn.Linear(5, 4)


def two() -> nn.Module:
    return nn.Sequential(nn.Linear(9, 20), nn.ReLU(), nn.Linear(20, 10))


class Case:
    """Networks of several runs, their masks and their batches."""

    def __init__(self, make: Callable[[], nn.Module], runs: int, batch: int, density: float, **options: Any) -> None:
        torch.manual_seed(runs)
        defaults = {"optimizer": "adam", "lr": 0.01, "batch_size": batch, "length": Duration(iterations=9)}
        self.training = Training(**defaults | options)
        self.networks = [make().to(DEVICE) for _ in range(runs)]
        stack = recognise_stack(self.networks[0])
        assert isinstance(stack, Stack)
        self.stack = stack
        self.x = torch.rand(31, stack.layers[0].inputs, device=DEVICE)
        self.rows = torch.randint(31, (ITERATIONS, runs, batch), device=DEVICE)
        self.labels = torch.randint(stack.layers[-1].outputs, (ITERATIONS, runs, batch), device=DEVICE)
        weights = {layer.weight: (layer.outputs, layer.inputs) for layer in stack.layers}
        self.pruned = {name: torch.rand(runs, *shape, device=DEVICE) > density for name, shape in weights.items()}
        self.rates = optimizers.learning_rates(self.training, 0, ITERATIONS).tolist()

    def optimizer(self, parameters: State) -> torch.optim.Optimizer:
        return optimizers.build_optimizer(parameters, (), self.training, capturable=DEVICE.type == "cuda")


class Trained:
    """Parameters and optimizer states, and the sums of the losses: the runs along the first axis."""

    def __init__(self, states: State, losses: Tensor) -> None:
        self.states = states
        self.losses = losses


def trained_one_by_one(case: Case) -> Trained:
    """A plain loop."""
    states, losses = [], torch.zeros(len(case.networks), device=DEVICE)
    for run, network in enumerate(case.networks):
        parameters: State = {name: nn.Parameter(p.detach().clone()) for name, p in network.named_parameters()}
        optimizer = case.optimizer(parameters)
        for rate, rows, labels in zip(case.rates, case.rows[:, run], case.labels[:, run], strict=True):
            optimizers.set_learning_rate(optimizer, rate)
            loss = functional.cross_entropy(torch.func.functional_call(network, parameters, case.x[rows]), labels)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            with torch.no_grad():
                for name, pruned in case.pruned.items():
                    parameters[name][pruned[run]] = 0
            losses[run] += loss.detach()
        states.append(dict(parameters) | optimizers.optimizer_state(optimizer, parameters))
    stacked = {name: torch.stack([state[name].detach().to(DEVICE) for state in states]) for name in states[0]}
    return Trained(stacked, losses)


def trained_fused(case: Case, turned: Sequence[str] = (), gathered: bool = True) -> Trained:
    from tombola.engines.stacked.fused_step import FusedStep

    networks = [dict(network.named_parameters()) for network in case.networks]
    parameters: State = {name: torch.stack([n[name].detach() for n in networks]) for name in networks[0]}
    parameters |= {name: transposed(parameters[name]) for name in turned}
    pruned = {name: transposed(mask) if name in turned else mask for name, mask in case.pruned.items()}
    for parameter in parameters.values():
        parameter.requires_grad_()
    optimizer = case.optimizer(parameters)
    step = FusedStep(case.stack, parameters, pruned, optimizer, case.training.batch_size, case.training.precision)
    losses = torch.zeros(len(networks), device=DEVICE)
    for rate, rows, labels in zip(case.rates, case.rows, case.labels, strict=True):
        optimizers.set_learning_rate(optimizer, rate)
        if gathered:
            step(case.x, rows, labels, losses)
        else:
            step(case.x[rows].unsqueeze(2), None, labels, losses)
        assert not any(parameters[name][where].any() for name, where in pruned.items())
    states = dict(parameters) | optimizers.optimizer_state(optimizer, parameters)
    return Trained({name: state.detach().to(DEVICE) for name, state in states.items()}, losses)


def assert_same(fused: Trained, expected: Trained) -> None:
    torch.testing.assert_close(fused.losses, expected.losses, rtol=1e-4, atol=1e-5)
    assert fused.states.keys() == expected.states.keys()
    for name, state in expected.states.items():
        found = fused.states[name].expand(state.shape)  # runs have made equally many steps
        torch.testing.assert_close(found, state, rtol=1e-3, atol=1e-5)


ADAM_DECAY = {"weight_decay": 0.01}
MOMENTUM = {"optimizer": "sgd", "momentum": 0.9, "weight_decay": 0.01}
SCHEDULE = {"schedule": "cosine", "warmup": Duration(iterations=2)}


@pytest.mark.parametrize(
    "case",
    [
        (odd, 3, 19, 0.5, {}),
        (odd, 1, 70, 0.0, ADAM_DECAY),
        (single, 3, 1, 1.0, {"optimizer": "sgd"}),
        (single, 2, 64, 0.7, MOMENTUM),
        (two, 3, 33, 0.3, MOMENTUM | {"nesterov": True}),
        (two, 2, 16, 0.9, SCHEDULE),
        (two, 1, 5, 0.5, SCHEDULE | {"optimizer": "sgd", "precision": "tf32"}),
    ],
)
def test_runs_train_as_one_by_one(case: Any) -> None:
    make, runs, batch, density, options = case
    if options.get("precision") == "tf32" and DEVICE.type == "cuda":
        pytest.skip("the plain loop has another precision")
    known = Case(make, runs, batch, density, **options)
    assert_same(trained_fused(known), trained_one_by_one(known))


@pytest.mark.parametrize("rule", [{}, MOMENTUM])
def test_the_order_in_memory_and_the_source_of_the_inputs_make_no_difference(rule: dict[str, Any]) -> None:
    case = Case(odd, 2, 19, 0.5, **rule)
    expected = trained_fused(case)
    turned = [layer.weight for layer in case.stack.layers[1:]]
    assert_same(trained_fused(case, turned), expected)
    assert_same(trained_fused(case, turned, gathered=False), expected)


def test_the_same_steps_give_the_same_bits() -> None:
    case = Case(odd, 2, 19, 0.5)
    one, other = trained_fused(case), trained_fused(case)
    assert torch.equal(one.losses, other.losses)
    assert all(torch.equal(one.states[name], other.states[name]) for name in one.states)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # of numpy, in the interpreter
def test_a_diverged_run_leaves_the_others_alone() -> None:
    case = Case(two, 3, 16, 0.5)
    expected = trained_fused(case)
    with torch.no_grad():
        next(case.networks[1].parameters())[0] = torch.nan
    found = trained_fused(case)
    assert found.losses.isnan().tolist() == [False, True, False]
    for name, state in found.states.items():
        if state.dim():
            assert torch.equal(state[[0, 2]], expected.states[name][[0, 2]])
            assert state[1].isnan().any()
            if name in case.pruned:
                assert not state[1][case.pruned[name][1]].any()


def test_many_classes_are_summed_in_parts() -> None:
    case = Case(lambda: nn.Linear(3, 700), 2, 11, 1.0, optimizer="sgd")
    assert_same(trained_fused(case), trained_one_by_one(case))
