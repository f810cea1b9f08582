from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as f

from tests.support.export_networks import FunctionNetwork, images
from tests.support.zoo_networks import CIFAR, MNIST, SMALL, build_network
from tombola.kernels.plans.steps import Pooling, Step, TracingError, graph_of

IMAGES = images(2, 3, 8, 8)
FLAT = images(2, 6)


def written(how: Callable[[Any, Tensor], Any], example: Tensor = IMAGES, **layers: nn.Module) -> list[Step]:
    return graph_of(FunctionNetwork(how, **layers), example)


def computed(steps: list[Step], example: Tensor) -> Tensor:
    """The output of the steps, executed one by one; kinds other than `other` only."""
    values: list[Tensor] = []
    for step in steps:
        reads = [values[index] for index in step.inputs]
        values.append(_apply(step, reads, example))
        assert tuple(values[-1].shape) == step.shape
    return values[-1]


def _apply(step: Any, reads: list[Tensor], example: Tensor) -> Tensor:
    o = step.options
    match step.kind:
        case "input":
            return example
        case "linear" | "conv" | "norm" | "subsample":
            return step.module.eval()(*reads)
        case "pointwise":
            return step.function(*reads)
        case "identity" | "output":
            return reads[0]
        case "max-pool":
            return f.max_pool2d(reads[0], o.kernel, o.stride, o.padding, o.dilation, o.ceil_mode)
        case "average-pool":
            pooled = f.avg_pool2d(reads[0], o.kernel, o.stride, o.padding, o.ceil_mode, o.count_include_pad)
            return pooled.reshape(step.shape)
        case "add":
            return reads[0] + reads[1]
        case "flatten":
            return reads[0].flatten(1)
        case "concatenate":
            return torch.cat(reads, 1)
        case "unflatten":
            return reads[0].unsqueeze(1)
    raise AssertionError(step.kind)


@pytest.mark.parametrize("inputs", [CIFAR, MNIST])
@pytest.mark.parametrize("name", sorted(set(SMALL) - {"vit"}))
def test_the_steps_of_zoo_networks_compute_the_same(name: str, inputs: tuple[int, ...]) -> None:
    network = build_network(name, inputs=inputs, **SMALL[name])
    example = images(2, *inputs)
    steps = graph_of(network, example)
    assert network.training
    assert "other" not in {step.kind for step in steps}
    assert len({step.name for step in steps}) == len(steps)
    torch.testing.assert_close(computed(steps, example), network.eval()(example))
    modules = dict(network.named_modules())
    assert all(modules[step.path] is step.module for step in steps if step.module is not None)


def test_the_identity_shortcut_is_a_subsample() -> None:
    network = build_network("resnet", depth=8, width=3, shortcut="identity")
    steps = graph_of(network, images(2, *CIFAR))
    assert [step.kind for step in steps].count("subsample") == 2
    torch.testing.assert_close(computed(steps, images(2, *CIFAR)), network.eval()(images(2, *CIFAR)))


def test_a_transformer_has_linear_layers_among_others() -> None:
    steps = graph_of(build_network("vit", **SMALL["vit"]), images(2, *CIFAR))
    named = {step.name: step for step in steps}
    assert named["block1.fc1"].kind == named["block1.attention.qkv"].kind == "linear"
    assert named["block1.norm1"].kind == "other"
    assert named["tokens.position"].kind == "other"
    assert steps[named["block1.fc2"].inputs[0]].kind == "pointwise"


FLATTENINGS: list[Callable[[Any, Tensor], Tensor]] = [
    lambda _, x: x.flatten(1),
    lambda _, x: x.flatten(start_dim=1),
    lambda _, x: torch.flatten(x, 1, -1),
    lambda _, x: x.view(x.size(0), -1),
    lambda _, x: x.reshape((x.shape[0], -1)),
    lambda _, x: torch.reshape(x, (x.shape[0], -1)),
    lambda _, x: x.view(-1, x.shape[1] * x.shape[2] * x.shape[3]),
    lambda n, x: n.flatten(x),
]


@pytest.mark.parametrize("how", FLATTENINGS)
def test_all_ways_to_flatten_are_recognised(how: Callable[[Any, Tensor], Tensor]) -> None:
    _, step, _ = written(how, flatten=nn.Flatten())
    assert (step.kind, step.inputs, step.shape, step.fixed) == ("flatten", (0,), (2, 192), False)


