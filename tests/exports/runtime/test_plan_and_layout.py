from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn

from tests.support.export_networks import FunctionNetwork
from tests.support.random_networks import Concatenated, MeanPixel, Residual, randomise
from tests.support.runtime_networks import Sum, plan_for, program_for, supported_networks
from tombola.exports.runtime.memory_layout import dense_products, program_of
from tombola.kernels import inference as k
from tombola.kernels.image_slot import ImageSlot
from tombola.kernels.images import Table
from tombola.kernels.plans.plan import Image, MaxPool, Plan, Product, UnsupportedNetwork
from tombola.zoo.models.resnet import Subsample

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")  # torch's, of even kernels

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
def test_batch_norm_relu_and_additions_are_fused_with_products(
    network: nn.Module, work: int, added: int, relus: int
) -> None:
    made = products(plan_for(network, IMAGES))
    assert len(made) == work
    assert sum(product.addend is not None for product in made) == added
    assert sum(product.relu for product in made) == relus


def test_batch_norm_scales_weights_and_moves_biases() -> None:
    network = randomise(nn.Sequential(nn.Linear(5, 3), nn.BatchNorm1d(3), nn.BatchNorm1d(3))).eval()
    network.append(nn.BatchNorm1d(3, affine=False)).eval()
    (product,) = products(plan_for(network, FEATURES))
    linear = copy.deepcopy(network).double()
    with torch.no_grad():
        bias = linear(torch.zeros(1, 5, dtype=torch.float64))
        weight = linear(torch.eye(5, dtype=torch.float64)) - bias
    assert np.allclose(product.bias, bias[0])
    assert np.allclose(product.weights.value.reshape(3, 5), weight.T)


def test_a_plan_has_only_nonzero_weights() -> None:
    layer = nn.Conv2d(4, 6, (2, 3), dilation=(2, 1), groups=2, bias=False)
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[1, 0, 1, 2], layer.weight[5, 1, 0, 1] = 3, -2
    (product,) = products(plan_for(layer, torch.ones(1, 4, 6, 6)))
    weights = product.weights
    found = zip(weights.row, weights.channel, weights.down, weights.across, weights.value, strict=True)
    assert list(found) == [(1, 0, 2, 2, 3), (5, 3, 0, 1, -2)]
    assert weights.kernel is None  # groups have no common matrix
    assert (product.bias == np.zeros(6)).all()


def test_a_linear_layer_after_flattening_is_a_kernel_of_the_image_size() -> None:
    (product,) = products(plan_for(nn.Sequential(nn.Flatten(), nn.Linear(72, 3)), IMAGES))
    kernel = product.weights.kernel
    assert (kernel.height, kernel.width) == (6, 6)
    assert (product.source.channels, product.source.height, product.out.channels) == (2, 6, 3)


def test_an_image_has_the_padding_of_all_its_readers() -> None:
    same = nn.Conv2d(2, 2, (4, 1), padding="same", dilation=(1, 2))
    network = Sum(nn.Conv2d(2, 2, (3, 5), padding=(1, 2)), same)
    plan = plan_for(network, IMAGES)
    assert plan.inputs.padding == [1, 2, 2, 2]
    assert plan.outputs.padding == [0, 0, 0, 0]


def test_max_pooling_needs_no_padding() -> None:
    plan = plan_for(nn.MaxPool2d((3, 2), (2, 1), (1, 0), (1, 2), ceil_mode=True), IMAGES)
    (pooling,) = plan.work
    assert isinstance(pooling, MaxPool)
    assert (pooling.kernel, pooling.stride, pooling.padding, pooling.dilation) == ((3, 2), (2, 1), (1, 0), (1, 2))
    assert plan.inputs.padding == [0, 0, 0, 0]
    assert (plan.outputs.height, plan.outputs.width) == (4, 4)


