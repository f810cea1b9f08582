from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import pytest
import torch
from torch import nn
from torch.func import functional_call, stack_module_state, vmap

from tests.zoo.models.helpers import CIFAR, IMAGES, MNIST, NEEDED, SMALL, made, output_of, start
from tombola.pruning.mask import prunable
from tombola.utils.errors import InputError
from tombola.zoo.models import MODELS, build, describe

NORMED = [name for name in MODELS if name.startswith(("resnet", "vgg"))]


def test_networks_are_listed_by_name() -> None:
    assert set(MODELS) == set(SMALL)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("inputs", [(28, 28), (1, 28, 28), (3, 32, 32), (20, 36), (2, 16, 24)])
def test_images_of_any_shape_become_a_number_for_each_class(name: str, inputs: tuple[int, ...]) -> None:
    network = made(name, inputs=inputs, classes=7, **SMALL[name])
    assert network.training
    assert output_of(network, inputs).shape == (2, 7)
    assert output_of(network.eval(), inputs, examples=1).shape == (1, 7)


@pytest.mark.parametrize("name", MODELS)
def test_flat_images_are_images_of_one_channel(name: str) -> None:
    options = SMALL[name]
    flat, deep = (made(name, inputs=inputs, **options).eval() for inputs in [(28, 28), (1, 28, 28)])
    assert flat.state_dict().keys() == deep.state_dict().keys()
    assert torch.equal(output_of(flat, (28, 28)), output_of(deep, (1, 28, 28)))


@pytest.mark.parametrize("name", MODELS)
def test_the_output_layer_is_the_last_prunable_one(name: str) -> None:
    network = made(name, classes=7, **SMALL[name])
    assert prunable(network)[-1] == "output.weight"
    assert network.get_parameter("output.weight").shape[0] == 7


@pytest.mark.parametrize("name", MODELS)
def test_weights_come_from_the_seed_and_leave_the_global_generator_alone(name: str) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = made(name, seed=1, **SMALL[name]).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    again, other = (made(name, seed=seed, **SMALL[name]).state_dict() for seed in (1, 2))
    assert all(torch.equal(first[tensor], again[tensor]) for tensor in first)
    drawn = [tensor for tensor in first if first[tensor].ndim > 1]
    assert not any(torch.equal(first[tensor], other[tensor]) for tensor in drawn)


@pytest.mark.parametrize("name", MODELS)
def test_networks_are_copied_and_pickled(name: str) -> None:
    network = made(name, **SMALL[name]).eval()
    expected = output_of(network, (3, 32, 32))
    for other in [copy.deepcopy(network), pickle.loads(pickle.dumps(network))]:
        assert torch.equal(output_of(other, (3, 32, 32)), expected)


@pytest.mark.parametrize(
    ("name", "options"),
    [*SMALL.items(), ("resnet", SMALL["resnet"] | {"shortcut": "identity"})],
)
def test_networks_can_be_stacked(name: str, options: dict[str, Any]) -> None:
    """As the stacked engine does it: outputs, gradients and running statistics are those of each by itself."""
    inputs = (16, 16)
    networks = [made(name, seed, inputs, **options).double() for seed in range(3)]  # or rounding would show
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
    made(name, **SMALL[name])(x)
    assert torch.equal(x, before)


def test_batch_norm_is_torchs_own() -> None:
    for name in NORMED:
        norms = [m for m in made(name, **SMALL[name]).modules() if isinstance(m, nn.modules.batchnorm._NormBase)]
        assert norms
        assert {type(norm) for norm in norms} == {nn.BatchNorm2d}


@pytest.mark.parametrize("name", NORMED)
def test_training_and_evaluation_differ_by_batch_norm(name: str) -> None:
    network = made(name, **SMALL[name])
    assert not torch.equal(output_of(network, (3, 32, 32)), output_of(network.eval(), (3, 32, 32)))


