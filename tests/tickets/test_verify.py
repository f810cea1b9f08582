"""Tickets trained again from what their files say."""

from __future__ import annotations

import copy
import json
import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from tests.conftest import tiny
from tombola._run_experiment import run_experiment
from tombola.cli import app
from tombola.experiments.sections import VerdictSection
from tombola.pruning.mask import Mask, State
from tombola.report.verification import answer
from tombola.runs.outcome import Measures, Outcome
from tombola.studies.request import RunRequest
from tombola.tickets.provenance import read_claim
from tombola.tickets.ticket import Precision, Ticket
from tombola.tickets.verification import RECORDED, WIDEST, Verification, judged_by
from tombola.tickets.verify import default_store, expected_runs, verify_ticket
from tombola.utils.errors import InputError
from tombola.zoo.datasets.registry import load

EASY: dict[str, Any] = {
    "replicates": 5,
    "data": {"name": "digits", "validation": 300},
    "model": {"name": "mlp", "widths": [100, 50]},
    "training": {
        "optimizer": "sgd",
        "lr": 0.2,
        "momentum": 0.9,
        "batch_size": 60,
        "length": "500it",
        "evaluate_every": "20it",
    },
    "search": {"levels": 1, "rate": 0.85, "output_rate": 0.3},
    "controls": {},
    "verdict": {"accuracy_margin": 0.99, "stop_margin": 99.0, "max_density": 0.99},
}
"""Every ticket wins its experiment, by any rounding."""

STABILITY = {"candidates": ["10it", "20it"], "points": 3, "tolerance": 0.99}


def made(folder: Path, **changes: Any) -> Path:
    """The ticket file of an experiment."""
    run_experiment(tiny(**EASY | changes), folder / "out", store=folder / "store")
    return folder / "out" / "ticket.safetensors"


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The user's cache, for this file."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tombola.tickets.verify.user_cache_dir", lambda name: str(folder / name))
        yield folder


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def rewound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("rewound"), rewind={"to": "20it"})


@pytest.fixture(scope="module")
def checked(plain: Path) -> Verification:
    return verify_ticket(read_claim(plain), repeats=5)


