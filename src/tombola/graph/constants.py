"""Constants: elements of tensors that are the same for all inputs, such as the output of a neuron without weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils import _pytree as pytree

from tombola.graph.coupling import Coupling, bind
from tombola.graph.follower import LayerCall
from tombola.graph.recording import Operation, TensorIndex
from tombola.graph.rules import RULES
from tombola.graph.rules.elementwise import is_elementwise
from tombola.graph.rules.movement import COPYING
from tombola.graph.ties import others

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

_CREATING = {"arange", "zeros", "ones", "full", "scalar_tensor", "eye", "linspace"}
_ZEROS = {"mul", "mul_"}
_AFFINE = {"native_batch_norm": 1, "native_layer_norm": -1, "native_group_norm": 1}
"""Operators that multiply by a `weight` and add a `bias` at last -> the axis of these."""


@dataclass(frozen=True)
class Weights:
    """The weights of a product as a matrix."""

    product: LayerCall
    parameter: Tensor

    @cached_property
    def matrices(self) -> FloatArray:
        """[outputs, inputs of a group, positions in the kernel]."""
        product = self.product
        weight = self.parameter.detach().cpu().double()
        if product.groups > 1 and product.axes == (1, 0):  # transposed: [inputs, outputs of a group, ...]
            grouped = weight.reshape(product.groups, -1, *weight.shape[1:]).transpose(1, 2)
            return np.asarray(grouped.flatten(0, 1).flatten(2).numpy(), dtype=np.float64)
        for axis, places in zip(product.axes, (product.rows, product.columns), strict=True):
            size = weight.shape[axis]
            weight = weight.index_select(axis, torch.from_numpy(places % size))
        weight = weight.movedim(product.axes, (0, 1))
        return np.asarray(weight.reshape(*weight.shape[:2], -1).numpy(), dtype=np.float64)

    @cached_property
    def nonzero(self) -> BoolArray:
        """Whether an output has a weight for an input that is not zero: [outputs, inputs]."""
        return np.asarray(self._of_all_groups((self.matrices != 0).any(2)), dtype=np.bool_)

    @cached_property
    def sums(self) -> FloatArray:
        """The sum over the kernel of the weights of an output for an input: [outputs, inputs]."""
        return self._of_all_groups(self.matrices.sum(2))

    def _of_all_groups(self, within: NDArray[Any]) -> NDArray[Any]:
        groups = self.product.groups
        if groups == 1:
            return within
        rows, columns = within.shape[0] // groups, within.shape[1]
        full = np.zeros((within.shape[0], columns * groups), dtype=within.dtype)
        for group in range(groups):
            of_group = slice(group * rows, (group + 1) * rows)
            full[of_group, group * columns : (group + 1) * columns] = within[of_group]
        return full


class Constants:
    """The constant elements of the tensors in a network's graph."""

    def __init__(self, coupling: Coupling, tensors: Mapping[str, Tensor]) -> None:
        """`tensors` are the network's parameters and buffers."""
        self._graph = coupling.graph
        self._tensors = tensors
        self._values: dict[int, Tensor | None] = {}
        self._products = {product.operation: product for product in coupling.products}
        self.weights = [Weights(product, tensors[product.weight]) for product in coupling.products]
        """Of each product."""
        self._weights = {each.product.operation: each for each in self.weights}
        for position, operation in enumerate(self._graph.operations):
            for index, value in self._computed(position, operation).items():
                self._values[index] = value

    def along(self, tensor: int, axis: int) -> FloatArray:
        """For each index along an axis of a tensor, the value that all its elements there have; NaN if they differ or
        depend on the inputs."""
        shape = self._graph.shapes[tensor]
        value = self._value(tensor)
        if value is None:
            return np.full(shape[axis], np.nan)
        axes = others(value, axis)
        low, high = (value.amin(axes), value.amax(axes)) if axes else (value, value)  # NaN if any is
        found: FloatArray = torch.where((low == high) & low.isfinite(), low, torch.nan).numpy()
        return found

    def _value(self, index: int) -> Tensor | None:
        """float64, NaN where an element is not constant; None if none is."""
        name = self._graph.names.get(index)
        if name is not None and index not in self._values:
            tensor = self._tensors[name].detach().cpu()
            self._values[index] = tensor.double() if tensor.is_floating_point() else None
        return self._values.get(index)

    def _computed(self, position: int, operation: Operation) -> dict[int, Tensor | None]:
        outputs = [index for index in operation.outputs if index is not None]
        try:
            if position in self._products:
                found: list[Any] = [self._of_product(self._products[position], operation)]
            elif operation.name == "aten.embedding":
                found = [self._of_embedding(operation)]
            else:
                found = self._run(operation)
        except (RuntimeError, TypeError, ValueError, NotImplementedError, LookupError):
            found = []
        values = [each if _fits(each, self._graph.shapes[index]) else None for index, each in zip(outputs, found)]  # noqa: B905
        return dict(zip(outputs, [*values, *[None] * len(outputs)]))  # noqa: B905

    def _run(self, operation: Operation) -> list[Any]:
        """The operator's own results for constants; NaN for what is not constant."""
        name = operation.name.removeprefix("aten.")
        known = [self._value(index) for index in operation.inputs]
        if not known and name not in _CREATING:
            return []
        if operation.name not in RULES and not is_elementwise(operation) and known:
            return []
        if known and all(value is None for value in known):
            return []

        def constant(ref: TensorIndex) -> Tensor:
            value = self._value(ref.index)
            return torch.full(self._graph.shapes[ref.index], torch.nan).double() if value is None else value.clone()

        arguments, options = pytree.tree_map_only(TensorIndex, constant, (operation.arguments, operation.options))
        function = COPYING.get(operation.name, operation.function)
        results = pytree.tree_leaves(function(*arguments, **options))
        first = results[0].double()
        if is_elementwise(operation):  # some functions replace NaN
            for value in pytree.tree_leaves((arguments, options)):
                if isinstance(value, Tensor):
                    first = torch.where(value.isnan(), torch.nan, first)
            if name in _ZEROS:
                for value in pytree.tree_leaves(arguments):
                    if isinstance(value, Tensor):
                        first = torch.where(value == 0, 0.0, first)
        if name in _AFFINE:
            first = self._affine(operation, first, _AFFINE[name])
        return [first, *results[1:]]

    def _affine(self, operation: Operation, result: Tensor, axis: int) -> Tensor:
        """Where the last factor is zero, the result is the last summand."""
        arguments = bind(operation)
        if arguments.get("training"):
            return torch.full_like(result, torch.nan)
        if arguments["weight"] is None:
            return result
        shape = [-1 if at == axis % result.dim() else 1 for at in range(result.dim())]
        weight = self._value(arguments["weight"].index)
        bias = self._value(arguments["bias"].index) if arguments["bias"] is not None else None
        if weight is None:
            return result
        summand = torch.zeros(1).double() if bias is None else bias.reshape(shape)
        return torch.where(weight.reshape(shape) == 0, summand, result)

    def _of_product(self, product: LayerCall, operation: Operation) -> Tensor:
        weights, given = self._weights[product.operation], self.along(*product.reads)
        if product.spreads:
            given = np.where(given == 0, 0.0, np.nan)
        unknown = weights.nonzero @ np.isnan(given)
        sums = np.where(unknown, np.nan, weights.sums @ np.nan_to_num(given)) + self._bias(operation, len(unknown))
        (index,) = (each for each in operation.outputs if each is not None)
        shape = self._graph.shapes[index]
        at = [-1 if axis == product.axis % len(shape) else 1 for axis in range(len(shape))]
        return torch.from_numpy(sums).reshape(at).expand(shape)

    def _of_embedding(self, operation: Operation) -> Tensor:
        """Entries that are the same in all rows."""
        (index,) = (each for each in operation.outputs if each is not None)
        same = self.along(bind(operation)["weight"].index, 1)
        return torch.from_numpy(same).expand(self._graph.shapes[index])

    def _bias(self, operation: Operation, count: int) -> FloatArray:
        arguments = bind(operation)
        if arguments.get("beta", 1) != 1 or arguments.get("alpha", 1) != 1:
            return np.full(count, np.nan)
        ref = arguments.get("bias", arguments.get("self") if operation.name == "aten.addmm" else None)
        if ref is None:
            return np.zeros(count)
        value = self._value(ref.index)
        return np.full(count, np.nan) if value is None or value.dim() != 1 else value.numpy()


def _fits(value: Any, shape: tuple[int, ...]) -> bool:
    return isinstance(value, Tensor) and tuple(value.shape) == shape and not bool(value.isnan().all())
