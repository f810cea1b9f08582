from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.support.resized import close, indices, randomised, resized, values
from tombola.exports.onnx_file import read_onnx, write_onnx
from tombola.exports.resizing import resize
from tombola.exports.resizing.layer_norm import ResizedLayerNorm
from tombola.exports.torch_export import read_exported, write_exported
from tombola.utils.errors import InputError


def kept_of(norm: nn.Module, *axes: Tensor | None) -> dict[str, tuple[Tensor | None, ...]]:
    names = ("weight",) if getattr(norm, "bias", None) is None else ("weight", "bias")
    return {f"0.{name}": axes for name in names}


def both(norm: nn.Module, x: Tensor, kept: Tensor) -> tuple[nn.Module, Tensor, Tensor]:
    """The smaller norm, what it returns, and the same entries of what the whole one returns for inputs with zeros."""
    network = randomised(nn.Sequential(norm, nn.PReLU()))
    smaller = resized(network, kept_of(norm, kept))
    return smaller[0], smaller(x[..., kept]), network(x * kept)[..., kept]


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.booleans(), min_size=1, max_size=9).filter(any),
    st.sampled_from([{}, {"bias": False}, {"elementwise_affine": False}]),
    st.sampled_from([1e-5, 0.3]),
    st.integers(0, 99),
)
def test_layer_norm_of_a_stream_with_zeros(mask: list[bool], options: dict[str, bool], eps: float, seed: int) -> None:
    kept = torch.tensor(mask)
    norm, ours, theirs = both(nn.LayerNorm(len(mask), eps, **options), values(3, 4, len(mask), seed=seed), kept)
    close(ours, theirs)
    if not all(mask):
        assert type(norm) is ResizedLayerNorm
        assert (norm.normalized_shape, norm.removed) == ((sum(mask),), len(mask) - sum(mask))
        assert f"({sum(mask)},)" in repr(norm)


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.booleans(), min_size=1, max_size=9).filter(any),
    st.booleans(),
    st.sampled_from([None, 1e-5, 0.3]),
    st.integers(0, 99),
)
def test_rms_norm_of_a_stream_with_zeros(mask: list[bool], affine: bool, eps: float | None, seed: int) -> None:
    kept = torch.tensor(mask)
    made = nn.RMSNorm(len(mask), eps, elementwise_affine=affine)
    norm, ours, theirs = both(made, values(3, 4, len(mask), seed=seed), kept)
    close(ours, theirs)
    assert type(norm) is nn.RMSNorm
    assert norm.normalized_shape == (sum(mask),)


def test_norms_over_several_axes_and_twice() -> None:
    x, channels, rows = values(2, 4, 3, 2), indices(4, 2), indices(3, 0)
    mask = channels[:, None, None] * rows[:, None]
    for norm in (nn.LayerNorm((4, 3, 2)), nn.RMSNorm((4, 3, 2)), nn.LayerNorm((4, 3, 2), elementwise_affine=False)):
        network = randomised(nn.Sequential(norm, nn.PReLU()))
        once = resized(network, kept_of(norm, channels, None, None))
        twice = resized(once, kept_of(norm, None, rows, None))
        close(twice(x[:, channels][:, :, rows]), network(x * mask)[:, channels][:, :, rows])
        assert twice[0].normalized_shape == (3, 2, 2)


def test_the_rms_norm_of_llama() -> None:
    from transformers.models.llama.modeling_llama import LlamaRMSNorm

    kept = indices(6, 1, 4)
    network, x = randomised(nn.Sequential(LlamaRMSNorm(6, eps=0.1))).float(), values(3, 6).float()
    torch.testing.assert_close(resized(network, {"0.weight": (kept,)})(x[:, kept]), network(x * kept)[:, kept])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_as_good_as_that_of_torch(dtype: torch.dtype) -> None:
    kept = indices(64, *range(0, 64, 3))
    x = (values(50, 64) * 100 + 300).to(dtype) * kept  # sums of squares are infinite in float16
    norm = nn.LayerNorm(64).to(dtype).requires_grad_(False)
    smaller = copy.deepcopy(norm)
    resize(smaller, {"weight": (kept,), "bias": (kept,)})
    exact = nn.functional.layer_norm(x.double(), (64,))[:, kept]
    ours, theirs = (float((y.double() - exact).abs().max()) for y in (smaller(x[:, kept]), norm(x)[:, kept]))
    assert smaller(x[:, kept]).dtype == dtype
    assert ours <= 1.01 * theirs


def test_gradients_of_a_smaller_layer_norm() -> None:
    norm, kept, x = randomised(nn.LayerNorm(6)), indices(6, 0, 3), values(3, 6)
    smaller = resized(norm, {"weight": (kept,), "bias": (kept,)})
    masked, ours = (x * kept).requires_grad_(), x[:, kept].requires_grad_()
    norm(masked)[:, kept].square().sum().backward()
    smaller(ours).square().sum().backward()
    close(ours.grad, masked.grad[:, kept])
    for name, parameter in smaller.named_parameters():
        close(parameter.grad, norm.get_parameter(name).grad[kept])


def test_smaller_norms_are_exported(tmp_path: Path) -> None:
    norms = nn.LayerNorm(6), nn.RMSNorm(6), nn.LayerNorm((3, 6), elementwise_affine=False)
    network, kept, x = nn.Sequential(*norms).float().eval(), indices(6, 0, 3), values(2, 3, 4).float()
    axes = {"0.weight": (kept,), "0.bias": (kept,), "1.weight": (kept,), "2.weight": (None, kept)}
    resize(network, axes)
    write_exported(network, x, tmp_path / "network.pt2")
    write_onnx(network, x, tmp_path / "network.onnx", {})
    for batch in (x, x[:1]):
        torch.testing.assert_close(read_exported(tmp_path / "network.pt2")(batch), network(batch))
        torch.testing.assert_close(read_onnx(tmp_path / "network.onnx")(batch), network(batch).detach())


def test_other_layer_norms_are_not_made_smaller() -> None:
    class Scaled(nn.LayerNorm):
        def forward(self, input: Tensor) -> Tensor:
            return 2 * super().forward(input)

    network = nn.Sequential(Scaled(6))
    with pytest.raises(InputError, match="0: a Scaled cannot"):
        resize(network, {"0.weight": (indices(6, 1),), "0.bias": (indices(6, 1),)})
