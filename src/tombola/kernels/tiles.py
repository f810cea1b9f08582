"""The inner loops of the products, whose sums stay in registers: LLVM's instructions, written for tiles of vectors.

Every sum is taken in one order, whatever the size of the tiles, so that the bits are equal on all processors.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numba
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.codegen import get_host_cpu_features
from numba.extending import intrinsic

from tombola.kernels.vectors import INT32, LANES, VECTOR, ZERO, greater, llvm_function, vector_pointer


class TileSizes(NamedTuple):
    """Sizes of tiles that fit the registers of a processor. They descend to 1: smaller ones compute the rest."""

    sparse: tuple[int, ...]
    """Vectors of a sparse row, each of which has two sums."""
    dense_rows: tuple[int, ...]
    dense: tuple[int, ...]
    """Vectors of each of the rows."""
    sampled: int
    """Inner products that are summed at a time: 8 or 4."""
    blends: bool
    """Whether a vector of some lanes of two others, each in its place, takes less time than one of pairs of lanes."""


AVX512 = TileSizes(sparse=(8, 4, 2, 1), dense_rows=(6, 2, 1), dense=(4, 2, 1), sampled=8, blends=True)
"""32 registers of a vector each."""
AVX2 = TileSizes(sparse=(2, 1), dense_rows=(6, 2, 1), dense=(1,), sampled=4, blends=True)
"""16 registers of half a vector each; fits SSE, too."""
NEON = AVX2._replace(blends=False)
"""32 registers of a quarter of a vector each."""


def tile_sizes(features: str) -> TileSizes:
    """The tiles for a processor with these features, in LLVM's notation: `+avx2,-avx512f`."""
    names = features.split(",")
    return AVX512 if "+avx512f" in names else NEON if "+neon" in names else AVX2


def _features() -> str:
    """Those that numba compiles for."""
    if numba.config.CPU_FEATURES is not None:
        return str(numba.config.CPU_FEATURES)
    return str(get_host_cpu_features())


SIZES = tile_sizes(_features())
SPARSE_TILES, DENSE_ROWS, DENSE_TILES = SIZES.sparse, SIZES.dense_rows, SIZES.dense

SAMPLED_DEPTH = 8
"""Vectors of inner products whose lanes are summed together, at most."""

FEW = 4
"""Inner products that are summed at a time at the end of a row, with repetitions of the last."""

WHOLE = types.intp


