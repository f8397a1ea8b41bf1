"""The audit log, merged with the change feed."""

import json
from datetime import datetime
from typing import Annotated, Any

from msgspec import Meta

from registry.auth.policy.patterns import RepositoryPattern, minimize
from registry.clock import rfc3339
from registry.operations.context import OperationContext
from registry.operations.fields import (
    PAGE_SIZE,
    Page,
    RequestModel,
    ResponseModel,
    Size,
    Text,
    Timestamp,
    clamp,
    read_timestamp,
)
from registry.operations.operation import Operation
from registry.operations.permissions import SOME_REPOSITORY_ADMINS
from registry.services.access.audit import Cursor, EventRow, EventSource, make_filter


class AuditEvent(ResponseModel, frozen=True):
    """An event: what happened, who did it and from which address.

    `address` is empty for the command line and for events of the change feed (`source`). `number`
    is unique within a source.
    """

    source: EventSource
    number: int
    at: Timestamp
    actor: str
    address: str
    request_id: str
    event: str
    target: str
    detail: dict[str, Any]


class ListEvents(RequestModel, frozen=True):
    """A page of events: `n` entries after `last`.

    Filters: events since a time, by one actor, of some kinds, or of the repositories of a pattern.
    `newest_first` reverses the order.
    """

    n: Size = PAGE_SIZE
    last: Annotated[Text, Meta(description="The `next` of the previous page.")] = ""
    since: Annotated[datetime, Meta(tz=True)] = datetime.fromisoformat("1970-01-01T00:00:00Z")
    actor: Text = ""
    event: Annotated[
        Text,
        Meta(
            description="Kinds of events, separated by commas. `*` stands for any text.",
            extra_json_schema={"examples": ["tag.*", "tag.delete,manifest.delete"]},
        ),
    ] = ""
    repository: Annotated[Text, Meta(description="A repository, or a pattern of repositories.")] = (
        ""
    )
    newest_first: bool = False


def _show(row: EventRow) -> AuditEvent:
    detail = json.loads(row.detail)
    if row.count > 1:
        detail["count"] = row.count
    if row.digest is not None:
        detail["digest"] = str(row.digest)
    if row.old_digest is not None:
        detail["old_digest"] = str(row.old_digest)
    return AuditEvent(
        source=row.source,
        number=row.number,
        at=rfc3339(row.at),
        actor=row.actor,
        address=row.address,
        request_id=row.request_id,
        event=row.kind,
        target=row.target,
        detail=detail,
    )


async def list_events(context: OperationContext, request: ListEvents) -> Page[AuditEvent]:
    """List the audit log and the pushes and deletions of the change feed, the oldest first.

    Callers who administer only some repositories see the events in them and changes to their rules.
    """
    which = make_filter(
        since=read_timestamp(request.since),
        actor=request.actor,
        event=request.event,
        within=_bound(context, request.repository),
    )
    page = await context.access.audit.list_events(
        clamp(request.n), which, Cursor.parse(request.last), newest_first=request.newest_first
    )
    return Page([_show(row) for row in page.rows], str(page.next) if page.next else None)


def _bound(context: OperationContext, repository: str) -> list[RepositoryPattern] | None:
    """Return the repositories whose events the caller sees; None: all events."""
    request = RepositoryPattern.parse(repository) if repository else None
    if context.is_admin:
        return None if request is None else [request]
    if request is None:
        return context.administered
    met = (request.intersect(each) for each in context.administered)
    return minimize(each for each in met if each is not None)


OPERATIONS = (Operation("GET", "/audit", list_events, SOME_REPOSITORY_ADMINS),)
