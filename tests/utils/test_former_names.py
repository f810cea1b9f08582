from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tombola
from tombola import _MOVED
from tombola.engines.custom.fingerprint import fingerprint
from tombola.experiments.recipe import load_recipe
from tombola.pruning.pruner import Pruner
from tombola.pruning.scores.inputs import ScoreInputs
from tombola.pruning.scores.weights import magnitude
from tombola.runs.store import Store
from tombola.tickets.verify import verify_ticket
from tombola.utils.former_names import _MODULES, _OBJECTS, former_name
from tombola.zoo.models.description import Start
from tombola.zoo.models.resnet import resnet_20
from tombola.zoo.models.vit import vit


@pytest.fixture(autouse=True)
def _reload_former_modules() -> Iterator[None]:
    """A former name stays in `sys.modules`, so it would warn only in the first test that imports it."""
    yield
    for name in [name for name in sys.modules if name.startswith("tombola.")]:
        if sys.modules[name].__name__ != name:
            del sys.modules[name]


@pytest.mark.parametrize(
    ("former", "present"),
    [
        ("tombola.ship.csr", "tombola.exports.csr"),
        ("tombola.structures", "tombola.pruning.structures"),
        ("tombola.structures.rows", "tombola.pruning.structures.layer_units"),
        ("tombola.scores.grounds", "tombola.pruning.scores.inputs"),
        ("tombola.holding", "tombola.pruning.hold"),
        ("tombola.zoo.networks.vit", "tombola.zoo.models.vit"),
    ],
)
def test_a_former_module_name_imports_the_present_module_with_a_warning(former: str, present: str) -> None:
    with pytest.warns(DeprecationWarning, match="is deprecated") as caught:
        module = importlib.import_module(former)
    assert str(caught[-1].message).endswith(f"use {present}")
    public = vars(importlib.import_module(present))
    assert all(getattr(module, name) is thing for name, thing in public.items() if not name.startswith("_"))


def test_former_modules_have_renamed_and_public_objects_under_their_former_names() -> None:
    for former, present in (
        ("tombola.check:check_ticket", verify_ticket),
        ("tombola.find:Found", tombola.SearchResult),
        ("tombola.run:Start", Start),
        ("tombola.scores.grounds:Grounds", ScoreInputs),
    ):
        module, _, name = former.partition(":")
        sys.modules.pop(module, None)
        with pytest.warns(DeprecationWarning, match="is deprecated"):
            assert getattr(importlib.import_module(module), name) is present


def test_tombola_pruning_is_a_package_although_it_was_a_module() -> None:
    for name, present in (("prune", tombola.prune), ("Pruner", Pruner)):
        with pytest.warns(DeprecationWarning, match=rf"tombola\.pruning\.{name} is deprecated"):
            assert getattr(importlib.import_module("tombola.pruning"), name) is present


def test_every_present_module_and_class_with_a_former_name_exists() -> None:
    for name in _MODULES:
        importlib.import_module(name)
    for full_name in _OBJECTS:
        module, _, name = full_name.rpartition(".")
        assert hasattr(importlib.import_module(module), name), full_name


def test_former_names_of_objects_follow_their_module() -> None:
    assert former_name("tombola.pruning.scores.inputs", "ScoreInputs") == ("tombola.scores.grounds", "Grounds")
    assert former_name("tombola.pruning.scores.change", "movement") == ("tombola.scores.change", "movement")
    assert former_name("numpy", "mean") == ("numpy", "mean")


@pytest.mark.parametrize("name", _MOVED)
def test_a_moved_name_still_works_with_a_warning(name: str) -> None:
    with pytest.warns(DeprecationWarning, match=f"tombola.{name} "):
        assert getattr(tombola, name) is not None


@pytest.mark.parametrize("name", tombola.__all__)
def test_no_public_name_is_also_a_module(name: str) -> None:
    """Importing the module would replace the object of that name in the package."""
    assert importlib.util.find_spec(f"tombola.{name}") is None
    assert hasattr(tombola, name)
    assert tombola.recipes() == tombola.recipes()  # which imports the package of the recipes


@pytest.mark.parametrize(
    ("thing", "expected"),
    [
        (tombola.mark, "fa55bef17df9849e4ec7199d86c41ac7"),
        (tombola.hold, "a7a13c33defb110c974e225476f3b6d7"),
        (tombola.Mask, "4f6bec8d77e932338848dfc3229999c3"),
        (tombola.prune, "ddef7c1858b7b32f0bdbb6065c5447f7"),
        (tombola.find_ticket, "750d4966fb00e08b7e82a6a553b0902e"),
        (resnet_20, "b06b044a6349b444d2fb06304c518fe5"),
        (vit, "a4fab25fdca869f94b9db05ae7933c77"),
        (magnitude, "2a582e9213f6c6fcc4a6b4dd24fb71d1"),
        (ScoreInputs, "4cac85d852f3493e4f39852a29782f0d"),
    ],
)
def test_the_fingerprint_of_a_tombola_object_never_changes(thing: Any, expected: str) -> None:
    """Keys of stored runs contain these values: if one changes, finished trainings are not found, and run again. A
    renamed object needs an entry in `former_names`."""
    assert fingerprint(thing) == expected


@pytest.mark.parametrize(
    ("owner", "former", "present"),
    [
        (Store(Path("store")), "recall", "load_state"),
        (load_recipe("digits"), "no_ticket", "no_ticket_reason"),
        (load_recipe("digits"), "controlled", "trains_verdict_control"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_a_former_member_hands_on_the_present_one_with_a_warning(owner: object, former: str, present: str) -> None:
    with pytest.warns(DeprecationWarning, match=f"{former} is deprecated.*{present}"):
        assert getattr(owner, former) == getattr(owner, present)
