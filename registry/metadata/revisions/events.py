"""Events of the audit log and of the change feed, selected with one filter."""

from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from msgspec import Struct

from registry.metadata.content.repositories import NameRange
from registry.metadata.engine.transaction import Change, Transaction
from registry.metadata.tables import TEXT, audit_log, change_feed
from storage.digest import Digest

_a, _f = audit_log.c, change_feed.c
_repository = sa.type_coerce(_f.repository, TEXT)

_COLLECTOR = "gc"

# Hides blob links: a push links each of its blobs, and the collector unlinks each of them.
_IS_TOLD = sa.and_(
    _f.kind != Change.BLOB_LINK.value,
    sa.or_(_f.kind != Change.BLOB_UNLINK.value, _f.actor != _COLLECTOR),
)

_AUDIT_COLUMNS = (
    _a.id,
    _a.at,
    _a.actor,
    _a.kind,
    _a.target,
    _a.address,
    _a.request_id,
    _a.detail,
    _a.count,
)

BEYOND = 10**18 - 1
"""A number larger than that of any event, so that all events are before it."""

_SOME = 1000
"""Rows read to find the first number since a time; numbers and times differ slightly in order."""


class EventSource(StrEnum):
    """The place where an event is recorded. Numbers are unique within a source."""

    AUDIT = "audit"
    FEED = "feed"


class EventRow(Struct, frozen=True):
    """One event. `at` is in microseconds; `detail` is JSON without secrets.

    Events of the feed have digests, but neither address nor request ID. A row of the audit log
    stands for `count` events within one minute, and `at` is the time of the first.
    """

    source: EventSource
    number: int
    at: int
    actor: str
    kind: str
    target: str
    address: str = ""
    request_id: str = ""
    detail: str = "{}"
    count: int = 1
    digest: Digest | None = None
    old_digest: Digest | None = None


class EventFilter(Struct, frozen=True):
    """A filter for events. `since` is in microseconds; None and empty strings do not restrict.

    `kinds` None selects all kinds except blob links, which pushes create and the collector removes.
    `regions` None selects the events of all repositories and those without a repository.
    `repository_kinds` are the kinds of the audit log whose target is in a repository.
    """

    since: int = 0
    actor: str = ""
    kinds: frozenset[str] | None = None
    regions: tuple[NameRange, ...] | None = None
    repository_kinds: frozenset[str] = frozenset()


def list_audit(
    tx: Transaction, n: int, which: EventFilter, last: int | None, *, newest_first: bool
) -> list[EventRow]:
    """Return at most `n` events of the audit log after the number `last`.

    With `newest_first`, the events before `last`.
    """
    query = sa.select(*_AUDIT_COLUMNS).order_by(_a.id.desc() if newest_first else _a.id)
    query = query.where(*_bound(tx, _a.id, _a.at, which.since, last, newest_first=newest_first))
    if which.actor:
        query = query.where(_a.actor == which.actor)
    if which.kinds is not None:
        query = query.where(_a.kind.in_(sorted(which.kinds)))
    if which.regions is not None:
        of_repositories = _a.kind.in_(sorted(which.repository_kinds))
        query = query.where(of_repositories, _any(_targets(each) for each in which.regions))
    return [EventRow(EventSource.AUDIT, *row) for row in tx.execute(query.limit(n))]


def list_feed(
    tx: Transaction, n: int, which: EventFilter, last: int | None, *, newest_first: bool
) -> list[EventRow]:
    """Return at most `n` events of the change feed, with the parameters of `list_audit`."""
    columns = (
        _f.revision,
        _f.at,
        _f.actor,
        _f.kind,
        _f.repository,
        _f.tag,
        _f.digest,
        _f.old_digest,
    )
    query = sa.select(*columns).order_by(_f.revision.desc() if newest_first else _f.revision)
    query = query.where(
        *_bound(tx, _f.revision, _f.at, which.since, last, newest_first=newest_first)
    )
    if which.actor:
        query = query.where(_f.actor == which.actor)
    if which.kinds is not None:
        query = query.where(_f.kind.in_(sorted(which.kinds)))
    else:
        query = query.where(_IS_TOLD)
    if which.regions is not None:
        query = query.where(_any(_inside(_repository, each) for each in which.regions))
    return [_read_change(row) for row in tx.execute(query.limit(n))]


def _read_change(row: sa.Row[*tuple[Any, ...]]) -> EventRow:
    target = str(row.repository)
    if row.tag is not None:
        target += f":{row.tag}"
    elif row.digest is not None:
        target += f"@{row.digest}"
    return EventRow(
        EventSource.FEED,
        row.revision,
        row.at,
        row.actor,
        row.kind,
        target,
        digest=row.digest,
        old_digest=row.old_digest,
    )


def _bound(
    tx: Transaction,
    number: sa.ColumnElement[int],
    at: sa.ColumnElement[int],
    since: int,
    last: int | None,
    *,
    newest_first: bool,
) -> Iterator[sa.ColumnElement[bool]]:
    """Yield conditions for events since a time and after or before a number."""
    if since > 0:
        # The time's index gives the first number, so that older rows are not read.
        earliest = (
            sa.select(number.label("number"))
            .where(at >= since)
            .order_by(at)
            .limit(_SOME)
            .subquery()
        )
        first = tx.execute(sa.select(sa.func.min(earliest.c.number))).scalar_one()
        yield from (at >= since, number >= (first or 0))
    if last is not None:
        yield number < last if newest_first else number > last


def _any(conditions: Iterable[sa.ColumnElement[bool]]) -> sa.ColumnElement[bool]:
    return sa.or_(sa.false(), *conditions)


def _inside(column: sa.ColumnElement[str], region: NameRange) -> sa.ColumnElement[bool]:
    """Return the condition that the value is a name in the region, or begins with one.

    The value may also be a pattern or a target.
    """
    if region.exact:
        return column == region.start
    found: list[sa.ColumnElement[bool]] = [sa.true()]
    if region.start:
        # Up to the byte after the slash, so that an index can be used.
        found += [column >= region.start, column < region.start.removesuffix("/") + "0"]
    if region.direct_children_only:
        found.append(sa.func.substr(column, len(region.start) + 1).not_like("%/%"))
    return sa.and_(*found)


def _targets(region: NameRange) -> sa.ColumnElement[bool]:
    """Return the condition that the target of an audit event is in the region.

    A target is `name`, `name:tag`, `name@digest` or a pattern of repositories.
    """
    if not region.exact:
        return _inside(_a.target, region)
    within = (_starts(region.start + separator) for separator in ":@")
    return sa.or_(_a.target == region.start, *within)


def _starts(prefix: str) -> sa.ColumnElement[bool]:
    end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
    return sa.and_(_a.target >= prefix, _a.target < end)
