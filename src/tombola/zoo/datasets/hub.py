"""Datasets on Hugging Face's hub: `hf:owner/name`."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path, PurePosixPath

import platformdirs

from tombola.utils.errors import InputError
from tombola.utils.files import atomic_write
from tombola.utils.text import first_line
from tombola.zoo.datasets.parquet import read_files
from tombola.zoo.datasets.parquet_columns import Columns
from tombola.zoo.datasets.parquet_files import DatasetFiles, choose_files, train_folders
from tombola.zoo.datasets.streaming.streamed_dataset import AnyDataset

log = logging.getLogger(__name__)

PREFIX = "hf:"

REVISIONS = ("main", "refs/convert/parquet")
"""On the second branch the hub keeps datasets in other formats, converted to Parquet files."""


def load_hub(name: str, columns: Columns | None = None) -> AnyDataset:
    """Read `hf:owner/name`, or `hf:owner/name/configuration`, from Hugging Face's hub.

    Its training and test files in Parquet are downloaded to the cache of `huggingface_hub`. If the hub cannot be
    reached later, they are read from there, provided that all of them were downloaded.

    Raises `InputError` without the extra `hub`, for an invalid name, for a dataset that is missing or has no Parquet
    files, and as `read_parquet` does.
    """
    match = re.fullmatch(r"hf:([\w.-]+/[\w.-]+)(?:/([\w.-]+))?/?", name)
    if match is None:
        raise InputError(f'data.name: should be hf:owner/name or hf:owner/name/configuration, not "{name}"')
    try:
        import huggingface_hub  # noqa: F401
    except ImportError as error:
        raise InputError(f'"{name}" needs huggingface_hub: pip install "tombola[hub]"') from error
    folder, files = _fetch(match[1], match[2])
    return read_files(folder, files, columns)


def _fetch(repository: str, configuration: str | None) -> tuple[Path, DatasetFiles]:
    """The folder of the downloaded files, and which they are."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import RepositoryNotFoundError
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()  # they would disturb the progress display of the search
    where = f"{PREFIX}{repository}"
    try:
        revision, published = _list_published(repository, configuration)
        files = choose_files(where, published, configuration)
        patterns = [str(file) for file in files.train + files.test]
        log.info("fetching %s from the hub", where)
        folder = snapshot_download(repository, repo_type="dataset", revision=revision, allow_patterns=patterns)
        _save_list(repository, Path(folder), published)
        return Path(folder), files
    except InputError:
        raise
    except RepositoryNotFoundError as error:
        raise InputError(
            f"there is no dataset {repository} on Hugging Face's hub, or you have no access: if it is private or "
            "gated, log in with `hf auth login`"
        ) from error
    except Exception as error:  # huggingface_hub passes on all errors of its HTTP library
        cached, missing = _find_cached(repository, configuration)
        if cached is None:
            message = f"{where} could not be downloaded from Hugging Face's hub: {first_line(error)}{missing}"
            raise InputError(message) from error
        return cached


def _list_published(repository: str, configuration: str | None) -> tuple[str, list[PurePosixPath]]:
    """The revision of the dataset that has Parquet files, and all its files."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RevisionNotFoundError

    files: list[PurePosixPath] = []
    for revision in REVISIONS:
        try:
            siblings = HfApi().dataset_info(repository, revision=revision).siblings or []
        except RevisionNotFoundError:
            continue
        files = [PurePosixPath(sibling.rfilename) for sibling in siblings]
        found = train_folders(files)
        if configuration in found or (configuration is None and found):
            return revision, files
    return REVISIONS[0], files


def _save_list(repository: str, folder: Path, files: list[PurePosixPath]) -> None:
    """Save the list of the dataset's Parquet files on the hub at the commit of `folder`. The folder itself does not
    show whether its files are complete."""
    path = _lists_folder(repository) / f"{folder.name}.json"
    published = [str(file) for file in files if file.suffix == ".parquet"]
    try:
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps({"folder": str(folder), "files": published}), encoding="utf-8")
    except InputError as error:
        log.info("the list of files could not be saved, so the dataset will not load offline: %s", error)


def _find_cached(repository: str, configuration: str | None) -> tuple[tuple[Path, DatasetFiles] | None, str]:
    """The latest complete download, or None; and for messages, what an incomplete one lacks. Raises `InputError` as
    `choose_files` does."""
    missing = ""
    lists = _lists_folder(repository).glob("*.json")
    for path in sorted(lists, key=lambda path: path.stat().st_mtime_ns, reverse=True):
        try:
            saved = json.loads(path.read_text(encoding="utf-8"))
            folder, published = Path(saved["folder"]), [PurePosixPath(file) for file in saved["files"]]
        except (OSError, ValueError, KeyError, TypeError):
            continue  # an invalid list
        files = choose_files(f"{PREFIX}{repository}", published, configuration)
        lacking = [file for file in files.train + files.test if not (folder / file).is_file()]
        if not lacking:
            return (folder, files), ""
        missing = missing or f"; an earlier download lacks {lacking[0]}"
    return None, missing


def _lists_folder(repository: str) -> Path:
    return Path(platformdirs.user_cache_dir("tombola")) / "hub" / repository
