"""How a mirror does: requests by result, bytes, and the state of its upstream."""

from registry.clock import rfc3339
from registry.errors import ConflictError, NotFoundError
from registry.operations.context import OperationContext
from registry.operations.fields import ResponseModel, Timestamp
from registry.operations.mirrors.mirrors import NamedMirror
from registry.operations.operation import ADMINS, Operation
from registry.services.mirrors.status import find_state


class MirrorStatus(ResponseModel, frozen=True):
    """Counts since this server was started, and the last state of the upstream.

    `is_up` is null before the first request to the upstream. The quota of pulls is null if the
    upstream states none. `last_error` is that of the worker process that answers.
    """

    name: str
    hits: int
    misses: int
    stale: int
    unknown: int
    errors: int
    received_bytes: int
    sent_bytes: int
    is_up: bool | None
    last_error: str | None
    last_error_at: Timestamp | None
    quota_limit: int | None
    quota_remaining: int | None


async def get_mirror_status(context: OperationContext, request: NamedMirror) -> MirrorStatus:
    """Return what the cache of a mirror was good for, and the state of its upstream."""
    mirror = await context.registry.mirrors.get(request.name)
    found = find_state(context.registry.upstreams, mirror.name)
    failure = found.failure
    return MirrorStatus(
        mirror.name,
        found.results.get("hit", 0),
        found.results.get("miss", 0),
        found.results.get("stale", 0),
        found.results.get("unknown", 0),
        found.results.get("error", 0),
        found.received_bytes,
        found.sent_bytes,
        found.is_up,
        failure.message if failure is not None else None,
        rfc3339(failure.at) if failure is not None else None,
        found.quota_limit,
        found.quota_remaining,
    )


OPERATIONS = (
    Operation(
        "GET", "/mirrors/{name}/status", get_mirror_status, ADMINS, (NotFoundError, ConflictError)
    ),
)
