"""The same training in JAX, which is no dependency of tombola.

    python -m pip install jax

All steps of a call are one compiled scan; with convolutions each step is a compiled call, because in a scan XLA
computes convolutions on a CPU about a hundred times slower (jaxlib 0.10.2). Images have the layout (height, width,
channels), which XLA's convolutions on a CPU prefer. It knows the networks that `benchmarks.step` measures.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tombola.engines.augmentation import Augmentation
from tombola.engines.optimizers import learning_rates
from tombola.runs.initial_state import masked_network
from tombola.runs.run import Run, Training
from tombola.zoo.datasets.split import Split
from tombola.zoo.models.resnet import ResidualBlock

# Both before JAX is first used: one thread, like all sides.
os.environ.setdefault("NPROC", "1")
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")

import jax
from jax import lax
from jax import numpy as jnp

BETAS, EPSILON = (0.9, 0.999), 1e-8
"""Of Adam, as in torch."""

Arrays = dict[str, Any]


class JaxLoop:
    """Trains on `x` and `y` from the weights of `run`; see `Loop`."""

    def __init__(self, run: Run, split: Split, x: Tensor, y: Tensor) -> None:
        network = masked_network(run).train()
        black = np.broadcast_to(split.black.numpy(), x.shape[1:2]) if x.ndim == 4 else split.black.numpy()
        self.x, self.y = jnp.asarray(_channels_last(x.numpy(), (0, 2, 3, 1))), jnp.asarray(y.numpy(), jnp.int32)
        weights = {name: _weight(value) for name, value in network.named_parameters()}
        statistics = {name: _weight(value) for name, value in network.named_buffers() if value.is_floating_point()}
        moments = [{name: jnp.zeros_like(value) for name, value in weights.items()} for _ in BETAS]
        self.state = (weights, moments, statistics)
        self.masks = {name: _weight(kept.float()) for name, kept in run.mask.items() if not kept.all()}
        self.augmentation = Augmentation.of([run], [split], torch.device("cpu"))
        step = functools.partial(_step, network, run.training, run.data.crop, black)
        self.scans = not any(isinstance(module, nn.Conv2d) for module in network.modules())
        self.call = jax.jit(functools.partial(_scan, step) if self.scans else step, donate_argnums=0)
        self.training = run.training
        self.losses = 0.0

    def train(self, orders: Tensor, first: int) -> None:
        """One step for each batch; see `Trainer`."""
        (batches,) = orders
        choices = self.augmentation.choices(first, len(batches)).numpy() if self.augmentation else None
        rates = learning_rates(self.training, first, len(batches)).astype(np.float32)
        steps = (np.arange(first, first + len(batches)), rates, batches.numpy(), choices)
        data, losses = (self.x, self.y, self.masks), []
        each = [None] * len(rates) if choices is None else choices
        for call in [steps] if self.scans else zip(*steps[:-1], each, strict=True):
            self.state, loss = self.call(self.state, data, call)
            losses.append(loss)
        self.losses += float(sum(loss.sum() for loss in losses))  # waits for the device

    def take_losses(self) -> list[float]:
        """The sum of the losses since the last call."""
        losses, self.losses = self.losses, 0.0
        return [losses]


def _channels_last(array: Any, axes: tuple[int, ...]) -> Any:
    return np.ascontiguousarray(array.transpose(axes)) if array.ndim == 4 else array


def _weight(value: Tensor) -> Any:
    """Kernels of convolutions as (height, width, inputs, outputs)."""
    return jnp.asarray(_channels_last(value.detach().numpy().copy(), (2, 3, 1, 0)))


def _scan(step: Callable[..., Any], state: Any, data: Any, inputs: Any) -> Any:
    """All steps."""
    return lax.scan(lambda state, each: step(state, data, each), state, inputs)


def _step(network: nn.Module, training: Training, crop: int, black: Any, state: Any, data: Any, inputs: Any) -> Any:
    """One step. `data`: examples, labels and masks; `inputs`: the number of the iteration, its learning rate, its
    batch, and the random choices of the augmentation or None."""
    (weights, moments, statistics), (x, y, masks), (iteration, rate, batch, choices) = state, data, inputs
    images = x[batch] if choices is None else _augment(x[batch], choices, black, crop)

    def loss_of(weights: Arrays) -> Any:
        updated: Arrays = {}
        logits = _forward(network, "", weights | statistics, images, updated)
        losses = jax.nn.logsumexp(logits, 1) - jnp.take_along_axis(logits, y[batch][:, None], 1)[:, 0]
        return losses.mean(), statistics | updated

    (loss, statistics), gradients = jax.value_and_grad(loss_of, has_aux=True)(weights)
    weights, moments = _update(training, iteration, rate, weights, gradients, moments)
    weights |= {name: weights[name] * kept for name, kept in masks.items()}
    return (weights, moments, statistics), loss


def _update(training: Training, iteration: Any, rate: Any, weights: Arrays, gradients: Arrays, moments: Any) -> Any:
    """The step of Adam, or of SGD with momentum, as torch defines it."""
    new: Arrays = {}
    first, second = dict(moments[0]), dict(moments[1])
    for name, weight in weights.items():
        gradient = gradients[name] + training.weight_decay * weight
        if training.optimizer == "adam":
            first[name] = BETAS[0] * first[name] + (1 - BETAS[0]) * gradient
            second[name] = BETAS[1] * second[name] + (1 - BETAS[1]) * gradient**2
            corrected, scale = (1 - beta ** (iteration + 1.0) for beta in BETAS)
            change = first[name] / corrected / (jnp.sqrt(second[name] / scale) + EPSILON)
        else:
            first[name] = training.momentum * first[name] + gradient
            change = gradient + training.momentum * first[name] if training.nesterov else first[name]
        new[name] = weight - rate * change
    return new, [first, second]


def _augment(x: Any, choices: Any, black: Any, crop: int) -> Any:
    """As `tombola.engines.augmentation.augment`, on images (images, height, width, channels) or without channels."""
    images, height, width = x.shape[:3]
    padded = jnp.broadcast_to(jnp.asarray(black), (images, height + 2 * crop, width + 2 * crop, *x.shape[3:]))
    padded = padded.at[:, crop : crop + height, crop : crop + width].set(x)
    across, (flipped, top, left) = jnp.arange(width), (choices[:, index, None] for index in range(3))
    rows = jnp.arange(height) + top
    columns = jnp.where(flipped == 1, width - 1 - across, across) + left
    return padded[jnp.arange(images)[:, None, None], rows[:, :, None], columns[:, None, :]]


def _forward(module: nn.Module, name: str, values: Arrays, x: Any, updated: Arrays) -> Any:
    """The outputs of `module` in training mode; running statistics are put in `updated`. Raises `TypeError` for
    modules that no measured network has."""

    def value(entry: str) -> Any:
        return values[f"{name}.{entry}" if name else entry]

    def child(entry: str, x: Any) -> Any:
        return _forward(module.get_submodule(entry), f"{name}.{entry}" if name else entry, values, x, updated)

    if isinstance(module, nn.Sequential):
        for entry, _ in module.named_children():
            x = child(entry, x)
        return x
    if isinstance(module, ResidualBlock):
        inner = jax.nn.relu(child("bn1", child("conv1", x)))
        return jax.nn.relu(child("bn2", child("conv2", inner)) + child("shortcut", x))
    match module:
        case nn.Conv2d():
            sides = [(padding, padding) for padding in module.padding]
            layout = ("NHWC", "HWIO", "NHWC")
            y = lax.conv_general_dilated(x, value("weight"), module.stride, sides, dimension_numbers=layout)
            return y if module.bias is None else y + value("bias")
        case nn.Linear():
            return x @ value("weight").T + value("bias")
        case nn.BatchNorm2d():
            return _batch_norm(module, name, values, x, updated)
        case nn.ReLU():
            return jax.nn.relu(x)
        case nn.MaxPool2d():
            window = (1, module.kernel_size, module.kernel_size, 1)
            return lax.reduce_window(x, -jnp.inf, lax.max, window, window, "VALID")
        case nn.AdaptiveAvgPool2d():
            return x.mean((1, 2), keepdims=True)
        case nn.Flatten():  # in the order of torch's channels
            return (x.transpose(0, 3, 1, 2) if x.ndim == 4 else x).reshape(len(x), -1)
        case nn.Unflatten():  # the channel of grey images
            return x[..., None]
        case nn.Identity():
            return x
    raise TypeError(f"{type(module).__name__} is not written in JAX here")


def _batch_norm(module: nn.BatchNorm2d, name: str, values: Arrays, x: Any, updated: Arrays) -> Any:
    mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
    count, share = x.size // x.shape[-1], module.momentum
    for entry, new in (("running_mean", mean), ("running_var", variance * count / (count - 1))):
        updated[f"{name}.{entry}"] = (1 - share) * values[f"{name}.{entry}"] + share * lax.stop_gradient(new)
    scale = values[f"{name}.weight"] * lax.rsqrt(variance + module.eps)
    return (x - mean) * scale + values[f"{name}.bias"]
