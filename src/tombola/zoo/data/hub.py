"""Data sets on Hugging Face's hub: `hf:owner/name`."""

from __future__ import annotations

import contextlib
import logging
import re
from pathlib import Path, PurePosixPath

from tombola.errors import InputError
from tombola.zoo.data.columns import Columns
from tombola.zoo.data.dataset import Dataset
from tombola.zoo.data.layout import Layout, choose_files, files_in, homes
from tombola.zoo.data.parquet import read_files

log = logging.getLogger(__name__)

PREFIX = "hf:"

CONVERTED = "refs/convert/parquet"
"""The branch where the hub keeps Parquet files that it made of a data set in other formats."""

REVISIONS = ("main", CONVERTED)


def load_hub(name: str, columns: Columns | None = None) -> Dataset:
    """Read `hf:owner/name`, or `hf:owner/name/configuration`, from Hugging Face's hub.

    Its training and test files in Parquet are downloaded to the cache of `huggingface_hub`, from which they are read
    when the hub cannot be reached later.

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


def _fetch(repository: str, configuration: str | None) -> tuple[Path, Layout]:
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
        return Path(folder), layout
    except InputError:
        raise
    except RepositoryNotFoundError as error:
        raise InputError(
            f"there is no data set {repository} on Hugging Face's hub, or not for you: if it is private or gated, "
            "log in with `hf auth login`"
        ) from error
    except Exception as error:  # the hub's library passes on whatever its HTTP library raises
        kept = _kept(repository, configuration)
        if kept is not None:
            return kept
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{where} could not be downloaded from Hugging Face's hub: {reason}") from error


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


def _kept(repository: str, configuration: str | None) -> tuple[Path, Layout] | None:
    """What an earlier download left in the cache, if it is whole."""
    from huggingface_hub import snapshot_download

    for revision in REVISIONS:
        try:
            folder = snapshot_download(repository, repo_type="dataset", revision=revision, local_files_only=True)
        except OSError as error:  # it also counts the files that were not asked for as missing
            folder = getattr(error, "snapshot_path", "")
        if folder:
            with contextlib.suppress(InputError):
                return Path(folder), choose_files(repository, files_in(Path(folder)), configuration)
    return None
