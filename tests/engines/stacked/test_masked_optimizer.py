from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from tests.support.triton_kernels import DEVICE, needs_triton, random_state, transposed
from tombola.engines import optimizers
from tombola.engines.stacked.masked_optimizer import MaskedOptimizer
from tombola.pruning.mask import State
from tombola.runs.run import Training
from tombola.utils.duration import Duration

pytestmark = [needs_triton, pytest.mark.cuda]

ADAM = {"optimizer": "adam"}
SGD = {"optimizer": "sgd"}
MOMENTUM = SGD | {"momentum": 0.9, "weight_decay": 0.05}
RULES = [
    ADAM,
    ADAM | {"weight_decay": 0.05},
    SGD,
    SGD | {"weight_decay": 0.05},
    MOMENTUM,
    MOMENTUM | {"nesterov": True},
]
SHAPES: dict[str, tuple[int, ...]] = {
    "large": (3, 40, 13),
    "transposed": (2, 5, 7),
    "vector": (1, 33),
    "free": (3, 3),
}


def pruned_at(density: float) -> State:
    return {name: noise > density for name, noise in uniform().items() if name != "free"}


def uniform() -> State:
    generator = torch.Generator().manual_seed(5)
    return {name: torch.rand(shape, generator=generator).to(DEVICE) for name, shape in SHAPES.items()}


def training(**options: Any) -> Training:
    return Training(**{"lr": 0.01, "batch_size": 1, "length": Duration(iterations=9)} | options)


class Trained:
    """Parameters that are trained with given gradients."""

    def __init__(self, kernels: bool, density: float = 0.4, **options: Any) -> None:
        start = random_state(0, **SHAPES)
        start["transposed"] = transposed(start["transposed"])
        self.training = training(**options)
        self.parameters: State = {name: nn.Parameter(tensor) for name, tensor in start.items()}
        self.optimizer = optimizers.build_optimizer(
            self.parameters, (), self.training, capturable=DEVICE.type == "cuda"
        )
        self.pruned = pruned_at(density)
        self.masked = MaskedOptimizer(self.optimizer, self.parameters, self.pruned, kernels)

    def steps(self, first: int, count: int, without: str = "") -> Trained:
        rates = optimizers.learning_rates(self.training, first, count).tolist()
        for iteration, rate in enumerate(rates, first):
            optimizers.set_learning_rate(self.optimizer, rate)
            for name, gradient in random_state(100 + iteration, **SHAPES).items():
                if name == "transposed" and not self.masked.kernels:
                    gradient = transposed(gradient)  # torch's optimizers need gradients that lie like the weights
                self.parameters[name].grad = None if name == without else gradient
            self.masked.step()
            for name, pruned in self.pruned.items():
                assert not self.parameters[name][pruned].any()
        return self

    @property
    def state(self) -> State:
        return dict(self.parameters) | optimizers.optimizer_state(self.optimizer, self.parameters)


def assert_same(a: Trained, b: Trained) -> None:
    for name, expected in b.state.items():
        assert a.state[name].stride() == expected.stride() or name.startswith("step")
        torch.testing.assert_close(a.state[name].detach(), expected.detach(), rtol=1e-4, atol=1e-6)
    assert a.state.keys() == b.state.keys()


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("density", [0.0, 0.4, 1.0])
def test_a_kernel_does_what_the_optimizer_and_the_mask_do(rule: dict[str, Any], density: float) -> None:
    assert_same(Trained(True, density, **rule).steps(0, 4), Trained(False, density, **rule).steps(0, 4))


@pytest.mark.parametrize("rule", [ADAM, MOMENTUM])
def test_a_parameter_without_a_gradient_stays_as_it_is(rule: dict[str, Any]) -> None:
    fused, plain = (Trained(kernels, **rule).steps(0, 2, without="free") for kernels in (True, False))
    assert torch.equal(fused.parameters["free"], random_state(0, **SHAPES)["free"])
    assert_same(fused, plain)


@pytest.mark.parametrize("rule", [ADAM, MOMENTUM])
@pytest.mark.parametrize("kernels", [(True, False), (False, True)])
def test_kernels_continue_what_the_optimizer_began_and_the_other_way_round(
    rule: dict[str, Any], kernels: tuple[bool, bool]
) -> None:
    begun, continued = (Trained(use, **rule) for use in kernels)
    begun.steps(0, 3)
    with torch.no_grad():
        for name, parameter in continued.parameters.items():
            parameter.copy_(begun.parameters[name])
    state = {name: value.contiguous() for name, value in begun.state.items() if "/" in name}  # as read from a file
    optimizers.load_optimizer_state(continued.optimizer, continued.parameters, state)
    assert_same(continued.steps(3, 3), Trained(False, **rule).steps(0, 6))


@pytest.mark.parametrize("rule", [ADAM, SGD])
def test_a_learning_rate_on_the_device_may_change(rule: dict[str, Any]) -> None:
    schedule = {"schedule": "cosine", "warmup": Duration(iterations=2)} | rule
    fused, plain = Trained(True, **schedule), Trained(False, **schedule)
    for group in fused.optimizer.param_groups:
        group["lr"] = torch.tensor(0.0, device=DEVICE)
    assert_same(fused.steps(0, 4), plain.steps(0, 4))


def test_the_same_steps_give_the_same_bits() -> None:
    one, other = (Trained(True, **ADAM).steps(0, 3).state for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)
