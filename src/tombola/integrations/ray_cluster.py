"""ray_cluster: connects to a Ray cluster, or starts one here."""

from __future__ import annotations

import logging
import os
import socket
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tombola.integrations.cluster_resources import Resources
from tombola.utils.errors import InputError
from tombola.utils.libraries import require
from tombola.utils.text import one_line
from tombola.utils.workers import cores

if TYPE_CHECKING:
    from tombola.integrations.ray_executor import RayExecutor

log = logging.getLogger(__name__)

LOCAL = "ray"
AUTO = "auto"
CLIENT = "ray://"

PATIENCE = 5.0
"""Seconds until a cluster that does not answer is given up."""

TOKEN = "~/.ray/auth_token"
"""Where Ray keeps a user's token."""

_SETTINGS = {
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",  # or else what raylets report is printed, in paragraphs, on standard output
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # or else there is a warning of what it will be
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_AUTO_CONNECT": "0",  # or else a lost connection is replaced by a new cluster on this machine
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
}
"""Ray's environment variables, unless they are set; it reads most of them when it is imported."""


@contextmanager
def ray_cluster(
    address: str = LOCAL,
    resources: Mapping[str, float] | Sequence[str] = (),
    device: str = "auto",
    engine: str = "auto",
) -> Iterator[RayExecutor]:
    """An executor on a Ray cluster. Its `device` is what `device` is there for this engine (see
    `Resources.for_device`).

    `address` is `ray`, which starts a cluster here with all cores and GPUs; `auto`, the one that this machine belongs
    to; or `ray://HOST:PORT`. If this process is already connected to one, that is used. What is started or connected
    here ends with the block. `resources` are those of one training, `{"gpu": 0.25}` or `["gpu=0.25"]`.

    Raises `InputError`, within seconds, if Ray is not installed, there is no cluster or it has another version, or
    for resources that no training can have.
    """
    if address not in (LOCAL, AUTO) and not address.startswith(CLIENT):
        raise InputError(
            f'cluster: should be "{LOCAL}" (starts one here), "{AUTO}" (that of this machine) or '
            f'"{CLIENT}HOST:PORT", not "{address}"'
        )
    wanted = Resources.parse(resources)
    silence_ray()
    ray = require("ray", "ray")
    connected = not ray.is_initialized() and _connect(ray, address)
    try:
        from tombola.integrations.ray_executor import RayExecutor

        gpus = sum(node["Resources"].get("GPU", 0) for node in ray.nodes() if node["Alive"])
        wanted, device = wanted.for_device(device, engine, gpus)
        with RayExecutor(wanted, device) as executor:
            if not executor.slots():
                _no_slots(wanted, address)
            yield executor
    finally:
        if connected:
            ray.shutdown()


def silence_ray() -> None:
    """Before Ray is imported."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)


def _token_hint() -> str:
    """Clusters that are started where there is a token want it, from drivers too; others would not know one."""
    known = "RAY_AUTH_TOKEN" in os.environ or Path(os.environ.get("RAY_AUTH_TOKEN_PATH", TOKEN)).expanduser().exists()
    return "; if it wants your token, set RAY_AUTH_MODE=token" if known and "RAY_AUTH_MODE" not in os.environ else ""


def _connect(ray: Any, address: str) -> bool:
    if address == AUTO and (given := os.environ.get("RAY_ADDRESS", "")).startswith(CLIENT):
        address = given
    options: dict[str, Any] = {"address": address}
    if address == LOCAL:
        options = {"address": "local", "num_cpus": cores(), "include_dashboard": False}
    elif address == AUTO:
        _check_answer(_address_of_this_machine(), "the cluster of this machine")
    else:
        require("ray.util.client", "ray")
        _check_answer(urlsplit(address).netloc, address)
    try:
        with warnings.catch_warnings(action="ignore"):
            ray.init(**options, log_to_driver=False, logging_level=logging.CRITICAL)
    except Exception as error:
        ray.shutdown()
        raise InputError(f"cluster: cannot use {address}: {one_line(error)}{_token_hint()}") from error
    return True


def _address_of_this_machine() -> str:
    """Raises `InputError` if it belongs to no cluster, or to several."""
    from ray._private.services import canonicalize_bootstrap_address_or_die

    try:
        found: str = canonicalize_bootstrap_address_or_die(AUTO)
        return found
    except Exception as error:
        raise InputError(
            f'cluster: this machine belongs to no cluster that "{AUTO}" could mean ({one_line(error)}); '
            "start one with `ray start`, or set RAY_ADDRESS"
        ) from error


def _check_answer(place: str, what: str) -> None:
    """Ray itself tries for minutes. Raises `InputError` if nobody answers."""
    host, _, port = place.rpartition(":")
    if not (host and port.isdecimal()):
        raise InputError(f'cluster: should be {CLIENT}HOST:PORT, such as {CLIENT}head:10001, not "{what}"')
    try:
        socket.create_connection((host.strip("[]"), int(port)), PATIENCE).close()
    except (OSError, OverflowError) as error:
        raise InputError(f"cluster: nobody answers at {place}, {what}: {one_line(error)}") from error


def _no_slots(resources: Resources, address: str) -> None:
    """More nodes may come to a cluster, but not to one that was started here."""
    message = f"no node of the cluster has {resources}, which a training was to be given"
    if address == LOCAL:
        raise InputError(f"resources: {message}")
    log.warning("%s; waiting for one", message)
