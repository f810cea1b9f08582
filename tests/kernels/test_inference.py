"""The steps of inference."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from tombola.kernels import inference as k
from tombola.kernels.images import Table
from tombola.kernels.inference import max_pool_step, product_step, run

UNTOUCHED = np.float32(-77)


def step(**fields: int) -> Table:
    made = np.zeros(len(k.FIELDS), np.int64)
    sizes = k.ROWS, k.HEIGHT, k.WIDTH, k.STRIDE_H, k.STRIDE_W, k.KERNEL_H, k.KERNEL_W, k.DILATION_H, k.DILATION_W
    made[list(sizes)] = 1
    made[k.ADDEND] = -1
    for name, number in fields.items():
        made[getattr(k, name)] = number
    return made


def special(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Random numbers, some of them NaN or infinite."""
    numbers = rng.standard_normal(shape, np.float32)
    return np.where(rng.random(shape) < 0.3, rng.choice(np.float32([math.nan, math.inf, -math.inf]), shape), numbers)


@settings(deadline=None, max_examples=150)
@given(st.data(), st.integers(0, 999))
def test_max_pooling_equals_that_of_torch(data: st.DataObject, seed: int) -> None:
    pair = [st.tuples(st.integers(1, most), st.integers(1, most)) for most in (3, 3, 3, 6)]
    kernel, stride, dilation, sides = (data.draw(each) for each in pair)
    padding = tuple(data.draw(st.integers(0, size // 2)) for size in kernel)
    reach = [1 + (size - 1) * far for size, far in zip(kernel, dilation, strict=True)]
    sides = tuple(max(side, most - 2 * pad) for side, most, pad in zip(sides, reach, padding, strict=True))
    n, channels = data.draw(st.sampled_from([1, 16, 32])), 2
    x = special(np.random.default_rng(seed), (n, channels, *sides))
    expected = functional.max_pool2d(
        torch.from_numpy(x), kernel, stride, padding, dilation, ceil_mode=data.draw(st.booleans())
    )
    height, width = expected.shape[2:]
    size, pooled = x[0].size, expected[0].numel()
    workspace = np.full((size + pooled + 10) * n, UNTOUCHED)
    workspace[: size * n] = x.reshape(n, -1).T.reshape(-1)
    pooling = step(
        IN=-padding[0] * sides[1] - padding[1], IN_PLANE=math.prod(sides), IN_LINE=sides[1], IN_HEIGHT=sides[0],
        IN_WIDTH=sides[1], OUT=size + 5, OUT_PLANE=height * width, OUT_LINE=width, ROWS=channels, HEIGHT=height,
        WIDTH=width, STRIDE_H=stride[0], STRIDE_W=stride[1], KERNEL_H=kernel[0], KERNEL_W=kernel[1],
        DILATION_H=dilation[0], DILATION_W=dilation[1], INNER=padding[0], FIRST=padding[1],
    )  # fmt: skip
    max_pool_step(pooling, workspace, n)
    rest = workspace[size * n :].reshape(-1, n)
    assert np.array_equal(rest[5:-5].T.reshape(expected.shape), expected, equal_nan=True)
    assert (rest[:5] == UNTOUCHED).all()
    assert (rest[-5:] == UNTOUCHED).all()


def test_a_window_without_pixels_gives_minus_infinity() -> None:
    x = torch.ones(1, 1, 2, 2)
    assert functional.max_pool2d(x, 2, 1, 1, 3).item() == -math.inf
    for n in (1, 16):
        workspace = np.ones(5 * n, np.float32)
        max_pool_step(
            step(IN=-3, IN_PLANE=4, IN_LINE=2, IN_HEIGHT=2, IN_WIDTH=2, OUT=4, OUT_PLANE=1, OUT_LINE=1, KERNEL_H=2,
                 KERNEL_W=2, DILATION_H=3, DILATION_W=3, INNER=1, FIRST=1),
            workspace, n,
        )  # fmt: skip
        assert (workspace[4 * n :] == -math.inf).all()


@pytest.mark.parametrize("across", [1, 2])
@pytest.mark.parametrize("n", [1, 16, 64])
def test_a_dense_step_is_a_convolution(across: int, n: int) -> None:
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((n, 2, 5, 6), np.float32), rng.standard_normal((3, 2, 2, 3), np.float32)
    bias, addend = rng.standard_normal(3, np.float32), rng.standard_normal((n, 3, 4, 4 // across), np.float32)
    size, pixels = 60, 4 * (4 // across)
    workspace = np.full((size + 6 * pixels) * n, UNTOUCHED)
    workspace[: size * n] = x.reshape(n, -1).T.reshape(-1)
    workspace[size * n : (size + 3 * pixels) * n] = addend.reshape(n, -1).T.reshape(-1)
    product = step(
        IN=0, IN_PLANE=30, IN_LINE=6, OUT=size + 3 * pixels, OUT_PLANE=pixels, OUT_LINE=4 // across, ROWS=3, HEIGHT=4,
        WIDTH=4 // across, STRIDE_W=across, RELU=1, INNER=12, ADDEND=size, ADDEND_PLANE=pixels, KIND=k.DENSE,
        ADDEND_LINE=4 // across,
    )  # fmt: skip
    columns = np.array([c * 30 + i * 6 + j for c in range(2) for i in range(2) for j in range(3)], np.int32)
    product_step(product, weight.reshape(-1), columns, np.zeros(0, np.int32), bias, workspace, n)
    convolved = functional.conv2d(*map(torch.from_numpy, (x, weight, bias)), stride=(1, across))
    expected = torch.relu(convolved + torch.from_numpy(addend))
    found = workspace[(size + 3 * pixels) * n :].reshape(-1, n).T.reshape(expected.shape)
    assert np.allclose(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("n", [1, 16])
def test_a_program_without_steps_returns_its_inputs(n: int) -> None:
    x = np.random.default_rng(0).standard_normal((20, 3), np.float32)
    table, nothing, floats = np.zeros((0, len(k.FIELDS)), np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32)
    program = table, floats, nothing, nothing, floats, np.array([[0, 1, 3]]), np.array([3, 1])
    out = np.zeros((20, 2), np.float32)
    run(*program, x.ctypes.data, 3, 2, 20, n, np.zeros(4 * n, np.float32), out)
    assert np.array_equal(out[2:], x[2:, [2, 0]])
    assert (out[:2] == 0).all()
