"""Layout: where the numbers of a plan lie in the room, and the program that finds them there."""

from __future__ import annotations

import itertools
from collections.abc import Set
from dataclasses import dataclass
from typing import Any

import numpy as np

from tombola.exports.runtime import kernels as k
from tombola.exports.runtime.kernels import Table
from tombola.exports.runtime.plan import Image, Largest, Numbers, Plan, Product, Whole
from tombola.exports.runtime.program import ARRAYS, Program


@dataclass(frozen=True)
class ImageSlot:
    """Where an image lies, zeros around it included."""

    image: Image
    begin: int

    @property
    def line(self) -> int:
        """The distance of lines, in pixels."""
        _, _, left, right = self.image.around
        return left + self.image.width + right

    @property
    def plane(self) -> int:
        """The distance of channels."""
        above, below, _, _ = self.image.around
        return (above + self.image.height + below) * self.line

    @property
    def end(self) -> int:
        """The first number that is no longer the image's."""
        return self.begin + self.image.channels * self.plane

    def at(self, channel: int = 0, y: int = 0, x: int = 0) -> int:
        """Where a pixel is; it may be one of the zeros around the image."""
        above, _, left, _ = self.image.around
        return self.begin + channel * self.plane + (above + y) * self.line + left + x

    @property
    def pixels(self) -> Table:
        """Where each pixel is, in the order of a contiguous tensor."""
        channel, y, x = np.indices((self.image.channels, self.image.height, self.image.width)).reshape(3, -1)
        above, _, left, _ = self.image.around
        return np.asarray(self.begin + channel * self.plane + (above + y) * self.line + left + x, np.int64)


def program_of(plan: Plan, dense: Set[int] = frozenset()) -> Program:
    """The program of a plan, the products with these numbers multiplied dense."""
    _line_up(plan)
    places = _places(plan)
    rows = [_step_into(places[plan.inputs]) | {k.KIND: k.INPUT}]
    parts: dict[str, list[Any]] = {"values": [], "columns": [], "bounds": [], "biases": []}
    held: list[tuple[dict[int, int], Numbers, Whole]] = []
    """Of dense products: the step, its matrix, its columns."""
    count = bound = bias = 0
    for number, work in enumerate(plan.work):
        source = places[work.source]
        step = _step_into(places[work.out])
        step |= {
            k.IN: source.at(0, -work.padding[0], -work.padding[1]),
            k.IN_PLANE: source.plane,
            k.IN_LINE: source.line,
        }
        step |= {k.DOWN: work.stride[0], k.ACROSS: work.stride[1]}
        rows.append(step)
        if isinstance(work, Largest):
            step |= {k.KIND: k.LARGEST, k.KERNEL_H: work.size[0], k.KERNEL_W: work.size[1]}
            step |= {k.DILATE_H: work.dilation[0], k.DILATE_W: work.dilation[1]}
            step |= {k.INNER: work.padding[0], k.FIRST: work.padding[1]}
            step |= {k.IN_HEIGHT: work.source.height, k.IN_WIDTH: work.source.width}
            continue
        step |= {k.OUT: places[work.out].at(work.first), k.ROWS: len(work.bias), k.RELU: int(work.relu), k.BIAS: bias}
        if work.plus is not None:
            plus = places[work.plus]
            step |= {k.PLUS: plus.at(), k.PLUS_PLANE: plus.plane, k.PLUS_LINE: plus.line}
        parts["biases"].append(work.bias)
        bias += len(work.bias)
        if number in dense:
            held.append((step, *_matrix(work, source)))
        else:
            weights = work.weights
            step |= {k.KIND: k.SPARSE, k.BOUND: bound}
            parts["values"].append(weights.value)
            parts["columns"].append(weights.channel * source.plane + weights.down * source.line + weights.across)
            parts["bounds"].append(count + np.cumsum([0, *np.bincount(weights.row, minlength=len(work.bias))]))
            count += len(weights.value)
            bound += len(work.bias) + 1
    first, column = count, count
    for step, matrix, shared in held:  # behind the others, whose values and columns go side by side
        step |= {k.KIND: k.DENSE, k.FIRST: first, k.INNER: len(shared), k.BOUND: column}
        parts["values"].append(matrix.reshape(-1))
        parts["columns"].append(shared)
        first, column = first + matrix.size, column + len(shared)
    table = np.array([[int(step[field]) for field in range(len(k.FIELDS))] for step in rows])
    arrays = {name: np.concatenate([np.empty(0), *part]) for name, part in parts.items()}
    arrays |= {"table": table, "runs": _runs(places[plan.inputs].pixels), "places": places[plan.outputs].pixels}
    arrays = {name: array.astype(ARRAYS[name]) for name, array in arrays.items()}
    room = max(place.end for place in places.values())
    return Program(plan.input_shape, plan.output_shape, room, **arrays)


