"""The cache, the store and the files of datasets."""

from __future__ import annotations

from pathlib import Path

import platformdirs
import pytest

from tombola.report.diagnosis import folders
from tombola.zoo.datasets.mnist import MNIST
from tombola.zoo.datasets.registry import DATASETS, IMAGE_DATASETS, LOCATIONS


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda _: str(folder))
    monkeypatch.delenv("TOMBOLA_DATA", raising=False)
    monkeypatch.delenv("TOMBOLA_STORE", raising=False)
    return folder


def test_the_parts_of_the_cache_are_measured(cache: Path) -> None:
    (cache / "kernels" / "a").mkdir(parents=True)
    (cache / "kernels" / "a" / "code").write_bytes(bytes(3_000_000))
    found = {each.name: each for each in folders.cache()}
    assert found["cache"].state == "ok"
    assert found["cache: kernels"].text == "3.0 MB in 1 file"


def test_a_cache_that_does_not_exist_is_not_made(cache: Path) -> None:
    assert [each.state for each in folders.cache()] == ["ok", "ok"]
    assert not cache.exists()


def test_a_folder_that_cannot_be_written_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    for found in (next(folders.cache()), next(folders.store("store"))):
        assert found.state == "warning"
        assert "Permission denied" in found.text
        assert found.advice


def test_a_store_is_counted(tmp_path: Path) -> None:
    (tmp_path / "store" / "runs").mkdir(parents=True)
    (tmp_path / "store" / "runs" / "a").touch()
    for place in (str(tmp_path / "store"), f"file://{tmp_path}/store"):
        (found,) = folders.store(place)
        assert found.text.endswith("1 outcome")


def test_the_address_of_a_bucket_is_shown_without_secrets() -> None:
    (found,) = folders.store("s3://name:secret@bucket/prefix?token=secret")
    assert "s3://bucket/prefix" in found.text
    assert "secret" not in found.text


def test_every_built_in_dataset_has_a_location() -> None:
    assert set(LOCATIONS) == {*DATASETS, *IMAGE_DATASETS}


def test_datasets_are_found_where_they_would_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOMBOLA_DATA", str(tmp_path / "data"))
    found = {each.name: each.text for each in folders.data(None)}
    assert str(tmp_path / "data") in found["mnist"]
    folder = tmp_path / "data" / "mnist"
    folder.mkdir(parents=True)
    for file in MNIST.files[1:]:
        (folder / f"{file.name}.gz").touch()
    assert {each.name: each.text for each in folders.data(None)}["mnist"] == found["mnist"]
    (folder / MNIST.files[0].name).touch()
    (tmp_path / "data" / "cifar10").mkdir()
    (tmp_path / "data" / "cifar10" / "train-0.parquet").touch()
    now = {each.name: each.text for each in folders.data(None)}
    assert now["mnist"] == str(folder)
    assert now["cifar10"] == str(tmp_path / "data" / "cifar10")
    assert now["cifar100"] == found["cifar100"]
    assert Path(now["digits"]).is_file()


def test_a_data_folder_that_is_missing_is_a_warning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TOMBOLA_DATA", str(tmp_path / "no"))
    found = [each for each in folders.data(None) if each.state == "warning"]
    assert len(found) == 1
    assert "TOMBOLA_DATA" in found[0].advice
