from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from torch import nn

from tests.conftest import random_mask
from tombola.pruning.mask import Mask
from tombola.runs.run import Run
from tombola.tickets.safe_init import check_drawable, check_network, draw, drawable, network_of
from tombola.utils.errors import InputError
from tombola.zoo.models import MODELS, build
from tombola.zoo.models.description import Network, Reuse, Start, Trained

IMAGES: dict[str, dict[str, Any]] = {name: {} for name in MODELS} | {
    "mlp": {"widths": [5, 3]},
    "resnet": {"depth": 8, "width": 2},
    "resnet-20": {"width": 2, "init": "signed-constant"},
    "resnet-18": {"width": 2, "norm": "uniform"},
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
def test_every_network_of_tombola_is_drawn_as_it_was(name: str) -> None:
    described = start(name, IMAGES[name])
    network = build(described)
    mask = Mask({n: torch.rand(kept.shape) < 0.5 for n, kept in Mask.full(network).items()})
    mask.apply_(network)
    state = draw(described, mask)
    assert state.keys() == network.state_dict().keys()
    assert all(torch.equal(tensor, state[n]) for n, tensor in network.state_dict().items())


def test_drawing_leaves_the_global_random_state_alone(dense: Run) -> None:
    before = torch.random.get_rng_state()
    draw(dense.start, random_mask(dense, 0.3))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_what_is_not_drawn_or_not_tombolas_is_not_drawable() -> None:
    plain = start()
    assert drawable(plain)
    assert drawable(plain.model_copy(update={"reuse": Reuse(seed=1), "like": start(classes=9).network}))
    assert not drawable(plain.model_copy(update={"trained": Trained(run="0" * 32)}))
    assert not drawable(plain.model_copy(update={"like": Network(name="timm:vit", inputs=(1,), classes=1)}))
    for name in ("os:system", "timm:resnet18", "own:Net", "supermask", ""):
        assert not drawable(start(name, {}))


LARGE = 10**9


@pytest.mark.parametrize(
    ("name", "options", "changes"),
    [
        ("resnet", {"depth": 6 * LARGE + 2}, {}),
        ("resnet", {"depth": 8, "width": LARGE}, {}),
        ("vit", {"depth": LARGE}, {}),
        ("vit", {"depth": LARGE, "width": 3}, {}),
        ("vit", {}, {"inputs": (1, LARGE, LARGE)}),
        ("mlp", {"widths": [LARGE] * 50}, {}),
        ("mlp", {"widths": [10**18]}, {}),
        ("mlp", {"widths": [4] * 10_000}, {}),
        ("mlp", {"widths": [4]}, {"inputs": (LARGE, LARGE, LARGE)}),
        ("mlp", {"widths": [4]}, {"classes": 10**12}),
        ("mlp", {"widths": [4]}, {"classes": -1}),
        ("mlp", {"widths": [5]}, {}),
        ("mlp", {"widths": [4, 4]}, {}),
        ("mlp", {"widths": []}, {}),
        ("mlp", {"width": 4}, {}),
        ("mlp", {"widths": "4"}, {}),
        ("conv-6", {"width": 1e300}, {}),
        ("vgg-19", {"width": 1e4}, {}),
        ("lenet-300-100", {}, {}),
    ],
)
def test_other_networks_than_the_masks_are_refused_before_they_are_made(
    name: str, options: dict[str, Any], changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    mask = mask_of(start())
    monkeypatch.setattr("tombola.tickets.safe_init.initial_network", None)  # nothing is drawn
    described = start(name, options, **changes)
    for ask in (lambda: check_drawable(described, mask), lambda: network_of(described.network, mask)):
        with pytest.raises(InputError) as caught:
            ask()
        assert "\n" not in str(caught.value)


def test_so_are_other_networks_that_weights_are_like(monkeypatch: pytest.MonkeyPatch) -> None:
    mask = mask_of(start())
    monkeypatch.setattr("tombola.tickets.safe_init.initial_network", None)
    for like in (
        start("vit", {"depth": LARGE}),
        start("mlp", {"widths": [LARGE, LARGE]}),
        start("mlp", {"widths": [1] * 500}),
    ):
        with pytest.raises(InputError, match="larger than its mask"):
            check_drawable(start().model_copy(update={"like": like.network}), mask)


def test_other_threads_make_what_they_like() -> None:
    """Limits are those of the thread that checks a description."""
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
