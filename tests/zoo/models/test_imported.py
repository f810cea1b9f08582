from __future__ import annotations

import hashlib
import importlib
import linecache
import sys
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from tests.zoo.models.helpers import made
from tombola.utils.errors import InputError
from tombola.zoo.models import build, describe
from tombola.zoo.models.description import Start

HERE = __name__


def factory(units: int = 3, fail: bool = False) -> nn.Module:
    if fail:
        raise RuntimeError("no luck\nwith this one")
    return nn.Linear(2, units)


def not_a_module() -> int:
    return 3


def test_a_network_of_ones_own_is_built_by_its_import_path() -> None:
    described = describe("torch.nn:Linear", {"in_features": 3, "out_features": 2, "bias": True}, (3,), 2)
    assert "bias" not in described.options  # it is the default
    assert isinstance(build(Start(network=described, seed=0)), nn.Linear)
    with pytest.raises(InputError, match="has changed"):
        build(Start(network=described.model_copy(update={"source": "other"}), seed=0))


def test_it_takes_keyword_arguments() -> None:
    described = describe(f"{HERE}:factory", {"units": 5}, (2,), 5)
    network = build(Start(network=described, seed=0))
    assert isinstance(network, nn.Linear)
    assert network.out_features == 5


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("no_such_module:factory", {}, "cannot import \"no_such_module:factory\": No module named 'no_such_module'"),
        (f"{HERE}:no_such_factory", {}, f'cannot import "{HERE}:no_such_factory": '),
        (f"{HERE}:HERE", {}, f'"{HERE}:HERE" cannot be called: '),
        (
            f"{HERE}:factory",
            {"unit": 5},
            f"cannot call \"{HERE}:factory\": got an unexpected keyword argument 'unit'",
        ),
        (f"{HERE}:factory", {"fail": True}, f'cannot call "{HERE}:factory": no luck'),
        (f"{HERE}:not_a_module", {}, f'"{HERE}:not_a_module" made a int, not a torch.nn.Module'),
    ],
)
def test_what_cannot_be_imported_or_called_is_said_in_one_line(
    name: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError) as caught:
        build(Start(network=describe(name, options, (2,), 3), seed=0))
    assert str(caught.value).startswith(f"model.name: {message}")
    assert "\n" not in str(caught.value)


def test_nothing_is_imported_without_a_colon() -> None:
    with pytest.raises(InputError, match=r'unknown network "torch\.nn".*package\.module:factory'):
        made("torch.nn")


def module(folder: Path, name: str, text: str) -> None:
    """Write a module, to be imported anew."""
    path = folder / (name.replace(".", "/") + ".py")
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    for known in [each for each in sys.modules if each.partition(".")[0] == name.partition(".")[0]]:
        del sys.modules[known]
    importlib.invalidate_caches()
    linecache.clearcache()


NETS = "import functools\nfrom torch import nn\nclass Two(nn.Linear): pass\nsmall = functools.partial(Two, 2)\n"


def test_an_edit_where_a_factory_comes_from_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    sources = []
    for edit in ("", "# edited\n"):
        module(tmp_path, "re_exported.nets", NETS + edit)
        module(tmp_path, "re_exported.__init__", "from re_exported.nets import Two\n")
        sources.append(describe("re_exported:Two", {}, (2,), 2).source)
    assert sources[0] != sources[1]


@pytest.mark.parametrize("factory", ["Two", "small"])
def test_a_factory_of_the_named_module_stands_for_that_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, factory: str
) -> None:
    """Golden: it is part of keys."""
    monkeypatch.syspath_prepend(tmp_path)
    module(tmp_path, "own_nets", NETS)
    assert describe(f"own_nets:{factory}", {}, (2,), 2).source == hashlib.sha256(NETS.encode()).hexdigest()[:32]
