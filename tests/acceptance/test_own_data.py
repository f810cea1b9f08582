"""`tombola run` on a user's own images and tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w

from tests.support.command_line import tombola
from tests.support.datasets import encode, random_images
from tests.support.recipes import tiny
from tombola.experiments.results import read_results

SHORT: dict[str, Any] = {
    "training__length": "8it",
    "training__evaluate_every": "4it",
    "training__batch_size": 4,
    "data__validation": 8,
    "search__levels": 1,
    "controls": {},
}


def write_images(folder: Path) -> None:
    for part, count in (("train", 12), ("test", 4)):
        for name in ("cat", "dog"):
            (folder / part / name).mkdir(parents=True)
            for i, image in enumerate(random_images(count, 28, 28)):
                (folder / part / name / f"{i}.png").write_bytes(encode(image))


def write_table(path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(60, 3)) * [1, 1, 1000]
    lines = [",".join(f"{number:.4f}" for number in row) + f",{'yes' if row[0] > 0 else 'no'}" for row in x]
    path.write_text("\n".join(["a,b,c,answer", *lines]))


def run(**changes: Any) -> Any:
    Path("mine.toml").write_text(tomli_w.dumps(tiny(**SHORT, **changes).resolved()))
    return tombola("run", "mine.toml", "--workers", "1", "--no-report", "--out", "out")


@pytest.fixture(autouse=True)
def _in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda name: str(tmp_path / "cache" / name))


def test_images_by_class(tmp_path: Path) -> None:
    write_images(tmp_path / "pets")
    done = run(data__name="pets", model={"name": "lenet-5"})
    assert done.exit_code == 0, done.stderr
    results = read_results("out")
    assert results.finished
    assert results.inputs == (28, 28)


def test_a_table_warns_of_what_was_decided(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_table(tmp_path / "mine.csv")
    done = run(data__name="mine.csv", model={"name": "mlp", "widths": [8]})
    assert done.exit_code == 0, done.stderr
    assert read_results("out").inputs == (3,)
    for fact in ("answer", "12 of 60", "data.scale"):
        assert sum(fact in message for message in caplog.messages) == 1


@pytest.mark.parametrize("name", ["pets", "pets/", "mine.csv"])
def test_what_cannot_be_read_is_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "pets" / "cat").mkdir(parents=True)
    (tmp_path / "mine.csv").write_text("a,b\n1,x\n")
    failed = run(data__name=name)
    assert failed.exit_code == 2
    assert failed.stderr.startswith("error: ")
    assert failed.stderr.count("\n") == 1
