"""Vectors of sixteen float32 in registers, for compiled functions.

numba relies on LLVM to vectorise loops, and keeps the sums of inner loops in memory. These operations are LLVM
intrinsics on `<16 x float>`: one register with AVX-512, two with AVX2, four with NEON or SSE.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.datamodel import models
from numba.extending import intrinsic, register_model

LANES = 16
"""Numbers in a vector."""

VECTOR = ir.VectorType(ir.FloatType(), LANES)
ZERO = ir.Constant(VECTOR, [ir.Constant(ir.FloatType(), 0.0)] * LANES)
INT32 = ir.IntType(32)


class Vector(types.Type):
    """numba's type. It exists in registers only: compiled functions neither take nor return it."""

    def __init__(self) -> None:
        super().__init__(name="Vector16")


vector = Vector()


@register_model(Vector)
class _Model(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, VECTOR)


def vector_pointer(builder: Any, data: Any, index: Any) -> Any:
    """A pointer to the vector that begins at an index of the numbers at `data`."""
    return builder.bitcast(builder.gep(data, [index]), VECTOR.as_pointer())


def _place(context: Any, builder: Any, kind: Any, array: Any, index: Any) -> Any:
    return vector_pointer(builder, context.make_array(kind)(context, builder, array).data, index)


@intrinsic
def load(typing: Any, array: Any, index: Any) -> Any:
    """The vector at `array[index:index + 16]` of a contiguous float32 array. Bounds are not checked."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        loaded = builder.load(_place(context, builder, signature.args[0], *arguments))
        loaded.align = 4
        return loaded

    return vector(array, types.intp), generate


@intrinsic
def store(typing: Any, array: Any, index: Any, value: Any) -> Any:
    """Store `value` at `array[index:index + 16]`. Bounds are not checked."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        stored = builder.store(arguments[2], _place(context, builder, signature.args[0], *arguments[:2]))
        stored.align = 4
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), generate


@intrinsic
def splat(typing: Any, number: Any) -> Any:
    """The vector with `number`, a float32, in all lanes."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        empty = ir.Constant(VECTOR, ir.Undefined)
        first = builder.insert_element(empty, arguments[0], INT32(0))
        return builder.shuffle_vector(first, empty, ir.Constant(ir.VectorType(INT32, LANES), [0] * LANES))

    return vector(types.float32), generate


@intrinsic
def total(typing: Any, value: Any) -> Any:
    """The sum of all lanes, a float32; always in the same order."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        (rest,) = arguments
        half = LANES // 2
        while half:
            low, high = (
                builder.shuffle_vector(rest, rest, ir.Constant(ir.VectorType(INT32, half), list(lanes)))
                for lanes in (range(half), range(half, 2 * half))
            )
            rest = builder.fadd(low, high)
            half //= 2
        return builder.extract_element(rest, INT32(0))

    return types.float32(value), generate


@intrinsic
def transpose(typing: Any, source: Any, places: Any, first: Any, shift: Any, out: Any, place: Any, pitch: Any) -> Any:
    """out[place + j · pitch + i] = source[places[first + i] + shift + j], for i and j from 0 to 15."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source, places, first, shift, out, place, pitch = arguments
        starts = context.make_array(signature.args[1])(context, builder, places).data
        rows = []
        for i in range(LANES):
            start = builder.load(builder.gep(starts, [builder.add(first, first.type(i))]))
            row = builder.load(_place(context, builder, signature.args[0], source, builder.add(start, shift)))
            row.align = 4
            rows.append(row)
        for step in (1, 2, 4, 8):  # swaps halves of growing blocks across the diagonal
            lanes = [[j + LANES - step if j & step else j for j in range(LANES)]]
            lanes.append([j + LANES if j & step else j + step for j in range(LANES)])
            for i in range(LANES):
                if not i & step:
                    pair = rows[i], rows[i | step]
                    masks = [ir.Constant(ir.VectorType(INT32, LANES), lane) for lane in lanes]
                    rows[i], rows[i | step] = (builder.shuffle_vector(*pair, mask) for mask in masks)
        for j, column in enumerate(rows):
            target = builder.add(place, builder.mul(pitch, pitch.type(j)))
            stored = builder.store(column, _place(context, builder, signature.args[4], out, target))
            stored.align = 4
        return context.get_dummy_value()

    whole = types.intp
    return types.void(source, places, whole, whole, out, whole, whole), generate


@intrinsic
def at(typing: Any, array: Any, index: Any) -> Any:
    """`array[index]`, one number of a contiguous array. Neither bounds nor the sign of the index are checked."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, index = arguments
        data = context.make_array(signature.args[0])(context, builder, array).data
        return builder.load(builder.gep(data, [index]))

    return array.dtype(array, types.intp), generate


@intrinsic
def floats_at(typing: Any, address: Any) -> Any:
    """A pointer to the float32 at an address, for `numba.carray`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return types.CPointer(types.float32)(types.intp), generate


@intrinsic
def fma_one(typing: Any, a: Any, b: Any, c: Any) -> Any:
    """`a * b + c` of three float32, rounded once."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(ir.FloatType(), [ir.FloatType()] * 3)
        return builder.call(cgutils.get_or_insert_function(builder.module, kind, "llvm.fma.f32"), arguments)

    one = types.float32
    return one(one, one, one), generate


