"""What `recipe_index.json` should have. `python -m tombola.experiments.recipe_index_contents` writes it again."""

from __future__ import annotations

import inspect
import json
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import torch
from pydantic import BaseModel

from tombola.experiments.experiment import count_runs
from tombola.experiments.methods import METHODS
from tombola.experiments.recipe import Recipe, load_recipe
from tombola.experiments.recipe_files import recipes
from tombola.experiments.recipe_index import RecipeSize
from tombola.experiments.sections import ControlSection
from tombola.graph.recording import record
from tombola.pruning.mask import Mask
from tombola.pruning.multiply_adds import multiply_adds
from tombola.pruning.scopes import SCOPES
from tombola.pruning.scores import SCORES
from tombola.pruning.structures import STRUCTURES
from tombola.studies.controls import CONTROLS
from tombola.zoo.datasets import DATASETS, IMAGE_DATASETS
from tombola.zoo.models import MODELS, build, describe
from tombola.zoo.models.description import Start

DATA = {
    "digits": ((8, 8), 1197, 10),
    "mnist": ((28, 28), 60_000, 10),
    "cifar10": ((3, 32, 32), 50_000, 10),
    "imagenet": ((3, 256, 256), 1_281_167, 1000),
    "tiny-imagenet": ((3, 64, 64), 100_000, 200),
}
"""The shape of an example, the number of training examples, and that of classes, of the datasets of these recipes."""

TITLES = {"digits": "digits", "mnist": "MNIST", "cifar10": "CIFAR-10", "lenet-300-100": "LeNet-300-100", "vit": "ViT"}
TITLES |= {"imagenet": "ImageNet", "tiny-imagenet": "TinyImageNet"}
TITLES |= {"resnet-18": "ResNet-18", "resnet-50": "ResNet-50"}
TITLES |= {"resnet": "ResNet", "resnet-20": "ResNet-20", "vgg-16": "VGG-16", "vgg-19": "VGG-19"}

CHOICES = {
    "data.name": [*DATASETS, *IMAGE_DATASETS],
    "transfer.data.name": [*DATASETS, *IMAGE_DATASETS],
    "model.name": [*MODELS],
    "search.method": [*METHODS],
    "search.scope": [*SCOPES],
    "search.score": [*SCORES],
    "search.structure": [*STRUCTURES],
    "rewind.to": ["auto"],
    "verdict.control": [*CONTROLS],
}
"""Values that are names in a table, or that are not a `Literal` in the models."""


def index_contents() -> dict[str, Any]:
    """The keys of recipes, with their closed choices, and the sizes of the recipes that come with tombola."""
    keys = dict(_keys(Recipe, ""))
    keys |= {f"controls.{name}": [] for name in CONTROLS}
    tables = [load_recipe(name) for name in recipes()]
    options = {name for factory in MODELS.values() for name in inspect.signature(factory).parameters}
    keys |= {f"model.{option}": [] for option in options - {"layers", "inputs", "classes"}}
    sizes = {recipe.name: _size(recipe)._asdict() for recipe in tables}
    return {"keys": {key: CHOICES.get(key, values) for key, values in sorted(keys.items())}, "sizes": sizes}


def _keys(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, list[str]]]:
    for name, field in model.model_fields.items():
        kinds = [*_alternatives(field.annotation)]
        sections = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if sections and sections[0] is not ControlSection and sections[0].model_fields:
            yield from _keys(sections[0], f"{prefix}{name}.")
        elif not sections and get_origin(field.annotation) is not dict:
            yield f"{prefix}{name}", [value for kind in kinds for value in _choices(kind)]


def _alternatives(annotation: Any) -> Iterator[Any]:
    """The members of a union, or the type itself."""
    if get_origin(annotation) in (Union, types.UnionType):
        for member in get_args(annotation):
            yield from _alternatives(member)
    else:
        yield annotation


def _choices(kind: Any) -> list[str]:
    if kind is bool:
        return ["true", "false"]
    return [str(value) for value in get_args(kind)] if get_origin(kind) is Literal else []


def _title(name: str) -> str:
    return TITLES.get(name, name.capitalize())


def _size(recipe: Recipe) -> RecipeSize:
    (*channels, height, width), given, classes = DATA[recipe.data.name]
    size = recipe.data.resized_crop or recipe.data.size
    inputs = (*channels, size or height, size or width)
    network = build(Start(network=describe(recipe.model.name, recipe.model.options, inputs, classes), seed=0))
    graph = record(network.eval(), torch.zeros(1, *inputs))
    examples = round((given - recipe.data.validation) * recipe.data.fraction)
    iterations = recipe.training.length.iterations_of(examples, recipe.training.batch_size)
    evaluations = 0  # of networks between trained ones
    if stability := recipe.stability:
        evaluations = recipe.replicates * len(stability.candidates) * stability.pairs * stability.points
    if recipe.pools:
        evaluations += recipe.replicates * recipe.pools.count_runs(recipe.search.levels)
    return RecipeSize(
        title=f"{_title(recipe.model.name)} on {_title(recipe.data.name)}",
        data=recipe.data.name,
        examples=examples,
        weights=Mask.full(network).size,
        trainings=count_runs(recipe) - evaluations,
        steps=iterations * recipe.training.batch_size,
        multiply_adds=sum(multiply_adds(graph, 1).values()),
    )


if __name__ == "__main__":
    parts = {
        part: ",\n".join(f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in table.items())
        for part, table in index_contents().items()
    }
    text = ",\n".join(f' "{part}": {{\n{lines}\n }}' for part, lines in parts.items())
    Path(__file__).with_name("recipe_index.json").write_text(f"{{\n{text}\n}}\n", encoding="utf-8")
