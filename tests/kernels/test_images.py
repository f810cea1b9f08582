"""Examples in a workspace, and the zeros around images."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tombola.kernels.images import clear_padding, pack, unpack
from tombola.kernels.pooling import inside

UNTOUCHED = np.float32(-77)


@settings(deadline=None)
@given(st.integers(-30, 30), st.integers(1, 5), st.integers(1, 20), st.integers(1, 12))
def test_the_range_of_a_window_has_all_positions_inside(first: int, pitch: int, size: int, count: int) -> None:
    begin, end = inside(first, pitch, size, count)
    assert [i for i in range(count) if 0 <= first + i * pitch < size] == list(range(begin, end))


@settings(deadline=None)
@given(
    st.tuples(*[st.integers(0, 2)] * 4), st.integers(1, 3), st.integers(1, 4), st.integers(1, 4),
    st.sampled_from([1, 16]),
)  # fmt: skip
def test_only_the_padding_is_set_to_zero(
    around: tuple[int, int, int, int], rows: int, height: int, width: int, n: int
) -> None:
    above, below, left, right = around
    line = left + width + right
    plane = (above + height + below) * line
    workspace = np.full((rows * plane + 8) * n, UNTOUCHED)
    out = 4 + above * line + left
    clear_padding(workspace, 2 * n, n, (out - 2, plane, line), (rows, height, width), (above, left, below, right))
    expected = np.zeros((rows, above + height + below, line, n), np.float32)
    expected[:, above : above + height, left : left + width] = UNTOUCHED
    assert np.array_equal(workspace[4 * n : -4 * n], expected.reshape(-1))
    assert (workspace[: 4 * n] == UNTOUCHED).all()
    assert (workspace[-4 * n :] == UNTOUCHED).all()


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 40), st.integers(0, 3)), min_size=1, max_size=4), st.sampled_from([1, 16, 48]),
    st.integers(1, 60), st.integers(0, 99),
)  # fmt: skip
def test_images_are_packed_and_unpacked_unchanged(
    runs: list[tuple[int, int]], n: int, images: int, seed: int
) -> None:
    """`runs` are lengths, and gaps before them in the workspace."""
    size = sum(length for length, _ in runs)
    x = np.random.default_rng(seed).standard_normal((images, size), np.float32)
    table, places, first, offset = [], [], 0, 0
    for length, gap in runs:
        table.append([first, offset + gap, length])
        places += range(offset + gap, offset + gap + length)
        first, offset = first + length, offset + gap + length
    count = min(n, images)
    base = 3
    workspace, out = np.full((offset + 2) * n + base, UNTOUCHED), np.full((images + 1, size), UNTOUCHED)
    starts = np.array([(lane if lane < count else 0) * size for lane in range(n)])
    pack(x.reshape(-1), starts, np.array(table), n, workspace, base)
    laid = workspace[base:].reshape(-1, n)
    assert np.array_equal(laid[places].T, x[starts // size])
    assert (np.delete(laid, places, axis=0) == UNTOUCHED).all()
    assert (workspace[:base] == UNTOUCHED).all()
    unpack(workspace, base, np.array(table), n, count, out.reshape(-1), size, size)
    assert np.array_equal(out[1 : 1 + count], x[:count])
    assert (np.delete(out, range(1, 1 + count), axis=0) == UNTOUCHED).all()
