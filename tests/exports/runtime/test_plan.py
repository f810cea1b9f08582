from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.exports.helpers import Written
from tests.exports.networks import Concatenated, MeanPixel, Residual, randomise
from tests.exports.runtime.helpers import Sum, planned
from tombola.exports.runtime.plan import Image, Largest, Plan, Product, Unplannable
from tombola.zoo.models.resnet import Subsample

IMAGES, FEATURES = torch.ones(1, 2, 6, 6), torch.ones(1, 5)


def products(plan: Plan) -> list[Product]:
    assert all(isinstance(work, Product) for work in plan.work)
    return [work for work in plan.work if isinstance(work, Product)]


def conv(before: int = 2, after: int = 2) -> nn.Conv2d:
    return nn.Conv2d(before, after, 3, padding=1)


@pytest.mark.parametrize(
    ("network", "work", "added", "relus"),
    [
        (nn.Sequential(conv(), nn.BatchNorm2d(2), nn.Dropout(0.5), nn.ReLU()), 1, 0, 1),
        (nn.Sequential(nn.BatchNorm2d(2), conv(), nn.ReLU()), 2, 0, 1),
        (nn.Sequential(conv(), nn.ReLU(), nn.BatchNorm2d(2)), 2, 0, 1),
        (nn.Sequential(conv(), nn.ReLU(), nn.ReLU()), 2, 0, 2),
        (nn.Sequential(nn.ReLU(), conv()), 2, 0, 1),
        (nn.Sequential(Sum(conv()), nn.BatchNorm2d(2), nn.ReLU()), 2, 1, 1),
        (nn.Sequential(Sum(conv(), conv()), nn.ReLU()), 2, 1, 1),
        (nn.Sequential(Sum(nn.Sequential(conv(), nn.ReLU()), conv())), 2, 1, 1),
        (nn.Sequential(Sum(nn.Sequential(conv(), nn.ReLU()))), 2, 1, 1),
        (nn.Sequential(conv(), Sum(), nn.ReLU()), 2, 1, 1),
        (nn.Sequential(conv(), Sum(nn.ReLU())), 3, 1, 1),
        (Residual(nn.Sequential(conv(), nn.ReLU(), conv(), nn.BatchNorm2d(2)), nn.Identity()), 2, 1, 2),
        (Residual(nn.Conv2d(2, 4, 3, 2, padding=1), Subsample(4)), 2, 1, 1),
        (Concatenated(conv(2, 3), conv(2, 4)), 5, 0, 0),
        (nn.Sequential(nn.AvgPool2d(2), nn.BatchNorm2d(2), nn.ReLU()), 1, 0, 1),
        (nn.Sequential(conv(), nn.Flatten(), nn.ReLU(), nn.Linear(72, 3)), 3, 0, 1),
        (nn.Sequential(nn.Flatten(), nn.Flatten()), 0, 0, 0),
    ],
)
def test_batch_norm_relu_and_additions_are_part_of_products(
    network: nn.Module, work: int, added: int, relus: int
) -> None:
    made = products(planned(network, IMAGES))
    assert len(made) == work
    assert sum(product.plus is not None for product in made) == added
    assert sum(product.relu for product in made) == relus


def test_batch_norm_scales_weights_and_moves_biases() -> None:
    network = randomise(nn.Sequential(nn.Linear(5, 3), nn.BatchNorm1d(3), nn.BatchNorm1d(3))).eval()
    network.append(nn.BatchNorm1d(3, affine=False)).eval()
    (product,) = products(planned(network, FEATURES))
    linear = copy.deepcopy(network).double()
    with torch.no_grad():
        bias = linear(torch.zeros(1, 5, dtype=torch.float64))
        weight = linear(torch.eye(5, dtype=torch.float64)) - bias
    assert np.allclose(product.bias, bias[0])
    assert np.allclose(product.weights.value.reshape(3, 5), weight.T)


def test_only_weights_that_are_not_zero_are_there() -> None:
    layer = nn.Conv2d(4, 6, (2, 3), dilation=(2, 1), groups=2, bias=False)
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[1, 0, 1, 2], layer.weight[5, 1, 0, 1] = 3, -2
    (product,) = products(planned(layer, torch.ones(1, 4, 6, 6)))
    weights = product.weights
    found = zip(weights.row, weights.channel, weights.down, weights.across, weights.value, strict=True)
    assert list(found) == [(1, 0, 2, 2, 3), (5, 3, 0, 1, -2)]
    assert weights.kernel is None  # of groups there is no matrix
    assert (product.bias == np.zeros(6)).all()