def changed(file: Path, tmp_path: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """A copy of a ticket file, trained weights and all, whose provenance is changed in place, or replaced by what
    `change` returns."""
    ticket = Ticket.load(file)
    provenance = copy.deepcopy(ticket.provenance)
    new = change(provenance)
    path = tmp_path / "changed.safetensors"
    provenance = provenance if new is None else new
    Ticket(ticket.mask, ticket.start, provenance, ticket.trained, drawn=ticket.drawn).save(path)
    return path


def tombola(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["ticket", "check", *arguments, "--workers", "1"])


def test_what_is_recorded_comes_again_to_the_bit(plain: Path, checked: Verification) -> None:
    summary = checked.summary()
    assert summary["reproduced"]["exact"]
    assert summary["reproduced"]["trained_apart"] == 0
    assert not summary["reproduced"]["remembered"]
    assert checked.reproduced["ticket"].difference == 0
    assert summary["runs"]["trained"] == expected_runs(checked.claim, 5, 1) == 2 + 5 * 3
    assert summary["reproduced"]["trained"]["reproduced"]
    assert {summary["rewound_to"], summary["runs"]["from_store"]} == {0}
    provenance = Ticket.load(plain).provenance
    recorded = next(row for row in checked.rows if (row.replicate, row.level) == (RECORDED, 1))
    assert recorded.run == provenance["key"]
    assert recorded.measures.model_dump() == provenance["measures"]


def test_trained_weights_that_are_others_are_seen(plain: Path, tmp_path: Path) -> None:
    ticket = Ticket.load(plain)
    assert ticket.trained is not None
    summary = with_trained(plain, tmp_path, lambda name, tensor: 1.5 * tensor)  # noqa: ARG005
    assert summary["reproduced"]["trained_apart"] == pytest.approx(1 / 3)
    assert (summary["state"], summary["failing"]) == ("does not hold", "trained")
    assert not summary["reproduced"]["all"]
    none = tmp_path / "none.safetensors"
    Ticket(ticket.mask, ticket.start, ticket.provenance).save(none)
    summary = verify_ticket(read_claim(none), repeats=1, reinit=0, store=default_store(plain)).summary()
    assert (summary["reproduced"]["trained"], summary["reproduced"]["trained_apart"]) == (None, None)
    assert summary["failing"] is None


def with_trained(
    file: Path, tmp_path: Path, change: Callable[[str, torch.Tensor], torch.Tensor], precision: Precision = "fp32"
) -> dict[str, Any]:
    """What comes of checking a ticket whose trained weights are changed."""
    ticket, path = Ticket.load(file), tmp_path / "other.safetensors"
    trained: State = {name: change(name, tensor) for name, tensor in (ticket.trained or {}).items()}
    Ticket(ticket.mask, ticket.start, ticket.provenance, trained, drawn=ticket.drawn).save(path, trained=precision)
    return verify_ticket(read_claim(path), repeats=1, reinit=0, store=default_store(file)).summary()


@pytest.mark.parametrize("changed_value", [math.nan, math.inf])
def test_trained_weights_that_are_no_numbers_never_hold(plain: Path, tmp_path: Path, changed_value: float) -> None:
    def change(name: str, tensor: torch.Tensor) -> torch.Tensor:
        return torch.full_like(tensor, changed_value) if name == "fc1.bias" else tensor

    summary = with_trained(plain, tmp_path, change)
    assert (summary["state"], summary["failing"]) == ("does not hold", "trained")
    assert summary["reproduced"]["trained"]["accuracy"] is None
    assert summary["reproduced"]["trained"]["apart"] == math.inf


def test_trained_weights_must_be_those_of_a_run_that_came_again_to_the_bit(plain: Path, tmp_path: Path) -> None:
    """However little they differ, and whatever they get right."""
    summary = with_trained(plain, tmp_path, lambda name, tensor: tensor * (1 + 1e-5 * (name == "fc2.bias")))
    found = summary["reproduced"]["trained"]
    assert abs(found["accuracy"] - found["recorded"]) < 0.005
    assert (found["same"], summary["failing"]) == (False, "trained")


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_trained_weights_may_be_rounded(plain: Path, tmp_path: Path, precision: Precision) -> None:
    summary = with_trained(plain, tmp_path, lambda name, tensor: tensor, precision)  # noqa: ARG005
    assert summary["reproduced"]["trained"]["reproduced"]
    assert (summary["reproduced"]["trained"]["apart"] == 0) == (precision == "fp32")
    again = with_trained(tmp_path / "other.safetensors", tmp_path, lambda name, tensor: tensor)  # noqa: ARG005
    assert again["reproduced"]["trained"]["reproduced"]


def test_trained_weights_of_another_network_are_refused(plain: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"another architecture: fc1\.bias"):
        with_trained(plain, tmp_path, lambda name, tensor: tensor[:3] if name == "fc1.bias" else tensor)


def test_a_store_beside_the_file_answers_nothing(plain: Path, tmp_path: Path, cache: Path) -> None:
    """Whoever sends a file could send what the store says of it, too."""
    file = tmp_path / "ticket.safetensors"
    file.write_bytes(plain.read_bytes())
    shutil.copytree(plain.parents[1] / "store", tmp_path / ".tombola-check")
    store = default_store(file)
    assert store.parent == cache / "tombola" / "checks"
    assert store == default_store(plain)
    other = changed(plain, tmp_path, set_in("verdict", value={}))
    assert default_store(other) != store
    result = verify_ticket(read_claim(other), repeats=1, reinit=0)
    assert not result.remembered
    assert result.tally.from_store == 0
    assert result.store == default_store(other)
    assert (result.store / "runs").is_dir()
    again = verify_ticket(read_claim(other), repeats=1, reinit=0)
    assert again.remembered
    said = answer(again.summary())
    assert said.endswith(f"4 of 4 runs came from the store {result.store}, and were not trained now.")


def test_the_verdict_rests_on_the_repeats_alone(checked: Verification) -> None:
    """The recorded run was chosen among replicates."""
    branches = checked.summary()["branches"]
    assert list(branches) == ["dense", "ticket", "reinit"]
    for name, branch in (("dense", "ticket"), ("ticket", "ticket"), ("reinit", "reinit")):
        values = [
            row.measures.test_accuracy_at_stop
            for row in checked.rows
            if row.replicate != RECORDED and (row.branch, row.level) == (branch, int(name != "dense"))
        ]
        assert len(values) == 5
        assert branches[name]["test_accuracy_at_stop"]["values"] == values
    assert len({row.run for row in checked.rows}) == len(checked.rows)


def test_more_repeats_are_the_same_and_others_and_the_store_answers(plain: Path, checked: Verification) -> None:
    more = verify_ticket(read_claim(plain), repeats=6)
    assert [row for row in more.rows if row.replicate <= 5] == checked.rows
    assert more.tally.trained == 3
    assert more.remembered
    others = verify_ticket(read_claim(plain), repeats=1, reinit=0, seed=1)
    orders = {row.run for row in others.rows if row.replicate == 1}
    assert orders.isdisjoint(row.run for row in more.rows)
    assert others.summary()["verdict"]["p_better_than_control"] is None


@pytest.mark.parametrize("seed", [0, 1])
def test_too_few_repeats_tell_nothing(plain: Path, seed: int) -> None:
    summary = verify_ticket(read_claim(plain), repeats=1, seed=seed).summary()
    assert (summary["state"], summary["verdict"]["reason"]) == ("cannot tell", "too few replicates")


def test_a_record_that_promises_more_does_not_hold(plain: Path, checked: Verification, tmp_path: Path) -> None:
    here = checked.reproduced["ticket"].here.test_accuracy_at_stop or 0
    promised = 1.0
    assert promised - here > checked.reproduced["ticket"].tolerances["test_accuracy_at_stop"]
    file = changed(plain, tmp_path, set_in("measures", "test_accuracy_at_stop", value=promised))
    result = verify_ticket(read_claim(file), repeats=5, reinit=0, store=default_store(plain))
    summary = result.summary()
    assert (summary["state"], summary["failing"]) == ("does not hold", "ticket")
    assert not summary["reproduced"]["all"]
    assert result.reproduced["ticket"].difference == pytest.approx(here - promised)
    assert summary["reproduced"]["trained"]["reproduced"]  # the weights are what they were


@pytest.mark.parametrize(
    ("figure", "value"),
    [
        ("iterations", 480),
        ("test_accuracy", 0.5),
        ("train_accuracy", 0.5),
        ("train_accuracy_at_stop", 0.5),
        ("validation_accuracy_at_stop", 0.5),
        ("validation_loss_at_stop", 9.0),
    ],
)
def test_no_figure_of_the_record_may_be_another(plain: Path, tmp_path: Path, figure: str, value: float) -> None:
    file = changed(plain, tmp_path, set_in("measures", figure, value=value))
    result = verify_ticket(read_claim(file), repeats=5, reinit=0, store=default_store(plain))
    summary = result.summary()
    assert (summary["state"], summary["failing"]) == ("does not hold", "ticket")
    assert summary["reproduced"]["ticket"]["off"] == [figure]


def test_a_dense_network_made_worse_in_the_record_is_seen(plain: Path, checked: Verification, tmp_path: Path) -> None:
    true = next(row.measures for row in checked.rows if (row.replicate, row.level) == (RECORDED, 0))
    worse = true.model_copy(update={"test_accuracy_at_stop": (true.test_accuracy_at_stop or 0) - 0.5})
    for dense, reproduced in ((true, True), (worse, False)):
        file = changed(plain, tmp_path, lambda p, dense=dense: p.update(dense=dense.model_dump()))  # type: ignore[misc]
        result = verify_ticket(read_claim(file), repeats=5, reinit=0, store=default_store(plain))
        assert result.reproduced["dense"].reproduced is reproduced
        assert (result.summary()["failing"] == "dense") is not reproduced


def set_in(*path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(provenance: dict[str, Any]) -> None:
        section = provenance
        for name in path[:-1]:
            section = section[name]
        section[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_in("key", value="0" * 32), "contradicts itself: the key of its run is"),
        (set_in("run", "seed", value=1), "contradicts itself: run.seed is 1, and its recipe makes"),
        (set_in("run", "training", "lr", value=0.1), "contradicts itself: run.training.lr is 0.1"),
        (set_in("recipe", "training", "lr", value=0.1), "contradicts itself: run.training.lr is 0.2"),
        (set_in("recipe", "seed", value=1), "contradicts itself: run."),
        (set_in("recipe", "rewind", value={"to": "20it"}), "contradicts itself: run.begin is None"),
        (set_in("recipe", "model", "widths", value=[20, 11]), "other layers than its mask"),
        (set_in("recipe", "model", "widths", value=[10**7, 10**7]), "its mask"),
        (set_in("recipe", "model", "name", value="mlpp"), "code from outside"),
        (set_in("replicate", value=5), "replicate is 5, and the last of its recipe is 4"),
        (set_in("level", value=2), "level is 2, and the last of its recipe is 1"),
        (set_in("run", "mask", value="0" * 32), "the mask in the file is not that of its run"),
        (set_in("run", "data", "digest", value="0" * 32), 'the data set "digits" here is not the one'),
        (set_in("recipe", "data", "name", value="digitss"), 'unknown data set "digitss"'),
        (set_in("recipe", "nonsense", value=1), 'unknown key "nonsense"'),
        (set_in("measures", "test_accuracy_at_stop", value=None), "measures: figures are missing"),
        (set_in("measures", "test_accuracy_at_stop", value=math.nan), "measures.test_accuracy_at_stop"),
        (set_in("measures", "diverged", value=True), "measures: that of a training that diverged"),
        (
            set_in("measures", "test_accuracy", value=96.0),
            "measures.test_accuracy is 96.0, and should be from 0 to 1",
        ),
        (set_in("measures", "train_accuracy", value=-0.1), "measures.train_accuracy is -0.1"),
        (set_in("measures", "validation_loss_at_stop", value=-1.0), "measures.validation_loss_at_stop is -1.0"),
        (set_in("measures", "iterations", value=501), "measures.iterations is 501, and should be from 0 to 500"),
        (set_in("measures", "stop_iteration", value=501), "should be from 0 to 500"),
        (set_in("measures", "stop_iteration", value=10**400), "measures.stop_iteration is 1000"),
        (set_in("measures", "stop_iteration", value=-1), "measures.stop_iteration is -1"),
        (set_in("dense", "stop_iteration", value=501), "dense.stop_iteration is 501"),
        (set_in("key", value="\x1b[2J\n"), "the key of its run is"),
        (set_in("dense", value={"diverged": True}), "dense.iterations"),
        (set_in("run", "start", value=3), "run.start.network"),
        (set_in("recipe", "search", "method", value="set"), "mask changed while training"),
        (set_in("recipe", "rewind", value={"to": "0it", "method": "fine-tuning"}), "trained longer"),
        (lambda provenance: {}, '"recipe" is missing'),  # noqa: ARG005
        (lambda provenance: {"figures": {}, "run": {}}, "call find_ticket"),  # noqa: ARG005
        (lambda provenance: {"search": {}, "levels": []}, "train with the callback"),  # noqa: ARG005
    ],
)
def test_what_is_wrong_with_a_record_is_said_in_one_line(
    plain: Path, tmp_path: Path, change: Callable[[dict[str, Any]], Any], message: str
) -> None:
    with pytest.raises(InputError) as error:
        read_claim(changed(plain, tmp_path, change))
    assert message in str(error.value)
    assert str(error.value).isprintable()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_record_is_believed(plain: Path, tmp_path: Path, data: st.DataObject) -> None:
    """Whatever value stands anywhere in it: an error of one line, or the same runs as before."""

    def change(provenance: dict[str, Any]) -> None:
        section: dict[str, Any] = provenance
        while True:
            name = data.draw(st.sampled_from(sorted(section)))
            if not isinstance(section[name], dict) or not section[name] or data.draw(st.integers(0, 3)) == 0:
                break
            section = section[name]
        section[name] = data.draw(JSON)

    try:
        said, claim = "", read_claim(changed(plain, tmp_path, change))
    except InputError as error:
        said, claim = str(error), read_claim(plain)
    assert said.isprintable()
    assert claim.dense == read_claim(plain).dense