@pytest.mark.parametrize("name", MODELS)
def test_options_at_their_default_are_not_described(name: str) -> None:
    plain = describe(name, NEEDED.get(name, {}), (3, 32, 32), 10)
    assert plain.options == NEEDED.get(name, {})
    assert plain.source is None
    assert describe(name, NEEDED.get(name, {}) | {"init": "glorot-normal"}, (3, 32, 32), 10) == plain


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("lenet", {}, 'unknown network "lenet"'),
        ("lenet-5", {"dropout": 0.5}, 'unknown option of network "lenet-5" "dropout"'),
        ("conv-2", {"dropout": 1.0}, "model.dropout: Input should be less than 1, not 1.0"),
        ("conv-2", {"dropout": "half"}, "model.dropout: Input should be a valid number, not 'half'"),
        ("conv-4", {"width": 0}, "model.width: Input should be greater than 0, not 0"),
        ("conv-6", {"init": "zeros"}, "model.init: Input should be 'glorot-normal', 'kaiming-normal' or 'signed-con"),
        ("resnet", {}, "model.depth: Missing required argument"),
        ("resnet", {"depth": 2}, "model.depth: Input should be greater than or equal to 8, not 2"),
        ("resnet", {"depth": 18}, "model.depth: Input should be 6n + 2 (8, 14, 20, 32, 44, 56, 110), not 18"),
        ("resnet-20", {"depth": 8}, 'unknown option of network "resnet-20" "depth"'),
        ("resnet-20", {"shortcut": "none"}, "model.shortcut: Input should be 'projection' or 'identity', not 'none'"),
        ("resnet-20", {"width": 1.5}, "model.width: Input should be a valid integer, not 1.5"),
        ("resnet-18", {"norm": "zeros"}, "model.norm: Input should be 'ones' or 'uniform', not 'zeros'"),
        ("resnet-18", {"shortcut": "identity"}, 'unknown option of network "resnet-18" "shortcut"'),
        ("vgg-16", {"width": -1.0}, "model.width: Input should be greater than 0, not -1.0"),
        ("vit", {"patch": 5}, "model.patch: Input should divide 32×32 pixels, not 5"),
        ("vit", {"heads": 5}, "model.heads: Input should divide the width, 192, not 5"),
        ("conv-4", {"width": math.inf}, "model.width: Input should be a finite number, not inf"),
        ("vgg-11", {"width": math.nan}, "model.width: Input should be a finite number, not nan"),
        ("vit", {"mlp_ratio": math.inf}, "model.mlp_ratio: Input should be a finite number, not inf"),
        ("conv-2", {"dropout": math.nan}, "model.dropout: Input should be a finite number, not nan"),
        ("vit", {"depth": 0}, "model.depth: Input should be greater than 0, not 0"),
    ],
)
def test_wrong_options_are_refused_in_one_line(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        made(name, **options)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


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
def test_networks_too_large_for_any_memory_are_refused_in_one_line(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(InputError) as caught:
        made(name, **options)
    assert str(caught.value).startswith(f'model.name: "{name}" cannot be made with these options: ')
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("inputs", [(10,), (2, 3, 32, 32)])
def test_what_are_not_images_is_refused(name: str, inputs: tuple[int, ...]) -> None:
    with pytest.raises(InputError) as caught:
        made(name, inputs=inputs, **NEEDED.get(name, {}))
    assert str(caught.value) == (
        f'model.name: "{name}" takes images, (height, width) or (channels, height, width), '
        f"not examples of shape {inputs}"
    )


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("conv-2", 2),
        ("conv-4", 4),
        ("conv-6", 8),
        ("resnet", 4),
        ("resnet-20", 4),
        ("resnet-18", 8),
        ("vgg-11", 16),
        ("vgg-16", 16),
        ("vgg-19", 16),
        ("vit", 4),
    ],
)
def test_images_too_small_are_refused(name: str, least: int) -> None:
    options = SMALL[name]
    network = made(name, inputs=(least, least), **options).eval()
    assert output_of(network, (least, least)).shape == (2, 10)
    for height, width in [(least - 1, 32), (32, least - 1)]:
        message = f'model.name: "{name}" takes images of at least {least}×{least} pixels, not {height}×{width}'
        with pytest.raises(InputError, match=message):
            made(name, inputs=(3, height, width), **options)


def test_initial_weights_never_change() -> None:
    """Golden, up to rounding: a factory's default that changed would change results under the same keys."""
    for name, inputs, options, layer, expected in [
        ("lenet-300-100", MNIST, {}, "fc1.weight", [0.06660904, -0.07323112, -0.030039]),
        ("mlp", MNIST, {"widths": [20]}, "fc1.weight", [0.04229883, -0.00304277, -0.00558164]),
        ("lenet-5", MNIST, {}, "output.weight", [0.1666979, 0.01104676, 0.0549524]),
        ("conv-2", CIFAR, {}, "output.weight", [-0.00341663, -0.0663863, 0.01519123]),
        ("conv-4", CIFAR, {}, "output.weight", [0.1413026, 0.2040915, -0.08305533]),
        ("conv-6", CIFAR, {}, "output.weight", [0.14439331, -0.0940344, 0.02226726]),
        ("resnet-18", CIFAR, {}, "output.weight", [0.05361788, -0.03130875, -0.06157753]),
        ("resnet-20", CIFAR, {}, "output.weight", [-0.00382198, -0.04916438, 0.00611704]),
        ("vgg-11", CIFAR, {}, "output.weight", [-0.01895835, 0.05641973, -0.01115271]),
        ("vgg-16", CIFAR, {}, "output.weight", [0.00818321, 0.01752378, 0.04154235]),
        ("vgg-19", CIFAR, {}, "output.weight", [0.04293925, 0.04313114, 0.14462614]),
        ("vit", CIFAR, {}, "output.weight", [-0.02526233, 0.23108472, 0.06680437]),
        ("resnet", CIFAR, {"depth": 8}, "output.weight", [-0.00603339, -0.12202064, -0.06507138]),
    ]:
        weight = build(start(name, 7, inputs, **options)).get_parameter(layer)
        assert weight.flatten()[:3].tolist() == pytest.approx(expected, rel=1e-5)
