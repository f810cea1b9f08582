"""Sparse products and layers, and the hashes of their source."""

from __future__ import annotations

import copy
from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tombola.engines.sparse import convolution, speeds, stack_kernels
from tombola.engines.sparse.modules import make_sparse
from tombola.exports.runtime import step_kernels as runtime_kernels
from tombola.kernels import compiled, products, source_hash, vectors
from tombola.kernels.products import examples_to_columns, gather, sampled_product, sparse_times_dense
from tombola.kernels.source_hash import kernel_hash, syntax_hash
from tombola.kernels.sparsity_pattern import SparsityPattern, grouped


def floats(random: np.random.Generator, *shape: int) -> np.ndarray:
    return random.standard_normal(shape).astype(np.float32)


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(1, 40),
    columns=st.integers(1, 300),
    width=st.integers(1, 10).map(lambda n: 16 * n),
    density=st.floats(0, 1),
    seed=st.integers(0, 999),
)
def test_products_equal_those_of_the_dense_matrix(
    rows: int, columns: int, width: int, density: float, seed: int
) -> None:
    random = np.random.default_rng(seed)
    kept = random.random((rows, columns)) < density
    matrix, x, left = (
        floats(random, rows, columns) * kept,
        floats(random, columns, width),
        floats(random, rows, width),
    )
    pattern = SparsityPattern.of(kept)
    values = matrix.reshape(-1)[pattern.order]
    assert np.array_equal(np.sort(pattern.order), np.flatnonzero(kept))

    out = np.full(rows * width, np.nan, np.float32)
    sparse_times_dense(values, pattern.columns, pattern.bounds, rows, width, x.reshape(-1), width, out)
    np.testing.assert_allclose(out.reshape(rows, width), matrix @ x, rtol=1e-4, atol=1e-4)

    gradient = np.zeros(values.size, np.float32)
    sampled_product(
        pattern.columns, pattern.bounds, rows, width, left.reshape(-1), width, x.reshape(-1), width, gradient
    )
    np.testing.assert_allclose(gradient, (left @ x.T).reshape(-1)[pattern.order], rtol=1e-4, atol=1e-4)

    transposed, places = pattern.transposed(columns)
    transposed_values = np.empty(values.size, np.float32)
    gather(values, places, transposed_values)
    out = np.full(columns * width, np.nan, np.float32)
    sparse_times_dense(
        transposed_values, transposed.columns, transposed.bounds, columns, width, left.reshape(-1), width, out
    )
    np.testing.assert_allclose(out.reshape(columns, width), matrix.T @ left, rtol=1e-4, atol=1e-4)
    assert np.array_equal(matrix.T.reshape(-1)[transposed.order], transposed_values)


@pytest.mark.parametrize("features", [1, 16, 50, 64, 100])
@pytest.mark.parametrize("batch", [1, 16, 60])
def test_examples_are_transposed_into_columns(features: int, batch: int) -> None:
    random = np.random.default_rng(0)
    x, rows = floats(random, 80, features), random.integers(0, 80, batch)
    width = -(-batch // 16) * 16
    out = np.full(features * width, np.nan, np.float32)
    examples_to_columns(x, rows, width, np.empty(width, np.int64), out)
    assert np.array_equal(out.reshape(features, width)[:, :batch], x[rows].T)
    assert np.array_equal(out.reshape(features, width)[:, batch:], np.repeat(x[rows[:1]].T, width - batch, axis=1))


def test_grouping_is_stable() -> None:
    places, bounds = grouped(np.array([2, 0, 2, 0], np.int32), 4)
    assert places.tolist() == [1, 3, 0, 2]
    assert bounds.tolist() == [0, 2, 2, 4, 4]


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


SOURCE = '''"""A kernel."""
FACTOR = 2
"""A constant."""


def f(x):
    """Twice."""
    return FACTOR * x  # a comment
'''


@pytest.mark.parametrize(("old", "new"), [("Twice", "Double"), ("# a comment", ""), ("\n\n\n", "\n")])
def test_docstrings_comments_and_formatting_do_not_change_the_hash(old: str, new: str) -> None:
    assert SOURCE.replace(old, new) != SOURCE
    assert syntax_hash(SOURCE.replace(old, new)) == syntax_hash(SOURCE)


@pytest.mark.parametrize(("old", "new"), [("= 2", "= 3"), ("*", "+"), ("f(x)", "f(x, y)")])
def test_code_changes_the_hash(old: str, new: str) -> None:
    assert syntax_hash(SOURCE.replace(old, new)) != syntax_hash(SOURCE)


@pytest.mark.parametrize(
    ("changed", "same"),
    [
        (vectors, []),
        (compiled, []),
        (products, []),
        (stack_kernels, [products, convolution, runtime_kernels]),
        (runtime_kernels, [products, convolution, stack_kernels]),
        (speeds, [products, convolution, stack_kernels, runtime_kernels]),
    ],
)
def test_a_module_changes_the_hashes_of_the_kernel_modules_that_import_it(
    changed: ModuleType, same: list[ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    modules = [products, convolution, stack_kernels, runtime_kernels]
    before = [kernel_hash.__wrapped__(module.__name__) for module in modules]
    assert len(set(before)) == len(modules)
    module_hash = source_hash._module_hash
    monkeypatch.setattr(
        source_hash, "_module_hash", lambda name: "changed" if name == changed.__name__ else module_hash(name)
    )
    after = [kernel_hash.__wrapped__(module.__name__) for module in modules]
    assert [module for module, a, b in zip(modules, before, after, strict=True) if a == b] == same


def test_the_engine_and_the_runtime_cache_compiled_code_in_folders_of_their_own() -> None:
    folders = {
        stack_kernels.train._cache.cache_path,
        convolution.convolve._cache.cache_path,
        runtime_kernels.run._cache.cache_path,
    }
    assert len(folders) == 3
    assert kernel_hash(runtime_kernels.__name__) in runtime_kernels.run._cache.cache_path
