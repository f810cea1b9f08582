"""RecipeWorkload: a recipe with its data loaded and its network built, so that mistakes are found before training."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from tombola.engines.optimizer_trial import describe_optimizer
from tombola.engines.precision import autocast
from tombola.experiments.recipe import Recipe
from tombola.experiments.sections import SearchSection
from tombola.pruning.mask import State
from tombola.pruning.network_state import persistent_tensors
from tombola.pruning.options import RATE
from tombola.pruning.prunable_network import PrunableNetwork
from tombola.pruning.pruner import Pruner
from tombola.pruning.scores.losses import Loss, cross_entropy
from tombola.runs.initial_state import StateLoader, initial_state, masked_network
from tombola.runs.run import BaseRun, Precision, Run, Training
from tombola.utils.duration import Duration
from tombola.utils.errors import InputError
from tombola.utils.random_state import preserve_rng_state
from tombola.utils.seeds import Purpose, derive
from tombola.utils.text import first_line
from tombola.zoo.datasets import DATASETS, IMAGE_DATASETS, load, prepare
from tombola.zoo.datasets.description import SHUFFLE_BUFFER, Data
from tombola.zoo.datasets.split import check_inputs, count_training_examples
from tombola.zoo.datasets.streaming.streamed_dataset import has_blocks
from tombola.zoo.datasets.suspicions import suspicions
from tombola.zoo.models import build, describe
from tombola.zoo.models.description import Network, Start

log = logging.getLogger(__name__)


CPU = torch.device("cpu")

SCORED_BATCHES = 20
"""The number of batches for scores that need training examples."""


@dataclass(frozen=True)
class RecipeWorkload:
    """A model of the zoo, or one by import path, that is trained on a dataset. See `Workload`."""

    recipe: Recipe
    template: Run
    """The dense network's run, without the seeds of a replicate."""
    rewind_to: int | None
    """The iteration that tickets are rewound to; None if stability decides."""
    candidates: list[int]
    """The iterations whose stability is measured."""
    pruner: Pruner
    prunable: PrunableNetwork
    data_dir: str | Path | None
    other_trainings: list[Training] = field(default_factory=list)
    """The trainings of `[baseline]`, with durations in iterations."""
    loss: Loss = cross_entropy
    device: torch.device = CPU
    generators: tuple[()] = ()

    @property
    def matrix_weights(self) -> int:
        """The number of all matrix weights of the network, prunable or not."""
        return self.prunable.matrix_weights

    def dense(self, replicate: int) -> Run:
        """The dense network's run. Each replicate has its own initial weights, validation split and batch order."""

        def seeded(purpose: Purpose) -> dict[str, int]:
            return {"seed": derive(self.recipe.seed, purpose, replicate)}

        start = self.template.start.model_copy(update=seeded(Purpose.WEIGHTS))
        data = self.template.data.model_copy(update=seeded(Purpose.SPLIT))
        return self.template.model_copy(update={"start": start, "data": data} | seeded(Purpose.TRAINING))

    def baselines(self, replicate: int) -> list[Run]:
        dense = self.dense(replicate)
        return [dense.model_copy(update={"training": training}) for training in self.other_trainings]

    def initial_state(self, start: Start, load_state: StateLoader) -> State:
        return initial_state(start, load_state)

    def masked_state(self, run: BaseRun, load_state: StateLoader) -> State:
        return masked_network(run, load_state).state_dict()

    def trained_network(self, run: BaseRun, state: State) -> Callable[[], nn.Module]:
        def trained() -> nn.Module:
            network = build(run.start)
            network.load_state_dict(state)
            run.mask.apply_(network)
            return network

        return trained

    def score_batches(self, run: BaseRun) -> Callable[[], Iterable[Any]]:
        assert isinstance(run, Run)
        return lambda: self.training_batches(run, run.begin, SCORED_BATCHES)

    def training_batches(self, run: Run, first: int, count: int) -> Iterator[tuple[Tensor, Tensor]]:
        train = prepare(run.data, self.data_dir).train
        order = train.order(run.seed, run.training.batch_size)
        train.read_ahead(order, first, count, first + count)
        for indices in order.batches(first, count):
            yield train[indices]


