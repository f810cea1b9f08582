"""Paths may be text or `Path` everywhere, and a path that cannot be written is one clear line."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import tomli_w
import torch
from safetensors import SafetensorError
from torch import nn

import tombola
from tests.support.crafted_tickets import small_ticket
from tests.support.digits_tickets import digits_ticket
from tests.support.errors import raises_input_error
from tests.support.recipes import tiny
from tombola.engines import engine
from tombola.experiments.experiment import Experiment
from tombola.exports.artefacts import load_compact
from tombola.exports.csr import read_csr, write_csr
from tombola.exports.export_result import read_export
from tombola.exports.torch_export import read_exported, write_exported
from tombola.exports.two_four import read_two_four, write_two_four
from tombola.report.page import write_figures
from tombola.runs.store import Store
from tombola.stats.experiment_comparison import compare
from tombola.tickets.provenance import read_claim
from tombola.tickets.verify import verify_ticket
from tombola.zoo.datasets import load, prepare

FUNCTIONS: MappingProxyType[str, Callable[..., Any]] = MappingProxyType(
    {name: getattr(tombola, name) for name in tombola.__all__ if inspect.isfunction(getattr(tombola, name))}
    | {
        f"{each.__name__}.{name}": method
        for each in (tombola.Ticket, tombola.SearchResult, Experiment)
        for name, method in inspect.getmembers(each, inspect.isroutine)
        if "Path" in str(getattr(method, "__annotations__", ""))
    }
    | {
        each.__name__: each
        for each in (
            compare,
            engine,
            load,
            load_compact,
            prepare,
            read_claim,
            read_csr,
            read_export,
            read_exported,
            read_two_four,
            verify_ticket,
            write_csr,
            write_exported,
            write_figures,
            write_two_four,
        )
    }
)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_path_may_be_text(name: str) -> None:
    parameters = inspect.signature(FUNCTIONS[name]).parameters.values()
    paths = [str(each.annotation) for each in parameters if "Path" in str(each.annotation)]
    assert all("str | Path" in annotation for annotation in paths)


@pytest.fixture
def results(tmp_path: Path) -> str:
    """A results folder, of an experiment run with text as its paths."""
    out, store = str(tmp_path / "out"), str(tmp_path / "store")
    recipe = tiny(training__length="20it", training__evaluate_every="10it", search__levels=1, controls={})
    found = tombola.run_experiment(recipe, out, store=store, data_dir=str(tmp_path))
    assert found.finished
    assert (tmp_path / "store" / "runs").is_dir()
    return out


def test_results_are_read_and_reported_by_text(results: str, tmp_path: Path) -> None:
    assert tombola.read_results(results).finished
    tombola.write_report(results, f"{results}/report.html")
    tombola.write_comparison([results, Path(results)], str(tmp_path / "both.html"))
    assert (tmp_path / "both.html").stat().st_size
    assert write_figures(results, str(tmp_path / "figures"))
    read = tombola.read_results(results)
    assert compare([results], [read]).experiments[0].folder == results
    assert engine("eager", str(tmp_path)).data_dir == str(tmp_path)  # type: ignore[attr-defined]


def test_recipes_are_read_by_path(tmp_path: Path) -> None:
    path = tmp_path / "mine"
    path.write_text(tomli_w.dumps(tiny().resolved()))
    assert tombola.load_recipe(path) == tombola.load_recipe(str(path)) == tiny()


def test_tickets_and_exports_are_written_and_read_by_text(tmp_path: Path) -> None:
    digits_ticket().save(str(tmp_path / "ticket.safetensors"))
    ticket = tombola.Ticket.load(str(tmp_path / "ticket.safetensors"))
    folder = str(tmp_path / "exports")
    tombola.export(ticket, folder, kinds=["compact", "csr"], turns=1, data_dir=str(tmp_path))
    assert read_export(folder).folder == Path(folder)
    assert read_csr(f"{folder}/csr.npz")
    assert load_compact(f"{folder}/compact.safetensors", ticket.network())


def test_a_search_stores_runs_in_a_folder_given_as_text(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))

    def train(model: nn.Module) -> float:
        model(torch.ones(1, 4)).sum().backward()
        torch.optim.SGD(model.parameters(), 0.1).step()
        return 1.0

    tombola.find_ticket(network, train, levels=1, rate=0.5, store=str(tmp_path / "store"), progress=False)
    assert list((tmp_path / "store").rglob("*.safetensors"))


NETWORK = nn.Sequential(nn.Linear(4, 2))
WRITERS: dict[str, Callable[[Path], object]] = {
    "ticket": lambda path: small_ticket().save(path),
    "csr": lambda path: write_csr(NETWORK, path),
    "exported": lambda path: write_exported(NETWORK, torch.zeros(2, 4), path),
    "sparse": lambda path: tombola.sparse(NETWORK, torch.zeros(1, 4)).save(path),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_files_that_cannot_be_written_are_named(writer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = WRITERS[writer]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    for path in ("file/ticket", "file/deep/ticket", "folder", ".", "a" * 300):
        with raises_input_error(path, "cannot be written"):
            write(Path(path))
    with raises_input_error("file is not a folder"):
        write(Path("file/ticket"))
    write(Path("new/deep/ticket"))
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["deep", "file", "folder", "new", "ticket"]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
            "No space left",
        ),
        (PermissionError(13, "Permission denied"), "Permission denied"),
    ],
)
def test_a_full_disk_or_missing_permission_is_one_line(
    error: Exception, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    path = tmp_path / "ticket.safetensors"
    small_ticket().save(path)
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("safetensors.torch.save_file", fail)
        with raises_input_error(path, reason):
            small_ticket().save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_store_without_permission_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Store(tmp_path / "store").check_writable()

    def refuse(**_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with raises_input_error(tmp_path / "store", "Permission denied"):
        Store(tmp_path / "store").check_writable()


def test_experiments_and_exports_name_the_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    below = tmp_path / "file" / "out"
    for out, store in ((below, tmp_path / "store"), (tmp_path / "out", below)):
        with raises_input_error(below, "cannot be written"):
            tombola.run_experiment(tiny(), out, store=store)
    with raises_input_error(below, "cannot be written"):
        tombola.export(digits_ticket(), below, kinds=["csr"])
