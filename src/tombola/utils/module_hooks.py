"""Whether calling a module does more than its class does."""

from __future__ import annotations

from torch import nn


def has_hooks(module: nn.Module) -> bool:
    """Whether `module` or its parameters have hooks, or its `forward` is patched."""
    of_parameters = any(
        parameter._backward_hooks or getattr(parameter, "_post_accumulate_grad_hooks", None)
        for parameter in module.parameters(recurse=False)
    )
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    return of_parameters or any(hooks) or "forward" in vars(module)
