from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from tombola.utils.errors import InputError
from tombola.zoo.models import build, describe
from tombola.zoo.models.description import Network, Start


def create_model(model_name: str, pretrained: bool = False, **kwargs: Any) -> nn.Module:  # noqa: ARG001
    """Calls as timm's does: unknown arguments reach the network's own class."""
    return TimmNetwork(**kwargs)


class TimmNetwork(nn.Module):
    def __init__(self, num_classes: int = 1000, in_chans: int = 3, width: int = 4, fail: bool = False) -> None:
        super().__init__()
        if fail:
            raise AssertionError
        self.stem = nn.Conv2d(in_chans, width, 3)
        self.head = nn.Linear(width, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.stem(x).mean((2, 3)))


@pytest.fixture
def timm(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Stands for timm."""
    module: Any = ModuleType("timm")
    module.create_model = create_model
    module.list_models = lambda: ["resnet10t", "resnet18", "resnet18d", "vit_tiny_patch16_224"]
    module.__version__ = "1.0.20"
    monkeypatch.setitem(sys.modules, "timm", module)
    return module


def described(name: str = "timm:resnet18", inputs: tuple[int, ...] = (3, 8, 8), **options: Any) -> Network:
    return describe(name, options, inputs, 7)


def made(network: Network, seed: int = 0) -> nn.Module:
    return build(Start(network=network, seed=seed))


@pytest.mark.usefixtures("timm")
@pytest.mark.parametrize(("inputs", "channels"), [((3, 8, 8), 3), ((1, 8, 8), 1), ((8, 8), 1)])
def test_classes_and_channels_are_those_of_the_data(inputs: tuple[int, ...], channels: int) -> None:
    network = made(described(inputs=inputs))
    assert network.get_parameter("stem.weight").shape == (4, channels, 3, 3)
    assert network(torch.zeros(2, *inputs)).shape == (2, 7)
    assert set(network.state_dict()) == {"stem.weight", "stem.bias", "head.weight", "head.bias"}


@pytest.mark.usefixtures("timm")
def test_flat_images_go_through_a_stack_too() -> None:
    network = made(described(inputs=(8, 8)))
    states, _ = torch.func.stack_module_state([network, made(described(inputs=(8, 8)), seed=1)])
    x = torch.rand(2, 5, 8, 8)
    outputs = torch.func.vmap(lambda state, x: torch.func.functional_call(network, state, (x,)))(states, x)
    assert torch.allclose(outputs[0], network(x[0]), atol=1e-6)


@pytest.mark.usefixtures("timm")
def test_options_are_timms_own_arguments() -> None:
    network = described(width=9, num_classes=5, pretrained=False)
    assert network.options == {"width": 9, "num_classes": 5}  # timm's default of the other is the same
    assert made(network).get_parameter("head.weight").shape == (5, 9)


@pytest.mark.usefixtures("timm")
def test_weights_come_from_the_seed() -> None:
    first, again, other = (made(described(), seed).get_parameter("stem.weight") for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_version_of_timm_is_part_of_the_description(timm: Any) -> None:
    network = described()
    assert network.source == "timm 1.0.20"
    timm.__version__ = "1.0.21"
    assert described() != network
    with pytest.raises(InputError) as caught:
        made(network)
    assert str(caught.value) == (
        'model.name: "timm:resnet18" has changed since this run was described: '
        "that was with timm 1.0.20, and this is timm 1.0.21"
    )


@pytest.mark.usefixtures("timm")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm:resnt18", 'timm 1.0.20 has no network "resnt18": did you mean resnet18, resnet18d, resnet10t?'),
        ("timm:zzz", 'timm 1.0.20 has no network "zzz"'),
        ("timm:", 'timm 1.0.20 has no network ""'),
    ],
)
def test_unknown_names_are_refused_with_near_ones(name: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        described(name)
    assert str(caught.value) == f"model.name: {message}"


@pytest.mark.usefixtures("timm")
def test_a_name_may_say_which_pretrained_weights() -> None:
    assert described("timm:resnet18.a1_in1k").name == "timm:resnet18.a1_in1k"


@pytest.mark.usefixtures("timm")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 3}, "TimmNetwork.__init__() got an unexpected keyword argument 'depth'"),
        ({"model_name": "resnet10t"}, "create_model() got multiple values for argument 'model_name'"),
        ({"fail": True}, "AssertionError"),
    ],
)
def test_wrong_options_are_refused_in_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        made(described(**options))
    assert str(caught.value) == f'model.name: cannot call "timm:resnet18": {message}'


@pytest.mark.usefixtures("timm")
def test_what_are_not_images_is_refused() -> None:
    with pytest.raises(
        InputError, match=r'model.name: "timm:resnet18" takes images, .* not examples of shape \(64,\)'
    ):
        made(described(inputs=(64,)))


def test_without_timm_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> ModuleType:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(InputError) as caught:
        described()
    assert str(caught.value) == 'model.name: "timm:resnet18" needs timm: pip install "tombola[timm]"'


def test_a_timm_that_cannot_be_imported_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: str) -> ModuleType:
        raise ModuleNotFoundError("No module named 'torchvision'", name="torchvision")

    monkeypatch.setattr(importlib, "import_module", broken)
    with pytest.raises(InputError, match="needs timm, which cannot be imported: No module named 'torchvision'"):
        described()


@pytest.mark.usefixtures("timm")
def test_modules_of_timm_are_imported_like_any_other() -> None:
    """Only `timm:` itself is special."""
    with pytest.raises(InputError, match=r'cannot import "timm\.models:resnet18"'):
        described("timm.models:resnet18")


def test_a_timm_that_raises_while_it_is_imported_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it does with a torchvision that was made for another torch."""

    def broken(_: str) -> ModuleType:
        raise RuntimeError("operator torchvision::nms does not exist\nat all")

    monkeypatch.setattr(importlib, "import_module", broken)
    with pytest.raises(InputError) as caught:
        described()
    assert str(caught.value) == (
        'model.name: "timm:resnet18" needs timm, which cannot be imported: operator torchvision::nms does not exist'
    )


def test_a_folder_called_timm_is_not_taken_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    folder: Any = ModuleType("timm")
    folder.__path__ = ["here/timm"]
    monkeypatch.setitem(sys.modules, "timm", folder)
    with pytest.raises(InputError) as caught:
        described()
    assert str(caught.value) == 'model.name: "timm:resnet18" needs timm, and here/timm is another'


def test_the_real_timm_makes_networks() -> None:
    try:
        pytest.importorskip("timm", reason="timm is not installed")
    except RuntimeError as error:
        pytest.skip(f"timm cannot be imported, torchvision may be for another torch: {error}")
    network = described(inputs=(32, 32), num_classes=7)
    first, again, other = (made(network, seed) for seed in (0, 0, 1))
    assert network.source is not None
    assert network.source.startswith("timm ")
    assert first.eval()(torch.zeros(2, 32, 32)).shape == (2, 7)
    assert torch.equal(first.get_parameter("conv1.weight"), again.get_parameter("conv1.weight"))
    assert not torch.equal(first.get_parameter("conv1.weight"), other.get_parameter("conv1.weight"))
