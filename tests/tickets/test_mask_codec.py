from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from tombola.pruning.mask import Mask
from tombola.tickets.mask_codec import Bools, decode, encode, entropy
from tombola.utils.errors import DamagedFile


def random_layer(size: int, density: float, seed: int = 0) -> Bools:
    return np.random.default_rng(seed).random(size) < density


@given(st.integers(0, 3000), st.floats(0, 1), st.integers(0, 1000))
@example(0, 0.0, 0)
@example(1, 0.0, 0)
@example(1, 1.0, 0)
@example(3000, 1.0, 0)
@example(3000, 0.001, 1)
def test_decoding_inverts_encoding(size: int, density: float, seed: int) -> None:
    kept = random_layer(size, density, seed)
    assert np.array_equal(decode(encode(kept), size, int(kept.sum())), kept)


@given(st.lists(st.booleans(), max_size=40))
def test_decoding_inverts_encoding_of_any_small_layer(listed: list[bool]) -> None:
    kept = np.array(listed, bool)
    assert np.array_equal(decode(encode(kept), kept.size, int(kept.sum())), kept)


def test_the_code_is_as_documented() -> None:
    kept = np.zeros(64, bool)
    kept[[8, 21, 35, 45]] = True  # gaps 8, 12, 13, 9
    # r = 2; lowest bits 00 00 01 01; the rest 2, 3, 3, 2 in unary: 001 0001 0001 001, and two bits to fill the byte
    assert encode(kept) == bytes([2, 0b00000101, 0b00100010, 0b00100100])
    assert encode(~kept) == encode(kept)
    assert encode(np.ones(64, bool)) == encode(np.zeros(64, bool)) == b""


@pytest.mark.parametrize("density", [0.999, 0.99, 0.9, 0.62, 0.5, 0.382, 0.214, 0.2, 0.113, 0.05, 0.036, 0.01, 0.001])
def test_the_code_of_a_random_mask_is_close_to_its_entropy(density: float) -> None:
    kept = random_layer(200_000, density)
    least = entropy(Mask({"weight": torch.from_numpy(kept)}))
    assert least <= 8 * len(encode(kept)) <= 1.05 * least + 24


def test_the_entropy_is_the_logarithm_of_the_number_of_masks() -> None:
    kept = torch.zeros(5, 8, dtype=torch.bool)
    kept.view(-1)[:7] = True
    mask = Mask({"a.weight": kept, "b.weight": torch.ones(3, dtype=torch.bool), "c.weight": torch.zeros(0, 4).bool()})
    assert entropy(mask) == pytest.approx(math.log2(math.comb(40, 7)))
    assert entropy(Mask({"weight": torch.tensor(True)})) == 0


@given(st.binary(max_size=12), st.integers(0, 80), st.integers(-2, 90))
def test_any_bytes_are_decoded_or_refused(code: bytes, size: int, count: int) -> None:
    try:
        kept = decode(code, size, count)
    except DamagedFile:
        return
    assert (kept.size, int(kept.sum())) == (size, count)


def test_a_flipped_bit_gives_another_mask_or_an_error() -> None:
    kept = random_layer(300, 0.1)
    code = encode(kept)
    for bit in range(8 * len(code)):
        changed = bytearray(code)
        changed[bit // 8] ^= 1 << bit % 8
        try:
            other = decode(bytes(changed), kept.size, int(kept.sum()))
        except DamagedFile:
            continue
        assert not np.array_equal(other, kept)


@pytest.mark.parametrize(
    ("code", "size", "count", "message"),
    [
        (b"", 64, 3, "wrong length"),
        (b"\x00", 64, 3, "wrong length"),
        (b"\xff" * 9, 64, 3, "wrong length"),
        (bytes([0]) + bytes(200), 64, 3, "wrong length"),
        (bytes([0, 0b11000000]), 64, 3, "too few bits"),
        (bytes([0, 0b11110000]), 64, 3, "nonzero padding"),
        (bytes([0, 0b11100000, 0]), 64, 3, "nonzero padding"),
        (bytes([3, 0b01110010, 0b10000001, 0b10101000]), 64, 3, "nonzero padding"),
        (bytes([5, 0xFF, 0xFE, 0b11100000]), 64, 3, "beyond the layer"),
        (bytes([0, *bytes(8), 0b11100000]), 64, 3, "beyond the layer"),
        (b"\x00", 64, 64, "empty code"),
        (b"", 3, 4, "4 of 3 weights"),
    ],
)
def test_invalid_codes_are_refused(code: bytes, size: int, count: int, message: str) -> None:
    with pytest.raises(DamagedFile, match=message):
        decode(code, size, count)
