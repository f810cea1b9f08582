"""What Ray reports in paragraphs, in a line."""

from __future__ import annotations

from ray import exceptions as ray_exceptions

from tombola.utils.text import one_line

_REASONS: dict[type[Exception], str] = {
    ray_exceptions.OutOfMemoryError: "ran out of memory, and Ray ended the training",
    ray_exceptions.NodeDiedError: "died, or could not be reached any more",
    ray_exceptions.LocalRayletDiedError: "died",
    ray_exceptions.WorkerCrashedError: "lost the training's process: killed, for its memory perhaps, or crashed",
    ray_exceptions.ObjectLostError: "needed a value that was lost with another node",
    ray_exceptions.ObjectStoreFullError: "has no space left in its object store",
    ray_exceptions.OutOfDiskError: "has no space left on its disk",
    ray_exceptions.TaskCancelledError: "was told to end the training",
}
"""Why a training has no result, as what a node did."""


class WorkerLost(RuntimeError):
    """A training ended without a result: its worker, its node, or what it needed was lost."""

    lost = True
    """What was shared with it may be lost too."""


def original(error: BaseException, node: str) -> Exception:
    """What a task raised, or else a `WorkerLost` that names the node and the reason."""
    if isinstance(error, ray_exceptions.RayTaskError):
        cause = error.cause
        error = cause if isinstance(cause, Exception) else RuntimeError(one_line(error))
    if not isinstance(error, ray_exceptions.RayError):
        return error if isinstance(error, Exception) else RuntimeError(repr(error))
    reasons = (reason for kind, reason in _REASONS.items() if isinstance(error, kind))
    lost = WorkerLost(f"{node} {next(reasons, f'did not end the training: {one_line(error)}')}")
    lost.__cause__ = error
    return lost