def _operation(operands: int, emit: Callable[[Any, Any], Any]) -> Any:
    """A lane-wise operation."""
    signature = vector(*[vector] * operands)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return emit(builder, arguments)

    if operands == 1:
        return intrinsic(lambda typing, a: (signature, generate))
    if operands == 2:
        return intrinsic(lambda typing, a, b: (signature, generate))
    if operands == 3:
        return intrinsic(lambda typing, a, b, c: (signature, generate))
    return intrinsic(lambda typing, a, b, c, d: (signature, generate))


def greater(builder: Any, pair: Any) -> Any:
    """The instructions of `larger`."""
    return builder.select(builder.fcmp_unordered(">", *pair), *pair)


def _where(builder: Any, comparison: str, left: Any, right: Any, value: Any) -> Any:
    """`value` where the comparison holds, else zero. For NaN, only `>` holds."""
    compare = builder.fcmp_unordered if comparison == ">" else builder.fcmp_ordered
    return builder.select(compare(comparison, left, right), value, ZERO)


def llvm_function(name: str) -> Callable[[Any, Any], Any]:
    """Writes a call of one of LLVM's functions of vectors."""

    def emit(builder: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(VECTOR, [VECTOR] * len(arguments))
        function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.{name}.v{LANES}f32")
        return builder.call(function, arguments)

    return emit


add = _operation(2, lambda builder, arguments: builder.fadd(*arguments))
multiply = _operation(2, lambda builder, arguments: builder.fmul(*arguments))
divide = _operation(2, lambda builder, arguments: builder.fdiv(*arguments))
subtract = _operation(2, lambda builder, arguments: builder.fsub(*arguments))
larger = _operation(2, greater)
"""The larger of two; the first if it is NaN."""
where_positive = _operation(2, lambda builder, pair: _where(builder, ">", pair[1], ZERO, pair[0]))
"""The first where the second is positive or NaN, else zero."""
where_equal = _operation(3, lambda builder, three: _where(builder, "==", three[1], three[2], three[0]))
"""The first where the second equals the third, else zero."""
where_greater = _operation(
    4, lambda builder, four: builder.select(builder.fcmp_unordered(">", *four[:2]), four[2], four[3])
)
"""The third where the first is greater than the second, or one of both is NaN; else the fourth."""
fma = _operation(3, llvm_function("fma"))
"""`a * b + c`, rounded once."""


def _inverse_root(builder: Any, arguments: Any) -> Any:
    """A guess from the exponent (Lomont 2003), off by 3%, and three steps of Newton's method."""
    (value,) = arguments
    whole = ir.VectorType(INT32, LANES)
    half, three_halves, one = (
        ir.Constant(kind, [ir.Constant(kind.element, number)] * LANES)
        for kind, number in ((VECTOR, -0.5), (VECTOR, 1.5), (whole, 1))
    )
    magic = ir.Constant(whole, [INT32(0x5F375A86)] * LANES)
    guess = builder.bitcast(builder.sub(magic, builder.lshr(builder.bitcast(value, whole), one)), VECTOR)
    negative = builder.fmul(value, half)
    for _ in range(3):
        factor = llvm_function("fma")(builder, [builder.fmul(negative, guess), guess, three_halves])
        guess = builder.fmul(guess, factor)
    return guess


inverse_root = _operation(1, _inverse_root)
"""1 / √x for positive finite x, to about 1e-7 of it. Only multiplies, which takes less time than a square root and a
division, and gives equal bits on all processors. Finite for 0, so that x · inverse_root(x) is √x for 0, too."""


def _flush(builder: Any, arguments: Any) -> Any:
    (value,) = arguments
    least = ir.Constant(VECTOR, [ir.Constant(ir.FloatType(), 2.0**-100)] * LANES)
    return builder.select(builder.fcmp_unordered(">=", llvm_function("fabs")(builder, [value]), least), value, ZERO)


flush = _operation(1, _flush)
"""The value, or 0 where it is closer to 0 than 2⁻¹⁰⁰: averages that decay to 0 would become subnormal numbers, which
take processors a hundred times as long. NaN stays."""


def _exponential(builder: Any, arguments: Any) -> Any:
    """e^x = 2^k · e^r with k = x / ln 2, rounded, and a polynomial for e^r (Cephes). Adding 1.5 · 2²³ rounds."""
    (value,) = arguments
    whole = ir.VectorType(INT32, LANES)

    def all_lanes(number: float) -> Any:
        return ir.Constant(VECTOR, [ir.Constant(ir.FloatType(), float(np.float32(number)))] * LANES)

    def fma(*three: Any) -> Any:
        return llvm_function("fma")(builder, three)

    shifted = fma(value, all_lanes(1.44269504), all_lanes(1.5 * 2**23))
    k = builder.fsub(shifted, all_lanes(1.5 * 2**23))
    rest = fma(k, all_lanes(2.12194440e-4), fma(k, all_lanes(-0.693359375), value))
    power = all_lanes(1.9875691500e-4)
    for coefficient in (1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 0.5, 1, 1):
        power = fma(power, rest, all_lanes(coefficient))
    exponent = builder.shl(builder.bitcast(shifted, whole), ir.Constant(whole, [INT32(23)] * LANES))
    scaled = builder.bitcast(builder.add(builder.bitcast(power, whole), exponent), VECTOR)
    return builder.select(builder.fcmp_ordered("<", value, all_lanes(-64)), ZERO, scaled)


exponential = _operation(1, _exponential)
"""e^x for x from -64 to 88, to about 1e-7 of it, with equal bits on all processors; 0 below."""
