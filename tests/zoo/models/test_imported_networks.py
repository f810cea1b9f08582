"""Networks of timm, and the user's own by import path."""

from __future__ import annotations

import hashlib
import importlib
import linecache
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from tests.support.errors import raises_input_error
from tests.support.zoo_networks import build_network
from tombola.zoo.models import build, describe
from tombola.zoo.models.description import Network, Start


def create_model(model_name: str, pretrained: bool = False, **kwargs: Any) -> nn.Module:  # noqa: ARG001
    """Like timm's: unknown arguments are passed to the class of the network."""
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
    """A stand-in for timm."""
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
def test_numbers_of_classes_and_channels_come_from_the_data(inputs: tuple[int, ...], channels: int) -> None:
    network = made(described(inputs=inputs))
    assert network.get_parameter("stem.weight").shape == (4, channels, 3, 3)
    assert network(torch.zeros(2, *inputs)).shape == (2, 7)
    assert set(network.state_dict()) == {"stem.weight", "stem.bias", "head.weight", "head.bias"}


@pytest.mark.usefixtures("timm")
def test_flat_images_work_in_a_stack() -> None:
    network = made(described(inputs=(8, 8)))
    states, _ = torch.func.stack_module_state([network, made(described(inputs=(8, 8)), seed=1)])
    x = torch.rand(2, 5, 8, 8)
    outputs = torch.func.vmap(lambda state, x: torch.func.functional_call(network, state, (x,)))(states, x)
    assert torch.allclose(outputs[0], network(x[0]), atol=1e-6)


@pytest.mark.usefixtures("timm")
def test_options_are_passed_to_timm() -> None:
    network = described(width=9, num_classes=5, pretrained=False)
    assert network.options == {"width": 9, "num_classes": 5}  # `pretrained` is at timm's default
    assert made(network).get_parameter("head.weight").shape == (5, 9)


def test_the_version_of_timm_is_part_of_the_description(timm: Any) -> None:
    network = described()
    assert network.source == "timm 1.0.20"
    timm.__version__ = "1.0.21"
    assert described() != network
    with raises_input_error("model.name", "timm:resnet18", "timm 1.0.20", "timm 1.0.21"):
        made(network)


@pytest.mark.usefixtures("timm")
@pytest.mark.parametrize(
    ("name", "facts"),
    [("timm:resnt18", ['"resnt18"', "resnet18, resnet18d, resnet10t"]), ("timm:zzz", ['"zzz"']), ("timm:", ['""'])],
)
def test_unknown_names_are_refused_with_suggestions(name: str, facts: list[str]) -> None:
    with raises_input_error("model.name", "timm 1.0.20", *facts):
        described(name)


@pytest.mark.usefixtures("timm")
def test_a_name_may_include_pretrained_weights() -> None:
    assert described("timm:resnet18.a1_in1k").name == "timm:resnet18.a1_in1k"


@pytest.mark.usefixtures("timm")
@pytest.mark.parametrize(
    ("options", "reason"),
    [({"depth": 3}, "'depth'"), ({"model_name": "resnet10t"}, "'model_name'"), ({"fail": True}, "AssertionError")],
)
def test_invalid_options_are_named(options: dict[str, Any], reason: str) -> None:
    with raises_input_error("model.name", '"timm:resnet18"', reason):
        made(described(**options))


@pytest.mark.usefixtures("timm")
def test_inputs_that_are_not_images_are_refused() -> None:
    with raises_input_error("model.name", '"timm:resnet18"', "(64,)"):
        made(described(inputs=(64,)))


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ModuleNotFoundError("No module named 'timm'", name="timm"), 'pip install "tombola[timm]"'),
        (ModuleNotFoundError("No module named 'torchvision'", name="torchvision"), "No module named 'torchvision'"),
        (
            RuntimeError("operator torchvision::nms does not exist\nat all"),
            "operator torchvision::nms does not exist",
        ),
    ],
)
def test_a_failed_import_of_timm_is_explained(error: Exception, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: str) -> ModuleType:
        raise error

    monkeypatch.setattr(importlib, "import_module", fail)
    with raises_input_error('"timm:resnet18" needs timm', reason):
        described()