def test_a_linear_layer_behind_images_is_a_kernel_of_their_size() -> None:
    (product,) = products(planned(nn.Sequential(nn.Flatten(), nn.Linear(72, 3)), IMAGES))
    kernel = product.weights.kernel
    assert kernel is not None
    assert (kernel.height, kernel.width) == (6, 6)
    assert (product.source.channels, product.source.height, product.out.channels) == (2, 6, 3)


@pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")  # torch's, of even kernels, once
def test_who_reads_an_image_says_how_many_zeros_are_around_it() -> None:
    same = nn.Conv2d(2, 2, (4, 1), padding="same", dilation=(1, 2))
    network = Sum(nn.Conv2d(2, 2, (3, 5), padding=(1, 2)), same)
    plan = planned(network, IMAGES)
    assert plan.inputs.around == [1, 2, 2, 2]
    assert plan.outputs.around == [0, 0, 0, 0]


def test_max_pooling_wants_no_zeros() -> None:
    plan = planned(nn.MaxPool2d((3, 2), (2, 1), (1, 0), (1, 2), ceil_mode=True), IMAGES)
    (pooling,) = plan.work
    assert isinstance(pooling, Largest)
    assert (pooling.size, pooling.stride, pooling.padding, pooling.dilation) == ((3, 2), (2, 1), (1, 0), (1, 2))
    assert plan.inputs.around == [0, 0, 0, 0]
    assert (plan.outputs.height, plan.outputs.width) == (4, 4)


@pytest.mark.parametrize(
    ("shape", "image"),
    [((5,), (5, 1, 1)), ((4, 6), (1, 4, 6)), ((2, 4, 6), (2, 4, 6))],
)
def test_inputs_are_features_or_images(shape: tuple[int, ...], image: tuple[int, int, int]) -> None:
    plan = planned(nn.Flatten(), torch.ones(3, *shape))
    assert isinstance(plan.inputs, Image)
    assert (plan.inputs.channels, plan.inputs.height, plan.inputs.width) == image
    assert plan.input_shape == shape
    assert plan.output_shape == (torch.ones(shape).numel(),)
    assert plan.outputs is plan.inputs


class Constant(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.ones(1)


@pytest.mark.parametrize(
    ("network", "example", "words"),
    [
        (nn.Sequential(nn.Linear(5, 3), nn.GELU()), FEATURES, "1 is no ReLU"),
        (nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular"), IMAGES, 'padding mode "circular"'),
        (nn.AvgPool2d(2, ceil_mode=True), IMAGES, "windows of different sizes"),
        (nn.AvgPool2d(3, padding=1, count_include_pad=False), IMAGES, "windows of different sizes"),
        (nn.Sequential(nn.Flatten(), nn.BatchNorm1d(72)), IMAGES, "still images"),
        (nn.Linear(6, 3), IMAGES, "gives shape"),
        (nn.Linear(3, 3), torch.ones(2, 4, 3), "gives shape"),
        (nn.ReLU(), torch.ones(1, 2, 3, 4, 5), "neither features nor images"),
        (nn.Softmax(1), FEATURES, "nothing that the kernels do"),
        (Written(lambda _, x: torch.cat([x.flatten(1), x.flatten(1)], 1)), IMAGES, "still images"),
        (Written(lambda n, x: n.l(x.flatten(1)) + x.flatten(1), l=nn.Linear(72, 72)), IMAGES, "adds features"),
        (Written(lambda _, x: x + x.mean((2, 3), keepdim=True)), IMAGES, "nothing that the kernels do"),
        (nn.BatchNorm2d(2, track_running_stats=False), IMAGES, "nothing that the kernels do"),
        (nn.Sequential(MeanPixel(), nn.Sigmoid()), IMAGES, "no ReLU"),
    ],
)
def test_what_the_kernels_do_not_is_said(network: nn.Module, example: Tensor, words: str) -> None:
    with pytest.raises(Unplannable, match=words):
        planned(network, example)


def test_planning_changes_nothing() -> None:
    network = nn.Sequential(conv(), nn.BatchNorm2d(2), nn.ReLU()).train()
    state: dict[str, Any] = copy.deepcopy(network.state_dict())
    planned(network.train(), IMAGES)
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())
