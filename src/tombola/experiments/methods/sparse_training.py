"""Search methods of sparse training: masks that change, or are learned, while the network trains."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

from pydantic import Field, model_validator
from torch import Tensor

from tombola.experiments.methods.search_method import MethodContext, SearchMethod, parametrized_run, spaced_iterations
from tombola.pruning.constant_fan_in import random_constant_fan_in, update_constant_fan_in
from tombola.pruning.layers import display_name
from tombola.pruning.mask import Mask
from tombola.pruning.prunable_layers import layers_of
from tombola.pruning.random_mask import random_mask
from tombola.pruning.ranking import keep_best
from tombola.pruning.scopes import Counts, ErdosRenyi, allocate, weights_left
from tombola.pruning.scores.growth import gradient
from tombola.pruning.scores.weights import magnitude, uniform
from tombola.runs.outcome import Outcome
from tombola.runs.run import Run
from tombola.studies.acdc import acdc_search
from tombola.studies.dynamic_masks import SegmentScores, UpdateMask, cosine_decay, dynamic_search
from tombola.studies.granet import granet_search
from tombola.studies.parametrized_search import parametrized_search
from tombola.studies.request import RunRequest, Study
from tombola.utils.errors import InputError
from tombola.utils.frozen_model import FrozenModel
from tombola.utils.seeds import Purpose
from tombola.zoo.models import build
from tombola.zoo.models.parametrizations.soft_threshold import threshold_of
from tombola.zoo.models.reparametrization import original_name


class SetSection(FrozenModel):
    """`[set]`: sparse training in which small weights are replaced by random ones."""

    fraction: float = Field(default=0.3, gt=0, le=1)
    """ζ, the fraction of each layer's weights that one update replaces."""
    end: float = Field(default=1.0, gt=0, le=1)
    """The fraction of the training after which the mask is fixed."""
    changes: int = Field(default=20, ge=1)
    """The number of mask updates, evenly spaced."""


class RiglSection(SetSection):
    """`[rigl]`: sparse training in which small weights are replaced where gradients are large. `fraction` is α, which
    decays to 0 along half a cosine; `end` is T_end."""

    end: float = Field(default=0.75, gt=0, le=1)


def _set(context: MethodContext, dense: Run) -> Study[list[RunRequest]]:
    def random(outcome: Outcome, segment: Run, k: int) -> Mapping[str, Tensor]:  # noqa: ARG001
        return uniform(segment.mask, context.derive_seed(Purpose.GROWTH, k))

    return _dynamic("set", context, dense, lambda _: context.options.fraction, random)


def _rigl(context: MethodContext, dense: Run) -> Study[list[RunRequest]]:
    return _dynamic("rigl", context, dense, _decaying_fraction(context.options, dense), _gradients(context))


def _dynamic(
    section: str,
    context: MethodContext,
    dense: Run,
    fraction: Callable[[int], float],
    grow: SegmentScores,
    start: Mask | None = None,
    update: UpdateMask | None = None,
) -> Study[list[RunRequest]]:
    options: SetSection = context.options
    end = round(options.end * dense.last)
    at = spaced_iterations(f"{section}.changes", 0, end, options.changes, before_end=True)
    start = start or context.random_mask(dense.mask, Purpose.SPARSE_START)
    return dynamic_search(dense, start, at, fraction, _magnitudes(context), grow, update)


def _magnitudes(context: MethodContext) -> SegmentScores:
    return lambda outcome, segment, _k: magnitude(context.score_inputs(outcome, segment, 1))


def _gradients(context: MethodContext) -> SegmentScores:
    def gradients(outcome: Outcome, segment: Run, k: int) -> Mapping[str, Tensor]:
        inputs = context.score_inputs(outcome, segment, 1)
        return gradient(replace(inputs, _batches=lambda: context.training_batches(segment, k, 1)))

    return gradients


def _decaying_fraction(options: SetSection, dense: Run) -> Callable[[int], float]:
    return cosine_decay(options.fraction, round(options.end * dense.last))


class SriglSection(RiglSection):
    """`[srigl]`: RigL in which all neurons of a layer have the same number of weights, or none."""

    ablation: float = Field(default=0.3, ge=0, le=1)
    """γ_sal: a neuron with fewer salient weights than this fraction of its layer's fan-in loses all of them; 0 keeps
    all neurons."""


def _srigl(context: MethodContext, dense: Run) -> Study[list[RunRequest]]:
    options: SriglSection = context.options
    _check_rows_are_neurons(dense)
    seed = context.derive_seed(Purpose.SPARSE_START)
    start = random_constant_fan_in(dense.mask, context.kept_counts(dense.mask), seed)
    update = partial(update_constant_fan_in, ablation=options.ablation)
    fraction = _decaying_fraction(options, dense)
    return _dynamic("srigl", context, dense, fraction, _gradients(context), start, update)


