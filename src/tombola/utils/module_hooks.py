"""Whether calling a module does more than its class does."""

from __future__ import annotations

from torch import nn


def has_hooks(module: nn.Module) -> bool:
    """Whether `module` or its parameters have hooks, or its `forward` is patched."""
    of_parameters = any(
        parameter._backward_hooks or getattr(parameter, "_post_accumulate_grad_hooks", None)
        for parameter in module.parameters(recurse=False)
    )
    return of_parameters or has_forward_hooks(module) or bool(module._backward_hooks or module._backward_pre_hooks)


def has_forward_hooks(module: nn.Module) -> bool:
    """Whether the forward pass of `module` does more than its class does."""
    return bool(module._forward_hooks or module._forward_pre_hooks) or "forward" in vars(module)
