"""Multi-head attention whose heads together are narrower, or wider, than its inputs."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from tombola.exports.resizing.nested import on_padded
from tombola.utils.errors import InputError


class ResizedMultiheadAttention(nn.MultiheadAttention):
    """`nn.MultiheadAttention` without some of its heads, or some entries of the width: `num_heads * head_dim` need
    not be `embed_dim`, nor the number of outputs.

    Called in the same way, with the same results and the same names of tensors. Two results depend on the number of
    heads: attention weights, which are those of the heads that are left, or their mean, and an `attn_mask` of three
    dimensions, which has to be one for these heads. `_qkv_same_embed_dim` is False, which keeps torch's layers from
    their fast path: it knows only heads that are as wide as the inputs.
    """

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """See `nn.MultiheadAttention`."""
        if query.is_nested:
            return on_padded(lambda x, padding: self.forward(x, x, x, padding, False)[0], query), None
        if is_causal and attn_mask is None:
            raise InputError("attention: is_causal is a hint that attn_mask is causal; also give attn_mask")
        if not (batched := query.dim() == 3):
            dim = 0 if self.batch_first else 1
            query, key, value = (x.unsqueeze(dim) for x in (query, key, value))
            key_padding_mask = None if key_padding_mask is None else key_padding_mask[None]
        q, k, v = self._project(query, key, value)
        q, k, v = (x if self.batch_first else x.transpose(0, 1) for x in (q, k, v))  # each [N, T, inner width]
        n = q.shape[0]
        causal = is_causal and key_padding_mask is None and not need_weights  # otherwise by the mask
        mask = self._merged_mask(None if causal else attn_mask, key_padding_mask, q.dtype, n)
        k, v, mask = self._with_added_keys(k, v, mask)
        q, k, v = (x.view(*x.shape[:2], self.num_heads, self.head_dim).transpose(1, 2) for x in (q, k, v))
        dropout = self.dropout if self.training else 0.0
        weights: Tensor | None = None
        if need_weights:
            scores = (q * math.sqrt(1 / self.head_dim)) @ k.transpose(2, 3)
            weights = (scores if mask is None else scores + mask).softmax(3)
            weights = functional.dropout(weights, dropout)
            heads = weights @ v
            weights = weights.mean(1) if average_attn_weights else weights
        else:
            heads = functional.scaled_dot_product_attention(q, k, v, mask, dropout, causal)
        outputs: Tensor = self.out_proj(heads.transpose(1, 2).flatten(2))
        if not batched:
            return outputs.squeeze(0), None if weights is None else weights.squeeze(0)
        return outputs if self.batch_first else outputs.transpose(0, 1), weights

    def _project(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, ...]:
        if self.in_proj_weight is not None and query is key and key is value:
            return functional.linear(query, self.in_proj_weight, self.in_proj_bias).chunk(3, -1)
        if self.in_proj_weight is not None:
            weights = self.in_proj_weight.chunk(3)
        else:
            weights = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        biases = (None,) * 3 if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        return tuple(map(functional.linear, (query, key, value), weights, biases))

    def _merged_mask(
        self, attn_mask: Tensor | None, key_padding_mask: Tensor | None, dtype: torch.dtype, n: int
    ) -> Tensor | None:
        """Both masks as one that is added to scores: broadcastable to [N, heads, L, S]."""
        mask = None if attn_mask is None else _additive(attn_mask, dtype)
        if mask is not None and mask.dim() == 3:
            if mask.shape[0] != n * self.num_heads:
                raise InputError(
                    f"attention: this module has {self.num_heads} heads; an attn_mask for each head of {n} inputs "
                    f"has {n * self.num_heads} entries, not {mask.shape[0]}"
                )
            mask = mask.view(n, self.num_heads, *mask.shape[1:])
        elif mask is not None:
            mask = mask[None, None]
        if key_padding_mask is None:
            return mask
        padding = _additive(key_padding_mask, dtype)[:, None, None]
        return padding if mask is None else mask + padding

    def _with_added_keys(self, k: Tensor, v: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        """Keys and values with those of `add_bias_kv` and `add_zero_attn`, which every query may attend to."""
        added = [] if self.bias_k is None or self.bias_v is None else [(self.bias_k, self.bias_v)]
        if self.add_zero_attn:
            added.append((k.new_zeros(1, 1, k.shape[2]), v.new_zeros(1, 1, v.shape[2])))
        for one_key, one_value in added:
            k = torch.cat([k, one_key.expand(k.shape[0], 1, -1)], 1)
            v = torch.cat([v, one_value.expand(v.shape[0], 1, -1)], 1)
            mask = None if mask is None else functional.pad(mask, (0, 1))
        return k, v, mask

    def extra_repr(self) -> str:
        return f"embed_dim={self.embed_dim}, num_heads={self.num_heads}, head_dim={self.head_dim}"


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    if mask.dtype != torch.bool:
        return mask.to(dtype)
    return torch.zeros_like(mask, dtype=dtype).masked_fill(mask, -math.inf)
