"""The examples of docs/how-to/clusters.md."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import tombola
from tests.support.recipes import tiny
from tests.support.result_files import result_files

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/how-to/clusters.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", TEXT, re.M | re.S)
RECIPE = tiny(training__length="20it", search__levels=1, rewind={"to": "5it"})


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("local") / "out"
    tombola.run_experiment(RECIPE, folder, workers=1, progress=False)
    return result_files(folder)


@pytest.mark.parametrize(("name", "block"), [*zip(("pool", "dask"), BLOCKS, strict=True)])
def test_executors_give_the_results_of_one_process(
    name: str, block: str, local: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "dask":
        pytest.importorskip("distributed", reason="Dask is not installed")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tombola, "load_recipe", lambda name, overrides: RECIPE)  # noqa: ARG005
    names = {"__name__": "__main__"}
    exec(block, names)
    assert result_files(tmp_path / "results" / name) == local


def test_links_lead_to_files_and_headings() -> None:
    headings = {
        re.sub(r"[^\w -]", "", line).strip().lower().replace(" ", "-") for line in re.findall(r"^#+ (.*)", TEXT, re.M)
    }
    for target in re.findall(r"\]\(([^)]+)\)", TEXT):
        path, _, heading = target.partition("#")
        assert (ROOT / "docs/how-to" / path).exists()
        assert path or heading in headings
