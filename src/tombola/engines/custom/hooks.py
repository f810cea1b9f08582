"""Users' hooks: on modules, on tensors, and for all modules and optimizers. They can change a training.

Hooks of tombola itself are left out. So are the numbers under which torch keeps hooks: they count all hooks that were
ever registered in the process.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.modules import module as modules
from torch.optim import optimizer as optimizers

MODULE_ATTRIBUTES = frozenset(name for name in vars(nn.Module()) if "hook" in name)
"""The attributes in which every module keeps its hooks, and how they are called."""


def module_hooks(module: nn.Module) -> list[Any]:
    """The hooks of a module; not those of its children."""
    return _hooks({name: value for name, value in vars(module).items() if name in MODULE_ATTRIBUTES})


def tensor_hooks(tensor: Tensor) -> list[Any]:
    """The hooks on the gradient of a tensor."""
    names = ("_backward_hooks", "_post_accumulate_grad_hooks")
    return _hooks({name: getattr(tensor, name, None) for name in names})


def global_hooks() -> list[Any]:
    """The hooks that torch calls for every module and every optimizer of the process."""
    places = vars(modules) | vars(optimizers)
    return _hooks({name: value for name, value in places.items() if name.startswith("_global_")})


def _hooks(places: Mapping[str, Any]) -> list[Any]:
    """Each hook, with the name of its place and how it is called."""
    tables = {name: table for name, table in places.items() if isinstance(table, dict)}
    full = [value for name, value in places.items() if name.endswith("is_full_backward_hook")]
    found = []
    for name, table in tables.items():
        for key, hook in table.items():
            if callable(hook) and not _of_tombola(hook):
                options = [other for other, keys in tables.items() if other.startswith(f"{name}_") and key in keys]
                found.append([name, hook, options, full if "backward" in name else []])
    return found


def _of_tombola(hook: Any) -> bool:
    """Whether the function, or the class of the object, is defined in tombola."""
    return str(getattr(hook, "__module__", "")).partition(".")[0] == "tombola"
