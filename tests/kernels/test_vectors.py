from __future__ import annotations

import numba
import numpy as np

from tombola.kernels.vectors import exponential, inverse_root, load, multiply, store


@numba.njit
def square_roots(x: np.ndarray, out: np.ndarray) -> None:
    for place in range(0, x.size, 16):
        value = load(x, place)
        store(out, place, multiply(value, inverse_root(value)))


def test_inverse_roots_are_exact_to_the_last_bits() -> None:
    x = np.exp(np.random.default_rng(0).uniform(-86, 88, 4096)).astype(np.float32)
    x[:2] = 0, np.nan
    out = np.empty_like(x)
    square_roots(x, out)
    assert out[0] == 0
    assert np.isnan(out[1])
    np.testing.assert_allclose(out[2:], np.sqrt(x[2:]), rtol=3e-7)


@numba.njit
def exponentials(x: np.ndarray, out: np.ndarray) -> None:
    for place in range(0, x.size, 16):
        store(out, place, exponential(load(x, place)))


def test_exponentials_are_exact_to_the_last_bits() -> None:
    x = np.random.default_rng(0).uniform(-64, 88, 4096).astype(np.float32)
    x[:4] = 0, np.nan, -65, -np.inf
    out = np.empty_like(x)
    exponentials(x, out)
    assert out[0] == 1
    assert np.isnan(out[1])
    assert not out[2:4].any()
    np.testing.assert_allclose(out[4:], np.exp(x[4:].astype(np.float64)), rtol=3e-7)
