"""A code for masks that is close to their entropy.

Weights are counted in row-major order. The rarer ones, kept or pruned, are listed by their gaps: the number of other
weights before each. In random masks, gaps have a geometric distribution, for which Golomb codes ("Run-length
encodings", 1966) are optimal. Rice codes ("Some practical universal noiseless coding techniques", 1979) are Golomb
codes whose parameter is a power of two. A gap is written as its lowest r bits and, in unary, the rest.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from tombola.pruning.mask import Mask
from tombola.utils.errors import DamagedFile

Bools = NDArray[np.bool_]
Gaps = NDArray[np.int64]


def entropy(mask: Mask) -> float:
    """The entropy in bits of a random mask with these counts: the sum over layers of log2 (n choose k), for k of n
    weights kept. Without other knowledge, no code needs fewer bits on average."""
    counts = ((mask.sizes[name], left) for name, left in mask.counts.items())
    nats = sum(math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) for n, k in counts)
    return nats / math.log(2)


def encode(kept: Bools) -> bytes:
    """The code of one layer; `kept` is one-dimensional, and True where a weight is kept.

    One byte with r; the lowest r bits of every gap, highest first; then the rest of every gap in unary, as that many
    zeros and a one. Both streams are padded to bytes with zeros. r minimises the length. The code is empty if all
    weights are kept, or none.
    """
    listed = kept if 2 * int(kept.sum()) <= kept.size else ~kept
    positions = np.flatnonzero(listed).astype(np.int64)
    if not positions.size:
        return b""
    gaps = np.diff(positions, prepend=-1) - 1
    r = _best_parameter(gaps)
    return bytes([r]) + _low_bits(gaps, r) + _unary(gaps >> r)


def _best_parameter(gaps: Gaps) -> int:
    """The smallest r of the shortest code; near log2 of the mean gap (Gallager & van Voorhis 1975, "Optimal source
    codes for geometrically distributed integer alphabets")."""

    def length(r: int) -> int:
        return (r * gaps.size + 7) // 8 + (gaps.size + int((gaps >> r).sum()) + 7) // 8

    return min(range(int(gaps.max()).bit_length() + 1), key=length)


def _low_bits(gaps: Gaps, r: int) -> bytes:
    bits = np.empty((gaps.size, r), np.uint8)
    for bit in range(r):
        bits[:, bit] = gaps >> (r - 1 - bit) & 1
    return np.packbits(bits).tobytes()


def _unary(numbers: Gaps) -> bytes:
    ends = np.cumsum(numbers + 1) - 1
    bits = np.zeros(int(ends[-1]) + 1, np.uint8)
    bits[ends] = 1
    return np.packbits(bits).tobytes()


def decode(code: bytes, size: int, count: int) -> Bools:
    """The kept weights of a layer, `count` of `size`, from its code.

    Raises `DamagedFile` for an invalid code: too short or too long, nonzero padding, or a position beyond the layer.
    """
    listed = min(count, size - count)
    if listed < 0:
        raise DamagedFile(f"invalid mask: {count} of {size} weights kept")
    kept = np.full(size, 2 * count > size)
    if listed:
        kept[_positions(code, size, listed)] ^= True
    elif code:
        raise DamagedFile("invalid mask: a layer with all weights kept or all pruned has an empty code")
    return kept


def _positions(code: bytes, size: int, count: int) -> Gaps:
    r = code[0] if code else 0
    split = 1 + (r * count + 7) // 8
    highest = size >> r
    if r > size.bit_length() or not split < len(code) <= split + (count + highest + 7) // 8:
        raise DamagedFile("invalid mask: the code of a layer has the wrong length")
    streams = np.frombuffer(code, np.uint8)
    bits = np.unpackbits(streams[1:split])
    ends = np.flatnonzero(np.unpackbits(streams[split:]))
    if bits[r * count :].any() or ends.size != count or ends[-1] // 8 != len(code) - split - 1:
        raise DamagedFile("invalid mask: the code of a layer has nonzero padding or too few bits")
    gaps = np.diff(ends, prepend=-1) - 1
    if gaps.max() > highest:
        raise DamagedFile("invalid mask: the code of a layer has a position beyond the layer")
    lowest = bits[: r * count].reshape(count, r)
    for bit in range(r):
        gaps = gaps << 1 | lowest[:, bit]
    positions = np.cumsum(gaps + 1) - 1
    if positions[-1] >= size:
        raise DamagedFile("invalid mask: the code of a layer has a position beyond the layer")
    return positions
