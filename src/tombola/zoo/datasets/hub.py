"""Data sets on Hugging Face's hub: `hf:owner/name`."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path, PurePosixPath

import platformdirs

from tombola.utils.errors import InputError
from tombola.utils.files import atomic_write
from tombola.zoo.datasets.columns import Columns
from tombola.zoo.datasets.dataset import Dataset
from tombola.zoo.datasets.folder_layout import FolderLayout, choose_files, homes
from tombola.zoo.datasets.parquet import read_files

log = logging.getLogger(__name__)

PREFIX = "hf:"

CONVERTED = "refs/convert/parquet"
"""The branch where the hub keeps Parquet files that it made of a data set in other formats."""

REVISIONS = ("main", CONVERTED)


def load_hub(name: str, columns: Columns | None = None) -> Dataset:
    """Read `hf:owner/name`, or `hf:owner/name/configuration`, from Hugging Face's hub.

    Its training and test files in Parquet are downloaded to the cache of `huggingface_hub`, from which they are read
    when the hub cannot be reached later, if all of them came then.

    Raises `InputError` without the extra `hub`, for a name of another form, for a data set that is not there or has
    no such files, and as `read_parquet` does.
    """
    match = re.fullmatch(r"hf:([\w.-]+/[\w.-]+)(?:/([\w.-]+))?/?", name)
    if match is None:
        raise InputError(f'data.name: should be hf:owner/name or hf:owner/name/configuration, not "{name}"')
    try:
        import huggingface_hub  # noqa: F401
    except ImportError as error:
        raise InputError(f'"{name}" needs huggingface_hub: pip install "tombola[hub]"') from error
    folder, layout = _fetch(match[1], match[2])
    return read_files(folder, layout, columns)


def _fetch(repository: str, configuration: str | None) -> tuple[Path, FolderLayout]:
    """The folder that the files are in by now, and which they are."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import RepositoryNotFoundError
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()  # they would be drawn into the search's own
    where = f"{PREFIX}{repository}"
    try:
        revision, files = _published(repository, configuration)
        layout = choose_files(where, files, configuration)
        patterns = [str(file) for file in layout.train + layout.test]
        log.info("fetching %s from the hub", where)
        folder = snapshot_download(repository, repo_type="dataset", revision=revision, allow_patterns=patterns)
        _remember(repository, Path(folder), files)
        return Path(folder), layout
    except InputError:
        raise
    except RepositoryNotFoundError as error:
        raise InputError(
            f"there is no data set {repository} on Hugging Face's hub, or not for you: if it is private or gated, "
            "log in with `hf auth login`"
        ) from error
    except Exception as error:  # the hub's library passes on whatever its HTTP library raises
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        kept, lack = _kept(repository, configuration)
        if kept is None:
            message = f"{where} could not be downloaded from Hugging Face's hub: {reason}{lack}"
            raise InputError(message) from error
        return kept


def _published(repository: str, configuration: str | None) -> tuple[str, list[PurePosixPath]]:
    """The revision of the data set that has the files, and all its files."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RevisionNotFoundError

    files: list[PurePosixPath] = []
    for revision in REVISIONS:
        try:
            siblings = HfApi().dataset_info(repository, revision=revision).siblings or []
        except RevisionNotFoundError:
            continue
        files = [PurePosixPath(sibling.rfilename) for sibling in siblings]
        found = homes(files)
        if configuration in found or (configuration is None and found):
            return revision, files
    return REVISIONS[0], files


def _remember(repository: str, folder: Path, files: list[PurePosixPath]) -> None:
    """Keep a list of the Parquet files that the hub has, one list for each `folder`, which stands for a commit: what
    lies there by itself does not say whether there should be more."""
    path = _lists(repository) / f"{folder.name}.json"
    published = [str(file) for file in files if file.suffix == ".parquet"]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps({"folder": str(folder), "files": published}), encoding="utf-8")
    except OSError as error:
        log.info("a later search will need the hub again: %s", error)


def _kept(repository: str, configuration: str | None) -> tuple[tuple[Path, FolderLayout] | None, str]:
    """What the latest whole download left in the cache, if there is one; and what another lacks.

    Raises `InputError` as `choose_files` does.
    """
    lack = ""
    for path in sorted(_lists(repository).glob("*.json"), key=lambda path: path.stat().st_mtime_ns, reverse=True):
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            folder, files = Path(kept["folder"]), [PurePosixPath(file) for file in kept["files"]]
        except (OSError, ValueError, KeyError, TypeError):
            continue  # spoilt
        layout = choose_files(f"{PREFIX}{repository}", files, configuration)
        gone = [file for file in layout.train + layout.test if not (folder / file).is_file()]
        if not gone:
            return (folder, layout), ""
        lack = lack or f"; of what came earlier {gone[0]} is missing"
    return None, lack


def _lists(repository: str) -> Path:
    return Path(platformdirs.user_cache_dir("tombola")) / "hub" / repository
