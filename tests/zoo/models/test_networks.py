from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import pytest
import torch
from torch import nn
from torch.func import functional_call, stack_module_state, vmap

from tests.support.errors import raises_input_error
from tests.support.zoo_networks import CIFAR, IMAGES, MNIST, NEEDED, SMALL, build_network, make_start, output_of
from tombola.pruning.mask import prunable
from tombola.zoo.models import MODELS, build, describe

NORMED = [name for name in MODELS if name.startswith(("resnet", "vgg"))]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("inputs", [(28, 28), (3, 32, 32), (20, 36), (2, 16, 24)])
def test_outputs_have_a_logit_for_each_class(name: str, inputs: tuple[int, ...]) -> None:
    network = build_network(name, inputs=inputs, classes=7, **SMALL[name])
    assert network.training
    assert output_of(network, inputs).shape == (2, 7)
    assert output_of(network.eval(), inputs, examples=1).shape == (1, 7)


@pytest.mark.parametrize("name", MODELS)
def test_flat_images_give_the_same_outputs_as_images_with_one_channel(name: str) -> None:
    options = SMALL[name]
    flat, deep = (build_network(name, inputs=inputs, **options).eval() for inputs in [(28, 28), (1, 28, 28)])
    assert flat.state_dict().keys() == deep.state_dict().keys()
    assert torch.equal(output_of(flat, (28, 28)), output_of(deep, (1, 28, 28)))


@pytest.mark.parametrize("name", MODELS)
def test_the_output_layer_is_the_last_prunable_one(name: str) -> None:
    network = build_network(name, classes=7, **SMALL[name])
    assert prunable(network)[-1] == "output.weight"
    assert network.get_parameter("output.weight").shape[0] == 7


@pytest.mark.parametrize("name", MODELS)
def test_initial_weights_depend_on_the_seed_only_and_the_global_generator_is_restored(name: str) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = build_network(name, seed=1, **SMALL[name]).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    again, other = (build_network(name, seed=seed, **SMALL[name]).state_dict() for seed in (1, 2))
    assert all(torch.equal(first[tensor], again[tensor]) for tensor in first)
    drawn = [tensor for tensor in first if first[tensor].ndim > 1]
    assert not any(torch.equal(first[tensor], other[tensor]) for tensor in drawn)


@pytest.mark.parametrize("name", MODELS)
def test_networks_can_be_copied_and_pickled(name: str) -> None:
    network = build_network(name, **SMALL[name]).eval()
    expected = output_of(network, (3, 32, 32))
    for other in [copy.deepcopy(network), pickle.loads(pickle.dumps(network))]:
        assert torch.equal(output_of(other, (3, 32, 32)), expected)