def test_flattening_to_a_number_is_fixed() -> None:
    _, step, _ = written(lambda _, x: x.view(-1, 192))
    assert (step.kind, step.fixed) == ("flatten", True)


@pytest.mark.parametrize(
    "how",
    [
        lambda _, x: x.view(2, -1),  # a literal batch size
        lambda _, x: x.flatten(2),
        lambda _, x: x.flatten(),
        lambda _, x: x.permute(0, 2, 3, 1),
        lambda _, x: x / x.shape[0],
        lambda _, x: x.mean(1),
        lambda _, x: torch.cat([x, x], 2),
        lambda _, x: x + x[:1],
        lambda _, x: f.dropout(x, 0.5, True),
        lambda _, x: f.avg_pool2d(x, 2, divisor_override=3),
        lambda _, x: f.adaptive_avg_pool2d(x, 3),
        lambda _, x: x.softmax(1),
        lambda _, x: x.double(),
        lambda n, x: n.norm(x),
        lambda n, x: n.hooked(x),
        lambda n, x: f.conv2d(x, n.conv.weight),
    ],
)
def test_unrecognised_operations_are_other(how: Callable[[Any, Tensor], Tensor]) -> None:
    hooked = nn.ReLU()
    hooked.register_forward_hook(lambda *_: None)
    norm = nn.BatchNorm2d(3, track_running_stats=False)
    assert written(how, norm=norm, hooked=hooked, conv=nn.Conv2d(3, 2, 3))[-2].kind == "other"


POINTWISE: list[Callable[[Any, Tensor], Tensor]] = [
    lambda _, x: f.relu(x),
    lambda _, x: f.relu(x.clone(), inplace=True),
    lambda _, x: x.relu_(),
    lambda _, x: torch.relu(x),
    lambda n, x: n.relu(x),
    lambda n, x: n.elu(x),
    lambda _, x: f.gelu(x, approximate="tanh"),
    lambda _, x: f.leaky_relu(x, 0.3, True),
    lambda _, x: 1 - x,
    lambda _, x: 2 * x,
    lambda _, x: x.mul_(3),
    lambda _, x: x.clamp(0, 1),
    lambda _, x: torch.add(x, 1, alpha=2),
]


@pytest.mark.parametrize("how", POINTWISE)
def test_pointwise_functions_do_not_change_their_argument(how: Callable[[Any, Tensor], Tensor]) -> None:
    network = FunctionNetwork(how, relu=nn.ReLU(inplace=True), elu=nn.ELU(0.7, inplace=True))
    step = graph_of(network, FLAT)[-2]
    x = FLAT.clone()
    assert step.kind == "pointwise"
    assert torch.equal(step.function(x), how(network, FLAT.clone()))
    assert torch.equal(x, FLAT)


@pytest.mark.parametrize("how", POINTWISE[:5])
def test_every_relu_is_that_of_torch(how: Callable[[Any, Tensor], Tensor]) -> None:
    assert written(how, FLAT, relu=nn.ReLU())[-2].function is torch.relu


POOLS: dict[str, tuple[Callable[[Any, Tensor], Tensor], Pooling]] = {
    "module": (lambda n, x: n.pool(x), Pooling((3, 2), (2, 1), (1, 0), (1, 2), True)),
    "function": (lambda _, x: f.max_pool2d(x, 2), Pooling((2, 2), (2, 2))),
    "average": (lambda _, x: f.avg_pool2d(x, (2, 4), padding=1, count_include_pad=False),
                Pooling((2, 4), (2, 4), (1, 1), (1, 1), False, False)),
    "adaptive": (lambda _, x: f.adaptive_avg_pool2d(x, (4, None)), Pooling((2, 1), (2, 1))),
    "adaptive maximum": (lambda _, x: f.adaptive_max_pool2d(x, 2), Pooling((4, 4), (4, 4))),
    "mean": (lambda _, x: x.mean((2, 3)), Pooling((8, 8), (8, 8))),
    "mean, axes kept": (lambda _, x: torch.mean(x, dim=[-1, -2], keepdim=True), Pooling((8, 8), (8, 8))),
    "computed": (lambda _, x: f.avg_pool2d(x, x.shape[2:]), Pooling((8, 8), (8, 8))),
}  # fmt: skip


