"""The audit log, merged with the change feed."""

import json
from datetime import datetime
from typing import Annotated, Any

from msgspec import Meta

from registry.api.admin.call import OperationContext
from registry.api.admin.fields import (
    PAGE,
    Page,
    RequestModel,
    ResponseModel,
    Size,
    Text,
    Timestamp,
    clamp,
    read_timestamp,
)
from registry.api.admin.grants import SOME_REPOSITORY_ADMINS
from registry.api.admin.operation import Operation
from registry.auth.policy.patterns import RepositoryPattern, minimize
from registry.clock import rfc3339
from registry.services.access.audit import Cursor, EventRow, Source, make_filter


class Event(ResponseModel, frozen=True):
    """An event: what happened, who did it and from which address.

    `address` is empty for the command line and for events of the change feed (`source`). `number`
    is unique within a source.
    """

    source: Source
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

    n: Size = PAGE
    last: Annotated[Text, Meta(description="`next` of the page before")] = ""
    since: Annotated[datetime, Meta(tz=True)] = datetime.fromisoformat("1970-01-01T00:00:00Z")
    actor: Text = ""
    event: Annotated[
        Text,
        Meta(
            description="kinds between commas, `*` for any text",
            extra_json_schema={"examples": ["tag.*", "tag.delete,manifest.delete"]},
        ),
    ] = ""
    repository: Annotated[Text, Meta(description="a repository, or a pattern of them")] = ""
    newest_first: bool = False


def _show(row: EventRow) -> Event:
    detail = json.loads(row.detail)
    if row.count > 1:
        detail["count"] = row.count
    if row.digest is not None:
        detail["digest"] = str(row.digest)
    if row.old_digest is not None:
        detail["old_digest"] = str(row.old_digest)
    return Event(
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


async def list_events(call: OperationContext, asked: ListEvents) -> Page[Event]:
    """List the audit log and the pushes and deletions of the change feed, the oldest first.

    Callers who administer only some repositories see the events in them and changes to their rules.
    """
    which = make_filter(
        since=read_timestamp(asked.since),
        actor=asked.actor,
        event=asked.event,
        within=_bound(call, asked.repository),
    )
    page = await call.access.audit.list_events(
        clamp(asked.n), which, Cursor.parse(asked.last), newest_first=asked.newest_first
    )
    return Page([_show(row) for row in page.rows], str(page.next) if page.next else None)


def _bound(call: OperationContext, repository: str) -> list[RepositoryPattern] | None:
    """Return the repositories whose events the caller sees; None: all events."""
    asked = RepositoryPattern.parse(repository) if repository else None
    if call.is_admin:
        return None if asked is None else [asked]
    if asked is None:
        return call.administered
    met = (asked.intersect(each) for each in call.administered)
    return minimize(each for each in met if each is not None)


OPERATIONS = (Operation("GET", "/audit", list_events, SOME_REPOSITORY_ADMINS),)
