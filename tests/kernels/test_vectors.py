from __future__ import annotations

import numba
import numpy as np

from tombola.kernels.vectors import inverse_root, load, multiply, store


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
