"""The audit log."""

import json
from datetime import datetime
from typing import Annotated, Any

from msgspec import Meta

from registry.api.admin.call import Call
from registry.api.admin.fields import (
    PAGE,
    Asked,
    Moment,
    Number,
    Page,
    Shown,
    Size,
    Text,
    clamp,
    make_page,
    read_moment,
)
from registry.api.admin.operation import ADMINS, Operation
from registry.clock import rfc3339
from registry.services.audit import AuditRow


class Event(Shown, frozen=True):
    """What happened, who did it and from where. The command line has no address."""

    number: int
    at: Moment
    actor: str
    address: str
    request_id: str
    event: str
    target: str
    detail: dict[str, Any]


class ListEvents(Asked, frozen=True):
    """A page of events by number: `n` entries after `last`, since a time, of one actor."""

    n: Size = PAGE
    last: Number = 0
    since: Annotated[datetime, Meta(tz=True)] = datetime.fromisoformat("1970-01-01T00:00:00Z")
    actor: Text = ""


def _show(row: AuditRow) -> Event:
    return Event(
        number=row.number,
        at=rfc3339(row.at),
        actor=row.actor,
        address=row.address,
        request_id=row.request_id,
        event=row.kind,
        target=row.target,
        detail=json.loads(row.detail),
    )


async def list_events(call: Call, asked: ListEvents) -> Page[Event]:
    """List the audit log, the oldest event first."""
    n = clamp(asked.n)
    rows = await call.access.audit.list_page(
        n + 1, after=asked.last, since=read_moment(asked.since), actor=asked.actor or None
    )
    return make_page(rows, n, _show, lambda row: row.number)


OPERATIONS = (Operation("GET", "/audit", list_events, ADMINS),)