@pytest.mark.parametrize(
    ("shape", "image"),
    [((5,), (5, 1, 1)), ((4, 6), (1, 4, 6)), ((2, 4, 6), (2, 4, 6))],
)
def test_inputs_are_features_or_images(shape: tuple[int, ...], image: tuple[int, int, int]) -> None:
    plan = plan_for(nn.Flatten(), torch.ones(3, *shape))
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
        (nn.Sequential(nn.Linear(5, 3), nn.GELU()), FEATURES, "1 is not a ReLU"),
        (nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular"), IMAGES, 'padding mode "circular"'),
        (nn.AvgPool2d(2, ceil_mode=True), IMAGES, "windows of different sizes"),
        (nn.AvgPool2d(3, padding=1, count_include_pad=False), IMAGES, "windows of different sizes"),
        (nn.Sequential(nn.Flatten(), nn.BatchNorm1d(72)), IMAGES, "flattened images"),
        (nn.Linear(6, 3), IMAGES, "gives shape"),
        (nn.Linear(3, 3), torch.ones(2, 4, 3), "gives shape"),
        (nn.ReLU(), torch.ones(1, 2, 3, 4, 5), "neither features nor images"),
        (nn.Softmax(1), FEATURES, "not supported"),
        (FunctionNetwork(lambda _, x: torch.cat([x.flatten(1), x.flatten(1)], 1)), IMAGES, "flattened images"),
        (
            FunctionNetwork(lambda n, x: n.l(x.flatten(1)) + x.flatten(1), l=nn.Linear(72, 72)),
            IMAGES,
            "adds features",
        ),
        (FunctionNetwork(lambda _, x: x + x.mean((2, 3), keepdim=True)), IMAGES, "not supported"),
        (nn.BatchNorm2d(2, track_running_stats=False), IMAGES, "not supported"),
        (nn.Sequential(MeanPixel(), nn.Sigmoid()), IMAGES, "not a ReLU"),
    ],
)
def test_unsupported_operations_are_named(network: nn.Module, example: Tensor, words: str) -> None:
    with pytest.raises(UnsupportedNetwork, match=words):
        plan_for(network, example)


def test_planning_does_not_change_the_network() -> None:
    network = nn.Sequential(conv(), nn.BatchNorm2d(2), nn.ReLU()).train()
    state: dict[str, Any] = copy.deepcopy(network.state_dict())
    plan_for(network.train(), IMAGES)
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())


def test_a_slot_has_the_offsets_of_pixels_and_padding() -> None:
    slot = ImageSlot(Image(2, 3, 4, [1, 2, 3, 1]), 100)
    assert (slot.line, slot.plane, slot.end) == (8, 48, 196)
    assert slot.at() == 100 + 8 + 3
    assert slot.at(1, 2, 3) == 100 + 48 + 3 * 8 + 6
    assert slot.at(0, -1, -3) == 100
    pixels = slot.pixels.reshape(2, 3, 4)
    assert [pixels[c, y, x] for c, y, x in ((0, 0, 0), (1, 2, 3))] == [slot.at(), slot.at(1, 2, 3)]
    assert len(np.unique(pixels)) == 24


@settings(deadline=None, max_examples=40)
@given(supported_networks())
def test_programs_of_one_plan_are_valid_and_have_the_same_layout(made: tuple[nn.Module, Tensor]) -> None:
    plan = plan_for(*made)
    sparse, dense, again = program_of(plan), program_of(plan, dense_products(plan).keys()), program_of(plan)
    for program in (sparse, dense):
        program.check()
        assert np.array_equal(program.runs, sparse.runs)
        assert np.array_equal(program.places, sparse.places)
        assert program.workspace == sparse.workspace
    for name, array in sparse.arrays.items():
        assert array.tobytes() == again.arrays[name].tobytes()
    where = [k.OUT, k.OUT_PLANE, k.OUT_LINE, k.IN, k.IN_PLANE, k.IN_LINE, k.ADDEND, k.ADDEND_PLANE, k.ADDEND_LINE]
    assert np.array_equal(sparse.table[:, where], dense.table[:, where])