@pytest.mark.usefixtures("timm")
def test_modules_of_timm_can_be_given_by_import_path() -> None:
    with raises_input_error("timm.models:resnet18", "import"):
        described("timm.models:resnet18")


def test_a_folder_called_timm_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    folder: Any = ModuleType("timm")
    folder.__path__ = ["here/timm"]
    monkeypatch.setitem(sys.modules, "timm", folder)
    with raises_input_error('"timm:resnet18" needs timm', "here/timm"):
        described()


def test_networks_of_the_real_timm() -> None:
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


HERE = __name__


def factory(units: int = 3, fail: bool = False) -> nn.Module:
    if fail:
        raise RuntimeError("no luck\nwith this one")
    return nn.Linear(2, units)


def not_a_module() -> int:
    return 3


def test_a_network_is_built_by_its_import_path() -> None:
    described = describe("torch.nn:Linear", {"in_features": 3, "out_features": 2, "bias": True}, (3,), 2)
    assert "bias" not in described.options  # it is the default
    assert isinstance(build(Start(network=described, seed=0)), nn.Linear)
    with raises_input_error("model.name", "torch.nn:Linear", "changed"):
        build(Start(network=described.model_copy(update={"source": "other"}), seed=0))


def test_options_are_keyword_arguments() -> None:
    described = describe(f"{HERE}:factory", {"units": 5}, (2,), 5)
    network = build(Start(network=described, seed=0))
    assert isinstance(network, nn.Linear)
    assert network.out_features == 5


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("no_such_module:factory", {}, "No module named 'no_such_module'"),
        (f"{HERE}:no_such_factory", {}, "import"),
        (f"{HERE}:HERE", {}, "call"),
        (f"{HERE}:factory", {"unit": 5}, "'unit'"),
        (f"{HERE}:factory", {"fail": True}, "no luck"),
        (f"{HERE}:not_a_module", {}, "returned int"),
    ],
)
def test_failed_imports_and_calls_are_explained(name: str, options: dict[str, Any], reason: str) -> None:
    with raises_input_error("model.name", f'"{name}"', reason):
        build(Start(network=describe(name, options, (2,), 3), seed=0))


def test_a_name_without_a_colon_is_not_imported() -> None:
    with raises_input_error("network", '"torch.nn"', "package.module:factory"):
        build_network("torch.nn")


def module(folder: Path, name: str, text: str) -> None:
    """Write a module, and forget the one imported before."""
    path = folder / (name.replace(".", "/") + ".py")
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    for imported in [each for each in sys.modules if each.partition(".")[0] == name.partition(".")[0]]:
        del sys.modules[imported]
    importlib.invalidate_caches()
    linecache.clearcache()


NETS = "import functools\nfrom torch import nn\nclass Two(nn.Linear): pass\nsmall = functools.partial(Two, 2)\n"


def test_an_edit_in_the_module_that_defines_the_factory_changes_the_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    sources = []
    for edit in ("", "# edited\n"):
        module(tmp_path, "re_exported.nets", NETS + edit)
        module(tmp_path, "re_exported.__init__", "from re_exported.nets import Two\n")
        sources.append(describe("re_exported:Two", {}, (2,), 2).source)
    assert sources[0] != sources[1]


@pytest.mark.parametrize("factory", ["Two", "small"])
def test_the_hash_is_that_of_the_modules_source_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, factory: str
) -> None:
    """Golden: it is part of the keys of stored runs."""
    monkeypatch.syspath_prepend(tmp_path)
    module(tmp_path, "own_nets", NETS)
    assert describe(f"own_nets:{factory}", {}, (2,), 2).source == hashlib.sha256(NETS.encode()).hexdigest()[:32]
