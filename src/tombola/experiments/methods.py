"""Methods: the other ways to a ticket, made of a recipe; `[search] method` names them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from tombola.experiments.method_options import (
    EarlyBirdSection,
    EdgePopupSection,
    GradualSection,
    RiglSection,
    SetSection,
)
from tombola.experiments.recipe import Recipe
from tombola.pruning.mask import Mask
from tombola.pruning.pruner import Pruner
from tombola.pruning.ranking import keep_best
from tombola.pruning.scopes import Counts, weights_left
from tombola.pruning.scores.growth import gradient
from tombola.pruning.scores.inputs import ScoreInputs
from tombola.pruning.scores.weights import magnitude, uniform
from tombola.runs.outcome import Outcome
from tombola.runs.run import Run
from tombola.studies.dynamic import Rewiring, annealed, dynamic_search
from tombola.studies.early_bird import Drawing, early_bird_search
from tombola.studies.gradual import gradual_search
from tombola.studies.request import RunRequest, Study
from tombola.studies.search import Prune
from tombola.studies.segments import Scores, evenly
from tombola.studies.supermask import supermask_search
from tombola.utils.errors import InputError
from tombola.utils.seeds import Purpose, derive
from tombola.zoo.models import build, describe
from tombola.zoo.models.supermask import scores_of


@dataclass(frozen=True)
class MethodContext:
    """What a method has to work with, beside the dense network's run."""

    recipe: Recipe
    replicate: int
    pruner: Pruner
    prune: Prune
    """As in the search by rounds."""
    grounds: Callable[[Outcome, Run, int], ScoreInputs]
    """Of scores at a level."""
    batches: Callable[[Run, int, int], Iterator[Any]]
    """(a run, the first iteration, how many) -> the examples it sees there."""

    def seed(self, purpose: Purpose, *where: int) -> int:
        """Of this replicate."""
        return derive(self.recipe.seed, purpose, self.replicate, *where)

    def keeps(self, dense: Mask) -> Counts:
        """How many weights each group keeps at level 1."""
        return self.pruner.scope.keeps(self.pruner.left(dense))

    def drawn(self, dense: Mask, purpose: Purpose) -> Mask:
        """A random mask with as many weights."""
        return keep_best(uniform(dense, self.seed(purpose)), dense, self.keeps(dense))


def gradual(means: MethodContext, dense: Run) -> Study[list[RunRequest]]:
    """Gradual pruning. Raises `InputError` where it would end with the training."""
    options, length = means.recipe.gradual or GradualSection(), dense.last

    def prune(outcome: Outcome, segment: Run, counts: Counts) -> Mask:
        return means.pruner.prune_to(means.grounds(outcome, segment, 1), counts)

    end = round(options.end * length)
    if end >= length:
        raise InputError(
            f"gradual.end: {options.end:g} of {length} iterations is their end; the last mask is to be trained"
        )
    at = _changes("gradual.changes", round(options.begin * length), end, options.changes)
    return gradual_search(dense, at, means.pruner.left(dense.mask), means.keeps(dense.mask), prune)


def sparse_evolution(means: MethodContext, dense: Run) -> Study[list[RunRequest]]:
    """SET."""
    options = means.recipe.set or SetSection()

    def at_random(outcome: Outcome, segment: Run, k: int) -> Mapping[str, Tensor]:  # noqa: ARG001
        return uniform(segment.mask, means.seed(Purpose.GROWTH, k))

    at = _changes("set.changes", 0, round(options.end * dense.last), options.changes, before=True)
    rewiring = Rewiring(at, lambda k: options.fraction, _dropped(means), at_random)  # noqa: ARG005
    return dynamic_search(dense, means.drawn(dense.mask, Purpose.SPARSE_START), rewiring)


def rigged(means: MethodContext, dense: Run) -> Study[list[RunRequest]]:
    """RigL."""
    options = means.recipe.rigl or RiglSection()
    end = round(options.end * dense.last)

    def slope(outcome: Outcome, segment: Run, k: int) -> Mapping[str, Tensor]:
        return gradient(replace(means.grounds(outcome, segment, 1), _batches=lambda: means.batches(segment, k, 1)))

    at = _changes("rigl.changes", 0, end, options.changes, before=True)
    rewiring = Rewiring(at, annealed(options.fraction, end), _dropped(means), slope)
    return dynamic_search(dense, means.drawn(dense.mask, Purpose.SPARSE_START), rewiring)


