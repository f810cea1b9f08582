"""An optimizer's step that keeps pruned weights zero."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, optim

from tombola.engines.stacked.optimizer_rule import Rule, UpdatedParameter, count_step
from tombola.engines.stacked.storage_order import in_order_of
from tombola.pruning.bitmask import Bitmask
from tombola.pruning.mask import State


class MaskedOptimizer:
    """A step of `optimizer`, after which pruned weights are zero. Its state is that of `optimizer`.

    `pruned`: which weights of some of the `parameters` are pruned, by name, bool. With `kernels`, if all parameters
    are float32, each is updated and masked in one kernel, 29 bytes a weight for Adam; without, `optimizer.step` and
    the mask follow each other, 28 and 12 bytes. Either can be captured in a CUDA graph if `optimizer` is capturable.
    """

    def __init__(
        self, optimizer: optim.Optimizer, parameters: State, pruned: Mapping[str, Tensor], kernels: bool
    ) -> None:
        self.optimizer = optimizer
        self.parameters = parameters
        self.pruned = {name: in_order_of(mask, parameters[name]) for name, mask in pruned.items()}
        """Laid out in memory like the parameters."""
        self.kernels = kernels and all(parameter.dtype == torch.float32 for parameter in parameters.values())
        self._bitmasks = {} if self.kernels else {name: Bitmask(~mask) for name, mask in pruned.items()}

    @torch.no_grad()
    def step(self) -> None:
        """Update the parameters that have a gradient."""
        if self.kernels:
            self._fused_step()
            return
        self.optimizer.step()
        # Momentum and weight decay may have changed pruned weights; they are zero again before the next forward pass.
        for name, bitmask in self._bitmasks.items():
            bitmask.zero(self.parameters[name])

    def _fused_step(self) -> None:
        from tombola.engines.stacked.triton_kernels.masked_update import masked_update

        masks = {self.parameters[name]: pruned for name, pruned in self.pruned.items()}
        work = []
        for group in self.optimizer.param_groups:
            rule = Rule.of(group)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    updated = UpdatedParameter.of(parameter, self.optimizer, rule, masks.get(parameter))
                    work.append((updated, in_order_of(parameter.grad, parameter), rule))
        count_step([updated for updated, _, _ in work])
        for updated, gradient, rule in work:
            with torch.cuda.device_of(gradient):  # type: ignore[no-untyped-call]
                masked_update(updated, gradient, rule)
