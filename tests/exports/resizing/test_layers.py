from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.support.resized import close, indices, randomised, resized, values
from tombola.exports.resizing import load_resized, resize
from tombola.exports.resizing.sizes import GROUP_SIZES
from tombola.utils.errors import InputError
from tombola.zoo.models.resnet import ResidualBlock, Subsample


def sizes(module: nn.Module, *names: str) -> list[Any]:
    return [getattr(module, name) for name in names]


def without(x: Tensor, axis: int, kept: Tensor) -> Tensor:
    """`x` with zeros where indices of an axis do not stay."""
    return x * kept.view([-1 if a == axis % x.dim() else 1 for a in range(x.dim())])


def only(x: Tensor, axis: int, kept: Tensor) -> Tensor:
    return x.index_select(axis, kept.nonzero().flatten())


IN, OUT = indices(6, 1, 4), indices(5, 0)


@pytest.mark.parametrize("bias", [True, False])
def test_linear(bias: bool) -> None:
    layer, x = randomised(nn.Linear(6, 5, bias)), values(3, 6)
    kept = {"weight": (OUT, IN)} | ({"bias": (OUT,)} if bias else {})
    smaller = resized(layer, kept)
    close(smaller(only(x, 1, IN)), only(layer(without(x, 1, IN)), 1, OUT))
    assert sizes(smaller, "in_features", "out_features") == [4, 4]
    assert "in_features=4, out_features=4" in repr(smaller)


