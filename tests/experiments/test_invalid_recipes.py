"""Mistakes in recipes that show before anything is trained."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from tests.support.errors import raises_input_error
from tests.support.recipes import tiny
from tests.support.studies import requests_of
from tombola.experiments.methods import METHODS
from tombola.experiments.recipe import Recipe
from tombola.experiments.recipe_experiment import RecipeExperiment


def search(method: str, **options: object) -> dict[str, object]:
    return {"search": {"levels": 1, "density": 0.2, "method": method} | options}


def not_a_module() -> int:
    return 3


class Broken(nn.Module):
    def __init__(self) -> None:
        raise RuntimeError("no such thing\nat all")


class WeightNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.utils.parametrizations.weight_norm(nn.Linear(64, 10))

    def forward(self, x):  # type: ignore[no-untyped-def]
        return self.fc(x.flatten(1))


class Lazy(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.LazyLinear(10))


class Flat(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(64, 10))


class Prefixed(Flat):
    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        return {f"model.{name}": tensor for name, tensor in super().state_dict(*args, **kwargs).items()}


class Incomplete(Flat):
    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        return {"1.weight": super().state_dict(*args, **kwargs)["1.weight"]}


class Doubled(Flat):
    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        return {name: 2 * tensor for name, tensor in super().state_dict(*args, **kwargs).items()}


class WithText(Flat):
    def get_extra_state(self) -> str:
        return "text"


class Refusing(Flat):
    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError("call save()")


class Unprunable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(10))

    def forward(self, x):  # type: ignore[no-untyped-def]
        return x.flatten(1)[:, :10] * self.scale


class Detached(Flat):
    def forward(self, x):  # type: ignore[no-untyped-def]
        return super().forward(x).detach()


class OnlyFloat32(Flat):
    def forward(self, x):  # type: ignore[no-untyped-def]
        return torch.zeros(len(x), 10).index_add(1, torch.arange(10), super().forward(x))


class Embedded(nn.Module):
    """Takes the numbers of tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.output = nn.Embedding(17, 3), nn.Linear(192, 10)

    def forward(self, x):  # type: ignore[no-untyped-def]
        return self.output(self.embedding(x.long()).flatten(1))


def named(model: str, **options: Any) -> dict[str, Any]:
    return {"model": {"name": model if ":" in model else f"{__name__}:{model}", **options}}


def levels(count: int, **options: Any) -> dict[str, Any]:
    return {"search": {"levels": count} | options}


