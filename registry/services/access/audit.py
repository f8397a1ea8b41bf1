"""Queries over the audit log and the change feed, and trimming of the audit log."""

import fnmatch
import heapq
import re
from collections.abc import Iterable
from itertools import islice
from typing import Self

from msgspec import Struct

from registry import clock
from registry.auth.audit_log import Event
from registry.auth.policy.patterns import RepositoryPattern
from registry.errors import InputInvalidError
from registry.metadata.access import audit
from registry.metadata.engine.database import Database
from registry.metadata.engine.deadlines import LONG_TIMEOUT_S
from registry.metadata.engine.transaction import Change, Transaction
from registry.metadata.revisions import events
from registry.metadata.revisions.events import EventFilter, EventRow, EventSource
from registry.services.content.repositories import read_region

__all__ = ["Audit", "Cursor", "EventPage", "EventRow", "EventSource", "make_filter"]

_AT_ONCE = 1000

_KINDS = sorted({*(event.value for event in Event), *(change.value for change in Change)})

# Kinds of audit log events whose target is a repository, its content, or a repository pattern.
_OF_REPOSITORIES = frozenset(
    event.value
    for event in Event
    if event.value.startswith(("quota.", "retention.", "immutable.", "hold.", "tag."))
)

_CURSOR = re.compile(r"([0-9]{1,18})-([0-9]{1,18})")


class Cursor(Struct, frozen=True):
    """Position in both event sources. None means that nothing has been read from a source."""

    audit: int | None = None
    feed: int | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse the output of `str`. An empty text is the start. Raises InputInvalidError."""
        if not text:
            return cls()
        match = _CURSOR.fullmatch(text)
        if match is None:
            raise InputInvalidError(
                "invalid `last`: use the value from `next` of the previous page"
            )
        return cls(int(match[1]), int(match[2]))

    def move(self, rows: Iterable[EventRow], *, newest_first: bool) -> "Cursor":
        """Return the cursor after the given events."""
        # No event precedes number 0, so a source without rows stays unbounded.
        start = events.BEYOND if newest_first else 0
        last = {EventSource.AUDIT: self.audit, EventSource.FEED: self.feed}
        last |= {row.source: row.number for row in rows}
        found = {source: start if number is None else number for source, number in last.items()}
        return Cursor(found[EventSource.AUDIT], found[EventSource.FEED])

    def __str__(self) -> str:
        return f"{self.audit}-{self.feed}"


class EventPage(Struct, frozen=True):
    """A page of events. `next` is None on the last page."""

    rows: list[EventRow]
    next: Cursor | None


def make_filter(
    *,
    since: int = 0,
    actor: str = "",
    event: str = "",
    within: Iterable[RepositoryPattern] | None = None,
) -> EventFilter:
    """Return a filter for events.

    `event` is a comma-separated list of kinds, with `*` as a wildcard, such as `tag.*`. `within`
    selects repositories. Raises InputInvalidError for an unknown kind.
    """
    return EventFilter(
        since=since,
        actor=actor,
        kinds=_read_kinds(event) if event else None,
        regions=None if within is None else tuple(read_region(each) for each in within),
        repository_kinds=_OF_REPOSITORIES,
    )


def _read_kinds(text: str) -> frozenset[str]:
    kinds: set[str] = set()
    for word in text.split(","):
        found = fnmatch.filter(_KINDS, word.strip())
        if not found:
            raise InputInvalidError(
                f"unknown event {word.strip()[:40]!r}; events are {', '.join(_KINDS)}"
            )
        kinds.update(found)
    return frozenset(kinds)


class Audit:
    """The history of a registry: audit log and change feed.

    The audit log holds failed sign-ins, issued tokens, and changes of permissions. The change feed
    holds every push and deletion.
    """

    def __init__(self, database: Database) -> None:
        self._db = database

    async def list_events(
        self, n: int, which: EventFilter, last: Cursor, *, newest_first: bool = False
    ) -> EventPage:
        """Return at most `n` events of both sources after the cursor, ordered by time."""

        def work(tx: Transaction) -> list[EventRow]:
            # Each source is read in the order of its own numbers, so a cursor never skips an event
            # even if the clocks of the writing processes differ.
            sources = (
                events.list_audit(tx, n + 1, which, last.audit, newest_first=newest_first),
                events.list_feed(tx, n + 1, which, last.feed, newest_first=newest_first),
            )
            merged = heapq.merge(*sources, key=lambda row: row.at, reverse=newest_first)
            return list(islice(merged, n + 1))

        rows = await self._db.read(work, timeout_s=LONG_TIMEOUT_S)
        shown = rows[:n]
        following = last.move(shown, newest_first=newest_first) if len(rows) > n else None
        return EventPage(shown, following)

    async def trim(self, age: float) -> int:
        """Delete a batch of events older than `age` seconds. Return their number."""
        before = clock.now_us() - int(age * 1_000_000)
        return await self._db.write(
            lambda tx: audit.delete_before(tx, before, _AT_ONCE), actor="operator"
        )