def test_the_mask_and_the_weights_must_be_those_of_the_record(plain: Path, rewound: Path, tmp_path: Path) -> None:
    ticket, path = Ticket.load(plain), tmp_path / "other.safetensors"
    mask = Mask({name: kept.roll(1) for name, kept in ticket.mask.items()})
    start = {name: tensor * mask.get(name, 1) for name, tensor in ticket.start.items()}
    Ticket(mask, start, ticket.provenance).save(path)
    with pytest.raises(InputError, match="the mask in the file is not that of its run"):
        read_claim(path)
    for file in (plain, rewound):
        ticket = Ticket.load(file)
        start = {name: tensor * 1.01 for name, tensor in ticket.start.items()}
        Ticket(ticket.mask, start, ticket.provenance).save(path)
        with pytest.raises(InputError, match="its weights are not those that its record leads to"):
            verify_ticket(read_claim(path), repeats=1)


def test_a_rewound_ticket_is_trained_from_the_trunk(rewound: Path) -> None:
    claim = read_claim(rewound)
    result = verify_ticket(claim, repeats=5)
    assert claim.k == 20
    assert result.summary()["reproduced"]["exact"]
    assert result.tally.trained == expected_runs(claim, 5, 1) == 1 + 2 + 5 * 3
    summary = result.summary()
    assert (summary["rewound_to"], summary["iterations"]) == (20, 500)
    assert "rewound to iteration 20 of 500" in answer(summary)


