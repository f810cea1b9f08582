"""Memory layout: where the images of a plan lie in the workspace, and the program that uses them there."""

from __future__ import annotations

from collections.abc import Set
from typing import Any

import numpy as np

from tombola.exports.runtime.program import ARRAYS, Program
from tombola.graph.constants import FloatArray
from tombola.graph.ties import IntArray
from tombola.kernels import inference as k
from tombola.kernels.image_slot import ImageSlot, Lifetime, allocate, runs_of
from tombola.kernels.plans.plan import Image, MaxPool, Plan, Product


def program_of(plan: Plan, dense: Set[int] = frozenset()) -> Program:
    """The program of a plan, in which the products with the numbers in `dense` are multiplied dense."""
    _align_lines(plan)
    slots = _allocate(plan)
    rows = [_output_fields(slots[plan.inputs]) | {k.KIND: k.INPUT}]
    parts: dict[str, list[Any]] = {"values": [], "columns": [], "bounds": [], "biases": []}
    dense_parts: list[tuple[dict[int, int], FloatArray, IntArray]] = []  # the step, its matrix, its columns
    count = bound = bias = 0
    for number, work in enumerate(plan.work):
        source = slots[work.source]
        step = _output_fields(slots[work.out])
        step |= {
            k.IN: source.at(0, -work.padding[0], -work.padding[1]),
            k.IN_PLANE: source.plane,
            k.IN_LINE: source.line,
        }
        step |= {k.STRIDE_H: work.stride[0], k.STRIDE_W: work.stride[1]}
        rows.append(step)
        if isinstance(work, MaxPool):
            step |= {k.KIND: k.MAX_POOL, k.KERNEL_H: work.kernel[0], k.KERNEL_W: work.kernel[1]}
            step |= {k.DILATION_H: work.dilation[0], k.DILATION_W: work.dilation[1]}
            step |= {k.INNER: work.padding[0], k.FIRST: work.padding[1]}
            step |= {k.IN_HEIGHT: work.source.height, k.IN_WIDTH: work.source.width}
            continue
        step |= {k.OUT: slots[work.out].at(work.first), k.ROWS: len(work.bias), k.RELU: int(work.relu), k.BIAS: bias}
        if work.addend is not None:
            addend = slots[work.addend]
            step |= {k.ADDEND: addend.at(), k.ADDEND_PLANE: addend.plane, k.ADDEND_LINE: addend.line}
        parts["biases"].append(work.bias)
        bias += len(work.bias)
        if number in dense:
            dense_parts.append((step, *_matrix(work, source)))
        else:
            weights = work.weights
            step |= {k.KIND: k.SPARSE, k.BOUND: bound}
            parts["values"].append(weights.value)
            parts["columns"].append(weights.channel * source.plane + weights.down * source.line + weights.across)
            parts["bounds"].append(count + np.cumsum([0, *np.bincount(weights.row, minlength=len(work.bias))]))
            count += len(weights.value)
            bound += len(work.bias) + 1
    first, column = count, count
    for step, matrix, shared in dense_parts:  # behind the sparse products, whose values and columns are parallel
        step |= {k.KIND: k.DENSE, k.FIRST: first, k.INNER: len(shared), k.BOUND: column}
        parts["values"].append(matrix.reshape(-1))
        parts["columns"].append(shared)
        first, column = first + matrix.size, column + len(shared)
    table = np.array([[int(step[field]) for field in k.FIELDS] for step in rows])
    arrays = {name: np.concatenate([np.empty(0), *part]) for name, part in parts.items()}
    arrays |= {"table": table, "runs": runs_of(slots[plan.inputs].pixels), "places": slots[plan.outputs].pixels}
    arrays = {name: array.astype(ARRAYS[name]) for name, array in arrays.items()}
    workspace = max(slot.end for slot in slots.values())
    return Program(plan.input_shape, plan.output_shape, workspace, **arrays)


def _output_fields(slot: ImageSlot) -> dict[int, int]:
    """The fields of a step of any kind that describe its outputs; defaults for the others."""
    top, bottom, left, right = slot.image.padding
    step = dict.fromkeys(k.FIELDS, 0) | {k.OUT: slot.at(), k.OUT_PLANE: slot.plane, k.OUT_LINE: slot.line}
    step |= {k.ROWS: slot.image.channels, k.HEIGHT: slot.image.height, k.WIDTH: slot.image.width, k.ADDEND: -1}
    step |= {k.PAD_TOP: top, k.PAD_LEFT: left, k.PAD_BOTTOM: bottom, k.PAD_RIGHT: right}
    return step | dict.fromkeys((k.STRIDE_H, k.STRIDE_W, k.KERNEL_H, k.KERNEL_W, k.DILATION_H, k.DILATION_W), 1)


def _align_lines(plan: Plan) -> None:
    """Make lines as long as those of the source where the stride is 1: one image is then computed in one stream."""
    for work in plan.work:
        if isinstance(work, Product) and work.stride == (1, 1) and work.out.height > 1:
            missing = ImageSlot(work.source, 0).line - ImageSlot(work.out, 0).line
            work.out.padding[3] += max(0, missing)


def dense_products(plan: Plan) -> dict[int, Product]:
    """The products that could be multiplied dense, by their numbers."""
    return {
        number: work
        for number, work in enumerate(plan.work)
        if isinstance(work, Product) and work.weights.kernel is not None and len(work.weights.value)
    }


def _matrix(product: Product, source: ImageSlot) -> tuple[FloatArray, IntArray]:
    """The weights of a product, zeros included, (rows, channels · height · width of the kernel), and its columns."""
    weights, kernel = product.weights, product.weights.kernel
    assert kernel is not None
    sizes = (product.source.channels, kernel.height, kernel.width)
    matrix = np.zeros((len(product.bias), *sizes))
    down, across = weights.down // kernel.dilation[0], weights.across // kernel.dilation[1]
    matrix[weights.row, weights.channel, down, across] = weights.value
    channel, i, j = np.indices(sizes).reshape(3, -1)
    columns = channel * source.plane + i * kernel.dilation[0] * source.line + j * kernel.dilation[1]
    return matrix.reshape(len(matrix), -1), columns


def _allocate(plan: Plan) -> dict[Image, ImageSlot]:
    """A slot for each image; images that are not needed at the same time may share memory."""
    written, read = {plan.inputs: -1}, {plan.outputs: len(plan.work)}
    for number, work in enumerate(plan.work):
        addend = work.addend if isinstance(work, Product) else None
        written.setdefault(work.out, number)
        for image in (work.source, work.out, addend):
            if image is not None:
                read[image] = max(read.get(image, -1), number)
    return allocate([Lifetime(image, time, read.get(image, -1)) for image, time in written.items()])