def set_up(recipe: Recipe, data_dir: str | Path | None = None) -> RecipeWorkload:
    """Load the data and build the network of `recipe` once.

    Raises `InputError` for unknown names, missing or unsuitable data, a network that does not take the data, and
    schedules that do not fit the training or leave a layer empty.
    """
    dataset = load(recipe.data.name, data_dir, recipe.data.columns)
    examples = count_training_examples(dataset.y_train, recipe.data.validation, recipe.data.fraction)
    own, *others = recipe.dense_trainings
    training = _in_iterations("training", own, examples, len(dataset.y_train))
    other_trainings = [_in_iterations("baseline", other, examples, len(dataset.y_train)) for other in others]

    def iteration(option: str, length: Duration) -> int:
        found = length.iterations_of(examples, training.batch_size)
        if found >= training.length.iterations:
            raise InputError(
                f"{option}: should be before the end of training, {recipe.training.length}, not {length}"
            )
        return found

    rewind_to = iteration("rewind.to", recipe.rewind.to) if isinstance(recipe.rewind.to, Duration) else None
    lengths = recipe.stability.candidates if recipe.stability else []
    candidates = [iteration("stability.candidates", length) for length in lengths]
    if candidates != sorted(set(candidates)):
        raise InputError(f"stability.candidates: should be in order, not {', '.join(map(str, lengths))}")
    built_in = recipe.data.name in (*DATASETS, *IMAGE_DATASETS)
    for suspicion in dataset.notes if built_in else suspicions(dataset, recipe.data.scale):
        log.warning('dataset "%s": %s', recipe.data.name, suspicion)
    data = Data(**recipe.data.model_dump(), digest=dataset.digest, seed=0)
    if not has_blocks(dataset):  # so that it does not change the key where it changes nothing
        data = data.model_copy(update={"shuffle_buffer": SHUFFLE_BUFFER})
    check_inputs(dataset, data)
    network = describe(recipe.model.name, recipe.model.options, data.shape_of(dataset.inputs), dataset.classes)
    start = Start(network=network, seed=0)
    model = build(start)
    _check_state(model, network)
    smallest = min(each.batch_size for each in recipe.dense_trainings)
    for precision in dict.fromkeys(each.precision for each in recipe.dense_trainings):
        _check_output(model, network, smallest, precision)
    if any(each.mixup for each in recipe.dense_trainings):
        _check_mixup("training" if own.mixup else "baseline", model, network)
    generator = torch.Generator().manual_seed(0)
    example = torch.randn(2, *network.inputs, generator=generator)
    prunable = recipe.search.options.prunable(model, example)
    if not prunable.layers:
        raise InputError(f'model.name: "{recipe.model.name}" has no layer to prune: name others in search.include')
    pruner, mask = recipe.search.pruner(prunable), prunable.dense
    try:
        pruner.check_levels(mask, recipe.search.levels)
    except InputError as error:
        raise InputError(f"search.levels: {error}") from None
    template = Run(start=start, mask=mask, data=data, training=training, seed=0)
    found = (recipe, template, rewind_to, candidates, pruner, prunable, data_dir)
    return RecipeWorkload(*found, other_trainings)


def _in_iterations(section: str, training: Training, examples: int, in_dataset: int) -> Training:
    """The training with its durations in iterations. Raises `InputError`, which names the section of the recipe, if
    the training does not fit this number of training examples."""
    if examples < training.batch_size:
        raise InputError(
            f"{section}.batch_size: should be at most {examples:,}, the training examples left of "
            f"{in_dataset:,} by data.validation and data.fraction, not {training.batch_size:,}"
        )
    try:
        return describe_optimizer(training.in_iterations(examples))
    except InputError:  # a `ValueError` that names its option
        raise
    except ValueError as error:
        raise InputError(f"{section}.{error}") from None


