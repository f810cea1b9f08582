"""Coding: which weights of a layer are left, in few more bits than it takes to say it at all.

Weights are counted in row-major order. What is rarer, the kept weights or the pruned ones, is listed by its gaps: how
many of the others stand before each. Gaps of random places are distributed geometrically, for which Golomb's codes
are best ("Run-length encodings", 1966); Rice's ("Some practical universal noiseless coding techniques", 1979) are
those of them whose parameter is a power of two. A gap is written as its lowest r bits and, in unary, the rest.
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
    """How many bits it takes to say which weights are left where their number in each layer is known: the sum over
    layers of log2 of (n over k), k of n weights being left. No code for masks of which nothing else is known needs
    fewer on average."""
    return sum(_log2_choices(mask.sizes[name], left) for name, left in mask.counts.items())


def _log2_choices(n: int, k: int) -> float:
    return (math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)) / math.log(2)


def encode(kept: Bools) -> bytes:
    """The code of one layer; `kept` has one axis, and is True where a weight is left.

    A byte with r; the lowest r bits of every gap, highest first; then for every gap the rest in unary, so many zeros
    and a one. Both streams fill their last byte with zeros. The r is taken that makes it shortest. Nothing at all
    where all weights are left, or none is.
    """
    listed = kept if 2 * int(kept.sum()) <= kept.size else ~kept
    places = np.flatnonzero(listed).astype(np.int64)
    if not places.size:
        return b""
    gaps = np.diff(places, prepend=-1) - 1
    r = _best_parameter(gaps)
    return bytes([r]) + _lowest(gaps, r) + _unary(gaps >> r)


def _best_parameter(gaps: Gaps) -> int:
    """The r that takes the fewest bytes, the smallest of several; near log2 of the mean gap (Gallager & van Voorhis
    1975, "Optimal source codes for geometrically distributed integer alphabets")."""

    def length(r: int) -> int:
        return (r * gaps.size + 7) // 8 + (gaps.size + int((gaps >> r).sum()) + 7) // 8

    return min(range(int(gaps.max()).bit_length() + 1), key=length)


def _lowest(gaps: Gaps, r: int) -> bytes:
    bits = np.empty((gaps.size, r), np.uint8)
    for place in range(r):
        bits[:, place] = gaps >> (r - 1 - place) & 1
    return np.packbits(bits).tobytes()


def _unary(numbers: Gaps) -> bytes:
    ends = np.cumsum(numbers + 1) - 1
    bits = np.zeros(int(ends[-1]) + 1, np.uint8)
    bits[ends] = 1
    return np.packbits(bits).tobytes()


def decode(code: bytes, size: int, count: int) -> Bools:
    """Which weights of a layer are left, from its code: `count` of `size`.

    Raises `DamagedFile` for what no such layer's code is: too short or too long, with a bit set that means nothing,
    or a place beyond the layer.
    """
    listed = min(count, size - count)
    if listed < 0:
        raise DamagedFile(f"{count} of {size} weights cannot be left")
    kept = np.full(size, 2 * count > size)
    if listed:
        kept[_places(code, size, listed)] ^= True
    elif code:
        raise DamagedFile("a layer whose weights are all left, or all pruned, has no code")
    return kept


def _places(code: bytes, size: int, count: int) -> Gaps:
    r = code[0] if code else 0
    split = 1 + (r * count + 7) // 8
    highest = size >> r
    if r > size.bit_length() or not split < len(code) <= split + (count + highest + 7) // 8:
        raise DamagedFile("the code of a layer's mask has a wrong length")
    streams = np.frombuffer(code, np.uint8)
    bits = np.unpackbits(streams[1:split])
    ends = np.flatnonzero(np.unpackbits(streams[split:]))
    if bits[r * count :].any() or ends.size != count or ends[-1] // 8 != len(code) - split - 1:
        raise DamagedFile("the code of a layer's mask has bits that mean nothing, or lacks some")
    gaps = np.diff(ends, prepend=-1) - 1
    if gaps.max() > highest:
        raise DamagedFile("the code of a layer's mask names a weight that the layer does not have")
    lowest = bits[: r * count].reshape(count, r)
    for place in range(r):
        gaps = gaps << 1 | lowest[:, place]
    places = np.cumsum(gaps + 1) - 1
    if places[-1] >= size:
        raise DamagedFile("the code of a layer's mask names a weight that the layer does not have")
    return places
