"""Vectors of sixteen float32 in registers, for compiled functions.

numba relies on LLVM to vectorise loops, and keeps the sums of inner loops in memory. These operations are LLVM
intrinsics on `<16 x float>`: one register with AVX-512, two with AVX2, four with NEON or SSE.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.datamodel import models
from numba.extending import intrinsic, register_model

LANES = 16
"""Numbers in a vector."""

_VECTOR = ir.VectorType(ir.FloatType(), LANES)
_INT = ir.IntType(32)


class Vector(types.Type):
    """numba's type. It exists in registers only: compiled functions neither take nor return it."""

    def __init__(self) -> None:
        super().__init__(name="Vector16")


vector = Vector()


@register_model(Vector)
class _Model(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _VECTOR)


def _place(context: Any, builder: Any, kind: Any, array: Any, index: Any) -> Any:
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), _VECTOR.as_pointer())


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
        empty = ir.Constant(_VECTOR, ir.Undefined)
        first = builder.insert_element(empty, arguments[0], _INT(0))
        return builder.shuffle_vector(first, empty, ir.Constant(ir.VectorType(_INT, LANES), [0] * LANES))

    return vector(types.float32), generate


@intrinsic
def total(typing: Any, value: Any) -> Any:
    """The sum of all lanes, a float32; always in the same order."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        (rest,) = arguments
        half = LANES // 2
        while half:
            low, high = (
                builder.shuffle_vector(rest, rest, ir.Constant(ir.VectorType(_INT, half), list(lanes)))
                for lanes in (range(half), range(half, 2 * half))
            )
            rest = builder.fadd(low, high)
            half //= 2
        return builder.extract_element(rest, _INT(0))

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
                    masks = [ir.Constant(ir.VectorType(_INT, LANES), lane) for lane in lanes]
                    rows[i], rows[i | step] = (builder.shuffle_vector(*pair, mask) for mask in masks)
        for j, column in enumerate(rows):
            target = builder.add(place, builder.mul(pitch, pitch.type(j)))
            stored = builder.store(column, _place(context, builder, signature.args[4], out, target))
            stored.align = 4
        return context.get_dummy_value()

    whole = types.intp
    return types.void(source, places, whole, whole, out, whole, whole), generate


@intrinsic
def sixteen_products(
    typing: Any,
    a: Any,
    b: Any,
    c: Any,
    d: Any,
    source: Any,
    columns: Any,
    first: Any,
    pitch: Any,
    shift: Any,
) -> Any:
    """Sixteen inner products of the 64 numbers a, b, c, d: with source[columns[first + i] · pitch + shift + …].

    Lane i has product i. Summing sixteen vectors at once is a quarter of the work of sixteen calls of `total`.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        *left, source, columns, first, pitch, shift = arguments
        indices = context.make_array(signature.args[5])(context, builder, columns).data

        def product(i: int) -> Any:
            column = builder.sext(builder.load(builder.gep(indices, [builder.add(first, first.type(i))])), first.type)
            place = builder.add(builder.mul(column, pitch), shift)
            sums: list[Any] = []
            for part, vector in enumerate(left):
                right = builder.load(
                    _place(context, builder, signature.args[4], source, builder.add(place, place.type(LANES * part)))
                )
                right.align = 4
                sums.append(
                    builder.fmul(vector, right)
                    if part < 2
                    else _llvm("fma")(builder, [vector, right, sums[part - 2]])
                )
            return builder.fadd(*sums[2:])

        def products(i: int, count: int) -> Any:
            """Products i to i + count - 1: lane l has a part of product i + l % count."""
            if count == 1:
                return product(i)
            half = count // 2
            pair = products(i, half), products(i + half, half)
            lower = [j + LANES - half if j & half else j for j in range(LANES)]
            upper = [j + LANES if j & half else j + half for j in range(LANES)]
            masks = (ir.Constant(ir.VectorType(_INT, LANES), lanes) for lanes in (lower, upper))
            return builder.fadd(*(builder.shuffle_vector(*pair, mask) for mask in masks))

        return products(0, LANES)

    whole = types.intp
    return vector(a, b, c, d, source, columns, whole, whole, whole), generate


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
    return intrinsic(lambda typing, a, b, c: (signature, generate))


def _llvm(name: str) -> Callable[[Any, Any], Any]:
    def emit(builder: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(_VECTOR, [_VECTOR] * len(arguments))
        function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.{name}.v{LANES}f32")
        return builder.call(function, arguments)

    return emit


add = _operation(2, lambda builder, arguments: builder.fadd(*arguments))
multiply = _operation(2, lambda builder, arguments: builder.fmul(*arguments))
divide = _operation(2, lambda builder, arguments: builder.fdiv(*arguments))
subtract = _operation(2, lambda builder, arguments: builder.fsub(*arguments))
larger = _operation(2, lambda builder, arguments: builder.select(builder.fcmp_unordered(">", *arguments), *arguments))
"""The larger of two; the first if it is NaN."""
root = _operation(1, _llvm("sqrt"))
fma = _operation(3, _llvm("fma"))
"""`a * b + c`, rounded once."""
