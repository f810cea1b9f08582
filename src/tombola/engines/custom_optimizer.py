"""The user's own optimizers, by the import path of a class: `package.module:Class`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import nn, optim

from tombola.engines import optimizers
from tombola.runs.run import Training
from tombola.utils.errors import InputError
from tombola.utils.import_paths import import_object, source_hash
from tombola.utils.random_state import preserve_rng_state
from tombola.utils.text import first_line

SHAPES = (3, 4), (3,), (2, 1, 3, 3)
"""Of the parameters that an optimizer is tried on: as of a linear layer with its biases, and of a convolution."""
STEPS = 5
"""Before and after the pause of the trial."""


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


def find_optimizer(path: str) -> tuple[Callable[..., optim.Optimizer], str | None]:
    """The optimizer class at an import path, and a hash of its source text as of `source_hash`. Raises `InputError`
    if it cannot be imported or is no optimizer of torch."""
    found = import_object("training.optimizer", path)
    if not (inspect.isclass(found) and issubclass(found, optim.Optimizer)):
        raise InputError(f'training.optimizer: "{path}" should be a class derived from torch.optim.Optimizer')
    return found, source_hash(path, found)


def make_optimizer(groups: list[dict[str, Any]], training: Training) -> optim.Optimizer:
    """The optimizer by import path of `training`, for these groups of parameters. Its weight decay is that of
    `training`, whatever the default of the class. Raises `InputError` if the class does not take these parameters or
    options, or if its source text is not the one described."""
    path = training.optimizer
    found, source = find_optimizer(path)
    if source != training.optimizer_source:
        raise InputError(f'training.optimizer: the source of "{path}" has changed since this run was described')
    options = dict(training.optimizer_options)
    if _takes_weight_decay(found):
        options["weight_decay"] = training.weight_decay
    elif training.weight_decay:
        raise InputError(f'training.weight_decay: "{path}" has no weight decay')
    try:
        return found(groups, lr=training.lr, **options)
    except Exception as error:
        raise InputError(f'training.optimizer: cannot make "{path}": {first_line(error)}{_hint(training)}') from error


def _takes_weight_decay(optimizer: Callable[..., optim.Optimizer]) -> bool:
    """Whether its constructor has an argument `weight_decay`, or hands on keywords to one that has."""
    parameters = inspect.signature(optimizer).parameters
    if "weight_decay" in parameters or not any(each.kind is each.VAR_KEYWORD for each in parameters.values()):
        return "weight_decay" in parameters
    bases = [base for base in inspect.getmro(optimizer)[1:] if issubclass(base, optim.Optimizer)]  # type: ignore[arg-type]
    return bool(bases) and _takes_weight_decay(bases[0])


def _hint(training: Training) -> str:
    if training.other_optimizer is None:
        return '; if it takes only matrices, give other_optimizer = "adamw" for other parameters'
    return ""


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
