"""Layer norm over a stream of which some entries have been removed because they were always zero."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from tombola.exports.resizing.nested import on_padded


class ResizedLayerNorm(nn.LayerNorm):
    """The layer norm of entries of which `removed` are zero and not there any more.

    The mean and variance are those of all entries, with zeros appended for the removed ones. That takes one fused
    kernel of torch, and is several times faster than correcting the mean and variance of the entries that are left.
    """

    removed: int

    def forward(self, input: Tensor) -> Tensor:
        if input.is_nested:
            return on_padded(lambda padded, _: self.forward(padded), input)
        x = self._with_zeros(input)
        weight, bias = (None if each is None else self._with_zeros(each) for each in (self.weight, self.bias))
        outputs = functional.layer_norm(x, x.shape[-1:], weight, bias, self.eps)
        return outputs[..., : x.shape[-1] - self.removed].reshape(input.shape).contiguous()

    def _with_zeros(self, tensor: Tensor) -> Tensor:
        """The axes of the norm as one, with zeros for the removed entries."""
        return functional.pad(tensor.flatten(-len(self.normalized_shape)), (0, self.removed))

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, removed={self.removed}"