class _Code:
    """Writes instructions. Arguments that are arrays become pointers to their data."""

    def __init__(self, context: Any, builder: Any, signature: Any, arguments: Any) -> None:
        self.builder = builder
        self.index = context.get_value_type(WHOLE)
        self.arguments = [
            context.make_array(kind)(context, builder, value).data if isinstance(kind, types.Array) else value
            for kind, value in zip(signature.args, arguments, strict=True)
        ]

    def number(self, value: int) -> Any:
        return ir.Constant(self.index, value)

    def plus(self, a: Any, b: Any) -> Any:
        return self.builder.add(a, b)

    def times(self, a: Any, b: Any) -> Any:
        return self.builder.mul(a, self.number(b) if isinstance(b, int) else b)

    def item(self, array: Any, index: Any) -> Any:
        return self.builder.load(self.builder.gep(array, [index]))

    def position(self, array: Any, index: Any) -> Any:
        """An int32, as an index."""
        return self.builder.sext(self.item(array, index), self.index)

    def load(self, array: Any, index: Any) -> Any:
        loaded = self.builder.load(vector_pointer(self.builder, array, index))
        loaded.align = 4
        return loaded

    def store(self, value: Any, array: Any, index: Any) -> None:
        self.builder.store(value, vector_pointer(self.builder, array, index)).align = 4

    def splat(self, number: Any) -> Any:
        empty = ir.Constant(VECTOR, ir.Undefined)
        first = self.builder.insert_element(empty, number, INT32(0))
        return self.builder.shuffle_vector(first, empty, ir.Constant(ir.VectorType(INT32, LANES), [0] * LANES))

    def add_lanes(self, value: Any, array: Any, index: Any, count: Any) -> None:
        """Add the first `count` lanes of a vector of any size, or all, to an array; the rest of it is not touched."""
        size, builder = value.type.count, self.builder
        pointer = builder.bitcast(builder.gep(array, [index]), value.type.as_pointer())
        if count is None:
            loaded = builder.load(pointer)
            loaded.align = 4
            builder.store(builder.fadd(loaded, value), pointer).align = 4
            return
        wanted = [builder.icmp_signed("<", self.number(lane), count) for lane in range(size)]
        mask = ir.Constant(ir.VectorType(ir.IntType(1), size), ir.Undefined)
        for lane, condition in enumerate(wanted):
            mask = builder.insert_element(mask, condition, INT32(lane))
        zero = ir.Constant(value.type, [ir.Constant(ir.FloatType(), 0.0)] * size)
        read = ir.FunctionType(value.type, [pointer.type, INT32, mask.type, value.type])
        write = ir.FunctionType(ir.VoidType(), [value.type, pointer.type, INT32, mask.type])
        reader, writer = (
            cgutils.get_or_insert_function(builder.module, kind, f"llvm.masked.{name}.v{size}f32.p0")
            for name, kind in (("load", read), ("store", write))
        )
        before = builder.call(reader, [pointer, INT32(4), mask, zero])
        builder.call(writer, [builder.fadd(before, value), pointer, INT32(4), mask])

    def fma(self, a: Any, b: Any, c: Any) -> Any:
        return llvm_function("fma")(self.builder, [a, b, c])

    def variable(self, value: Any) -> Any:
        """A place that LLVM turns into a register."""
        place = cgutils.alloca_once(self.builder, value.type)
        self.builder.store(value, place)
        return place

    def not_negative(self, index: Any) -> Any:
        return self.builder.icmp_signed(">=", index, self.number(0))

    def assign(self, places: Sequence[Any], values: Sequence[Any]) -> None:
        for place, value in zip(places, values, strict=True):
            self.builder.store(value, place)

    def loaded(self, places: Sequence[Any]) -> list[Any]:
        return [self.builder.load(place) for place in places]

    def case(self, number: Any, value: int) -> Any:
        """A context for what happens only if `number` is `value`."""
        return self.builder.if_then(self.builder.icmp_signed("==", number, self.number(value)))

    def by_hop(self, hop: Any, write: Callable[[Any], None]) -> None:
        """Write code twice: for contiguous streams, whose vectors need no registers for addresses, and for others."""
        with self.builder.if_else(self.builder.icmp_signed("==", hop, self.number(LANES))) as (then, otherwise):
            with then:
                write(self.number(LANES))
            with otherwise:
                write(hop)

    @contextmanager
    def each(self, begin: Any, end: Any, step: int = 1) -> Iterator[Any]:
        with cgutils.for_range_slice(self.builder, begin, end, self.number(step), self.index) as (index, _):
            yield index


class Epilogue(NamedTuple):
    """What becomes of the sums of a row; places are -1 where there is nothing to add or no gate."""

    goes_on: Any
    """Whether the sums continue those in `out`, rather than begin at the bias."""
    out: Any
    offset: Any
    out_hop: Any
    addend: Any
    addend_place: Any
    minimum: Any
    gate: Any
    gate_place: Any
    gate_hop: Any

    def begin(self, code: _Code, sums: Sequence[Any], bias: Any, offset: Any) -> None:
        with code.builder.if_else(self.goes_on) as (then, otherwise):
            with then:
                for v, place in enumerate(sums):
                    loaded = code.load(self.out, code.plus(offset, code.times(self.out_hop, v)))
                    code.builder.store(loaded, place)
            with otherwise:
                value = code.splat(bias)
                for place in sums:
                    code.builder.store(value, place)

    def end(self, code: _Code, sums: Sequence[Any], shift: tuple[Any, Any, Any]) -> None:
        """`shift` is the distance of this row from the first of the tile in `out`, `addend` and `gate`."""
        builder = code.builder
        offset, addend, gate = map(code.plus, (self.offset, self.addend_place, self.gate_place), shift)
        with builder.if_then(code.not_negative(self.addend_place)):
            for v, place in enumerate(sums):
                loaded = code.load(self.addend, code.plus(addend, code.times(self.out_hop, v)))
                builder.store(builder.fadd(builder.load(place), loaded), place)
        minimum = code.splat(self.minimum)
        for place in sums:
            builder.store(greater(builder, [builder.load(place), minimum]), place)
        with builder.if_then(code.not_negative(self.gate_place)):
            for v, place in enumerate(sums):
                loaded = code.load(self.gate, code.plus(gate, code.times(self.gate_hop, v)))
                closed = builder.fcmp_ordered("<=", loaded, ZERO)
                builder.store(builder.select(closed, ZERO, builder.load(place)), place)
        for v, place in enumerate(sums):
            code.store(builder.load(place), self.out, code.plus(offset, code.times(self.out_hop, v)))


def _epilogue_types(out: Any, addend: Any, gate: Any) -> tuple[Any, ...]:
    return types.boolean, out, WHOLE, WHOLE, addend, WHOLE, types.float32, gate, WHOLE, WHOLE


