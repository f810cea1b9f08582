"""Published files, fetched to the user's cache."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from tombola.utils.errors import InputError

log = logging.getLogger(__name__)


def download(
    data_set: str,
    wanted: str,
    url: str,
    places: list[Path],
    checksum: str | None = None,
    check: Callable[[Path], None] | None = None,
) -> Path:
    """Fetch the file at `url` to the last of `places`; it is kept only if it is the right one.

    `wanted` is what was looked for in all `places`; `checksum` is what pooch takes, `md5:...`; `check` is called with
    the file and raises `ValueError` if it is not the right one.

    Raises `InputError` that says where the file was looked for and why it could not be had.
    """
    import pooch

    base, name = url.rsplit("/", 1)
    log.info("downloading %s from %s", name, base)
    pooch.get_logger().setLevel(logging.WARNING)
    try:
        path = Path(pooch.retrieve(url, checksum, fname=name, path=places[-1]))
        if check is not None:
            try:
                check(path)
            except ValueError:
                path.unlink()
                raise
    except (OSError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f'data set "{data_set}": no {wanted} in {", ".join(map(str, places))}, and it could not be downloaded '
            f"from {base}/ ({reason}); name the folder above with --data-dir"
        ) from error
    return path
