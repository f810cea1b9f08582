"""Linear layers and convolutions with the kept weights only, beside the dense ones."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tombola.engines.sparse.modules import make_sparse


def assert_equal_to_the_dense_layer(layer: nn.Linear | nn.Conv2d, x: Tensor, density: float) -> None:
    kept = torch.rand(layer.weight.shape) < density
    with torch.no_grad():
        layer.weight.mul_(kept)
    sparse = make_sparse(copy.deepcopy(layer), kept)
    assert sparse.values.numel() == kept.sum()
    assert torch.equal(sparse.product.to_dense(sparse.values), layer.weight)
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    expected, got = layer(inputs[0]), sparse(inputs[1])
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    gradient = torch.randn_like(expected)
    expected.backward(gradient)
    got.backward(gradient)
    torch.testing.assert_close(inputs[1].grad, inputs[0].grad, rtol=1e-4, atol=1e-4)
    assert layer.weight.grad is not None
    torch.testing.assert_close(
        sparse.values.grad, layer.weight.grad.reshape(-1)[sparse.product.order], rtol=1e-3, atol=1e-3
    )
    if layer.bias is not None:
        torch.testing.assert_close(sparse.bias.grad, layer.bias.grad, rtol=1e-4, atol=1e-3)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_convolutions_of_all_kinds(data: st.DataObject) -> None:
    def pair(low: int, high: int) -> tuple[int, int]:
        return data.draw(st.tuples(st.integers(low, high), st.integers(low, high)))

    torch.manual_seed(data.draw(st.integers(0, 999)))
    groups = data.draw(st.sampled_from([1, 1, 2, 3]))
    kernel, dilation, stride = pair(1, 4), pair(1, 2), pair(1, 3)
    padding: str | tuple[int, int] = pair(0, 3)
    if stride == (1, 1) and all((k - 1) * d % 2 == 0 for k, d in zip(kernel, dilation, strict=True)):
        padding = data.draw(st.sampled_from([padding, "same"]))
    layer = nn.Conv2d(
        groups * data.draw(st.integers(1, 3)),
        groups * data.draw(st.integers(1, 3)),
        kernel,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        bias=data.draw(st.booleans()),
    )
    height, width = ((k - 1) * d + 1 + data.draw(st.integers(0, 8)) for k, d in zip(kernel, dilation, strict=True))
    x = torch.randn(data.draw(st.sampled_from([1, 2, 7, 40])), layer.in_channels, height, width)
    assert_equal_to_the_dense_layer(layer, x, data.draw(st.sampled_from([0.0, 0.1, 0.5, 1.0])))


@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("kernel", [1, 2, 3])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_images_no_larger_than_the_stride(size: int, kernel: int, padding: int) -> None:
    if size + 2 * padding < kernel:
        pytest.skip("there is no output")
    torch.manual_seed(0)
    for stride in (1, 2, 3):
        layer = nn.Conv2d(4, 5, kernel, stride=stride, padding=padding)
        assert_equal_to_the_dense_layer(layer, torch.randn(20, 4, size, size), 0.5)


def test_more_images_than_a_chunk() -> None:
    torch.manual_seed(0)
    assert_equal_to_the_dense_layer(nn.Conv2d(3, 5, 3, padding=1), torch.randn(150, 3, 6, 6), 0.4)
    assert_equal_to_the_dense_layer(nn.Conv2d(3, 5, 3, padding=1), torch.randn(2, 3, 40, 40), 0.4)
    assert_equal_to_the_dense_layer(nn.Linear(30, 20), torch.randn(2500, 30), 0.4)


@pytest.mark.parametrize("shape", [(30,), (7, 30), (2, 3, 30), (2, 0, 30)])
def test_layers_take_inputs_of_other_dimensions(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    assert_equal_to_the_dense_layer(nn.Conv2d(3, 4, 3), torch.randn(3, 9, 8), 0.5)
    assert_equal_to_the_dense_layer(nn.Linear(30, 20), torch.randn(shape), 0.3)


def test_inputs_without_requires_grad_get_no_gradient() -> None:
    layer = nn.Conv2d(1, 2, 3)
    sparse = make_sparse(layer, torch.ones_like(layer.weight, dtype=torch.bool))
    x = torch.randn(2, 1, 5, 5)
    sparse(x).sum().backward()
    assert x.grad is None
    assert sparse.values.grad is not None
