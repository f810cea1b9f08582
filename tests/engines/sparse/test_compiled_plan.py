"""Which networks train in compiled loops, and what their plans compute."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from tests.support.training import dense_run
from tombola.engines.sparse.compiled_plan import compiled_plan, why_not_this_run
from tombola.kernels.plans.training_plan import BatchNorm, Copy, LayerProduct, Pool, TrainingOperation, TrainingPlan
from tombola.pruning.mask import Mask
from tombola.zoo.models.resnet import resnet_18, resnet_20
from tombola.zoo.models.vgg import vgg

IMAGES = (3, 12, 12)


def plan_of(network: nn.Module, inputs: tuple[int, ...] = IMAGES) -> TrainingPlan:
    plan = compiled_plan(network, inputs)
    assert not isinstance(plan, str), plan
    return plan


def kinds(plan: TrainingPlan) -> list[type[TrainingOperation]]:
    return [type(operation) for operation in plan.operations]


class Sum(nn.Module):
    """The sum of two branches, after some layers, and before others."""

    def __init__(self, one: nn.Module, other: nn.Module, relu: bool = True) -> None:
        super().__init__()
        self.before = nn.Conv2d(3, 4, 3, padding=1)
        self.one, self.other, self.relu = one, other, relu
        self.after = nn.LazyLinear(10)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.before(x))
        x = self.one(x) + self.other(x)
        return self.after((functional.relu(x) if self.relu else x).flatten(1))


def conv(before: int = 4, after: int = 4, kernel: int = 3, **options: int) -> nn.Conv2d:
    return nn.Conv2d(before, after, kernel, **{"padding": kernel // 2, **options})


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "a linear layer": lambda: nn.Sequential(nn.Flatten(), nn.Linear(432, 10)),
    "dropout of inputs": lambda: nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(432, 10)),
    "strides, dilation and groups": lambda: nn.Sequential(
        nn.Conv2d(3, 6, 5, 2, padding=1, dilation=2, groups=3),
        nn.ReLU(),
        nn.Conv2d(6, 4, (2, 3), (1, 2), padding=2),
        nn.Flatten(),
        nn.Linear(72, 10),
    ),
    "overlapping pools": lambda: nn.Sequential(
        conv(3), nn.MaxPool2d(3, 2, 1), nn.ReLU(), nn.AvgPool2d(3, 1, 1), conv(), nn.Flatten(), nn.LazyLinear(10)
    ),
    "batch norm of features": lambda: nn.Sequential(
        nn.Flatten(), nn.Linear(432, 20), nn.BatchNorm1d(20), nn.ReLU(), nn.Dropout(0.3), nn.Linear(20, 10)
    ),
    "batch norm first": lambda: nn.Sequential(nn.BatchNorm2d(3), conv(3), nn.Flatten(), nn.LazyLinear(10)),
    "batch norm after relu": lambda: nn.Sequential(
        conv(3), nn.ReLU(), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10)
    ),
    "a head of convolutions": lambda: nn.Sequential(
        conv(3), nn.ReLU(), conv(4, 10, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    ),
    "pixels that nothing reads": lambda: nn.Sequential(
        conv(3), nn.MaxPool2d(5), conv(), nn.Conv2d(4, 4, 1, stride=2), nn.Flatten(), nn.LazyLinear(10)
    ),
    "a branch": lambda: Sum(conv(), conv(kernel=1)),
    "an identity": lambda: Sum(nn.Sequential(conv(), nn.BatchNorm2d(4)), nn.Identity()),
    "an identity first": lambda: Sum(nn.Identity(), nn.Sequential(conv(), nn.BatchNorm2d(4)), relu=False),
    "two batch norms": lambda: Sum(
        nn.Sequential(conv(stride=2), nn.BatchNorm2d(4)), nn.Sequential(conv(kernel=1, stride=2), nn.BatchNorm2d(4))
    ),
    "a sum with what a batch norm reads": lambda: Sum(nn.Identity(), nn.BatchNorm2d(4)),
    "a residual network": lambda: resnet_20(IMAGES, 10),
    "subsampled shortcuts": lambda: resnet_20(IMAGES, 10, shortcut="identity"),
    "projections": lambda: resnet_18(IMAGES, 10, width=4),
    "vgg": lambda: vgg(11, (3, 32, 32), 10, width=0.03),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_that_train_in_compiled_loops(name: str) -> None:
    torch.manual_seed(0)
    inputs = (3, 32, 32) if name == "vgg" else IMAGES
    network = NETWORKS[name]()
    network.eval()(torch.zeros(2, *inputs))  # makes the lazy layers
    plan_of(network.train(), inputs)


def test_relu_and_additions_are_fused() -> None:
    plan = plan_of(resnet_20(IMAGES, 10))
    block = [LayerProduct, BatchNorm, LayerProduct, BatchNorm]
    ends = [Pool, LayerProduct]
    projected, copied = [*block, LayerProduct, BatchNorm], [*block, Copy]
    assert kinds(plan) == [LayerProduct, BatchNorm, *block * 3, *projected, *block * 2, *projected, *block * 2, *ends]
    plan = plan_of(resnet_20(IMAGES, 10, shortcut="identity"))
    assert kinds(plan) == [LayerProduct, BatchNorm, *block * 3, *copied, *block * 2, *copied, *block * 2, *ends]


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_random_convolutions_with_pools_and_norms(data: st.DataObject) -> None:
    def pair(low: int, high: int) -> tuple[int, int]:
        return data.draw(st.tuples(st.integers(low, high), st.integers(low, high)))

    torch.manual_seed(data.draw(st.integers(0, 999)))
    layers: list[nn.Module] = []
    channels, height, width = data.draw(st.integers(1, 3)), *pair(5, 12)
    inputs = channels, height, width
    for _ in range(data.draw(st.integers(1, 3))):
        groups = data.draw(st.sampled_from([1, channels]))
        after = groups * data.draw(st.integers(1, 4))
        kernel, stride, padding, dilation = pair(1, 3), pair(1, 3), pair(0, 2), pair(1, 2)
        made = [nn.Conv2d(channels, after, kernel, stride, padding, dilation, groups)]
        made += data.draw(
            st.sampled_from([[], [nn.ReLU()], [nn.BatchNorm2d(after)], [nn.BatchNorm2d(after), nn.ReLU()]])
        )
        made += data.draw(
            st.sampled_from([[], [nn.MaxPool2d(2)], [nn.MaxPool2d(3, 2, 1)], [nn.AvgPool2d(2, 1)], [nn.Dropout(0.5)]])
        )
        try:
            out = nn.Sequential(*layers, *made).eval()(torch.zeros(2, *inputs))
        except RuntimeError:  # images smaller than a kernel
            break
        layers += made
        channels = after
    if not layers:
        return
    out = nn.Sequential(*layers).eval()(torch.zeros(2, *inputs))
    network = nn.Sequential(*layers, nn.Flatten(), nn.Linear(out[0].numel(), 10))
    plan_of(network.train(), inputs)


class Functional(nn.Module):
    """Dropout as a function, whose probability is not known from the graph in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(functional.dropout(x, 0.5, self.training))