def test_bilinear() -> None:
    layer, x, y = randomised(nn.Bilinear(6, 3, 5)), values(2, 6), values(2, 3, seed=2)
    smaller = resized(layer, {"weight": (OUT, IN, indices(3, 2)), "bias": (OUT,)})
    close(smaller(only(x, 1, IN), y[:, :2]), only(layer(without(x, 1, IN), without(y, 1, indices(3, 2))), 1, OUT))
    assert sizes(smaller, "in1_features", "in2_features", "out_features") == [4, 2, 4]


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("transposed", [False, True])
def test_convolutions(dims: int, transposed: bool) -> None:
    kind = getattr(nn, f"Conv{'Transpose' if transposed else ''}{dims}d")
    layer, x = randomised(kind(6, 5, 3, stride=2, padding=1)), values(2, 6, *(7,) * dims)
    axes = (IN, OUT) if transposed else (OUT, IN)
    smaller = resized(layer, {"weight": (*axes, *(None,) * dims), "bias": (OUT,)})
    close(smaller(only(x, 1, IN)), only(layer(without(x, 1, IN)), 1, OUT))
    assert sizes(smaller, "in_channels", "out_channels", "groups") == [4, 4, 1]


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(
    ("channels", "outputs", "groups", "ins_kept", "outs_kept", "groups_kept"),
    [
        (12, 8, 4, (0, 2), (), None),  # whole groups: see below
        (12, 8, 4, None, (), (0, 1)),  # the same positions in each group
        (12, 8, 4, None, (0,), (0, 2)),
        (12, 8, 4, None, (1,), ()),  # only outputs: these shapes are also those of fewer whole groups
        (6, 6, 6, (0, 1, 4), (), None),  # depthwise
        (6, 12, 6, (0, 5), (), None),  # with a multiplier of 2
        (6, 12, 6, None, (1,), ()),
        (6, 3, 3, (1, 2), (), None),
    ],
)
def test_grouped_convolutions(
    transposed: bool,
    channels: int,
    outputs: int,
    groups: int,
    ins_kept: tuple[int, ...] | None,
    outs_kept: tuple[int, ...],
    groups_kept: tuple[int, ...] | None,
) -> None:
    """`ins_kept` are whole groups; otherwise the two others are the removed positions of each group."""
    kind = nn.ConvTranspose2d if transposed else nn.Conv2d
    layer, x = randomised(kind(channels, outputs, 3, groups=groups)), values(2, channels, 6, 6)
    whole = indices(groups) if ins_kept is None else ~indices(groups, *ins_kept)
    removed_ins, removed_outs = groups_kept or (), outs_kept
    of_group, outs_of_group = indices(channels // groups, *removed_ins), indices(outputs // groups, *removed_outs)
    ins, outs = torch.kron(whole, of_group), torch.kron(whole, outs_of_group)
    rows, columns = (ins, outs_of_group) if transposed else (outs, of_group)
    smaller = resized(layer, {"weight": (rows, columns, None, None), "bias": (outs,)})
    close(smaller(only(x, 1, ins)), only(layer(without(x, 1, ins)), 1, outs))
    expected = [int(ins.sum()), int(outs.sum()), int(whole.sum())]
    assert sizes(smaller, "in_channels", "out_channels", "groups") == expected


def test_the_groups_of_a_convolution_are_stated_only_where_shapes_do_not_say_them() -> None:
    layer = randomised(nn.Conv2d(12, 8, 3, groups=4))
    rows = torch.kron(indices(4), indices(2, 1))
    ambiguous = resized(layer, {"weight": (rows, None, None, None), "bias": (rows,)})
    assert ambiguous.groups == 4
    assert ambiguous.state_dict()[GROUP_SIZES].tolist() == [1, 1, 1, 1]
    again = resized(ambiguous, {"weight": (indices(4, 3), None, None, None), "bias": (indices(4, 3),)})
    assert sizes(again, "in_channels", "groups") == [9, 3]
    assert again.state_dict()[GROUP_SIZES].tolist() == [1, 1, 1]
    rows = torch.kron(indices(4, 0), indices(2))
    assert list(resized(layer, {"weight": (rows, None, None, None), "bias": (rows,)}).state_dict()) == [
        "weight",
        "bias",
    ]


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize(
    "options",
    [{"affine": affine, "track_running_stats": tracks} for affine in (True, False) for tracks in (True, False)],
)
@pytest.mark.parametrize("kind", ["BatchNorm", "InstanceNorm"])
def test_batch_norm_and_instance_norm(kind: str, dims: int, options: dict[str, bool]) -> None:
    norm, x = getattr(nn, f"{kind}{dims}d")(6, **options), values(4, 6, *(3,) * dims)
    network = randomised(nn.Sequential(norm, nn.PReLU()))
    one_axis = {f"0.{name}": (IN,) for name, tensor in norm.state_dict().items() if tensor.dim()}
    smaller = resized(network, one_axis or {"0.weight": (IN,)})
    close(smaller(only(x, 1, IN)), only(network(x), 1, IN))
    assert smaller[0].num_features == 4


@pytest.mark.parametrize("affine", [True, False])
def test_group_norm(affine: bool) -> None:
    network, x = randomised(nn.Sequential(nn.GroupNorm(3, 6, affine=affine), nn.PReLU())), values(2, 6, 4)
    kept = torch.kron(indices(3, 1), indices(2))
    smaller = resized(network, {"0.weight": (kept,)} | ({"0.bias": (kept,)} if affine else {}))
    close(smaller(only(x, 1, kept)), only(network(x), 1, kept))
    assert sizes(smaller[0], "num_groups", "num_channels") == [2, 4]
    assert sum(parameter.numel() for parameter in smaller[0].parameters()) == (8 if affine else 0)


def test_prelu_and_embeddings() -> None:
    prelu, x = randomised(nn.PReLU(6)), values(3, 6)
    smaller = resized(prelu, {"weight": (IN,)})
    close(smaller(only(x, 1, IN)), only(prelu(x), 1, IN))
    assert smaller.num_parameters == 4
    ids = torch.tensor([[0, 2], [3, 2]])
    for layer in (nn.Embedding(4, 6, padding_idx=2), nn.EmbeddingBag(4, 6, mode="sum")):
        embedding = randomised(layer)
        narrow = resized(embedding, {"weight": (None, IN)})
        close(narrow(ids), only(embedding(ids), -1, IN))
        assert sizes(narrow, "num_embeddings", "embedding_dim") == [4, 4]


def test_conv1d_of_transformers() -> None:
    from transformers.pytorch_utils import Conv1D

    layer, x = randomised(Conv1D(5, 6)), values(2, 3, 6)
    smaller = resized(layer, {"weight": (IN, OUT), "bias": (OUT,)})
    close(smaller(only(x, 2, IN)), only(layer(without(x, 2, IN)), 2, OUT))
    assert sizes(smaller, "nx", "nf") == [4, 4]


def test_the_shortcut_of_a_residual_block_follows_its_convolution() -> None:
    block, x = randomised(ResidualBlock(4, 8, True, "identity")), values(2, 4, 6, 6)
    ins, outs = indices(4, 1), indices(8, 1, 6)
    norm = dict.fromkeys(("bn2.weight", "bn2.bias", "bn2.running_mean", "bn2.running_var"), (outs,))
    kept = {"conv1.weight": (None, ins, None, None), "conv2.weight": (outs, None, None, None)} | norm
    smaller = resized(block, kept)
    close(smaller(only(x, 1, ins)), only(block(without(x, 1, ins)), 1, outs))
    alone = nn.Sequential(Subsample(8))
    resize(alone, {"0.channels": (outs,)})
    assert alone[0].channels == 6


def test_tensors_keep_what_they_are_and_stay_tied() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens, self.output = nn.Embedding(7, 6), nn.Linear(6, 7, bias=False)
            self.output.weight = self.tokens.weight
            self.conv = nn.Conv2d(4, 6, 3).to(torch.bfloat16, memory_format=torch.channels_last)
            self.conv.requires_grad_(False)
            self.register_buffer("scale", torch.ones(6, dtype=torch.float64), persistent=False)
            self.own = nn.ParameterList([torch.ones(2, 6)])

    network = Tied()
    kept = {"output.weight": (None, IN), "conv.weight": (IN, None, None, None), "conv.bias": (IN,), "scale": (IN,)}
    resize(network, kept | {"own.0": (None, IN)})
    assert network.tokens.weight is network.output.weight
    assert sizes(network.tokens, "embedding_dim") == sizes(network.output, "in_features") == [4]
    assert network.tokens.weight.requires_grad
    weight = network.conv.weight
    assert weight.dtype == torch.bfloat16
    assert not weight.requires_grad
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert network.scale.dtype == torch.float64
    assert "scale" not in network.state_dict()
    assert network.own[0].shape == (2, 4)
    with pytest.raises(InputError, match="same tensor"):
        resize(network, {"output.weight": (None, indices(4, 0)), "tokens.weight": (None, indices(4, 1))})
    resize(network, {"output.weight": (None, indices(4, 0)), "tokens.weight": (None, torch.tensor([1, 2, 3]))})
    assert network.tokens.weight is network.output.weight


def everything() -> nn.ModuleDict:
    layers = {
        "linear": nn.Linear(4, 6),
        "grouped": nn.Conv2d(8, 8, 3, groups=2),
        "up": nn.ConvTranspose2d(8, 8, 3, groups=2),
        "norm": nn.GroupNorm(2, 8),
        "attention": nn.MultiheadAttention(8, 2),
        "plain_norm": nn.LayerNorm(8, elementwise_affine=False),
        "lstm": nn.LSTM(4, 4),
        "tokens": nn.Embedding(4, 6),
        "weight_norm": nn.utils.parametrizations.weight_norm(nn.Linear(4, 6)),
    }
    return nn.ModuleDict(layers)


half = torch.arange(8) < 3
uneven = indices(8, 3, 4, 5)


@pytest.mark.parametrize(
    ("kept", "said"),
    [
        ({"linear.wieght": (None, None)}, r"linear\.wieght: .*no parameter"),
        ({"other.weight": (None, None)}, r"other\.weight: .*no parameter"),
        ({"linear.weight": (IN,)}, r"linear\.weight: 1 axes are given, but it has 2"),
        ({"linear.weight": (indices(5), None)}, r"linear\.weight, axis 0: .*6 bools"),
        ({"linear.weight": (torch.tensor([0.0]), None)}, r"axis 0: .*float32 \(1,\)"),
        ({"linear.weight": (torch.tensor([6]), None)}, "axis 0: .*from 0 to 5"),
        ({"linear.weight": (torch.tensor([1, 1]), None)}, "axis 0: .*only once"),
        ({"linear.weight": (torch.zeros(6, dtype=torch.bool), None)}, "axis 0: at least one"),
        ({"linear.weight": (IN, None)}, "linear: a Linear cannot"),  # the bias is missing
        ({"grouped.weight": (uneven, None, None, None), "grouped.bias": (uneven,)}, r"grouped\.weight: each group"),
        ({"up.weight": (uneven, None, None, None)}, r"up\.weight: each group"),
        ({"norm.weight": (half,), "norm.bias": (half,)}, r"norm\.weight: a GroupNorm cannot"),
        ({"attention.in_proj_bias": (half.repeat(3),)}, r"in_proj_bias: a MultiheadAttention cannot"),
        (
            {"attention.in_proj_weight": (torch.arange(24) >= 12, None)},
            r"in_proj_weight: a MultiheadAttention cannot",
        ),
        ({"attention.out_proj.weight": (None, torch.arange(8) < 4)}, "attention: a MultiheadAttention cannot"),
        ({"lstm.weight_ih_l0": (torch.arange(16) < 8, None)}, "lstm: a LSTM cannot"),
        ({"tokens.weight": (torch.arange(4) < 2, None)}, "tokens: a Embedding cannot"),
        ({"weight_norm.parametrizations.weight.original1": (IN, None)}, "weight_norm: "),
    ],
)
def test_what_cannot_be_made_smaller_is_an_error_that_changes_nothing(kept: dict[str, Any], said: str) -> None:
    network = everything()
    before = repr(network), {name: tensor.shape for name, tensor in network.state_dict().items()}
    with pytest.raises(InputError, match=said) as caught:
        resize(network, kept)
    assert "\n" not in str(caught.value)
    assert (repr(network), {name: tensor.shape for name, tensor in network.state_dict().items()}) == before


@pytest.mark.parametrize(
    ("name", "shape", "said"),
    [
        ("attention.out_proj.weight", (8, 4), "attention cannot have such sizes"),
        ("attention.in_proj_bias", (12,), r"attention\.in_proj_bias is \(12,\)"),
        ("norm.weight", (4,), r"norm\.weight is \(4,\)"),
        ("lstm.weight_ih_l0", (8, 4), r"lstm\.weight_ih_l0 is \(8, 4\)"),
        ("grouped.group_sizes", (3,), r"grouped\.group_sizes is \(3,\)"),
        ("grouped.group_sizes", (0,), r"grouped\.group_sizes is \(0,\)"),
        ("plain_norm.weight", (8,), r"plain_norm\.weight is \(8,\)"),
        ("plain_norm.weight", (9,), r"plain_norm\.weight is \(9,\)"),
        ("tokens.weight", (2, 6), r"tokens\.weight is \(2, 6\)"),
    ],
)
def test_a_state_of_sizes_that_cannot_be_is_an_error(name: str, shape: tuple[int, ...], said: str) -> None:
    state = everything().state_dict() | {name: torch.ones(shape)}
    with pytest.raises(InputError, match=said) as caught:
        load_resized(everything(), state)
    assert "\n" not in str(caught.value)
