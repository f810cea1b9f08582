"""The batches, augmentation and learning rate of each iteration."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.support.training import dense_run
from tombola.engines import augmentation as module
from tombola.engines.augmentation import BLOCK, Augmentation, AugmentationDraws, augment
from tombola.engines.optimizers import learning_rates
from tombola.runs.run import Training
from tombola.utils.seeds import Purpose, sequence
from tombola.zoo.batches import batches
from tombola.zoo.datasets import prepare
from tombola.zoo.datasets.dataset import Array


@settings(max_examples=40)
@given(st.integers(1, 50), st.integers(1, 50), st.integers(0, 99), st.integers(1, 20))
def test_any_range_of_iterations_gives_the_same_batches(
    examples: int, batch_size: int, seed: int, count: int
) -> None:
    all_batches = batches(seed, examples, batch_size, 0, count)
    one_by_one = [batches(seed, examples, batch_size, first, 1) for first in range(count)]
    assert torch.equal(all_batches, torch.cat(one_by_one))
    assert all_batches.shape == (count, batch_size)


@settings(max_examples=40)
@given(st.integers(1, 30), st.integers(1, 10), st.integers(0, 99))
def test_each_epoch_has_each_example_once(examples: int, batch_size: int, seed: int) -> None:
    order = batches(seed, examples, batch_size, 0, 3 * examples).flatten()
    for epoch in range(3 * batch_size):
        assert sorted(order[epoch * examples : (epoch + 1) * examples].tolist()) == list(range(examples))


def test_the_order_depends_on_seed_and_epoch() -> None:
    first, second = batches(0, 100, 100, 0, 2)
    assert not torch.equal(first, second)
    assert not torch.equal(first, batches(1, 100, 100, 0, 1)[0])


def test_the_order_of_a_seed_does_not_change() -> None:
    assert batches(5, 10, 5, 0, 2).tolist() == [[3, 1, 7, 6, 9], [2, 8, 5, 0, 4]]


def augment_one_by_one(x: Array, choices: Array, black: Array, crop: int) -> Array:
    """A simple implementation: pad, crop and flip each image."""
    height, width = x.shape[-2:]
    result = []
    for image, (flipped, top, left), background in zip(x, choices, black, strict=True):
        channels = image.reshape(-1, height, width)
        padded = np.stack(
            [
                np.pad(channel, crop, constant_values=value)
                for channel, value in zip(channels, np.atleast_1d(background), strict=True)
            ]
        )
        cropped = padded[:, top : top + height, left : left + width]
        result.append((cropped[:, :, ::-1] if flipped else cropped).reshape(image.shape))
    return np.stack(result)


@settings(deadline=None, max_examples=40)
@given(
    images=st.integers(1, 6),
    channels=st.sampled_from([None, 1, 3]),
    height=st.integers(1, 7),
    width=st.integers(1, 7),
    crop=st.integers(0, 9),
    flip=st.booleans(),
    seed=st.integers(0, 9),
)
def test_augmentation_equals_a_simple_implementation(
    images: int, channels: int | None, height: int, width: int, crop: int, flip: bool, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    per_image = () if channels is None else (channels,)
    x = generator.random((images, *per_image, height, width), dtype=np.float32)
    choices = AugmentationDraws(seed, images, flip, crop).choices(5, 1)[0]
    shared = generator.random(per_image, dtype=np.float32)
    separate = generator.random((images, *per_image), dtype=np.float32)
    for black in (shared, separate):
        result = augment(torch.from_numpy(x), choices, torch.from_numpy(np.array(black)), crop)
        expected = augment_one_by_one(x, choices.numpy(), np.broadcast_to(black, (images, *per_image)), crop)
        np.testing.assert_array_equal(result.numpy(), expected)


@pytest.mark.parametrize(("first", "count"), [(0, 1), (99, 2), (37, 250), (200, 100)])
def test_any_range_of_iterations_gives_the_same_choices(first: int, count: int) -> None:
    all_choices = AugmentationDraws(3, 8, True, 4).choices(0, 400)
    assert torch.equal(AugmentationDraws(3, 8, True, 4).choices(first, count), all_choices[first : first + count])


def test_each_block_of_choices_is_drawn_once_however_many_runs_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = Counter[tuple[int, ...]]()

    def counted(*place: Any) -> Any:
        drawn[place] += 1
        return sequence(*place)

    monkeypatch.setattr(module, "sequence", counted)
    dense = dense_run(data={"name": "digits", "validation": 200, "flip": True, "crop": 1}, training__batch_size=4)
    runs = [dense.model_copy(update={"seed": seed // 2}) for seed in range(600)]
    augmentation = Augmentation.of(runs, [prepare(dense.data)] * 600, torch.device("cpu"))
    assert augmentation is not None
    chunks = [augmentation.choices(first, 30) for first in range(0, 210, 30)]
    assert drawn == {(seed, Purpose.AUGMENT, block): 1 for seed in range(300) for block in range(3)}
    alone = AugmentationDraws(7, 4, True, 1).choices(0, 210)
    assert torch.equal(torch.cat(chunks)[:, 15 * 4 : 16 * 4], alone)


def test_choices_are_uniformly_distributed() -> None:
    choices = AugmentationDraws(0, 100, True, 4).choices(0, 10 * BLOCK)
    assert (choices.shape, choices.dtype) == ((1000, 100, 3), torch.int64)
    assert choices[:, :, 0].sum() == 50_078  # of 100,000; the standard deviation is 158
    for axis in (1, 2):
        counts = choices[:, :, axis].flatten().bincount()
        assert len(counts) == 9
        assert (counts - 100_000 / 9).abs().max() < 4 * 100  # four standard deviations
    assert len({choices[i].numpy().tobytes() for i in range(1000)}) == 1000


def test_choices_depend_on_the_seed_and_flips_not_on_the_crop() -> None:
    choices = AugmentationDraws(0, 50, True, 4).choices(0, 10)
    assert not torch.equal(choices, AugmentationDraws(1, 50, True, 4).choices(0, 10))
    assert torch.equal(choices[:, :, 0], AugmentationDraws(0, 50, True, 2).choices(0, 10)[:, :, 0])
    assert not AugmentationDraws(0, 50, False, 4).choices(0, 10)[:, :, 0].any()
    assert torch.equal(choices[:, :, 1:], AugmentationDraws(0, 50, False, 4).choices(0, 10)[:, :, 1:])
    assert not AugmentationDraws(0, 50, True, 0).choices(0, 10)[:, :, 1:].any()


STEPS = {"schedule": "step", "milestones": ["6it", "9it"]}


def training(**options: object) -> Training:
    return Training(optimizer="sgd", lr=0.1, batch_size=10, length="12it", **options)  # type: ignore[arg-type]


def test_constant_is_constant() -> None:
    assert learning_rates(training(), 0, 12).tolist() == [0.1] * 12


def test_a_step_schedule_decays_at_the_milestones() -> None:
    rates = learning_rates(training(**STEPS), 0, 12)
    assert rates.tolist() == pytest.approx([0.1] * 6 + [0.01] * 3 + [0.001] * 3)
    assert learning_rates(training(**STEPS, decay=0.5), 9, 1).tolist() == [0.025]


def test_a_cosine_falls_to_almost_nothing() -> None:
    rates = learning_rates(training(schedule="cosine"), 0, 12)
    assert rates[0] == 0.1
    assert rates[6] == pytest.approx(0.05)
    assert (np.diff(rates) < 0).all()
    assert 0 < rates[-1] < 0.002


def test_warm_up_is_linear() -> None:
    rates = learning_rates(training(**STEPS, warmup="4it"), 0, 12)
    assert rates[:4].tolist() == pytest.approx([0.025, 0.05, 0.075, 0.1])
    assert rates[4:].tolist() == pytest.approx([0.1] * 2 + [0.01] * 3 + [0.001] * 3)
    cosine = learning_rates(training(schedule="cosine", warmup="4it"), 0, 12)
    assert cosine[4] == 0.1
    assert cosine[8] == pytest.approx(0.05)


def test_past_the_end_the_last_rate_applies() -> None:
    assert learning_rates(training(**STEPS), 10, 6).tolist() == pytest.approx([0.001] * 6)
    cosine = learning_rates(training(schedule="cosine"), 11, 3)
    assert len(set(cosine.tolist())) == 1


@settings(max_examples=40, deadline=None)
@given(
    schedule=st.sampled_from([{}, {"schedule": "cosine"}, STEPS]),
    warmup=st.integers(0, 11),
    first=st.integers(0, 20),
    count=st.integers(0, 20),
)
def test_rates_do_not_depend_on_the_first_iteration_asked_for(
    schedule: dict[str, object], warmup: int, first: int, count: int
) -> None:
    options = training(**schedule, warmup=f"{warmup}it")
    whole = learning_rates(options, 0, 40)
    assert learning_rates(options, first, count).tolist() == whole[first : first + count].tolist()


def test_it_agrees_with_the_schedulers_of_torch() -> None:
    for section, make in (
        (STEPS, lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [6, 9], 0.1)),
        ({"schedule": "cosine"}, lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 12)),
    ):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)
        scheduler = make(optimizer)
        expected = []
        for _ in range(12):
            expected.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
        assert learning_rates(training(**section), 0, 12).tolist() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schedule": "step"}, "milestones"),
        ({"milestones": ["3it"]}, "milestones"),
        ({"nesterov": True}, "momentum"),
    ],
)
def test_incompatible_options_are_rejected(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        training(**options)


def test_epochs_become_iterations_and_must_be_in_order() -> None:
    options = training(schedule="step", milestones=["1ep", "1ep1it"], warmup="1ep").in_iterations(20)
    assert [m.iterations for m in options.milestones] == [2, 3]
    assert options.warmup.iterations == 2
    with pytest.raises(ValueError, match=r"^milestones: .* 9it, 6it"):
        training(schedule="step", milestones=["9it", "6it"]).in_iterations(20)
    with pytest.raises(ValueError, match=r"^warmup: .* 6ep"):
        training(warmup="6ep").in_iterations(20)
