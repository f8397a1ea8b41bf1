"""Has the policy changed? Asked before every answer, so it must cost next to nothing (design D8).

SQLite counts commits of other connections in `PRAGMA data_version`, 2 µs to read; a connection
that does nothing else sees all of them. PostgreSQL has no such thing: one query serves all who
asked before it began (`registry.metadata.head`).
"""

import asyncio
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from registry.metadata import policy
from registry.metadata.database import Database

if TYPE_CHECKING:
    from registry.metadata.head import HeadQuery


class PolicyWatch:
    """The number of the policy's last change, as of the moment it is asked for."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self._commits = _Commits(database.path) if database.embedded else None
        self._head = None if database.embedded else _open_head(database.url)
        self._seen = -1
        self._number = 0
        self._next: asyncio.Future[int] | None = None
        self._task: asyncio.Task[None] | None = None

    def peek(self) -> int | None:
        """The number, where nothing was committed since it was last read."""
        if self._commits is None or self._seen < 0 or self._commits.count() != self._seen:
            return None
        return self._number

    async def read(self) -> int:
        """The number. DatabaseUnavailableError."""
        known = self.peek()
        if known is not None:
            return known
        # A query that has begun may be older than this question: the next one answers it.
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
        waiting = self._next
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        return await asyncio.shield(waiting)

    async def _run(self) -> None:
        while self._next is not None:
            asked, self._next = self._next, None
            try:
                seen = self._commits.count() if self._commits is not None else -1
                number = await self._ask()
            except Exception as error:  # noqa: BLE001 - whoever asked gets it
                asked.set_exception(error)
                asked.exception()  # nobody may be left to ask: that is no fault
            else:
                self._seen, self._number = seen, number
                asked.set_result(number)
        self._task = None

    async def _ask(self) -> int:
        if self._head is not None:
            return await self._head.ask()
        return await self._db.read(policy.read_number)

    def close(self) -> None:
        if self._commits is not None:
            self._commits.close()
        if self._head is not None:
            self._head.close()


def _open_head(url: sa.URL) -> "HeadQuery":
    # psycopg is an extra: only those who have PostgreSQL have it.
    from registry.metadata.head import HeadQuery  # noqa: PLC0415

    return HeadQuery(url)


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
