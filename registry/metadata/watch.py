"""Has anything changed? Asked before every answer, so it must cost next to nothing (design D8).

SQLite counts commits of other connections in `PRAGMA data_version`, 2 µs to read; a connection
that does nothing else sees all of them. PostgreSQL has no such thing: one query serves all who
asked before it began (`registry.metadata.head_query`).
"""

import asyncio
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from registry.errors import DatabaseUnavailableError
from registry.metadata import heads
from registry.metadata.database import Database
from registry.metadata.heads import NOWHERE, Changed, Heads

if TYPE_CHECKING:
    from registry.metadata.head_query import HeadQuery


IN_A_ROW = 64
"""Questions after which the loop has its turn."""


class Watch:
    """The numbers of the last changes, as of the moment they are asked for."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self._commits = _Commits(database.path) if database.embedded else None
        self._query = _open_query(database)
        self._forget: list[Callable[[Changed], None]] = []
        self._in_a_row = 0
        self._seen = -1
        self._heads = NOWHERE
        self._began = float("-inf")
        self._next: asyncio.Future[Heads] | None = None
        self._task: asyncio.Task[None] | None = None

    def subscribe(self, forget: Callable[[Changed], None]) -> None:
        """Have `forget` called with the repositories that changed, before anybody is told of heads
        that are behind those changes.
        """
        self._forget.append(forget)

    def peek(self, since: float | None = None) -> Heads | None:
        """The heads, where they are known without a question, as `read` tells them.

        None now and then all the same, so that `read` lets other tasks run: a task that is answered
        from memory each time would never yield to the loop.
        """
        if self._in_a_row >= IN_A_ROW:
            return None
        self._in_a_row += 1
        return self._find_known(since)

    def _find_known(self, since: float | None) -> Heads | None:
        if since is not None and self._began >= since:
            return self._heads
        if self._commits is None or self._seen < 0 or self._commits.count() != self._seen:
            return None
        return self._heads

    async def read(self, since: float | None = None) -> Heads:
        """The heads as of now, or as of some moment after `since` (of `time.monotonic`).

        DatabaseUnavailableError.
        """
        if self._in_a_row >= IN_A_ROW:
            await asyncio.sleep(0)
            self._in_a_row = 0
        self._in_a_row += 1
        known = self._find_known(since)
        if known is not None:
            return known
        # A query that has begun may be older than this question: the next one answers it.
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
        waiting = self._next
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        try:
            return await asyncio.shield(waiting)
        except DatabaseUnavailableError as error:
            # One of his own for each: what all share would grow by the way of each.
            raise DatabaseUnavailableError(error.message) from None

    async def _run(self) -> None:
        while self._next is not None:
            asked, self._next = self._next, None
            try:
                began = time.monotonic()
                seen = self._commits.count() if self._commits is not None else -1
                now, changed = await self._ask()
            except Exception as error:  # noqa: BLE001 - whoever asked gets it
                # Who asked since has waited for the database as well, and would wait as long again.
                late, self._next = self._take(), None
                for each in (asked, late):
                    if each is not None:
                        each.set_exception(error)
                        each.exception()  # nobody may be left to ask: that is no fault
            else:
                if changed is None or changed:
                    for forget in self._forget:
                        forget(changed)
                self._seen, self._heads, self._began = seen, now, began
                asked.set_result(now)
        self._task = None

    def _take(self) -> asyncio.Future[Heads] | None:
        return self._next

    async def _ask(self) -> tuple[Heads, Changed]:
        last = self._heads
        if self._query is not None:
            return await self._query.ask(last)
        return await self._db.read(lambda tx: heads.read(tx, last))

    def close(self) -> None:
        if self._commits is not None:
            self._commits.close()
        if self._query is not None:
            self._query.close()


def _open_query(database: Database) -> "HeadQuery | None":
    if database.connections is None:
        return None
    # psycopg is an extra: only those who have PostgreSQL have it.
    from registry.metadata.head_query import HeadQuery  # noqa: PLC0415

    return HeadQuery(database, database.connections)


class _Commits:
    """Counts commits of all other connections to an embedded database, in any process."""

    def __init__(self, path: Path) -> None:
        # Asked on the loop, so it never waits: a locked file is one that cannot be read now.
        self._connection = sqlite3.connect(
            path, timeout=0, isolation_level=None, check_same_thread=False
        )
        self._connection.execute("PRAGMA query_only=1")

    def count(self) -> int:
        """The count; -1, which is no count, where the file cannot be read now."""
        try:
            (value,) = self._connection.execute("PRAGMA data_version").fetchone()
        except sqlite3.Error:
            return -1
        return int(value)

    def close(self) -> None:
        self._connection.close()