def _check_rows_are_neurons(dense: Run) -> None:
    """Refuse layers whose first dimension is not their outputs."""
    for layer in layers_of(build(dense.start), dense.mask):
        if layer.kind not in ("linear", "convolution", "projection"):
            raise InputError(
                f"srigl: needs linear and convolutional layers; leave out {layer.label}, which is a {layer.kind}"
            )


class AcdcSection(FrozenModel):
    """`[acdc]`: training that alternates between the dense network and a pruned one."""

    begin: float = Field(default=0.1, gt=0, lt=1)
    """When the dense warm-up ends, as a fraction of the training."""
    end: float = Field(default=0.85, gt=0, lt=1)
    """When the last sparse phase begins."""
    changes: int = Field(default=8, ge=2)
    """The number of sparse phases, the last included; phases between `begin` and `end` have equal lengths."""

    @model_validator(mode="after")
    def _check(self) -> AcdcSection:
        if self.begin >= self.end:
            raise ValueError(f"begin should be before end, {self.end:g}, not {self.begin:g}")
        return self


def _acdc(context: MethodContext, dense: Run) -> Study[list[RunRequest]]:
    options: AcdcSection = context.options
    begin, end = (_iteration("acdc", name, getattr(options, name), dense) for name in ("begin", "end"))
    at = [begin, *spaced_iterations("acdc.changes", begin, end, 2 * options.changes - 2)]
    return acdc_search(dense, at, context.prune)


class GranetSection(RiglSection):
    """`[granet]`: gradual pruning whose steps also replace weights. `fraction` decays to 0 along half a cosine; the
    last change, the end of pruning, is at `end`."""

    fraction: float = Field(default=0.5, gt=0, le=1)
    """The fraction of each layer's remaining weights that one step replaces."""
    end: float = Field(default=0.75, gt=0, lt=1)
    density: float = Field(default=1.0, gt=0, le=1)
    """The fraction of weights that the training starts with, in a random mask by the scope `erk`; 1 is dense."""


def _granet(context: MethodContext, dense: Run) -> Study[list[RunRequest]]:
    options: GranetSection = context.options
    at = spaced_iterations("granet.changes", 0, _iteration("granet", "end", options.end, dense), options.changes)
    final, start = context.kept_counts(dense.mask), dense.mask
    if options.density < 1:
        sizes: Counts = {
            (name,): size for name, size in dense.mask.sizes.items() if any(name in group for group in final)
        }
        shapes = {group[0]: tuple(dense.mask.layers[group[0]].shape) for group in sizes}
        counts = ErdosRenyi(shapes, 1 - options.density).keeps(sizes)
        start = random_mask(dense.mask, dense.mask, counts, context.derive_seed(Purpose.SPARSE_START))
        for group, left in weights_left(start, [*final]).items():
            if left < final[group]:
                raise InputError(
                    f"granet.density: should leave {display_name(group[0])} at least the {final[group]:,} weights "
                    f"that it keeps, not {left:,}"
                )
    # The last change replaces nothing: the cosine has reached 0.
    fraction = cosine_decay(options.fraction, at[-1])
    return granet_search(dense, start, at, final, fraction, _magnitudes(context), _gradients(context))


class TopKastSection(FrozenModel):
    """`[top_kast]`: the forward pass uses the largest weights of each layer, the backward pass trains some more."""

    exploration: float = Field(default=1.0, ge=0)
    """M/D: how many more weights the backward pass trains, as a multiple of those in use."""
    penalty: float = Field(default=1e-4, ge=0)
    """λ, the coefficient of the exploration regularisation."""
    end: float = Field(default=0.75, gt=0, lt=1)
    """The fraction of the training after which the mask is fixed."""


def _top_kast(context: MethodContext, dense: Run) -> Study[list[RunRequest]]:
    counts, run = context.kept_counts(dense.mask), _top_kast_run(context, dense)

    def largest(outcome: Outcome) -> Mask:
        return keep_best(_magnitudes_of_originals(dense, outcome), dense.mask, counts)

    return parametrized_search(dense, run, largest)


def _top_kast_run(context: MethodContext, dense: Run) -> Run:
    options: TopKastSection = context.options
    sizes, layers = dense.mask.sizes, {}
    for (name,), keep in context.kept_counts(dense.mask).items():
        train = min(sizes[name], keep + round(options.exploration * keep))
        layers[name] = {"keep": keep, "train": train, "penalty": options.penalty}
    return parametrized_run(dense, "top-kast", layers).until(_iteration("top_kast", "end", options.end, dense))


