"""Holds, which protect manifests from every deletion."""

from typing import Annotated

from msgspec import Meta

from registry.auth.policy.patterns import RepositoryPattern
from registry.clock import rfc3339
from registry.errors import NameInvalidError, NotFoundError
from registry.oci.names import RepositoryName
from registry.operations.context import OperationContext
from registry.operations.fields import (
    PAGE_SIZE,
    DigestText,
    DurationText,
    Number,
    Page,
    RepositoryText,
    RequestModel,
    ResponseModel,
    Size,
    Text,
    Timestamp,
    clamp,
    make_visible_page,
    read_digest,
    read_duration,
    write_timestamp,
)
from registry.operations.operation import Operation, deny
from registry.operations.permissions import REPOSITORY_ADMINS, SOME_ADMINS
from registry.services.protection import holds
from registry.services.protection.holds import LONGEST_REASON

Reason = Annotated[str, Meta(extra_json_schema={"minLength": 1, "maxLength": LONGEST_REASON})]


class Hold(ResponseModel, frozen=True):
    """A hold on a manifest, which keeps the manifest and everything that it refers to.

    An expired hold is deleted automatically.
    """

    id: int
    repository: str
    digest: str
    reason: str
    created_by: str
    created_at: Timestamp
    expires_at: Timestamp | None


class ListHolds(RequestModel, frozen=True):
    """A page of holds by ID: `n` entries after `last`, of one repository if it is given."""

    n: Size = PAGE_SIZE
    last: Number = 0
    repository: Text = ""


class CreateHold(RequestModel, frozen=True):
    """The manifest to hold, and the reason. Without `expires`, the hold never expires."""

    repository: RepositoryText
    digest: DigestText
    reason: Reason
    expires: DurationText | None = None


class NumberedHold(RequestModel, frozen=True):
    """The ID of a hold."""

    id: Number


_EVERYTHING = RepositoryPattern.parse("**")
_REQUIREMENT = "admin on the repository of the hold"


def _show(row: holds.HoldRow) -> Hold:
    return Hold(
        id=row.id,
        repository=str(row.repository),
        digest=str(row.digest),
        reason=row.reason,
        created_by=row.created_by,
        created_at=rfc3339(row.created_at),
        expires_at=write_timestamp(row.expires_at),
    )


def _administers(context: OperationContext, row: holds.HoldRow) -> bool:
    return context.administers(RepositoryPattern.parse(str(row.repository)))


async def list_holds(context: OperationContext, request: ListHolds) -> Page[Hold]:
    """List the holds in repositories that the caller may administer."""
    return await make_visible_page(
        context.registry.holds.list_page,
        clamp(request.n),
        request.last,
        is_visible=lambda row: (
            request.repository in {"", str(row.repository)} and _administers(context, row)
        ),
        show=_show,
        key=lambda row: row.id,
    )


async def create_hold(context: OperationContext, request: CreateHold) -> Hold:
    """Hold a manifest: nothing can delete it or what it refers to. Its tags can still move."""
    return _show(
        await context.registry.holds.add(
            RepositoryName.parse(request.repository),
            read_digest(request.digest),
            request.reason,
            context.actor,
            life=read_duration(request.expires),
        )
    )


async def delete_hold(context: OperationContext, request: NumberedHold) -> None:
    """Delete a hold. If nothing else keeps the manifest, its grace period starts now."""
    try:
        row = await context.registry.holds.get(request.id)
    except NotFoundError:
        if not context.administers(_EVERYTHING):
            raise deny(context, _REQUIREMENT) from None
        raise
    if not _administers(context, row):
        raise deny(context, _REQUIREMENT)
    await context.registry.holds.remove(row.id, context.actor)


OPERATIONS = (
    Operation("GET", "/holds", list_holds, SOME_ADMINS),
    Operation(
        "POST", "/holds", create_hold, REPOSITORY_ADMINS, (NameInvalidError, NotFoundError), 201
    ),
    Operation("DELETE", "/holds/{id}", delete_hold, SOME_ADMINS, (NotFoundError,), 204),
)