def set_up_transfer(source: RecipeWorkload, data_dir: str | Path | None = None) -> RecipeWorkload:
    """The setup with the data that tickets are transferred to. Raises `InputError` as `set_up` does, and if its
    examples have another shape."""
    transfer = source.recipe.transfer
    assert transfer is not None
    search = source.recipe.search
    no_search = SearchSection(levels=0, rate=RATE, include=[*source.template.mask], leave_out=search.leave_out)
    update = {"data": transfer.data, "transfer": None, "stability": None, "baseline": None, "search": no_search}
    try:
        target = set_up(source.recipe.model_copy(update=update), data_dir)
    except InputError as error:
        raise InputError(f"transfer: {error}") from None
    network, start = source.template.start.network, target.template.start
    if start.network.inputs != network.inputs:
        raise InputError(
            f"transfer.data: examples should have the shape of the search's, {network.inputs}, not "
            f"{start.network.inputs}"
        )
    if start.network == network:
        return target
    start = start.model_copy(update={"like": network})
    return replace(target, template=target.template.model_copy(update={"start": start}))


def _check_state(model: nn.Module, described: Network) -> None:
    """Refuse a model whose parameters have no shape, or whose `state_dict` does not consist of the parameters and
    buffers under their own names, because engines restore and store these."""
    if lazy := next((name for name, tensor in model.named_parameters() if is_lazy(tensor)), None):
        raise InputError(
            f'model: "{described.name}" leaves the shape of {lazy} to its first batch; give the size, as with '
            "nn.Linear in place of nn.LazyLinear"
        )
    own = persistent_tensors(model)
    try:
        state = model.state_dict()
    except Exception as error:  # a user's model may raise anything
        raise InputError(f'model: "{described.name}" has no state_dict: {first_line(error)}') from error
    for name in [*own, *state]:
        if name not in own or name not in state or not _equal(own[name], state[name]):
            raise InputError(
                f'model: "{described.name}" has a state_dict that differs from its parameters and buffers in {name}; '
                "experiments need that of nn.Module (tombola.find_ticket does not)"
            )


def _equal(one: torch.Tensor, other: object) -> bool:
    return isinstance(other, torch.Tensor) and torch.equal(one.nan_to_num(), other.nan_to_num())


def _check_output(model: nn.Module, described: Network, batch_size: int, precision: Precision) -> None:
    """Refuse a model that does not return a number for each class and example, in evaluation or training mode, or
    that cannot be trained."""
    for training, examples in ((False, 2), (True, min(2, batch_size))):
        try:
            with preserve_rng_state(), torch.set_grad_enabled(training), autocast(precision, CPU):
                output: Any = model.train(training)(torch.zeros(examples, *described.inputs))
        except Exception as error:  # a user's model may raise anything
            raise InputError(
                f'model: "{described.name}" does not take {examples} examples of shape {described.inputs}'
                f"{' in training mode' if training else ''}{f' in {precision}' if precision != 'fp32' else ''}: "
                f"{first_line(error)}"
            ) from error
        shape, expected = tuple(getattr(output, "shape", ())), (examples, described.classes)
        if shape != expected:
            given = shape or type(output).__name__
            raise InputError(f'model: "{described.name}" gives {given} for {examples} examples, not {expected}')
        if training and not output.requires_grad:
            raise InputError(f'model: "{described.name}" cannot be trained: its output has no gradient')


def _check_mixup(section: str, model: nn.Module, described: Network) -> None:
    """Refuse mixup for a model that is not differentiable in its inputs, such as one that takes token numbers."""
    inputs = torch.zeros(2, *described.inputs, requires_grad=True)
    with preserve_rng_state():
        output: Tensor = model(inputs.clone())  # models may change it in place
    (gradient,) = torch.autograd.grad(output.sum(), inputs, allow_unused=True)
    if gradient is None:
        raise InputError(
            f'{section}.mixup: "{described.name}" is not differentiable in its inputs, as with token numbers; '
            "mixed inputs would mean nothing"
        )