def test_what_the_experiment_rewound_to_is_in_the_record(tmp_path: Path) -> None:
    file = made(tmp_path, rewind={"to": "auto"}, stability=STABILITY)
    claim = read_claim(file)
    assert claim.k == 10
    assert verify_ticket(claim, repeats=1, reinit=0).summary()["reproduced"]["exact"]
    for begin in (-1, 500, "10"):
        with pytest.raises(InputError, match=r"run\.begin"):
            read_claim(changed(file, tmp_path, set_in("run", "begin", value=begin)))
    with pytest.raises(InputError, match=r"run\.begin is 490, and the candidates of its recipe are 10, 20"):
        read_claim(changed(file, tmp_path, set_in("run", "begin", value=490)))


@pytest.mark.parametrize(
    "search",
    [
        {"levels": 2, "rate": 0.6, "output_rate": 0.3},
        {"levels": 2, "rate": 0.6, "scope": "global", "one_shot": True, "leave_out": ["output"]},
        {"levels": 2, "density": 0.2, "scope": "erk"},
        {"levels": 2, "rate": 0.5, "structure": "neurons", "leave_out": ["output"]},
    ],
)
def test_the_level_must_be_that_of_the_mask(tmp_path: Path, search: dict[str, Any]) -> None:
    file = made(tmp_path, search=search, replicates=6)
    other = 3 - read_claim(file).record.level
    with pytest.raises(InputError, match=rf"contradicts itself: level {other} of its recipe leaves"):
        read_claim(changed(file, tmp_path, set_in("level", value=other)))