@intrinsic
def sparse_tile(
    typing: Any, width: Any, values: Any, columns: Any, begin: Any, end: Any, bias: Any, source: Any, place: Any,
    n: Any, hop: Any, goes_on: Any, out: Any, offset: Any, out_hop: Any, addend: Any, addend_place: Any, minimum: Any,
    gate: Any, gate_place: Any, gate_hop: Any,
) -> Any:  # fmt: skip
    """One row of a sparse product over `width` vectors, one of `SPARSE_TILES`.

    The entries `begin`, `begin` + 2, ... and the others have sums of their own, which hides the latency of an fma.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code = _Code(context, builder, signature, arguments)
        width, values, columns, begin, end, bias, source, place, n, hop, *rest = code.arguments
        epilogue = Epilogue(*rest)

        def products(k: Any, sums: Sequence[Any], apart: Any) -> list[Any]:
            value = code.splat(code.item(values, k))
            position = code.plus(place, builder.mul(code.position(columns, k), n))
            rights = (code.load(source, code.plus(position, code.times(apart, v))) for v in range(len(sums)))
            return [code.fma(value, right, builder.load(sum_)) for right, sum_ in zip(rights, sums, strict=True)]

        def row(size: int, apart: Any) -> None:
            even, odd = ([code.variable(ZERO) for _ in range(size)] for _ in range(2))
            epilogue.begin(code, even, bias, epilogue.offset)
            last = builder.sub(end, code.number(1))
            with code.each(begin, last, 2) as k:
                for shift, sums in enumerate((even, odd)):
                    code.assign(sums, products(code.plus(k, code.number(shift)), sums, apart))
            with builder.if_then(builder.icmp_signed("<", begin, end)):
                uneven = builder.trunc(builder.sub(end, begin), ir.IntType(1))
                more = zip(products(last, even, apart), code.loaded(even), strict=True)
                # Selected rather than branched over: processors cannot predict whether a row is uneven.
                code.assign(even, [builder.select(uneven, *pair) for pair in more])
            pairs = zip(code.loaded(even), code.loaded(odd), strict=True)
            code.assign(even, [builder.fadd(*pair) for pair in pairs])
            epilogue.end(code, even, (code.number(0),) * 3)

        for size in SPARSE_TILES:
            with code.case(width, size):
                code.by_hop(hop, functools.partial(row, size))
        return context.get_dummy_value()

    numbers = WHOLE, WHOLE, types.float32, source, WHOLE, WHOLE, WHOLE
    return types.void(WHOLE, values, columns, *numbers, *_epilogue_types(out, addend, gate)), generate


@intrinsic
def dense_tile(
    typing: Any, height: Any, width: Any, values: Any, first: Any, row_step: Any, places: Any, columns: Any,
    begin: Any, end: Any, biases: Any, row: Any, source: Any, place: Any, n: Any, hop: Any, pitch: Any,
    addend_pitch: Any, gate_pitch: Any, goes_on: Any, out: Any, offset: Any, out_hop: Any, addend: Any,
    addend_place: Any, minimum: Any, gate: Any, gate_place: Any, gate_hop: Any,
) -> Any:  # fmt: skip
    """`height` rows, one of `DENSE_ROWS`, of a dense product over `width` vectors, one of `DENSE_TILES`.

    The first row has its weights at `values[first + places[k]]`, k from `begin` to `end`, and its bias at
    `biases[row]`; without biases, `row` is -1.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code = _Code(context, builder, signature, arguments)
        height, width, values, first, row_step, places, columns, begin, end, biases, row, *rest = code.arguments
        source, place, n, hop, pitch, addend_pitch, gate_pitch, *rest = rest
        epilogue = Epilogue(*rest)
        for tall, wide in itertools.product(DENSE_ROWS, DENSE_TILES):
            here = [builder.icmp_signed("==", a, code.number(b)) for a, b in ((height, tall), (width, wide))]
            with builder.if_then(builder.and_(*here)):
                sums = [[code.variable(ZERO) for _ in range(wide)] for _ in range(tall)]
                for r, row_sums in enumerate(sums):
                    bias = code.variable(ir.Constant(ir.FloatType(), 0.0))
                    with builder.if_then(code.not_negative(row)):
                        builder.store(code.item(biases, code.plus(row, code.number(r))), bias)
                    offset = code.plus(epilogue.offset, code.times(pitch, r))
                    epilogue.begin(code, row_sums, builder.load(bias), offset)
                with code.each(begin, end) as k:
                    position = code.plus(place, builder.mul(code.position(columns, k), n))
                    right = [code.load(source, code.plus(position, code.times(hop, v))) for v in range(wide)]
                    weight = code.plus(first, code.position(places, k))
                    for r, row_sums in enumerate(sums):
                        value = code.splat(code.item(values, code.plus(weight, code.times(row_step, r))))
                        for vector, sum_ in zip(right, row_sums, strict=True):
                            builder.store(code.fma(value, vector, builder.load(sum_)), sum_)
                for r, row_sums in enumerate(sums):
                    shift = code.times(pitch, r), code.times(addend_pitch, r), code.times(gate_pitch, r)
                    epilogue.end(code, row_sums, shift)
        return context.get_dummy_value()

    weights = values, WHOLE, WHOLE, places, columns, WHOLE, WHOLE, biases, WHOLE
    stream = source, *(WHOLE,) * 6
    return types.void(WHOLE, WHOLE, *weights, *stream, *_epilogue_types(out, addend, gate)), generate