@pytest.mark.parametrize("name", POOLS)
def test_all_poolings_have_the_same_options(name: str) -> None:
    how, options = POOLS[name]
    network = FunctionNetwork(how, pool=nn.MaxPool2d((3, 2), (2, 1), (1, 0), (1, 2), ceil_mode=True))
    steps = graph_of(network, IMAGES)
    assert steps[-2].options == options
    torch.testing.assert_close(computed(steps, IMAGES), network(IMAGES))


def test_additions_and_concatenations_keep_the_order_of_their_operands() -> None:
    steps = written(lambda n, x: torch.cat([n.b(x), n.a(x), x], dim=-1), FLAT, a=nn.Linear(6, 2), b=nn.Linear(6, 3))
    assert [step.path for step in steps[:3]] == ["", "b", "a"]
    assert (steps[3].kind, steps[3].inputs, steps[3].shape) == ("concatenate", (1, 2, 0), (2, 11))
    steps = written(lambda n, x: n.a(x).add_(x), FLAT, a=nn.Linear(6, 6))
    assert (steps[2].kind, steps[2].inputs) == ("add", (1, 0))


def test_a_tensor_changed_in_place_is_a_new_output() -> None:
    def how(network: Any, x: Tensor) -> Any:
        y = network.drop(network.a(x))
        z = network.relu(y)
        return y + z

    network = FunctionNetwork(how, a=nn.Linear(6, 6), drop=nn.Dropout(), relu=nn.ReLU(inplace=True)).eval()
    steps = graph_of(network, FLAT)
    assert [step.kind for step in steps] == ["input", "linear", "identity", "pointwise", "add", "output"]
    assert steps[4].inputs == (3, 3)
    torch.testing.assert_close(computed(steps, FLAT), network(FLAT))
    before = FLAT.clone()
    graph_of(FunctionNetwork(lambda _, x: x.relu_()), before)
    assert torch.equal(before, FLAT)


def test_dependencies_through_numbers_are_inputs() -> None:
    steps = written(lambda n, x: x.new_zeros(n.a(x).shape[1]) * n.b(x), FLAT, a=nn.Linear(6, 4), b=nn.Linear(6, 4))
    zeros = next(step for step in steps if step.name == "new_zeros")
    assert (zeros.kind, {steps[index].name for index in zeros.inputs}) == ("other", {"x", "a"})


def test_modules_that_are_called_twice_or_share_parameters_are_fixed() -> None:
    def how(network: Any, x: Tensor) -> Any:
        return network.c(network.b(network.relu(network.a(network.relu(network.a(x))))))

    a, b, c = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6)
    b.weight = c.weight
    steps = graph_of(FunctionNetwork(how, a=a, b=b, c=c, relu=nn.ReLU()), FLAT)
    assert {step.path: step.fixed for step in steps if step.path} == {"a": True, "b": True, "c": True, "relu": False}
    steps = written(lambda n, x: n.a(x) * n.a.weight.sum(), FLAT, a=nn.Linear(6, 6))
    assert next(step for step in steps if step.path == "a").fixed
    both = nn.Sequential(nn.Linear(6, 6))
    both.again = both[0]
    assert graph_of(both, FLAT)[1].path == "0"


def test_a_single_layer_and_optional_arguments() -> None:
    assert [step.kind for step in graph_of(nn.Linear(6, 2), FLAT)] == ["input", "linear", "output"]

    class Optional(nn.Module):
        def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
            return x if mask is None else x * mask

    assert [step.kind for step in graph_of(Optional(), FLAT)] == ["input", "output"]
    steps = written(lambda _, x: (x, {"more": x + 1}))
    assert (steps[-1].kind, steps[-1].inputs, steps[-1].shape) == ("output", (0, 1), ())


def grows(_: nn.Module, x: Tensor) -> Tensor:
    return x if x.sum() > 0 else -x


def half(_: nn.Module, x: Tensor) -> Tensor:
    x[:, 0].relu_()
    return x + 1


@pytest.mark.parametrize(
    ("how", "said"),
    [(grows, "control flow"), (half, "in place"), (lambda n, x: n.a(x), "shapes cannot be multiplied")],
)
def test_tracing_errors_give_the_reason(how: Callable[[Any, Tensor], Any], said: str) -> None:
    network = FunctionNetwork(how, a=nn.Linear(7, 2)).train()
    with pytest.raises(TracingError, match=said) as caught:
        graph_of(network, FLAT)
    assert "\n" not in str(caught.value)
    assert network.training