@pytest.mark.parametrize(
    ("name", "options"),
    [*SMALL.items(), ("resnet", SMALL["resnet"] | {"shortcut": "identity"})],
)
def test_stacked_networks_equal_each_network_alone(name: str, options: dict[str, Any]) -> None:
    """Outputs, gradients and running statistics, as the stacked engine computes them."""
    inputs = (16, 16)
    networks = [
        build_network(name, seed, inputs, **options).double() for seed in range(3)
    ]  # so that rounding does not matter
    x = torch.rand(3, 4, *inputs, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    stacked, buffers = stack_module_state(networks)
    outputs = vmap(lambda p, b, x: functional_call(networks[0], (p, b), (x,)))(stacked, buffers, x)
    outputs.square().sum().backward()
    for index, network in enumerate(networks):
        alone = network(x[index])
        alone.square().sum().backward()
        assert torch.allclose(outputs[index], alone)
        for tensor, parameter in network.named_parameters():
            assert torch.allclose(stacked[tensor].grad[index], parameter.grad, atol=1e-8), tensor
        for tensor, buffer in network.named_buffers():
            assert torch.allclose(buffers[tensor][index], buffer), tensor


@pytest.mark.parametrize("name", MODELS)
def test_inputs_are_not_changed(name: str) -> None:
    x = torch.randn(2, 3, 32, 32)
    before = x.clone()
    build_network(name, **SMALL[name])(x)
    assert torch.equal(x, before)


def test_batch_norm_layers_are_batchnorm2d() -> None:
    for name in NORMED:
        norms = [
            m for m in build_network(name, **SMALL[name]).modules() if isinstance(m, nn.modules.batchnorm._NormBase)
        ]
        assert norms
        assert {type(norm) for norm in norms} == {nn.BatchNorm2d}


@pytest.mark.parametrize("name", MODELS)
def test_options_at_their_default_are_left_out_of_the_description(name: str) -> None:
    plain = describe(name, NEEDED.get(name, {}), (3, 32, 32), 10)
    assert plain.options == NEEDED.get(name, {})
    assert plain.source is None
    assert describe(name, NEEDED.get(name, {}) | {"init": "glorot-normal"}, (3, 32, 32), 10) == plain


@pytest.mark.parametrize(
    ("name", "options", "facts"),
    [
        ("lenet", {}, ["network", '"lenet"', '"lenet-5"']),
        ("lenet-5", {"dropout": 0.5}, ['"lenet-5"', '"dropout"']),
        ("conv-2", {"dropout": 1.0}, ["model.dropout", "less than 1", "1.0"]),
        ("conv-2", {"dropout": "half"}, ["model.dropout", "number", "'half'"]),
        ("conv-4", {"width": 0}, ["model.width", "greater than 0", "not 0"]),
        ("conv-6", {"init": "zeros"}, ["model.init", "'kaiming-normal'", "'zeros'"]),
        ("resnet", {}, ["model.depth", "Missing"]),
        ("resnet", {"depth": 2}, ["model.depth", "8", "not 2"]),
        ("resnet", {"depth": 18}, ["model.depth", "6n + 2", "18"]),
        ("resnet-20", {"depth": 8}, ['"resnet-20"', '"depth"']),
        ("resnet-20", {"shortcut": "none"}, ["model.shortcut", "'projection' or 'identity'", "'none'"]),
        ("resnet-20", {"width": 1.5}, ["model.width", "integer", "1.5"]),
        ("resnet-18", {"norm": "zeros"}, ["model.norm", "'ones' or 'uniform'", "'zeros'"]),
        ("resnet-18", {"shortcut": "identity"}, ['"resnet-18"', '"shortcut"']),
        ("vgg-16", {"width": -1.0}, ["model.width", "greater than 0", "-1.0"]),
        ("vit", {"patch": 5}, ["model.patch", "32×32", "5"]),
        ("vit", {"heads": 5}, ["model.heads", "192", "5"]),
        ("conv-4", {"width": math.inf}, ["model.width", "finite", "inf"]),
        ("vgg-11", {"width": math.nan}, ["model.width", "finite", "nan"]),
        ("vit", {"mlp_ratio": math.inf}, ["model.mlp_ratio", "finite", "inf"]),
        ("conv-2", {"dropout": math.nan}, ["model.dropout", "finite", "nan"]),
        ("vit", {"depth": 0}, ["model.depth", "greater than 0", "not 0"]),
    ],
)
def test_invalid_options_are_named(name: str, options: dict[str, Any], facts: list[str]) -> None:
    with raises_input_error(*facts):
        build_network(name, **options)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("conv-2", {"width": 1e13}),
        ("conv-2", {"width": 1e300}),
        ("vgg-11", {"width": 1e13}),
        ("vit", {"mlp_ratio": 1e12}),
        ("vit", {"mlp_ratio": 1e308}),
        ("resnet-20", {"width": 10**30}),
        ("mlp", {"widths": [10**12]}),
    ],
)
def test_networks_too_large_for_memory_are_refused(name: str, options: dict[str, Any]) -> None:
    with raises_input_error("model.name", f'"{name}"', "options"):
        build_network(name, **options)


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("inputs", [(10,), (2, 3, 32, 32)])
def test_image_networks_refuse_inputs_that_are_not_images(name: str, inputs: tuple[int, ...]) -> None:
    with raises_input_error("model.name", f'"{name}"', "(channels, height, width)", inputs):
        build_network(name, inputs=inputs, **NEEDED.get(name, {}))


@pytest.mark.parametrize(
    ("name", "min_side"),
    [
        ("conv-2", 2),
        ("conv-4", 4),
        ("conv-6", 8),
        ("resnet", 4),
        ("resnet-20", 4),
        ("resnet-18", 8),
        ("resnet-50", 16),
        ("vgg-11", 16),
        ("vgg-16", 16),
        ("vgg-19", 16),
        ("vit", 4),
    ],
)
def test_images_that_are_too_small_are_refused(name: str, min_side: int) -> None:
    options = SMALL[name]
    network = build_network(name, inputs=(min_side, min_side), **options).eval()
    assert output_of(network, (min_side, min_side)).shape == (2, 10)
    for height, width in [(min_side - 1, 32), (32, min_side - 1)]:
        with raises_input_error("model.name", f'"{name}"', f"{min_side}×{min_side}", f"{height}×{width}"):
            build_network(name, inputs=(3, height, width), **options)