def test_a_layer_that_the_recipe_leaves_out_is_whole(tmp_path: Path) -> None:
    file = made(tmp_path, search={"levels": 1, "rate": 0.85, "leave_out": ["output"]})
    claim = read_claim(file)
    kept = claim.ticket.mask["output.weight"].clone()
    kept[0, 0] = False
    mask = Mask({**claim.ticket.mask, "output.weight": kept})
    start = {name: tensor * mask.get(name, 1) for name, tensor in claim.ticket.start.items()}
    run = claim.dense.masked(mask)
    provenance = claim.ticket.provenance | {"run": json.loads(json.dumps(run.description)), "key": run.key}
    Ticket(mask, start, provenance).save(tmp_path / "other.safetensors")
    with pytest.raises(InputError, match=r"its recipe does not prune output\.weight, and its mask does"):
        read_claim(tmp_path / "other.safetensors")


def test_masks_of_other_methods_are_checked_where_they_are_ordinary_tickets(tmp_path: Path) -> None:
    search = {"levels": 1, "density": 0.3, "method": "early-bird"}
    file = made(tmp_path, search=search, early_bird={"draws": 3, "window": 2})
    assert verify_ticket(read_claim(file), repeats=1, reinit=0).summary()["reproduced"]["exact"]


def test_other_data_of_the_same_name_is_refused(tmp_path: Path) -> None:
    digits = load("digits")
    arrays = {name: getattr(digits, name) for name in ("x_train", "y_train", "x_test", "y_test")}
    np.savez(tmp_path / "own.npz", **arrays)
    file = made(tmp_path, data={"name": str(tmp_path / "own.npz"), "validation": 200})
    assert read_claim(file).dense.data.digest == digits.digest
    np.savez(tmp_path / "own.npz", **arrays | {"y_test": np.roll(arrays["y_test"], 1)})
    with pytest.raises(InputError, match="here is not the one of its record"):
        read_claim(file)


