"""The provenance in a ticket file is untrusted: it must be complete and consistent."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.errors import raises_input_error
from tests.support.tickets import experiment_ticket, set_in, with_provenance
from tombola.pruning.mask import Mask
from tombola.tickets.claim import check_level
from tombola.tickets.provenance import TicketClaim, read_claim
from tombola.tickets.ticket import Ticket
from tombola.tickets.verify import verify_ticket
from tombola.utils.errors import InputError
from tombola.zoo.datasets import load


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (set_in("key", value="0" * 32), ["inconsistent", "key"]),
        (set_in("run", "seed", value=1), ["inconsistent", "run.seed is 1"]),
        (set_in("run", "training", "lr", value=0.1), ["inconsistent", "run.training.lr is 0.1"]),
        (set_in("recipe", "training", "lr", value=0.1), ["inconsistent", "run.training.lr is 0.2"]),
        (set_in("recipe", "rewind", value={"to": "20it"}), ["inconsistent", "run.begin is None"]),
        (set_in("recipe", "model", "widths", value=[20, 11]), ["different layers"]),
        (set_in("recipe", "model", "widths", value=[10**7, 10**7]), ["mask"]),
        (set_in("recipe", "model", "name", value="mlpp"), ["mlpp", "--trust"]),
        (set_in("replicate", value=5), ["replicate is 5", "4"]),
        (set_in("level", value=2), ["level is 2", "1"]),
        (set_in("run", "mask", value="0" * 32), ["the mask in the file"]),
        (set_in("run", "data", "digest", value="0" * 32), ["digits", "0" * 32]),
        (set_in("recipe", "data", "name", value="digitss"), ["digitss"]),
        (set_in("recipe", "nonsense", value=1), ["nonsense"]),
        (set_in("measures", "test_accuracy_at_stop", value=None), ["measures"]),
        (set_in("measures", "test_accuracy_at_stop", value=math.nan), ["measures.test_accuracy_at_stop"]),
        (set_in("measures", "diverged", value=True), ["measures", "diverged"]),
        (set_in("measures", "test_accuracy", value=96.0), ["measures.test_accuracy is 96.0", "0", "1"]),
        (set_in("measures", "validation_loss_at_stop", value=-1.0), ["measures.validation_loss_at_stop is -1.0"]),
        (set_in("measures", "iterations", value=501), ["measures.iterations is 501", "500"]),
        (set_in("measures", "stop_iteration", value=501), ["measures.stop_iteration is 501", "500"]),
        (set_in("measures", "stop_iteration", value=10**400), ["measures.stop_iteration is 1000"]),
        (set_in("measures", "stop_iteration", value=-1), ["measures.stop_iteration is -1"]),
        (set_in("dense", "stop_iteration", value=501), ["dense.stop_iteration is 501"]),
        (set_in("key", value="\x1b[2J\n"), ["key"]),
        (set_in("dense", value={"diverged": True}), ["dense.iterations"]),
        (set_in("run", "start", value=3), ["run.start.network"]),
        (set_in("recipe", "search", "method", value="set"), ["no claim", "mask"]),
        (set_in("recipe", "rewind", value={"to": "0it", "method": "fine-tuning"}), ["no claim"]),
        (lambda provenance: {}, ["recipe", "missing"]),  # noqa: ARG005
        (set_in("recipe", "functions", value={"train": "mine:train\x1b"}), ["recipe"]),
        (lambda provenance: {"figures": {}, "run": {}}, ["find_ticket"]),  # noqa: ARG005
        (lambda provenance: {"search": {}, "levels": []}, ["callback"]),  # noqa: ARG005
    ],
)
def test_an_inconsistent_provenance_is_refused_in_one_line(
    plain: Path, tmp_path: Path, change: Callable[[dict[str, Any]], Any], parts: list[str]
) -> None:
    with pytest.raises(InputError) as error:
        read_claim(with_provenance(plain, tmp_path, change))
    message = str(error.value)
    assert all(part in message for part in parts), message
    assert message.isprintable()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)


@pytest.fixture(scope="module")
def claim(plain: Path) -> TicketClaim:
    return read_claim(plain)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_value_anywhere_is_refused_or_changes_no_run(
    plain: Path, claim: TicketClaim, tmp_path: Path, data: st.DataObject
) -> None:
    def change(provenance: dict[str, Any]) -> None:
        section: dict[str, Any] = provenance
        while True:
            name = data.draw(st.sampled_from(sorted(section)))
            if not isinstance(section[name], dict) or not section[name] or data.draw(st.integers(0, 3)) == 0:
                break
            section = section[name]
        section[name] = data.draw(JSON)

    message = ""
    try:
        assert read_claim(with_provenance(plain, tmp_path, change)).dense == claim.dense
    except InputError as error:
        message = str(error)
    assert message.isprintable()


@pytest.mark.parametrize(
    "search",
    [
        {"levels": 2, "rate": 0.6, "output_rate": 0.3},
        {"levels": 2, "rate": 0.6, "scope": "global", "one_shot": True, "leave_out": ["output"]},
        {"levels": 2, "density": 0.2, "scope": "erk"},
        {"levels": 2, "rate": 0.5, "structure": "neurons", "leave_out": ["output"]},
        {"levels": 2, "rate": 0.4, "structure": "neurons", "round_to": 4},
    ],
)
def test_the_mask_must_have_the_counts_of_its_level(tmp_path: Path, search: dict[str, Any]) -> None:
    file = experiment_ticket(tmp_path, search=search)
    assert read_claim(file).provenance.level == 2
    with pytest.raises(InputError, match="inconsistent: level 1"):
        read_claim(with_provenance(file, tmp_path, set_in("level", value=1)))


def test_masks_of_rows_of_single_layers_are_said_to_be_of_earlier_versions(tmp_path: Path) -> None:
    claim = read_claim(experiment_ticket(tmp_path, search={"levels": 1, "rate": 0.5, "structure": "neurons"}))
    coupled, dense = claim.ticket.mask, claim.dense.mask
    rows = {name: kept.any(1, keepdim=True).expand_as(kept).clone() for name, kept in coupled.items()}
    check_level(claim.workload.pruner, 1, dense, coupled)
    with raises_input_error("rows of single layers", "earlier versions"):
        check_level(claim.workload.pruner, 1, dense, Mask(rows))


def test_layers_that_the_recipe_leaves_out_must_be_whole(tmp_path: Path) -> None:
    file = experiment_ticket(tmp_path, search={"levels": 1, "rate": 0.85, "leave_out": ["output"]})
    claim = read_claim(file)
    kept = claim.ticket.mask["output.weight"].clone()
    kept[0, 0] = False
    mask = Mask({**claim.ticket.mask, "output.weight": kept})
    start = {name: tensor * mask.get(name, 1) for name, tensor in claim.ticket.start.items()}
    run = claim.dense.masked(mask)
    provenance = claim.ticket.provenance | {"run": json.loads(json.dumps(run.description)), "key": run.key}
    Ticket(mask, start, provenance).save(tmp_path / "other.safetensors")
    with pytest.raises(InputError, match=r"does not prune output\.weight"):
        read_claim(tmp_path / "other.safetensors")


def test_other_trainings_of_the_dense_network_are_not_part_of_the_claim(tmp_path: Path, plain: Path) -> None:
    claim = read_claim(experiment_ticket(tmp_path, baseline={"lr": [0.1]}))
    assert claim.config.baseline is not None
    assert claim.dense == read_claim(plain).dense
    assert "tuned_baseline" in claim.ticket.provenance["verdict"]
    summary = verify_ticket(claim, repeats=3).build_summary()
    assert list(summary.branches) == ["dense", "ticket", "reinit"]
    assert summary.verdict.tuned_baseline is None


def test_other_data_of_the_same_name_is_refused(tmp_path: Path) -> None:
    digits = load("digits")
    arrays = {name: getattr(digits, name) for name in ("x_train", "y_train", "x_test", "y_test")}
    np.savez(tmp_path / "own.npz", **arrays)
    file = experiment_ticket(tmp_path, data={"name": str(tmp_path / "own.npz"), "validation": 200})
    assert read_claim(file).dense.data.digest == digits.digest
    np.savez(tmp_path / "own.npz", **arrays | {"y_test": np.roll(arrays["y_test"], 1)})
    with pytest.raises(InputError, match=digits.digest):
        read_claim(file)


def test_code_is_imported_only_with_trust(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "owned_network.py").write_text(
        "from pathlib import Path\nfrom torch import nn\nPath(__file__).with_name('imported').touch()\n"
        "def make():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.ReLU(), nn.Linear(20, 10))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    file = experiment_ticket(tmp_path, model={"name": "owned_network:make"})
    (tmp_path / "imported").unlink()
    monkeypatch.delitem(sys.modules, "owned_network")
    with pytest.raises(InputError, match="--trust"):
        read_claim(file)
    assert not (tmp_path / "imported").exists()
    assert read_claim(file, trust=True).dense.start.network.name == "owned_network:make"
    assert (tmp_path / "imported").exists()