class Detached(Functional):
    """No gradient for its first layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.first(x).detach())


class ZeroBranch(nn.Module):
    """A residual block whose branch adds nothing at first, and so gives nothing a gradient."""

    def __init__(self, branch: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.inner, self.norm, self.layer = (
            nn.Linear(6, 6), nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Linear(6, 10)
        )  # fmt: skip
        self.branch = branch
        nn.init.zeros_(self.norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.layer(x + self.norm(self.inner(self.branch(x))))


class SkippedLayer(Functional):
    """Leaves a layer out of a hundredth of the training steps."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        skipped = self.training and random.random() < 0.01
        return self.layer(x if skipped else self.first(x))


class Counting(Functional):
    """Counts its calls; what it computes may depend on their number."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.layer(x)


class ExtraState(nn.Sequential):
    def get_extra_state(self) -> Tensor:
        return torch.ones(2)


def with_tensor(name: str, buffer: bool = True, persistent: bool = True) -> nn.Module:
    layer = nn.Linear(6, 10)
    if buffer:
        layer.register_buffer(name, torch.ones(()), persistent)
    else:
        layer.register_parameter(name, nn.Parameter(torch.ones(())))
    return nn.Sequential(layer)


def hooked() -> nn.Module:
    network = nn.Sequential(nn.Linear(6, 10))
    network[0].register_forward_hook(lambda *_: None)
    return network


def frozen() -> nn.Module:
    network = nn.Sequential(nn.Linear(6, 10))
    network[0].bias.requires_grad_(False)
    return network


def shared() -> nn.Module:
    layer = nn.Linear(6, 6)
    return nn.Sequential(layer, nn.ReLU(), layer)


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (nn.Sequential(nn.Linear(6, 10), nn.ReLU()), "its outputs end with a ReLU, or are images"),
        (nn.Sequential(nn.Linear(6, 6), nn.GELU(), nn.Linear(6, 10)), "is not a ReLU"),
        (nn.Sequential(nn.Linear(6, 6), nn.AlphaDropout(0.5), nn.Linear(6, 10)), "is not supported"),
        (nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6, affine=False), nn.Linear(6, 10)), "has no scale"),
        (nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6, momentum=None), nn.Linear(6, 10)), "no momentum"),
        (nn.Sequential(nn.Linear(6, 10, dtype=torch.float64)), "0.weight is of torch.float64"),
        (nn.Sequential(nn.Flatten()), "does not give the logits"),
        (Functional(), "it draws random numbers other than by nn.Dropout"),
        (Detached(), "other parameters have gradients"),
        (hooked(), "0 has hooks"),
        (frozen(), "0.bias is frozen"),
        (shared(), "is not supported"),
        (ZeroBranch(lambda x: x.detach()), "the gradient of first.weight differs"),
        (SkippedLayer(), "it draws random numbers other than by nn.Dropout"),
        (Counting(), "its forward pass changes calls"),
        (ExtraState(nn.Linear(6, 10)), "_extra_state is not of a layer"),
        (with_tensor("mine"), "0.mine is not of a layer"),
        (with_tensor("mine", persistent=False), "0.mine is not of a layer"),
        (with_tensor("num_batches_tracked"), "0.num_batches_tracked is not of a layer"),
        (with_tensor("mine", buffer=False), "0.mine is not of a layer"),
    ],
)
def test_other_networks_do_not_for_a_reason(network: nn.Module, reason: str) -> None:
    found = compiled_plan(network, (6,))
    assert isinstance(found, str)
    assert reason in found


def test_a_run_may_prune_more_than_the_weights_of_layers() -> None:
    run = dense_run(model={"name": "resnet-20"})
    plan = plan_of(resnet_20((8, 8), 10), (8, 8))
    assert why_not_this_run(plan, run) is None
    more = run.masked(Mask({**run.mask, "bn.weight": torch.ones(16, dtype=torch.bool)}))
    assert why_not_this_run(plan, more) == "bn.weight can be pruned, which is not the weight of a layer"


def test_a_batch_of_one_number_cannot_be_normalised() -> None:
    run = dense_run(training={"optimizer": "sgd", "lr": 0.1, "batch_size": 1, "length": "2it"})
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 5), nn.BatchNorm1d(5), nn.Linear(5, 10))
    reason = why_not_this_run(plan_of(network, (8, 8)), run.masked(Mask({})))
    assert reason == "2 normalises single numbers"