def test_code_is_imported_only_if_it_is_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "owned_network.py").write_text(
        "from pathlib import Path\nfrom torch import nn\nPath(__file__).with_name('imported').touch()\n"
        "def make():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.ReLU(), nn.Linear(20, 10))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    file = made(tmp_path, model={"name": "owned_network:make"})
    (tmp_path / "imported").unlink()
    monkeypatch.delitem(__import__("sys").modules, "owned_network")
    result = tombola(str(file))
    assert result.exit_code == 2
    assert "say --trust" in " ".join(result.stderr.split())
    assert not (tmp_path / "imported").exists()
    assert read_claim(file, trust=True).dense.start.network.name == "owned_network:make"
    assert (tmp_path / "imported").exists()


class Interrupt:
    """Listens, and presses Ctrl-C after so many trainings."""

    def __init__(self, after: int) -> None:
        self.left = after

    def started(self, study: int, ask: RunRequest) -> None:
        """Nothing to do."""

    def answered(self, study: int, ask: RunRequest, outcome: Outcome, trained: bool) -> None:  # noqa: ARG002
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


def test_interrupted_it_goes_on(plain: Path, checked: Verification, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        verify_ticket(read_claim(plain), repeats=5, store=tmp_path, listeners=[Interrupt(4)])
    again = verify_ticket(read_claim(plain), repeats=5, store=tmp_path)
    assert again.tally.from_store == 4
    assert again.tally.trained == expected_runs(again.claim, 5, 1) - 4
    assert again.rows == checked.rows


def test_the_experiments_own_store_is_named_as_what_answered(plain: Path) -> None:
    result = verify_ticket(read_claim(plain), repeats=1, reinit=0, store=plain.parents[1] / "store")
    assert result.remembered
    assert result.tally.trained == 2


def test_arguments_that_make_no_sense(plain: Path) -> None:
    for wrong in ({"repeats": 0}, {"reinit": -1}, {"engine": "egar"}, {"device": "gpu"}):
        with pytest.raises(InputError):
            verify_ticket(read_claim(plain), **wrong)


def test_the_command_says_what_holds(tmp_path: Path) -> None:
    """By the margins that a recipe has by default: pixels of other digits, of which a ticket has hardly any left,
    mislead the dense network."""
    digits, rng = load("digits"), np.random.default_rng(0)
    arrays = {"y_train": digits.y_train, "y_test": digits.y_test}
    for name in ("x_train", "x_test"):
        pixels = getattr(digits, name).reshape(len(getattr(digits, name)), -1)
        arrays[name] = np.concatenate([pixels, rng.permuted(np.tile(pixels, (1, 4)), axis=0)], axis=1)
    np.savez(tmp_path / "own.npz", **arrays)
    training = EASY["training"] | {"lr": 0.1, "length": "300it", "evaluate_every": "5it"}
    data, search = {"name": str(tmp_path / "own.npz"), "validation": 300}, {"levels": 1, "rate": 0.8}
    file = made(tmp_path, data=data, training=training, search=search, replicates=3)
    shown = tombola(str(file), "--repeats", "20", "--reinit", "0")
    assert shown.exit_code == 0, shown.stdout + shown.stderr
    text = " ".join(shown.stdout.split())
    assert text.startswith("The claim holds: in 20 other orders of batches the ticket, ")
    assert "is at most 1 point less accurate than the dense network and stops at most 5% later (95% sure)" in text
    assert "reproduced to the bit. The trained weights in the file are these, to the bit." in text
    assert "42 runs trained, 0 from the store." in text


def test_the_command_gives_every_figure(plain: Path, checked: Verification) -> None:
    result = tombola(str(plain), "--repeats", "5", "--json")
    document = json.loads(result.stdout)
    assert result.exit_code == (0 if document["state"] == "holds" else 1)
    assert document.pop("answer")
    text = " ".join(tombola(str(plain), "--repeats", "5").stdout.split())
    assert "17 of 17 runs came from the store" in text
    assert "0 runs trained, 17 from the store." in text
    expected = json.loads(json.dumps(checked.summary()))
    for names in ("runs", "reproduced"):  # this time all came from the store
        assert document.pop(names) != expected.pop(names)
    assert document == expected


def test_the_command_says_what_does_not(plain: Path, tmp_path: Path) -> None:
    file = changed(plain, tmp_path, set_in("measures", "test_accuracy_at_stop", value=0.999))
    store = ["--store", str(default_store(plain))]
    result = tombola(str(file), "--repeats", "5", *store)
    assert result.exit_code == 1
    assert "The claim does not hold: of the ticket it says 99.90%" in " ".join(result.stdout.split())
    unsure = tombola(str(plain), "--repeats", "1", "--json")
    assert unsure.exit_code == 1
    assert json.loads(unsure.stdout)["state"] == "cannot tell"
    assert tombola(str(tmp_path / "none.safetensors")).exit_code == 2
    broken = changed(plain, tmp_path, set_in("key", value="0"))
    assert tombola(str(broken)).exit_code == 2


def measured(checked: Verification, figures: Callable[[str, int], tuple[float, int] | None]) -> dict[str, Any]:
    """The summary of a check whose repeats came out so: (accuracy, early stop) by branch and repeat, or diverged."""
    rows = []
    for row in checked.rows:
        found = figures("dense" if row.level == 0 else row.branch, row.replicate)
        if row.replicate == RECORDED:
            rows.append(row)
        elif found is None:
            rows.append(replace(row, measures=Measures(diverged=True, iterations=5)))
        else:
            own = {"test_accuracy_at_stop": found[0], "stop_iteration": found[1]}
            rows.append(replace(row, measures=row.measures.model_copy(update=own)))
    return replace(checked, rows=rows).summary()


@pytest.fixture(scope="module")
def strict(plain: Path) -> Verification:
    """Five repeats, of a claim of a tenth of a point and a twentieth of the early stop."""
    checked = verify_ticket(read_claim(plain), repeats=5)
    criteria = VerdictSection(accuracy_margin=0.001)
    return replace(
        checked, claim=replace(checked.claim, recipe=checked.claim.recipe.model_copy(update={"verdict": criteria}))
    )


@pytest.mark.parametrize(
    ("ticket", "state", "reason"),
    [
        ((0.9495, 200), "holds", ""),
        ((0.9485, 200), "does not hold", "less accurate"),
        ((0.9495, 460), "does not hold", "slower"),
        ((0.9495, 420), "cannot tell", "early stop"),
        (None, "does not hold", "5 of 5 diverged"),
    ],
)
def test_it_is_judged_by_the_claims_own_margins(
    strict: Verification, ticket: tuple[float, int] | None, state: str, reason: str
) -> None:
    others = {"dense": (0.95, 400), "reinit": (0.93, 440)}
    summary = measured(strict, lambda branch, repeat: others.get(branch, ticket))  # noqa: ARG005
    assert (summary["state"], summary["verdict"]["reason"]) == (state, reason)


@pytest.mark.parametrize(
    ("reinit", "state", "reason"),
    [
        ((0.93, 440), "holds", ""),
        ((0.9495, 200), "cannot tell", "no better than reinit"),
        ((0.97, 180), "does not hold", "worse than reinit"),
    ],
)
def test_other_initial_weights_must_do_worse(
    strict: Verification, reinit: tuple[float, int], state: str, reason: str
) -> None:
    others = {"dense": (0.95, 400), "ticket": (0.9495, 200)}
    summary = measured(strict, lambda branch, repeat: others.get(branch, reinit))  # noqa: ARG005
    assert (summary["state"], summary["verdict"]["reason"]) == (state, reason)


def test_one_repeat_that_diverges_is_enough(strict: Verification) -> None:
    summary = measured(strict, lambda branch, repeat: None if (branch, repeat) == ("ticket", 2) else (0.95, 200))
    assert (summary["state"], summary["verdict"]["reason"]) == ("does not hold", "1 of 5 diverged")
    assert len(summary["branches"]["ticket"]["stop_iteration"]["values"]) == 4


WIDE: dict[str, Any] = {"accuracy_margin": 0.99, "stop_margin": 1e308, "confidence": 0.51, "max_density": 0.99}


def test_a_file_cannot_allow_itself_more_than_others(checked: Verification) -> None:
    assert judged_by(VerdictSection(**WIDE, control="random")) == WIDEST
    narrow = {"accuracy_margin": 0.0, "stop_margin": 0.01, "confidence": 0.99, "max_density": 0.2}
    assert judged_by(VerdictSection(**narrow)) == VerdictSection(**narrow)
    recipe = checked.claim.recipe.model_copy(update={"verdict": VerdictSection(**WIDE)})
    wide = replace(checked, claim=replace(checked.claim, recipe=recipe))
    worse = {"dense": (0.95, 400), "ticket": (0.90, 450), "reinit": (0.85, 460)}
    summary = measured(wide, lambda branch, repeat: worse[branch])  # noqa: ARG005
    assert (summary["state"], summary["own_state"]) == ("does not hold", "holds")
    assert summary["criteria"] == WIDEST.model_dump()
    assert summary["own_criteria"] == WIDE | {"control": "reinit"}
    said = answer(summary)
    assert "It is judged by an accuracy margin of 1 point (the file's own: 99 points) and a stop margin of 5%" in said
    assert said.endswith("by the file's own it holds.")
    assert json.loads(json.dumps(summary, allow_nan=False))


def test_narrower_margins_are_the_files_own(strict: Verification) -> None:
    summary = strict.summary()
    assert summary["criteria"]["accuracy_margin"] == 0.001
    assert summary["own_state"] is None
    assert "judged by" not in answer(summary)
