"""Training planner: makes a training plan of a network's graph."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from tombola.kernels.plans.plan import Image, UnsupportedNetwork
from tombola.kernels.plans.steps import Step
from tombola.kernels.plans.training_plan import (
    Activation,
    BatchNorm,
    Copy,
    Dropout,
    LayerProduct,
    Pool,
    TrainingOperation,
    TrainingPlan,
)


def training_plan(steps: Sequence[Step]) -> TrainingPlan:
    """The training plan of a network's graph. Raises `UnsupportedNetwork` if the kernels cannot train one of its
    steps."""
    return _TrainingPlanner(steps).plan()


class _TrainingPlanner:
    """Has a method `plan_KIND` for each kind of step that the kernels can train."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self.steps = steps
        self.operations: list[TrainingOperation] = []
        self.activations: dict[int, Activation] = {}
        """The output of each step so far."""
        self.readers: list[list[int]] = [[] for _ in steps]
        for index, step in enumerate(steps):
            for source in step.inputs:
                self.readers[source].append(index)

    def plan(self) -> TrainingPlan:
        for index, step in enumerate(self.steps):
            if index not in self.activations:
                plan_step = getattr(self, f"plan_{step.kind.replace('-', '_')}", None)
                if plan_step is None or (step.fixed and step.module is not None):
                    raise UnsupportedNetwork(f"{_name(step)} is not supported")
                plan_step(index, step)
        (first,) = (index for index, step in enumerate(self.steps) if step.kind == "input")
        inputs = self.activations[first]
        plan = TrainingPlan(inputs, tuple(self.operations), inputs.shape)
        flatten(plan)
        (last,) = (index for index, step in enumerate(self.steps) if step.kind == "output")
        ends_with_product = plan.operations and isinstance(plan.operations[-1], LayerProduct | Pool | BatchNorm)
        if not ends_with_product or plan.logits is not self.activations[last] or len(self.steps[last].shape) != 2:
            raise UnsupportedNetwork("its last operation does not give the logits")
        read = {plan.logits} | {one for op in plan.operations for one in (op.source, op.addend) if one is not None}
        if not read.issuperset(op.out for op in plan.operations):
            raise UnsupportedNetwork("some of what it computes is not used")
        normed = [operation.source for operation in plan.operations if isinstance(operation, BatchNorm)]
        if len({*normed}) < len(normed):
            raise UnsupportedNetwork("two batch norms have one source")
        if plan.logits.relu or plan.logits.shape[1:] != (1, 1):
            raise UnsupportedNetwork("its outputs end with a ReLU, or are images")
        return plan

    def source(self, step: Step, which: int = 0) -> Activation:
        return self.activations[step.inputs[which]]

    def known(self, index: int) -> Activation | None:
        """The output of a step if it is known by now; identities before it need not have been planned."""
        while index not in self.activations and _is_identity(self.steps[index]):
            (index,) = self.steps[index].inputs
        return self.activations.get(index)

    def plan_input(self, index: int, step: Step) -> None:
        shape = step.shape[1:]
        if len(shape) > 3 or not shape:
            raise UnsupportedNetwork(f"examples of shape {shape} are neither features nor images")
        sizes = (1, *shape) if len(shape) == 2 else shape
        self.activations[index] = Activation.of(sizes, trained=False)

    def plan_identity(self, index: int, step: Step) -> None:
        source = self.source(step)
        if isinstance(step.module, nn.Dropout) and step.module.p > 0:
            out = Activation.of(source.shape, source.trained)
            self.add(index, Dropout(source, out, step.module.p, name=step.path))
        elif _is_identity(step):
            self.activations[index] = source
        else:
            raise UnsupportedNetwork(f"{_name(step)} is not supported")

    def plan_flatten(self, index: int, step: Step) -> None:
        self.activations[index] = self.source(step)

    plan_output = plan_flatten

    def plan_unflatten(self, index: int, step: Step) -> None:
        if self.source(step).shape != step.shape[1:]:
            raise UnsupportedNetwork(f"{_name(step)} gives shape {step.shape[1:]}")
        self.activations[index] = self.source(step)

    def plan_linear(self, index: int, step: Step) -> None:
        layer, source = step.module, self.source(step)
        assert isinstance(layer, nn.Linear)
        channels, height, width = source.shape
        if len(step.shape) != 2 or layer.in_features != channels * height * width:
            raise UnsupportedNetwork(f"{_name(step)} is a linear layer that gives shape {step.shape[1:]}")
        out = Activation.of((layer.out_features,))
        bias = layer.bias is not None
        self.add(index, LayerProduct(source, out, (height, width), bias, linear=True, name=step.path))

    def plan_conv(self, index: int, step: Step) -> None:
        layer, source = step.module, self.source(step)
        assert isinstance(layer, nn.Conv2d)
        if layer.padding_mode != "zeros":
            raise UnsupportedNetwork(f'{_name(step)} has padding mode "{layer.padding_mode}"')
        left, right, top, bottom = layer._reversed_padding_repeated_twice
        sizes = (_pair(layer.kernel_size), layer.bias is not None, _pair(layer.stride), (top, bottom, left, right))
        out = Activation.of(step.shape[1:])
        self.add(index, LayerProduct(source, out, *sizes, _pair(layer.dilation), layer.groups, name=step.path))

    def plan_norm(self, index: int, step: Step) -> None:
        layer, source = step.module, self.source(step)
        assert isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d)
        if not layer.affine or layer.momentum is None or layer.num_features != source.shape[0]:
            raise UnsupportedNetwork(f"{_name(step)} has no scale, no momentum, or normalises flattened images")
        out = Activation.of(source.shape)
        self.add(index, BatchNorm(source, out, layer.eps, layer.momentum, name=step.path))

    def plan_pointwise(self, index: int, step: Step) -> None:
        if step.function is not torch.relu:
            raise UnsupportedNetwork(f"{_name(step)} is not a ReLU")
        source = self.source(step)
        operation = Copy(source, Activation.of(source.shape, source.trained), name=step.path)
        operation.out.relu = True
        self.add(index, operation)

    def plan_add(self, index: int, step: Step) -> None:
        one, other = self.source(step, 0), self.source(step, 1)
        if one.shape != other.shape or one is other:
            raise UnsupportedNetwork(f"{_name(step)} adds features to images, or a tensor to itself")
        self.add(index, Copy(one, Activation.of(one.shape, one.trained or other.trained), addend=other))

    def plan_subsample(self, index: int, step: Step) -> None:
        source = self.source(step)
        self.add(index, Copy(source, Activation.of(step.shape[1:], source.trained), (2, 2), name=step.path))

    def plan_max_pool(self, index: int, step: Step) -> None:
        self._pool(index, step, average=False)

    def plan_average_pool(self, index: int, step: Step) -> None:
        window = step.options
        assert window is not None
        if window.ceil_mode or (window.padding != (0, 0) and not window.count_include_pad):
            raise UnsupportedNetwork(f"{_name(step)} averages windows of different sizes")
        self._pool(index, step, average=True)

    def _pool(self, index: int, step: Step, average: bool) -> None:
        window, source = step.options, self.source(step)
        assert window is not None
        out = Activation.of(step.shape[1:], source.trained)
        sizes = (window.kernel, window.stride, window.padding, window.dilation)
        self.add(index, Pool(source, out, *sizes, average, name=step.path))

    def add(self, index: int, operation: TrainingOperation) -> None:
        """Add an operation, and fuse with it what is done to its output before anything else reads that."""
        out = operation.out
        self.activations[index] = out
        while not out.relu and len(self.readers[index]) == 1:
            (index,) = self.readers[index]
            step = self.steps[index]
            if isinstance(operation, BatchNorm | Copy) and step.kind == "add" and operation.addend is None:
                others = [one for one in map(self.known, step.inputs) if one is not None and one is not out]
                if len(others) != 1 or others[0].shape != out.shape or others[0] is operation.source:
                    break  # the other summand is not planned yet, or its gradient would be written twice
                operation.addend = others[0]
                out.trained = out.trained or others[0].trained
            elif step.function is torch.relu and not isinstance(operation, Dropout):
                out.relu = True
            elif step.kind not in ("flatten", "output") and not _is_identity(step):
                break
            self.activations[index] = out
        self.operations.append(operation)
        if isinstance(operation, LayerProduct):
            operation.require_padding()


def flatten(plan: TrainingPlan) -> None:
    """Make features of the inputs if no operation depends on where their pixels are."""
    images = [plan.inputs]
    for operation in plan.operations:
        if operation.source in images and not (isinstance(operation, LayerProduct) and operation.linear):
            if not isinstance(operation, Dropout):
                return
            images.append(operation.out)
    for activation in images:
        features = math.prod(activation.shape)
        activation.values, activation.gradients = Image(features), Image(features)
    for operation in plan.operations:
        if isinstance(operation, LayerProduct) and operation.source in images:
            operation.kernel = 1, 1


def _is_identity(step: Step) -> bool:
    """Whether a step is an identity in training, too."""
    return step.kind == "identity" and (
        type(step.module) in (type(None), nn.Identity) or getattr(step.module, "p", 1) == 0
    )


def _name(step: Step) -> str:
    return f"{step.path or step.name} ({step.kind})"


def _pair(pair: Any) -> tuple[int, int]:
    return pair[0], pair[1]
