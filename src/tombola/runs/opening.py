"""Opening a store by its name: a folder, or the URL of a bucket."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

import torch.distributed as distributed

from tombola.runs.bucket_store import BucketStore
from tombola.runs.distributed_store import DistributedBucketStore, DistributedStore, is_distributed
from tombola.runs.store import Store
from tombola.runs.store_url import OPTIONS
from tombola.utils.errors import InputError


def open_store(place: str | Path, checkpoint_every: float = 30.0) -> Store:
    """The store in a folder (`runs`, `file:///mnt/runs`), or in a bucket (`s3://bucket/prefix`, `gs://…`, `az://…`).

    Nothing is read or written yet. Raises `InputError` if `place` is neither.
    """
    text = str(place)
    if text.partition("://")[0] == "file":
        return Store(_local_folder(text), checkpoint_every)
    if "://" in text:
        return BucketStore.at(text, checkpoint_every)
    kind, _, rest = text.partition(":")
    if kind in (*OPTIONS, "file") and (isinstance(place, Path) or rest.startswith("/")):
        raise InputError(f"store: a URL is a string that begins with {kind}://; a Path loses one of the slashes")
    return Store(Path(place), checkpoint_every)


def shared_store(place: str | Path) -> Store:
    """The store in `place`; in a distributed job, this process' part of it."""
    store = open_store(place)
    if not is_distributed():
        return store
    part = f"process-{distributed.get_rank()}"
    if isinstance(store, BucketStore):
        return DistributedBucketStore.at(store.bucket.url.part(part))
    return DistributedStore(store.folder / part)


def _local_folder(url: str) -> Path:
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost") or parts.query or not parts.path.startswith("/"):
        raise InputError("store: a file:// URL should be file:///FOLDER")
    return Path(unquote(parts.path))