class StrSection(FrozenModel):
    """`[str]`: each layer learns a threshold below which its weights are zero."""

    initial: float = -5.0
    """s at the beginning; the threshold is sigmoid(s)."""
    weight_decay: float = Field(default=1e-3, ge=0)
    """λ, the weight decay of weights and thresholds while thresholds are learned; a larger one prunes more."""
    end: float = Field(default=0.75, gt=0, lt=1)
    """The fraction of the training after which the mask is fixed."""


def _str(context: MethodContext, dense: Run) -> Study[list[RunRequest]]:
    counts, run = context.kept_counts(dense.mask), _str_run(context, dense)

    def thresholded(outcome: Outcome) -> Mask:
        magnitudes = _magnitudes_of_originals(dense, outcome)
        learned: Counts = {
            (name,): int((magnitudes[name] > threshold_of(outcome.final, name)).sum()) for name in _layers(counts)
        }
        total = sum(counts.values())
        return keep_best(magnitudes, dense.mask, learned_counts(learned, total, dense.mask.sizes))

    return parametrized_search(dense, run, thresholded)


def _str_run(context: MethodContext, dense: Run) -> Run:
    options: StrSection = context.options
    layers = {name: {"initial": options.initial} for name in _layers(context.kept_counts(dense.mask))}
    run = parametrized_run(dense, "soft-threshold", layers, {"weight_decay": options.weight_decay})
    return run.until(_iteration("str", "end", options.end, dense))


def learned_counts(learned: Counts, total: int, sizes: Mapping[str, int]) -> Counts:
    """Divide exactly `total` weights between layers in proportion to the learned numbers, at most the layer's size.
    An empty layer counts as one with a single weight, so that no layer is lost.

    >>> learned_counts({("fc1",): 30, ("fc2",): 10}, 20, {"fc1": 100, "fc2": 20})
    {('fc1',): 15, ('fc2',): 5}
    """
    return allocate(
        total, {group: max(1, n) for group, n in learned.items()}, {group: sizes[group[0]] for group in learned}
    )


def _layers(counts: Counts) -> list[str]:
    return [name for group in counts for name in group]


def _magnitudes_of_originals(dense: Run, outcome: Outcome) -> dict[str, Tensor]:
    """The magnitudes of the tensors that weights are computed from; of the weights that are not parametrized."""
    state = outcome.final
    originals = {name: original_name(name) for name in dense.mask}
    return {name: state[original if original in state else name].abs() for name, original in originals.items()}


def _iteration(section: str, name: str, fraction: float, dense: Run) -> int:
    """The iteration after this fraction of the training. Raises `InputError` if it is the first or the last."""
    found = round(fraction * dense.last)
    if not 0 < found < dense.last:
        raise InputError(
            f"{section}.{name}: should be within the training, which has {dense.last} iterations, not at {fraction:g}"
        )
    return found


class SparseTrainingSections(FrozenModel):
    """The sections of these methods, except for those that `Recipe` names."""

    acdc: AcdcSection | None = None
    """Options of `search.method = "acdc"`."""
    granet: GranetSection | None = None
    """Options of `search.method = "granet"`."""
    srigl: SriglSection | None = None
    """Options of `search.method = "srigl"`."""
    top_kast: TopKastSection | None = None
    """Options of `search.method = "top-kast"`."""
    # Here and not in `Recipe`, where the name would stand for the type in other annotations.
    str: StrSection | None = None
    """Options of `search.method = "str"`."""


_changing = partial(SearchMethod, mask_changes=True)
SPARSE_TRAINING = [
    _changing("set", _set, SetSection, lambda options: options.changes, own_criterion=True),
    _changing("rigl", _rigl, RiglSection, lambda options: options.changes, own_criterion=True),
    _changing(
        "srigl", _srigl, SriglSection, lambda options: options.changes, own_criterion=True, count_per_layer=True
    ),
    _changing("acdc", _acdc, AcdcSection, lambda options: 2 * options.changes - 1),
    _changing("granet", _granet, GranetSection, lambda options: options.changes, own_criterion=True),
    _changing(
        "top-kast",
        _top_kast,
        TopKastSection,
        lambda _: 1,
        own_criterion=True,
        count_per_layer=True,
        other_networks=lambda context, dense: [_top_kast_run(context, dense)],
    ),
    _changing(
        "str",
        _str,
        StrSection,
        lambda _: 1,
        own_criterion=True,
        other_networks=lambda context, dense: [_str_run(context, dense)],
    ),
]