@intrinsic
def sampled_tile(
    typing: Any, depth: Any, columns: Any, begin: Any, end: Any, left: Any, left_place: Any, left_hop: Any,
    source: Any, base: Any, n: Any, hop: Any, out: Any,
) -> Any:  # fmt: skip
    """Add inner products of one row, over `depth` vectors, to `out[begin:end]`. `depth` is at most `SAMPLED_DEPTH`.

    Each is summed by lanes over the vectors. Then the lanes of some products are summed together, which takes a
    quarter of the time of as many calls of `total`.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code = _Code(context, builder, signature, arguments)
        depth, columns, begin, end, left, left_place, left_hop, source, base, n, hop, out = code.arguments
        last = builder.sub(end, code.number(1))

        def part(size: int, count: int, k: Any, apart: Any, whole: bool) -> None:
            """Products k to k + count - 1. Unless all are wanted, those past the end repeat the last."""
            starts = []
            for j in range(count):
                here = code.plus(k, code.number(j))
                if not whole:
                    here = builder.select(builder.icmp_signed("<", here, end), here, last)
                starts.append(builder.gep(source, [code.plus(base, builder.mul(code.position(columns, here), n))]))
            sums = [ZERO] * count
            for v in range(size):
                a = code.load(left, code.plus(left_place, code.times(left_hop, v)))
                rights = [code.load(start, code.times(apart, v)) for start in starts]
                sums = [code.fma(a, right, sum_) for right, sum_ in zip(rights, sums, strict=True)]
            code.add_lanes(_totals(builder, sums), out, k, None if whole else builder.sub(end, k))

        def row(size: int, apart: Any) -> None:
            k = begin
            if apart is not hop:  # other streams are rare: less code for them takes less time to compile
                groups = builder.and_(builder.sub(end, begin), code.number(-SIZES.sampled))
                k = code.plus(begin, groups)
                with code.each(begin, k, SIZES.sampled) as each:
                    part(size, SIZES.sampled, each, apart, True)
            with code.each(k, end, FEW) as each:
                part(size, FEW, each, apart, False)

        for size in range(1, SAMPLED_DEPTH + 1):
            with code.case(depth, size):
                code.by_hop(hop, functools.partial(row, size))
        return context.get_dummy_value()

    numbers = left, WHOLE, WHOLE, source, WHOLE, WHOLE, WHOLE, out
    return types.void(WHOLE, columns, WHOLE, WHOLE, *numbers), generate


def _totals(builder: Any, vectors: Sequence[Any]) -> Any:
    """The sums of the lanes of each of 4 or 8 vectors: always those of lanes l and l ^ 1 first, then l ^ 2, ..."""
    parts, count = list(vectors), len(vectors)
    for step in (1, 2, 4, 8):
        if len(parts) == 1:
            moved = builder.shuffle_vector(parts[0], parts[0], _lanes(j ^ step for j in range(LANES)))
            parts = [builder.fadd(parts[0], moved)]
            continue
        if SIZES.blends:
            own = [j + LANES if j & step else j for j in range(LANES)]
            other = [(j ^ step) + (LANES if j & step else 0) for j in range(LANES)]
        else:  # the same sums, whose operands trade places in half of the lanes
            own = [j + LANES - step if j & step else j for j in range(LANES)]
            other = [j + LANES if j & step else j + step for j in range(LANES)]
        pairs = zip(parts[::2], parts[1::2], strict=True)
        parts = [
            builder.fadd(*(builder.shuffle_vector(*pair, _lanes(lanes)) for lanes in (own, other))) for pair in pairs
        ]
    return builder.shuffle_vector(parts[0], parts[0], _lanes(range(count)))


def _lanes(lanes: Iterable[int]) -> Any:
    numbers = list(lanes)
    return ir.Constant(ir.VectorType(INT32, len(numbers)), numbers)