@settings(deadline=None, max_examples=40)
@given(supported_networks())
def test_no_step_overwrites_numbers_that_are_read_later(made: tuple[nn.Module, Tensor]) -> None:
    """Tracks which image owns each number of the workspace, step by step."""
    plan = plan_for(*made)
    program = program_of(plan)
    owner = np.full(program.workspace, -1)
    numbers: dict[Image, int] = {}
    pixels: dict[Image, list[Table]] = {}
    for row, step in enumerate(program.table):
        out = plan.inputs
        if row:
            work = plan.work[row - 1]
            out = work.out
            for image in (work.source, getattr(work, "addend", None)):
                if image is not None:
                    assert all((owner[each] == numbers[image]).all() for each in pixels[image])
        channel, y, x = np.indices(step[[k.ROWS, k.HEIGHT, k.WIDTH]])
        own = step[k.OUT] + channel * step[k.OUT_PLANE] + y * step[k.OUT_LINE] + x
        begin = step[k.OUT] - step[k.PAD_TOP] * step[k.OUT_LINE] - step[k.PAD_LEFT]
        owner[begin : begin + step[k.ROWS] * step[k.OUT_PLANE]] = numbers.setdefault(out, row)
        pixels.setdefault(out, []).append(own)
    assert (owner[program.places] == numbers[plan.outputs]).all()


def test_memory_is_reused() -> None:
    layers = [layer for _ in range(9) for layer in (nn.Linear(50, 50), nn.ReLU())]
    assert program_for(nn.Sequential(*layers), torch.ones(1, 50)).workspace == 100


def test_the_input_of_a_shortcut_is_not_overwritten() -> None:
    body = nn.Sequential(*[nn.Linear(50, 50) for _ in range(9)])
    assert program_for(Residual(body, nn.Identity()), torch.ones(1, 50)).workspace == 150


def test_lines_are_as_long_as_those_of_the_source_without_stride() -> None:
    """Then one image is computed in one stream, which a stride makes impossible."""
    first, strided = nn.Conv2d(1, 2, 3, padding=2), nn.Conv2d(2, 2, 3, 2)
    table = program_for(nn.Sequential(first, nn.ReLU(), strided), torch.ones(1, 1, 6, 6)).table
    assert table[1, k.IN_LINE] == table[1, k.OUT_LINE] == 10
    assert (table[2, k.IN_LINE], table[2, k.OUT_LINE]) == (10, 3)


def test_runs_are_lines_with_padding_and_whole_images_without() -> None:
    padded = program_for(nn.Conv2d(2, 1, 3, padding=1), torch.ones(1, 2, 3, 4))
    assert padded.runs.tolist() == [[4 * line, 6 * (1 + line + 2 * (line > 2)) + 1, 4] for line in range(6)]
    assert program_for(nn.Conv2d(2, 1, 3), torch.ones(1, 2, 3, 4)).runs.tolist() == [[0, 0, 24]]


@pytest.mark.parametrize("dense", [False, True])
def test_a_program_has_the_kept_weights_or_all_of_them(dense: bool) -> None:
    network = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(12, 4))
    with torch.no_grad():
        network[0].weight[1] = 0
        network[2].weight[:, 3:] = 0
    program = program_for(network, torch.ones(1, 2, 4, 4), dense)
    assert len(program.values) == (54 + 48 if dense else 36 + 12)
    assert len(program.columns) == (18 + 12 if dense else 36 + 12)  # rows of dense layers share columns
    assert len(program.biases) == 7
    assert program.bounds.tolist() == ([] if dense else [0, 18, 18, 36, 36, 39, 42, 45, 48])


def test_products_without_groups_and_with_weights_can_be_dense() -> None:
    empty = nn.Conv2d(2, 2, 1)
    torch.nn.init.zeros_(empty.weight)
    network = nn.Sequential(nn.ReLU(), nn.Conv2d(2, 2, 3, groups=2), Sum(empty), nn.Flatten(), nn.Linear(8, 2))
    plan = plan_for(network, torch.ones(1, 2, 4, 4))
    (last,) = dense_products(plan)
    assert last == len(plan.work) - 1
