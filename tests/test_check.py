"""Tickets trained again from what their files say."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from tests.conftest import tiny
from tombola.check import check_ticket, expected_runs
from tombola.checked import RECORDED, Checked, Figures, tolerance
from tombola.cli import app
from tombola.errors import InputError
from tombola.evidence.verdict import Criteria
from tombola.mask import Mask
from tombola.outcome import Measures, Outcome
from tombola.perform import perform
from tombola.record import read_claim
from tombola.studies import Ask
from tombola.ticket import Ticket
from tombola.zoo.data import load

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
    "verdict": {"accuracy_margin": 0.99, "stop_margin": 99.0, "few": 0.99},
}
"""Every ticket wins, by any rounding."""

STABILITY = {"candidates": ["10it", "20it"], "points": 3, "tolerance": 0.99}


def made(folder: Path, **changes: Any) -> Path:
    """The ticket file of an experiment."""
    perform(tiny(**EASY | changes), folder / "out", store=folder / "store")
    return folder / "out" / "ticket.safetensors"


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def rewound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("rewound"), rewind={"to": "20it"})


@pytest.fixture(scope="module")
def checked(plain: Path) -> Checked:
    return check_ticket(read_claim(plain), repeats=5)


def changed(file: Path, tmp_path: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """A copy of a ticket file whose provenance is changed in place, or replaced by what `change` returns."""
    ticket = Ticket.load(file)
    provenance = copy.deepcopy(ticket.provenance)
    new = change(provenance)
    path = tmp_path / "changed.safetensors"
    Ticket(ticket.mask, ticket.start, provenance if new is None else new).save(path)
    return path


def tombola(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["ticket", "check", *arguments, "--workers", "1"])


def test_what_is_recorded_comes_again_to_the_bit(plain: Path, checked: Checked) -> None:
    summary = checked.summary()
    assert summary["reproduced"]["exact"]
    assert summary["reproduced"]["trained_apart"] == 0
    assert not summary["reproduced"]["remembered"]
    assert checked.reproduced["ticket"].difference == 0
    assert summary["runs"]["trained"] == expected_runs(checked.claim, 5, 1) == 2 + 5 * 3
    assert (plain.parent / ".tombola-check" / "runs").is_dir()
    provenance = Ticket.load(plain).provenance
    recorded = next(row for row in checked.rows if (row.replicate, row.level) == (RECORDED, 1))
    assert recorded.run == provenance["key"]
    assert recorded.measures.model_dump() == provenance["measures"]


def test_trained_weights_that_are_others_are_seen(plain: Path, tmp_path: Path) -> None:
    ticket, path = Ticket.load(plain), tmp_path / "other.safetensors"
    assert ticket.trained is not None
    for trained, apart in ((None, None), ({name: 1.5 * tensor for name, tensor in ticket.trained.items()}, 1 / 3)):
        Ticket(ticket.mask, ticket.start, ticket.provenance, trained).save(path)
        found = check_ticket(read_claim(path), repeats=1, reinit=0, store=plain.parent / ".tombola-check")
        assert found.trained_apart == (apart if apart is None else pytest.approx(apart))


def test_the_verdict_rests_on_the_repeats_alone(checked: Checked) -> None:
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


def test_more_repeats_are_the_same_and_others_and_the_store_answers(plain: Path, checked: Checked) -> None:
    more = check_ticket(read_claim(plain), repeats=6)
    assert [row for row in more.rows if row.replicate <= 5] == checked.rows
    assert more.tally.trained == 3
    assert more.remembered
    others = check_ticket(read_claim(plain), repeats=1, reinit=0, seed=1)
    orders = {row.run for row in others.rows if row.replicate == 1}
    assert orders.isdisjoint(row.run for row in more.rows)
    assert others.summary()["verdict"]["p_better_than_control"] is None


@pytest.mark.parametrize("seed", [0, 1])
def test_too_few_repeats_tell_nothing(plain: Path, seed: int) -> None:
    summary = check_ticket(read_claim(plain), repeats=1, seed=seed).summary()
    assert (summary["state"], summary["verdict"]["reason"]) == ("cannot tell", "too few replicates")


def test_a_record_that_promises_more_does_not_hold(plain: Path, tmp_path: Path) -> None:
    def raise_accuracy(provenance: dict[str, Any]) -> None:
        provenance["measures"]["test_accuracy_at_stop"] += 0.1

    file = changed(plain, tmp_path, raise_accuracy)
    result = check_ticket(read_claim(file), repeats=5, reinit=0, store=plain.parent / ".tombola-check")
    assert result.summary()["state"] == "does not hold"
    assert not result.summary()["reproduced"]["all"]
    assert result.reproduced["ticket"].difference == pytest.approx(-0.1)
    assert result.summary()["verdict"]["winning"]  # the ticket itself is as good as it was


def test_a_dense_network_made_worse_in_the_record_is_seen(plain: Path, checked: Checked, tmp_path: Path) -> None:
    true = next(row.measures for row in checked.rows if (row.replicate, row.level) == (RECORDED, 0))
    worse = true.model_copy(update={"test_accuracy_at_stop": (true.test_accuracy_at_stop or 0) - 0.5})
    for dense, reproduced in ((true, True), (worse, False)):
        file = changed(plain, tmp_path, lambda p, dense=dense: p.update(dense=dense.model_dump()))  # type: ignore[misc]
        result = check_ticket(read_claim(file), repeats=5, reinit=0, store=plain.parent / ".tombola-check")
        assert result.reproduced["dense"].reproduced is reproduced
        assert result.holds is reproduced


def test_rounding_passes(checked: Checked) -> None:
    here = checked.reproduced["ticket"].here
    accuracy = here.test_accuracy_at_stop
    assert accuracy is not None
    near = Figures(here.model_copy(update={"test_accuracy_at_stop": accuracy + 0.011}), here, 0.012)
    assert (near.reproduced, near.exact) == (True, False)
    assert near.difference == pytest.approx(-0.011)
    assert not replace(near, tolerance=0.0109).reproduced
    nowhere = Figures(here, here.model_copy(update={"diverged": True, "test_accuracy_at_stop": None}), 1.0)
    assert (nowhere.difference, nowhere.reproduced) == (None, False)


def test_rounding_explains_as_much_as_another_order_and_a_point_at_least() -> None:
    assert tolerance([0.9, 0.91, 0.92]) == pytest.approx(9.925 * 0.01 * 2**0.5, rel=1e-3)  # Student's t, two degrees
    assert tolerance([0.95, 0.95, 0.95]) == 0.01
    assert tolerance([0.1, 0.9]) == tolerance([]) == 0.01
    rng = np.random.default_rng(0)
    draws = 0.95 + 0.01 * rng.standard_normal((2000, 7))
    seldom = np.mean([abs(one - other) > tolerance(list(rest)) for one, other, *rest in draws])
    assert 0.003 < seldom < 0.02


@settings(max_examples=50)
@given(st.lists(st.floats(0, 1), max_size=8))
def test_rounding_explains_no_less_than_a_point(values: list[float]) -> None:
    assert 0.01 <= tolerance(values) < float("inf")


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
    assert "\n" not in str(error.value)


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
    assert "\n" not in said
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
            check_ticket(read_claim(path), repeats=1)


def test_a_rewound_ticket_is_trained_from_the_trunk(rewound: Path) -> None:
    claim = read_claim(rewound)
    result = check_ticket(claim, repeats=5)
    assert claim.k == 20
    assert result.summary()["reproduced"]["exact"]
    assert result.tally.trained == expected_runs(claim, 5, 1) == 1 + 2 + 5 * 3
    assert check_ticket(claim, repeats=5, reinit=0).holds


def test_what_the_experiment_rewound_to_is_in_the_record(tmp_path: Path) -> None:
    file = made(tmp_path, rewind={"to": "auto"}, stability=STABILITY)
    claim = read_claim(file)
    assert claim.k == 10
    assert check_ticket(claim, repeats=1, reinit=0).summary()["reproduced"]["exact"]
    for begin in (-1, 500, "10"):
        with pytest.raises(InputError, match=r"run\.begin"):
            read_claim(changed(file, tmp_path, set_in("run", "begin", value=begin)))


def test_masks_of_other_methods_are_checked_where_they_are_ordinary_tickets(tmp_path: Path) -> None:
    search = {"levels": 1, "density": 0.3, "method": "early-bird"}
    file = made(tmp_path, search=search, early_bird={"draws": 3, "window": 2})
    assert check_ticket(read_claim(file), repeats=1, reinit=0).summary()["reproduced"]["exact"]


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

    def started(self, study: int, ask: Ask) -> None:
        """Nothing to do."""

    def answered(self, study: int, ask: Ask, outcome: Outcome, trained: bool) -> None:  # noqa: ARG002
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


def test_interrupted_it_goes_on(plain: Path, checked: Checked, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        check_ticket(read_claim(plain), repeats=5, store=tmp_path, listeners=[Interrupt(4)])
    again = check_ticket(read_claim(plain), repeats=5, store=tmp_path)
    assert again.tally.from_store == 4
    assert again.tally.trained == expected_runs(again.claim, 5, 1) - 4
    assert again.rows == checked.rows


def test_the_experiments_own_store_is_named_as_what_answered(plain: Path) -> None:
    result = check_ticket(read_claim(plain), repeats=1, reinit=0, store=plain.parents[1] / "store")
    assert result.remembered
    assert result.tally.trained == 2


def test_arguments_that_make_no_sense(plain: Path) -> None:
    for wrong in ({"repeats": 0}, {"reinit": -1}, {"engine": "egar"}, {"device": "gpu"}):
        with pytest.raises(InputError):
            check_ticket(read_claim(plain), **wrong)


def test_the_command_says_what_holds(plain: Path, checked: Checked) -> None:
    shown = tombola(str(plain), "--repeats", "5", "--reinit", "0")
    assert shown.exit_code == 0, shown.stderr
    text = " ".join(shown.stdout.split())
    assert text.startswith("The claim holds: in 5 other orders of batches the ticket, ")
    assert "reproduced to the bit" in text
    assert "0 runs trained, 12 from the store." in text
    result = tombola(str(plain), "--repeats", "5", "--json")
    document = json.loads(result.stdout)
    assert result.exit_code == (0 if document["state"] == "holds" else 1)
    assert document.pop("answer")
    expected = json.loads(json.dumps(checked.summary()))
    for names in ("runs", "reproduced"):  # this time all came from the store
        assert document.pop(names) != expected.pop(names)
    assert document == expected


def test_the_command_says_what_does_not(plain: Path, tmp_path: Path) -> None:
    file = changed(plain, tmp_path, set_in("measures", "test_accuracy_at_stop", value=0.999))
    store = ["--store", str(plain.parent / ".tombola-check")]
    result = tombola(str(file), "--repeats", "5", *store)
    assert result.exit_code == 1
    assert "The claim does not hold: of the ticket it says 99.90%" in " ".join(result.stdout.split())
    unsure = tombola(str(plain), "--repeats", "1", "--json")
    assert unsure.exit_code == 1
    assert json.loads(unsure.stdout)["state"] == "cannot tell"
    assert tombola(str(tmp_path / "none.safetensors")).exit_code == 2
    broken = changed(plain, tmp_path, set_in("key", value="0"))
    assert tombola(str(broken)).exit_code == 2


def measured(checked: Checked, figures: Callable[[str, int], tuple[float, int] | None]) -> dict[str, Any]:
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
def strict(plain: Path) -> Checked:
    """Five repeats, of a claim of a point and a twentieth of the early stop."""
    checked = check_ticket(read_claim(plain), repeats=5)
    criteria = Criteria(accuracy_margin=0.01)
    return replace(
        checked, claim=replace(checked.claim, recipe=checked.claim.recipe.model_copy(update={"verdict": criteria}))
    )


@pytest.mark.parametrize(
    ("ticket", "state", "reason"),
    [
        ((0.945, 200), "holds", ""),
        ((0.90, 200), "does not hold", "less accurate"),
        ((0.945, 460), "does not hold", "slower"),
        ((0.945, 420), "cannot tell", "early stop"),
        (None, "does not hold", "5 of 5 diverged"),
    ],
)
def test_it_is_judged_by_the_claims_own_margins(
    strict: Checked, ticket: tuple[float, int] | None, state: str, reason: str
) -> None:
    others = {"dense": (0.95, 400), "reinit": (0.93, 440)}
    summary = measured(strict, lambda branch, repeat: others.get(branch, ticket))  # noqa: ARG005
    assert (summary["state"], summary["verdict"]["reason"]) == (state, reason)


@pytest.mark.parametrize(
    ("reinit", "state", "reason"),
    [
        ((0.93, 440), "holds", ""),
        ((0.945, 200), "cannot tell", "no better than reinit"),
        ((0.97, 180), "does not hold", "worse than reinit"),
    ],
)
def test_other_initial_weights_must_do_worse(
    strict: Checked, reinit: tuple[float, int], state: str, reason: str
) -> None:
    others = {"dense": (0.95, 400), "ticket": (0.945, 200)}
    summary = measured(strict, lambda branch, repeat: others.get(branch, reinit))  # noqa: ARG005
    assert (summary["state"], summary["verdict"]["reason"]) == (state, reason)


def test_one_repeat_that_diverges_is_enough(strict: Checked) -> None:
    summary = measured(strict, lambda branch, repeat: None if (branch, repeat) == ("ticket", 2) else (0.95, 200))
    assert (summary["state"], summary["verdict"]["reason"]) == ("does not hold", "1 of 5 diverged")
    assert len(summary["branches"]["ticket"]["stop_iteration"]["values"]) == 4