def _step_into(place: ImageSlot) -> dict[int, int]:
    """What a step of any kind says of its outputs."""
    above, below, left, right = place.image.around
    step = dict.fromkeys(range(len(k.FIELDS)), 0) | {
        k.OUT: place.at(),
        k.OUT_PLANE: place.plane,
        k.OUT_LINE: place.line,
    }
    step |= {k.ROWS: place.image.channels, k.HEIGHT: place.image.height, k.WIDTH: place.image.width, k.PLUS: -1}
    step |= {k.TOP: above, k.LEFT: left, k.BELOW: below, k.RIGHT: right}
    return step | dict.fromkeys((k.DOWN, k.ACROSS, k.KERNEL_H, k.KERNEL_W, k.DILATE_H, k.DILATE_W), 1)


def _line_up(plan: Plan) -> None:
    """Give images lines as long as those they are computed of, where the stride is 1: so a single image is computed
    in one stream, and not line by line."""
    for work in plan.work:
        if isinstance(work, Product) and work.stride == (1, 1) and work.out.height > 1:
            missing = ImageSlot(work.source, 0).line - ImageSlot(work.out, 0).line
            work.out.around[3] += max(0, missing)


def dense_products(plan: Plan) -> dict[int, Product]:
    """The products that could be multiplied dense, by their numbers."""
    return {
        number: work
        for number, work in enumerate(plan.work)
        if isinstance(work, Product) and work.weights.kernel is not None and len(work.weights.value)
    }


def _matrix(product: Product, source: ImageSlot) -> tuple[Numbers, Whole]:
    """The weights of a product among zeros, (rows, channels · height · width of the kernel), and its columns."""
    weights, kernel = product.weights, product.weights.kernel
    assert kernel is not None
    sizes = (product.source.channels, kernel.height, kernel.width)
    matrix = np.zeros((len(product.bias), *sizes))
    down, across = weights.down // kernel.dilation[0], weights.across // kernel.dilation[1]
    matrix[weights.row, weights.channel, down, across] = weights.value
    channel, i, j = np.indices(sizes).reshape(3, -1)
    columns = channel * source.plane + i * kernel.dilation[0] * source.line + j * kernel.dilation[1]
    return matrix.reshape(len(matrix), -1), columns


def _places(plan: Plan) -> dict[Image, ImageSlot]:
    """A place for each image; images that are not needed at the same time may share one."""
    first, last = {plan.inputs: -1}, {plan.outputs: len(plan.work)}
    for number, work in enumerate(plan.work):
        plus = work.plus if isinstance(work, Product) else None
        first.setdefault(work.out, number)
        for image in (work.source, work.out, plus):
            if image is not None:
                last[image] = max(last.get(image, -1), number)
    places: dict[Image, ImageSlot] = {}
    for image in sorted(first, key=lambda image: first[image]):
        busy = sorted(
            (place.begin, place.end)
            for other, place in places.items()
            if last.get(other, -1) >= first[image]  # what is read by the step that writes this one is needed still
        )
        begin, size = 0, ImageSlot(image, 0).end
        for taken, free in busy:
            if begin + size <= taken:
                break
            begin = max(begin, free)
        places[image] = ImageSlot(image, begin)
    return places


def _runs(pixels: Table) -> Table:
    """Runs of pixels that lie side by side in the room as they do in an image."""
    cuts = [0, *(np.flatnonzero(np.diff(pixels) != 1) + 1), len(pixels)]
    return np.array([[a, pixels[a], b - a] for a, b in itertools.pairwise(cuts)], np.int64)
