"""The recipes for ImageNet and Tiny ImageNet, from generated files in the layouts of these datasets to a ticket."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.command_line import tombola, with_settings
from tests.support.image_folders import write_imagenet, write_shards, write_tiny_imagenet

SHORT = ['training.milestones=["8it", "10it"]', "training.length=12it", "training.evaluate_every=4it"]
SHORT += ["training.batch_size=16", "rewind.to=2it", "search.levels=1", "replicates=1", "data.validation=10"]
SMALL = {
    "resnet50-imagenet": ["model.width=2", "data.size=40", "data.resized_crop=32", "training.warmup=3it"],
    "resnet18-tiny-imagenet": ["model.width=2", "data.size=12", "data.crop=2"],
}


@pytest.mark.parametrize(
    ("recipe", "folder", "write"),
    [
        ("resnet50-imagenet", "imagenet", write_imagenet),
        ("resnet50-imagenet", "imagenet", write_shards),
        ("resnet18-tiny-imagenet", "tiny-imagenet-200", write_tiny_imagenet),
    ],
)
def test_a_ticket_is_found_in_generated_files(tmp_path: Path, recipe: str, folder: str, write: object) -> None:
    assert callable(write)
    write(tmp_path / "data" / folder)
    out = str(tmp_path / "out")
    settings = with_settings(*SHORT, *SMALL[recipe])
    command = ("run", recipe, "--data-dir", str(tmp_path / "data"), "--out", out, "--json", "--no-report", *settings)
    result = tombola(*command, "-j", "1")
    assert result.exit_code == 0, result.output
    shown = json.loads(result.stdout)
    assert shown["finished"]
    assert shown["levels"][0]["weights_left"] == 1
    assert set(shown["levels"][1]["branches"]) == {"ticket", "reinit"}
    assert (Path(out) / "levels.parquet").is_file()
    again = tombola(*command)
    assert json.loads(again.stdout)["runs"]["trained"] == 0
