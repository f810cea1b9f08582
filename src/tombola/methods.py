"""Methods: the other ways to a ticket, made of a recipe; `[search] method` names them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from tombola.errors import InputError
from tombola.mask import Mask
from tombola.method_options import EarlyBirdSection, EdgePopupSection, GradualSection, RiglSection, SetSection
from tombola.outcome import Outcome
from tombola.pruning import Pruner
from tombola.ranking import keep_best
from tombola.recipe import Recipe
from tombola.run import Run
from tombola.scopes import Counts
from tombola.scores.grounds import Grounds
from tombola.scores.growth import gradient
from tombola.scores.weights import magnitude, uniform
from tombola.seeds import Purpose, derive
from tombola.studies import Ask, Study
from tombola.studies.dynamic import Rewiring, annealed, dynamic_search
from tombola.studies.early_bird import Drawing, early_bird_search
from tombola.studies.gradual import gradual_search
from tombola.studies.search import Prune
from tombola.studies.segments import Scores, evenly
from tombola.studies.supermask import supermask_search
from tombola.zoo.networks import describe
from tombola.zoo.networks.supermask import scores_of


@dataclass(frozen=True)
class Means:
    """What a method has to work with, beside the dense network's run."""

    recipe: Recipe
    replicate: int
    pruner: Pruner
    prune: Prune
    """As in the search by rounds."""
    grounds: Callable[[Outcome, Run, int], Grounds]
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


def gradual(means: Means, dense: Run) -> Study[list[Ask]]:
    """Gradual pruning."""
    options, length = means.recipe.gradual or GradualSection(), dense.last

    def prune(outcome: Outcome, segment: Run, counts: Counts) -> Mask:
        scores = means.pruner.score(means.grounds(outcome, segment, 1))
        return means.pruner.structure.keep_best(scores, segment.mask, counts)

    at = _changes("gradual", round(options.begin * length), round(options.end * length), options.changes)
    return gradual_search(dense, at, means.pruner.left(dense.mask), means.keeps(dense.mask), prune)


def sparse_evolution(means: Means, dense: Run) -> Study[list[Ask]]:
    """SET."""
    options = means.recipe.set or SetSection()

    def at_random(outcome: Outcome, segment: Run, k: int) -> Mapping[str, Tensor]:  # noqa: ARG001
        return uniform(segment.mask, means.seed(Purpose.GROWTH, k))

    at = _before("set", round(options.end * dense.last), options.changes)
    rewiring = Rewiring(at, lambda k: options.fraction, _dropped(means), at_random)  # noqa: ARG005
    return dynamic_search(dense, means.drawn(dense.mask, Purpose.SPARSE_START), rewiring)


def rigged(means: Means, dense: Run) -> Study[list[Ask]]:
    """RigL."""
    options = means.recipe.rigl or RiglSection()
    end = round(options.end * dense.last)

    def slope(outcome: Outcome, segment: Run, k: int) -> Mapping[str, Tensor]:
        return gradient(replace(means.grounds(outcome, segment, 1), _batches=lambda: means.batches(segment, k, 1)))

    rewiring = Rewiring(
        _before("rigl", end, options.changes), annealed(options.fraction, end), _dropped(means), slope
    )
    return dynamic_search(dense, means.drawn(dense.mask, Purpose.SPARSE_START), rewiring)


def early_bird(means: Means, dense: Run) -> Study[list[Ask]]:
    """Early-bird tickets. Raises `InputError` where any two masks would agree."""
    options = means.recipe.early_bird or EarlyBirdSection()
    drawing = Drawing(
        _changes("early_bird", 0, dense.last, options.draws), options.window, options.tolerance, options.go_on
    )
    return early_bird_search(dense, drawing, means.prune)


def edge_popup(means: Means, dense: Run) -> Study[list[Ask]]:
    """Supermasks by edge-popup."""
    counts = means.keeps(dense.mask)

    def found(outcome: Outcome) -> Mask:
        return keep_best(scores_of(outcome.final), dense.mask, counts)

    return supermask_search(dense, scored(means, dense), found, means.drawn(dense.mask, Purpose.UNTRAINED))


def scored(means: Means, dense: Run) -> Run:
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


METHODS: dict[str, Callable[[Means, Run], Study[list[Ask]]]] = {
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


def _dropped(means: Means) -> Scores:
    return lambda outcome, segment, k: magnitude(means.grounds(outcome, segment, 1))  # noqa: ARG005


def _changes(section: str, begin: int, end: int, changes: int) -> list[int]:
    """The iterations of so many changes, the last of them at the end."""
    if changes > end - begin:
        raise InputError(
            f"{section}: there are {end - begin} iterations from its beginning to its end, too few for {changes}"
        )
    return evenly(begin, end, changes)


def _before(section: str, end: int, changes: int) -> list[int]:
    """The same, the last of them as long before the end as they are apart."""
    return _changes(section, 0, end, changes + 1)[:-1]
