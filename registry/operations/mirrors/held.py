"""Digests of tags that mirrors hold back."""

from registry.clock import rfc3339
from registry.errors import ConflictError, NotFoundError
from registry.operations.context import OperationContext
from registry.operations.fields import Page, ResponseModel, Timestamp
from registry.operations.mirrors.mirrors import NamedMirror
from registry.operations.operation import ADMINS, Operation

_SECOND = 1_000_000


class HeldDigest(ResponseModel, frozen=True):
    """A digest of a tag that is held back until `held_until`.

    `answer` is the digest with which the tag answers until then; null if that is not cached.
    """

    repository: str
    tag: str
    digest: str
    first_seen_at: Timestamp
    held_until: Timestamp
    answer: str | None


async def list_held_digests(context: OperationContext, request: NamedMirror) -> Page[HeldDigest]:
    """List the digests that a mirror holds back, at most 1000, the first to be served first."""
    mirror = await context.registry.mirrors.get(request.name)
    cooldown = int(mirror.options.cooldown_s * _SECOND) if mirror.options.cooldown_s else 0
    held = await context.registry.cooldowns.list_held(mirror)
    return Page(
        [
            HeldDigest(
                repository=str(each.repository),
                tag=each.tag,
                digest=str(each.digest),
                first_seen_at=rfc3339(each.first_seen_at),
                held_until=rfc3339(each.first_seen_at + cooldown),
                answer=None if each.answer is None else str(each.answer),
            )
            for each in held
        ],
        None,
    )


OPERATIONS = (
    Operation(
        "GET", "/mirrors/{name}/held", list_held_digests, ADMINS, (NotFoundError, ConflictError)
    ),
)
