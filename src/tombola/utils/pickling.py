"""Pickling what is sent to workers on other machines."""

from __future__ import annotations

import pickle
import site
import sys
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any

from tombola.utils.errors import InputError
from tombola.utils.text import one_line

INSTALLED = {"site-packages", "dist-packages"}
"""Names of folders of installed modules, a user's too."""


def dumps(value: Any) -> bytes:
    """Pickle a value; with cloudpickle, if that is installed, also functions of scripts and notebooks, and with what
    they use of the user's own modules, which other machines may not have.

    Raises `InputError` if it cannot be pickled.
    """
    try:
        import cloudpickle
    except ImportError:
        return _checked(pickle.dumps, value)
    with ExitStack() as registered:
        for module in own_modules():
            cloudpickle.register_pickle_by_value(module)
            registered.callback(cloudpickle.unregister_pickle_by_value, module)
        try:
            pickled: bytes = cloudpickle.dumps(value)
            return pickled
        except Exception:  # noqa: BLE001 - a module's state may be what cannot be pickled
            registered.close()
            return _checked(cloudpickle.dumps, value)


def _checked(pickled: Callable[[Any], bytes], value: Any) -> bytes:
    try:
        return pickled(value)
    except Exception as error:
        raise InputError(
            f"executor: the functions cannot be sent to its workers ({one_line(error)}): define them at the top "
            "level of a module or script, and open files and connections inside them"
        ) from error


def own_modules() -> Iterator[ModuleType]:
    """Imported modules that are neither installed nor Python's own."""
    installed = {Path(place).resolve() for place in (*sysconfig.get_paths().values(), *site.getsitepackages())}
    installed.add(Path(__file__).resolve().parents[1])
    for name, module in [*sys.modules.items()]:
        file = getattr(module, "__file__", None)
        if file is None or name == "__main__" or name != module.__name__ or not Path(file).is_file():
            continue
        parents = Path(file).resolve().parents
        if installed.isdisjoint(parents) and not INSTALLED & {parent.name for parent in parents}:
            yield module
