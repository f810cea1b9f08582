from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from torch import nn

from tests.support.outcomes import random_mask
from tombola.pruning.mask import Mask
from tombola.runs.run import Run
from tombola.tickets.safe_init import check_drawable, check_network, draw_weights, make_network
from tombola.utils.errors import InputError
from tombola.zoo.models import MODELS, build
from tombola.zoo.models.description import Network, Reuse, Signs, Start, Trained

IMAGES: dict[str, dict[str, Any]] = {name: {} for name in MODELS} | {
    "mlp": {"widths": [5, 3]},
    "resnet": {"depth": 8, "width": 2},
    "resnet-20": {"width": 2, "init": "signed-constant"},
    "resnet-18": {"width": 2, "norm": "uniform"},
    "resnet-50": {"width": 2},
    "vit": {"width": 12, "depth": 2},
    "conv-6": {"width": 0.1},
    "vgg-19": {"width": 0.05},
}


def start(name: str = "mlp", options: dict[str, Any] | None = None, **changes: Any) -> Start:
    shape = {"inputs": (1, 16, 16), "classes": 3} | changes
    network = Network(name=name, options={"widths": [4]} if options is None else options, **shape)
    return Start(network=network, seed=3)


def mask_of(described: Start) -> Mask:
    return Mask.full(build(described))


@pytest.mark.parametrize("name", sorted(IMAGES))
def test_every_built_in_network_is_drawn_again(name: str) -> None:
    described = start(name, IMAGES[name])
    network = build(described)
    mask = Mask({n: torch.rand(kept.shape) < 0.5 for n, kept in Mask.full(network).items()})
    mask.apply_(network)
    state = draw_weights(described, mask)
    assert state.keys() == network.state_dict().keys()
    assert all(torch.equal(tensor, state[n]) for n, tensor in network.state_dict().items())


def test_drawing_does_not_change_the_global_random_state(dense: Run) -> None:
    before = torch.random.get_rng_state()
    draw_weights(dense.start, random_mask(dense, 0.3))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_trained_weights_and_other_networks_are_not_drawable() -> None:
    plain = start()
    mask = mask_of(plain)
    check_drawable(plain, mask)
    check_drawable(plain.model_copy(update={"reuse": Reuse(seed=1), "like": start(classes=9).network}), mask)
    trained = plain.model_copy(update={"trained": Trained(run="0" * 32)})
    like = plain.model_copy(update={"like": Network(name="timm:vit", inputs=(1,), classes=1)})
    names = ("os:system", "timm:resnet18", "own:Net", "supermask", "parametrized", "rescaled", "")
    signs = plain.model_copy(update={"signs": Signs(of=trained)})
    for described in (trained, like, signs, *(start(name, {}) for name in names)):
        with pytest.raises(InputError, match="cannot be drawn"):
            check_drawable(described, mask)


LARGE = 10**9


@pytest.mark.parametrize(
    ("name", "options", "changes"),
    [
        ("resnet", {"depth": 6 * LARGE + 2}, {}),
        ("resnet", {"depth": 8, "width": LARGE}, {}),
        ("vit", {"depth": LARGE, "width": 3}, {}),
        ("vit", {}, {"inputs": (1, LARGE, LARGE)}),
        ("mlp", {"widths": [LARGE] * 50}, {}),
        ("mlp", {"widths": [4] * 10_000}, {}),
        ("mlp", {"widths": [4]}, {"classes": 10**12}),
        ("mlp", {"widths": [4]}, {"classes": -1}),
        ("mlp", {"widths": [5]}, {}),
        ("mlp", {"widths": []}, {}),
        ("mlp", {"width": 4}, {}),
        ("mlp", {"widths": "4"}, {}),
        ("conv-6", {"width": 1e300}, {}),
        ("lenet-300-100", {}, {}),
    ],
)
def test_networks_with_other_layers_than_the_mask_are_refused_before_they_are_made(
    name: str, options: dict[str, Any], changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    mask = mask_of(start())
    monkeypatch.setattr("tombola.tickets.safe_init.initial_network", None)  # nothing is drawn
    described = start(name, options, **changes)
    for ask in (lambda: check_drawable(described, mask), lambda: make_network(described.network, mask)):
        with pytest.raises(InputError) as caught:
            ask()
        assert "\n" not in str(caught.value)


def test_large_networks_that_weights_are_drawn_like_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tombola.tickets.safe_init.initial_network", None)
    for name, options in (
        ("vit", {"depth": LARGE}),
        ("mlp", {"widths": [LARGE] * 2}),
        ("mlp", {"widths": [1] * 500}),
    ):
        described = start().model_copy(update={"like": start(name, options).network})
        with pytest.raises(InputError, match="larger than its mask"):
            check_drawable(described, mask_of(start()))


def test_the_size_limit_is_of_one_thread() -> None:
    checking, made, devices = threading.Event(), threading.Event(), []

    def elsewhere() -> None:
        checking.wait(10)
        devices.append(nn.Linear(3000, 3000).weight.device.type)
        made.set()

    def slow(inputs: tuple[int, ...], classes: int) -> nn.Module:
        checking.set()
        assert made.wait(10)
        return nn.Sequential(nn.Linear(*inputs, classes))

    other = threading.Thread(target=elsewhere)
    other.start()
    try:
        MODELS["slow"] = slow
        mask = Mask({"0.weight": torch.ones(2, 2, dtype=torch.bool)})
        check_network(Network(name="slow", inputs=(2,), classes=2), mask)
    finally:
        del MODELS["slow"]
        other.join()
    assert devices == ["cpu"]