def early_bird(means: MethodContext, dense: Run) -> Study[list[RunRequest]]:
    """Early-bird tickets. Raises `InputError` where any two masks would agree."""
    options, keeps = means.recipe.early_bird or EarlyBirdSection(), means.keeps(dense.mask)
    pruned = {group: left for group, left in means.pruner.left(dense.mask).items() if keeps[group] < left}
    layers = tuple(name for group in pruned for name in group)
    apart = {group: 2 * min(keeps[group], left - keeps[group]) / left for group, left in pruned.items()}
    weights = weights_left(dense.mask, list(pruned))
    furthest = round(sum(apart[group] * weights[group] for group in pruned) / max(1, sum(weights.values())), 9)
    if furthest <= options.tolerance:
        raise InputError(
            f"early_bird.tolerance: any two masks that leave so many weights are within {furthest:.2g}; should be "
            f"less, not {options.tolerance:g}"
        )
    at = _changes("early_bird.draws", 0, dense.last, options.draws, before=options.go_on)
    drawing = Drawing(at, options.window, options.tolerance, options.go_on, layers)
    return early_bird_search(dense, drawing, means.prune)


def edge_popup(means: MethodContext, dense: Run) -> Study[list[RunRequest]]:
    """Supermasks by edge-popup. Raises `InputError` for a network that cannot be scored."""
    counts, scoring = means.keeps(dense.mask), scored(means, dense)
    build(scoring.start)

    def found(outcome: Outcome) -> Mask:
        return keep_best(scores_of(outcome.final), dense.mask, counts)

    return supermask_search(dense, scoring, found, means.drawn(dense.mask, Purpose.UNTRAINED))


def scored(means: MethodContext, dense: Run) -> Run:
    """The run that trains scores of the dense network's weights, as many of which are there as level 1 keeps."""
    network = dense.start.network
    keep = {name: count for (name,), count in means.keeps(dense.mask).items()}
    options: dict[str, Any] = {"of": network.name, "keep": keep, "options": network.options or None}
    described = describe("supermask", options | {"source": network.source}, network.inputs, network.classes)
    training = dense.training
    if (lr := (means.recipe.edge_popup or EdgePopupSection()).lr) is not None:
        training = training.model_copy(update={"lr": lr})
    start = dense.start.model_copy(update={"network": described})
    return dense.model_copy(update={"start": start, "mask": Mask({}), "training": training})


METHODS: dict[str, Callable[[MethodContext, Run], Study[list[RunRequest]]]] = {
    "gradual": gradual,
    "set": sparse_evolution,
    "rigl": rigged,
    "early-bird": early_bird,
    "edge-popup": edge_popup,
}
"""By their names in recipes. The search in rounds and in one shot are in `tombola.studies.search`."""


def extra_runs(recipe: Recipe) -> int:
    """How many runs a replicate's search asks for besides its tickets; of early birds, at most."""
    changes = {
        "gradual": (recipe.gradual or GradualSection()).changes,
        "set": (recipe.set or SetSection()).changes,
        "rigl": (recipe.rigl or RiglSection()).changes,
        "early-bird": (recipe.early_bird or EarlyBirdSection()).draws + 1,  # the last is asked for twice
        "edge-popup": 3,
    }
    return changes.get(recipe.search.method, 0)


def _dropped(means: MethodContext) -> Scores:
    return lambda outcome, segment, k: magnitude(means.grounds(outcome, segment, 1))  # noqa: ARG005


def _changes(where: str, begin: int, end: int, changes: int, *, before: bool = False) -> list[int]:
    """The iterations of so many changes, equally far apart, the last of them at the end; or as long `before` it."""
    most = max(0, end - begin - before)
    if changes > most:
        raise InputError(f"{where}: from {begin} to iteration {end} there is room for {most}, not for {changes}")
    return evenly(begin, end, changes + before)[:changes]
