"""A trial of the user's own optimizer, so that mistakes are found before training."""

from __future__ import annotations

import torch
from torch import nn

from tombola.engines import optimizers
from tombola.engines.custom_optimizer import find_optimizer
from tombola.runs.run import Training
from tombola.utils.errors import InputError
from tombola.utils.random_state import preserve_rng_state
from tombola.utils.text import first_line

SHAPES = (3, 4), (3,), (2, 1, 3, 3)
"""The shapes of the parameters that an optimizer is tried on: those of a linear layer and a convolution."""
STEPS = 5
"""The number of steps before the pause of a trial, and after it."""


def describe_optimizer(training: Training) -> Training:
    """`training` with the hash of its optimizer's source text; unchanged if the optimizer has no import path.

    The optimizer is tried on small parameters. Raises `InputError` if it cannot be imported, does not take its
    options or parameters, or could not be resumed after a pause.
    """
    if not training.custom_optimizer:
        return training
    _, source = find_optimizer(training.optimizer)
    if training.optimizer_source not in (None, source):
        raise InputError("training.optimizer_source: is computed; it should not be given")
    described = training.model_copy(update={"optimizer_source": source})
    _check_steps(described)
    return described


def _check_steps(training: Training) -> None:
    """Raises `InputError` unless some steps, a pause and some more steps give the same parameters as without."""
    path = training.optimizer
    with preserve_rng_state():
        whole, paused = _Trial(training), _Trial(training)
        try:
            for trial in (whole, paused):
                trial.step(0)
        except Exception as error:
            raise InputError(f'training.optimizer: "{path}" cannot make a step: {first_line(error)}') from error
        try:
            resumed = _Trial(training)
            resumed.resume(paused)
            whole.step(STEPS)
            resumed.step(STEPS)
        except Exception as error:
            raise InputError(f'training.optimizer: "{path}" cannot be resumed: {first_line(error)}') from error
    if not all(torch.equal(one, other) for one, other in zip(whole.values(), resumed.values(), strict=True)):
        raise InputError(
            f'training.optimizer: "{path}" cannot be resumed: it has state other than tensors and numbers in '
            "`state[parameter]`"
        )


class _Trial:
    """Parameters and their optimizer."""

    def __init__(self, training: Training) -> None:
        generator = torch.Generator().manual_seed(0)
        self.parameters = {
            f"{index}": nn.Parameter(torch.randn(shape, generator=generator)) for index, shape in enumerate(SHAPES)
        }
        self.optimizer = optimizers.build_optimizer(dict(self.parameters), (), training)

    def step(self, first: int) -> None:
        for step in range(first, first + STEPS):
            generator = torch.Generator().manual_seed(step)
            torch.manual_seed(step)  # of an optimizer that draws random numbers
            for parameter in self.parameters.values():
                parameter.grad = torch.randn(parameter.shape, generator=generator)
            self.optimizer.step()

    def resume(self, paused: _Trial) -> None:
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(paused.parameters[name])
        state = optimizers.optimizer_state(paused.optimizer, dict(paused.parameters))
        optimizers.load_optimizer_state(self.optimizer, dict(self.parameters), state)

    def values(self) -> list[torch.Tensor]:
        return [parameter.detach() for parameter in self.parameters.values()]