@pytest.mark.parametrize(
    ("changes", "facts"),
    [
        ({"verdict__looks": [5, 10]}, ["replicates", "verdict.looks", "5, 10", "not 2"]),
        ({"verdict__looks": [5, 5]}, ["verdict.looks", "increase"]),
        ({"verdict__looks": [2]}, ["verdict.looks.0", "3"]),
        ({"verdict__looks": []}, ["verdict.looks", "1 item"]),
        ({"data__name": "digit"}, ['"digit"', '"digits"?']),
        ({"data__validation": 1197}, ["data.validation", "1,196", "1,197"]),
        ({"training__batch_size": 998}, ["training.batch_size", "997", "998"]),
        ({"model__name": "lenet-300"}, ['"lenet-300"', '"lenet-300-100"?']),
        ({"model__width": [3]}, ['"width"', '"widths"?']),
        ({"model": {"name": "mlp"}}, ["model.widths", "required"]),
        ({"model__widths": "wide"}, ["model.widths", "list"]),
        ({"model__widths": [0]}, ["model.widths.0", "greater than 0", "not 0"]),
        ({"model__init": "normal"}, ["model.init", "'glorot-normal', 'kaiming-normal' or 'signed-constant'"]),
        ({"model__dropout": 1.5}, ["model.dropout", "less than 1", "1.5"]),
        (named("no_such_module:Network"), ["no_such_module:Network"]),
        (named("torch.nn:Lienar"), ["Lienar"]),
        (named("torch.nn:Linear"), ["torch.nn:Linear", "argument"]),
        (named("torch:zeros", size=[3]), ["torch:zeros"]),
        (named("Broken"), [f"{__name__}:Broken", "no such thing"]),
        (named("WeightNorm"), ["fc.weight"]),
        (named("Lazy"), [f"{__name__}:Lazy", "1.weight", "nn.Linear"]),
        (named("Prefixed"), [f"{__name__}:Prefixed", "state_dict", "1.weight"]),
        (named("Incomplete"), ["state_dict", "1.bias"]),
        (named("Doubled"), ["state_dict", "1.weight"]),
        (named("WithText"), ["state_dict", "_extra_state"]),
        (named("Refusing"), ["state_dict", "call save()"]),
        (named("not_a_module"), ["int", "torch.nn.Module"]),
        (named("torch.nn:Linear", in_features=8, out_features=4), ["(2, 10)"]),
        (named("torch.nn:Linear", in_features=9, out_features=4), ["2 examples", "(8, 8)"]),
        (named("Unprunable"), ["model.name", f"{__name__}:Unprunable"]),
        (named("Detached"), ["Detached", "gradient"]),
        (named("OnlyFloat32") | {"training__precision": "bf16"}, ["OnlyFloat32", "bf16"]),
        (named("Embedded") | {"training__mixup": 0.4}, ["training.mixup", "Embedded", "differentiable"]),
        (named("Embedded") | {"baseline": {"mixup": [0.4]}}, ["baseline.mixup", "Embedded", "differentiable"]),
        ({"search__levels": 40}, ["search.levels", "at most"]),
        (levels(9, rate=0.6), ["search.levels", "output.weight", "100 weights", "level 6"]),
        (levels(5, rate=0.6, structure="neurons"), ["search.levels", "level 4", "at most 3"]),
        ({"search__leave_out": ["fc9"]}, ["search.leave_out", '"fc9"', '"fc2"?']),
        ({"search__leave_out": ["*"]}, ["search.leave_out"]),
        ({"search__rates": {"outptu": 0.1}}, ["search.rates", '"outptu"', '"output"?']),
        (levels(1, rate=0.5, structure="channels"), ["search.structure", "channels"]),
        (levels(1, rate=0.5, structure="heads"), ["search.structure", "heads"]),
        (levels(1, rate=0.5, round_to=8), ["search.round_to", "channels"]),
        (levels(1, density=0.1, structure="neurons", cost="weights", leave_out=["fc2"]), ["search.density", "0."]),
        (levels(1, rate=0.5, structure="neurons", cost="watts"), ["search.cost", "macs"]),
        (levels(1, rate=0.5, structure="2:4"), ["search.structure", "2:4", "output", "10"]),
        ({"rewind": {"to": "60it"}}, ["rewind.to", "60it"]),
        (
            {"rewind": {"to": "auto"}, "stability": {"candidates": ["0it", "9ep"]}},
            ["stability.candidates", "60it", "9ep"],
        ),
        (
            {"stability": {"candidates": ["20it", "10it", "10it"]}},
            ["stability.candidates", "order", "20it, 10it, 10it"],
        ),
        ({"stability": {"pairs": 2}}, ["stability.candidates", "tickets"]),
        ({"stability": {"tickets": True}, "rewind": {"to": "auto"}}, ["rewind.to", "candidates", "[stability]"]),
        *(
            (changes | {"stability": {"tickets": True}}, ["stability.tickets", "lottery tickets", why])
            for changes, why in (
                ({"rewind": {"method": "learning-rate"}}, "trained longer"),
                (search("gradual"), "mask changed while training"),
                (search("early-bird") | {"early_bird": {"go_on": True}}, "not rewound"),
            )
        ),
        ({"training__warmup": "60it"}, ["training.warmup", "60it"]),
        (
            {"training__schedule": "step", "training__milestones": ["2ep", "9it"]},
            ["training.milestones", "order", "60it", "2ep, 9it"],
        ),
        ({"gradual": {"changes": 2}}, ["gradual", "iterative"]),
        ({"search__method": "gradual"}, ["search.levels", "1", "gradual", "3"]),
        (search("gradual") | {"rewind": {"to": "5it"}}, ["rewind.to", "0it", "5it"]),
        (search("gradual") | {"rewind": {"method": "fine-tuning"}}, ["rewind.method", "weights"]),
        (search("gradual") | {"gradual": {"begin": 0.9}}, ["gradual", "begin", "0.75", "0.9"]),
        (search("gradual") | {"gradual": {"changes": 46}}, ["gradual.changes", "45", "46"]),
        (search("gradual") | {"gradual": {"end": 0.999}}, ["gradual.end", "0.999", "60"]),
        (search("set") | {"set": {"changes": 60}}, ["set.changes", "59", "60"]),
        (search("set", rounds=2), ["search.rounds", "set"]),
        (search("edge-popup", rounds=2), ["search.rounds", "edge-popup"]),
        (search("edge-popup", scope="global"), ["search.scope", "layer", "erk"]),
        (search("rigl", score="random"), ["search.score", "rigl", "random"]),
        (search("rigl", structure="neurons"), ["search.structure", "rigl", "neurons"]),
        (search("early-bird") | {"early_bird": {"draws": 4}}, ["early_bird", "draws", "window", "5", "4"]),
        ({"search__method": "rigl", "search__one_shot": True}, ["one_shot", "rigl"]),
        ({"search__method": "gradul"}, ["search.method", 'did you mean "gradual"']),
        ({"controls": {"rewound": 1}}, ["controls.rewound"]),
        (search("early-bird") | {"controls": {"rewound": 1}}, ["controls.rewound"]),
        (search("one-shot") | {"controls": {"one_shot": 1}}, ["controls.one_shot"]),
    ],
)
def test_mistakes_are_named_before_anything_is_trained(changes: dict[str, Any], facts: list[str]) -> None:
    with raises_input_error(*facts):
        RecipeExperiment(tiny(**changes))


class Usual(Flat):
    """With a tensor as extra state, a buffer that is not a number yet, and one that no state has."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.full((2,), torch.nan))
        self.register_buffer("cache", torch.zeros(1), persistent=False)

    def get_extra_state(self) -> torch.Tensor:
        return torch.ones(3)

    def set_extra_state(self, state: torch.Tensor) -> None:
        pass


def test_usual_states_are_accepted() -> None:
    RecipeExperiment(tiny(**named("Usual")))


def test_one_shot_by_either_name_requests_the_same_runs() -> None:
    ways = [{"method": "one-shot"}, {"one_shot": True}]
    one, other = (
        requests_of(RecipeExperiment(tiny(search={"levels": 2, "rate": 0.4} | way)).study(0)) for way in ways
    )
    assert one == other


def test_every_method_with_options_has_its_section_in_recipes() -> None:
    for method in METHODS.values():
        if method.options is not None:
            recipe = tiny(**search(method.name))
            assert Recipe.model_fields[method.section].annotation == method.options | None
            assert recipe.method_options == method.options()
            assert recipe.search_method is method