def test_initial_weights_of_a_seed_do_not_change() -> None:
    """Golden values, up to rounding: a changed default of a factory would change results under the same keys."""
    for name, inputs, options, layer, expected in [
        ("lenet-300-100", MNIST, {}, "fc1.weight", [0.06660904, -0.07323112, -0.030039]),
        ("mlp", MNIST, {"widths": [20]}, "fc1.weight", [0.04229883, -0.00304277, -0.00558164]),
        ("lenet-5", MNIST, {}, "output.weight", [0.1666979, 0.01104676, 0.0549524]),
        ("conv-2", CIFAR, {}, "output.weight", [-0.00341663, -0.0663863, 0.01519123]),
        ("conv-4", CIFAR, {}, "output.weight", [0.1413026, 0.2040915, -0.08305533]),
        ("conv-6", CIFAR, {}, "output.weight", [0.14439331, -0.0940344, 0.02226726]),
        ("resnet-18", CIFAR, {}, "output.weight", [0.05361788, -0.03130875, -0.06157753]),
        ("resnet-50", CIFAR, {"width": 8}, "output.weight", [0.03506455, -0.12774651, -0.09611204]),
        ("resnet-20", CIFAR, {}, "output.weight", [-0.00382198, -0.04916438, 0.00611704]),
        ("vgg-11", CIFAR, {}, "output.weight", [-0.01895835, 0.05641973, -0.01115271]),
        ("vgg-16", CIFAR, {}, "output.weight", [0.00818321, 0.01752378, 0.04154235]),
        ("vgg-19", CIFAR, {}, "output.weight", [0.04293925, 0.04313114, 0.14462614]),
        ("vit", CIFAR, {}, "output.weight", [-0.02526233, 0.23108472, 0.06680437]),
        ("resnet", CIFAR, {"depth": 8}, "output.weight", [-0.00603339, -0.12202064, -0.06507138]),
    ]:
        weight = build(make_start(name, 7, inputs, **options)).get_parameter(layer)
        assert weight.flatten()[:3].tolist() == pytest.approx(expected, rel=1e-5)


WIDE: dict[str, dict[str, Any]] = NEEDED | {
    "resnet-18": {"width": 16},
    "resnet-50": {"width": 16},
    **{name: {"width": 0.25} for name in ("conv-2", "conv-4", "conv-6", "vgg-11", "vgg-16", "vgg-19")},
}
"""Options with enough weights in every layer for statistics."""


@pytest.mark.parametrize(
    ("init", "spread"),
    [("glorot-normal", math.sqrt(2 / (784 + 300))), ("kaiming-normal", math.sqrt(2 / 784))],
)
def test_initial_weights_are_normally_distributed(init: str, spread: float) -> None:
    network = build_network("lenet-300-100", inputs=MNIST, init=init)
    weight = network.get_parameter("fc1.weight").detach()
    assert weight.mean().item() == pytest.approx(0, abs=spread / 100)
    assert weight.std().item() == pytest.approx(spread, rel=0.01)
    standardised = weight.flatten() / spread
    for threshold, tail in [(1, 0.3173), (2, 0.0455), (3, 0.0027)]:  # a normal distribution's, not truncated
        assert (standardised.abs() > threshold).double().mean().item() == pytest.approx(tail, rel=0.1)


@pytest.mark.parametrize("init", ["glorot-normal", "kaiming-normal"])
@pytest.mark.parametrize("name", MODELS)
def test_every_layer_has_the_standard_deviation_of_its_fans(name: str, init: str) -> None:
    """The fans of a convolution are its channels times the size of its kernel."""
    network = build_network(name, init=init, **WIDE.get(name, {}))
    for layer in prunable(network):
        weight = network.get_parameter(layer).detach()
        out, into, *kernel = weight.shape
        pixels = math.prod(kernel)
        fans = (into + out) * pixels if init == "glorot-normal" else into * pixels
        sampling = 5 / math.sqrt(2 * weight.numel())  # five standard errors of a standard deviation
        assert weight.square().mean().sqrt().item() == pytest.approx(math.sqrt(2 / fans), rel=sampling), layer


@pytest.mark.parametrize("name", MODELS)
def test_biases_are_zero(name: str) -> None:
    biases = [p for n, p in build_network(name, **SMALL[name]).named_parameters() if n.endswith("bias")]
    assert biases
    assert not any(bias.any() for bias in biases)


@pytest.mark.parametrize("name", [name for name in MODELS if name.startswith(("resnet", "vgg"))])
def test_batch_norm_weights_are_ones_or_uniform(name: str) -> None:
    options = WIDE.get(name, {})

    def drawn(seed: int, **more: str) -> torch.Tensor:
        network = build_network(name, seed, **options, **more)
        return torch.cat([m.weight.detach() for m in network.modules() if isinstance(m, nn.BatchNorm2d)])

    assert (drawn(0) == 1).all()
    uniform = drawn(0, norm="uniform")
    assert 0 <= uniform.min() < 0.05
    assert 0.95 < uniform.max() < 1
    assert uniform.mean().item() == pytest.approx(0.5, abs=5 * math.sqrt(1 / 12 / len(uniform)))
    assert torch.equal(drawn(0, norm="uniform"), uniform)
    assert not torch.equal(drawn(1, norm="uniform"), uniform)
