"""The user's own optimizers, by the import path of a class: `package.module:Class`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch import optim

from tombola.runs.run import Training
from tombola.utils.errors import InputError
from tombola.utils.import_paths import import_object, source_hash
from tombola.utils.text import first_line


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
