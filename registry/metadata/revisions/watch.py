"""Revision check before each response, which therefore must cost almost nothing.

With SQLite, every commit changes a header that this process maps into memory
(`registry.metadata.revisions.wal_index`). PostgreSQL has no equivalent: one query serves all
callers that asked before it began (`registry.metadata.revisions.query`).
"""

import asyncio
import mmap
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.errors import DatabaseUnavailableError
from registry.metadata.engine.database import Database
from registry.metadata.revisions import revisions
from registry.metadata.revisions.own_commits import OwnCommits
from registry.metadata.revisions.revisions import UNKNOWN, Changed, Revisions
from registry.metadata.revisions.wal_index import HEADER, map_header, read_header

if TYPE_CHECKING:
    from registry.metadata.revisions.query import RevisionQuery


MAX_KNOWN_IN_A_ROW = 64
"""Answers from memory after which other tasks get a turn on the event loop."""


class RevisionWatch:
    """The latest revisions, as of the moment of the request."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self._commits = _Commits(database.path) if database.embedded else None
        self._own = _listen(database, self._commits)
        self._query = _open_query(database)
        self._forget: list[Callable[[Changed], None]] = []
        self._known_in_a_row = 0
        self._seen: bytes | None = None
        self._heads = UNKNOWN
        self._changes = 0
        """The number of reads that found a change."""
        self._began = float("-inf")
        self._next: asyncio.Future[Revisions] | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def policy(self) -> int:
        """The latest policy revision that was read."""
        return self._heads.policy

    @property
    def needs_query(self) -> bool:
        """Whether only a query shows that the revisions are current: on PostgreSQL."""
        return self._commits is None

    def read_mark(self) -> bytes | None:
        """Return a value that every commit changes; None during a commit.

        On PostgreSQL, the value changes when a change is read. Changes that nobody has read yet are
        passed to all subscribers before the next query answers any caller.
        """
        return self._commits.mark() if self._commits is not None else b"%d" % self._changes

    def find_mark(self) -> bytes | None:
        """Return the mark as of which the revisions are known, or None if it has changed."""
        if self._commits is None:
            return self.read_mark()
        return self._seen if self.is_current() else None

    def subscribe(self, forget: Callable[[Changed], None]) -> None:
        """Call `forget` with the repositories that changed.

        It is called before any caller receives revisions that include those changes.
        """
        self._forget.append(forget)

    def latest_known(self, since: float | None = None) -> Revisions | None:
        """Return the revisions if they are known without a query, as `read` would.

        Returns None now and then even if they are known, so that `read` lets other tasks run: a
        task that is always answered from memory would never yield to the event loop.
        """
        if self._known_in_a_row >= MAX_KNOWN_IN_A_ROW:
            return None
        self._known_in_a_row += 1
        return self._find_known(since)

    def _find_known(self, since: float | None) -> Revisions | None:
        if since is not None and self._began >= since:
            return self._heads
        if self.is_current():
            return self._heads
        return self._heads if self._adopt_own_commits() and self.is_current() else None

    def _adopt_own_commits(self) -> bool:
        """Learn the revisions that this process has committed. Return whether there were any."""
        adopted = False
        for commit in self._own.take() if self._own is not None else ():
            # Other processes may have committed before it. A query then lists what they changed.
            if (
                commit.feed_before == self._heads.feed
                and commit.revisions.policy >= self._heads.policy
            ):
                if commit.changed:
                    self._tell(commit.changed)
                self._seen, self._heads, self._began = commit.mark, commit.revisions, commit.read_at
                adopted = True
        return adopted

    def _tell(self, changed: Changed) -> None:
        for forget in self._forget:
            forget(changed)

    def is_current(self) -> bool:
        """Return whether nothing was committed since the latest revisions were read.

        Always False on PostgreSQL.
        """
        commits, seen = self._commits, self._seen
        return commits is not None and seen is not None and commits.has_mark(seen)

    def find_row(self, key: str) -> Any | None:
        """Return a row that this process has written, if it is provably current.

        `key` is that of its `RowChange`. Always None on PostgreSQL.
        """
        return self._own.find_row(key) if self._own is not None else None

    async def read(self, since: float | None = None) -> Revisions:
        """Return the revisions as of now, or as of a moment after `since` (of `time.monotonic`).

        Raises DatabaseUnavailableError.
        """
        if self._known_in_a_row >= MAX_KNOWN_IN_A_ROW:
            await asyncio.sleep(0)
            self._known_in_a_row = 0
        self._known_in_a_row += 1
        known = self._find_known(since)
        if known is not None:
            return known
        try:
            return await asyncio.shield(self.start_read())
        except DatabaseUnavailableError as error:
            # A new exception for each caller: the traceback of a shared one would grow with each.
            raise DatabaseUnavailableError(error.message) from None

    def start_read(self) -> asyncio.Future[Revisions]:
        """Return the result of the next query, which all callers share until it begins.

        A running query may be older than the request of the caller. The caller does not cancel the
        future.
        """
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        return self._next

    async def _run(self) -> None:
        while self._next is not None:
            asked, self._next = self._next, None
            last = self._heads
            try:
                began = time.monotonic()
                seen = self.read_mark()
                now, changed = await self._ask()
            except Exception as error:  # noqa: BLE001 - the callers get it
                # Later callers have waited for the database too, and would wait as long again.
                late, self._next = self._take(), None
                for each in (asked, late):
                    if each is not None:
                        each.set_exception(error)
                        # Mark the exception as retrieved, because no caller may be left.
                        each.exception()
            else:
                if changed is None or changed or now != self._heads:
                    self._changes += 1
                if changed is None or changed:
                    self._tell(changed)
                # Own commits that were adopted meanwhile can be later than the query.
                if self._heads is last or now.feed >= self._heads.feed:
                    self._seen, self._heads, self._began = seen, now, began
                asked.set_result(self._heads)
        self._task = None

    def _take(self) -> asyncio.Future[Revisions] | None:
        return self._next

    async def _ask(self) -> tuple[Revisions, Changed]:
        last = self._heads
        if self._query is not None:
            return await self._query.ask(last)
        return await self._db.read(lambda tx: revisions.read(tx, last))

    def close(self) -> None:
        if self._commits is not None:
            self._commits.close()
        if self._query is not None:
            self._query.close()


def _open_query(database: Database) -> "RevisionQuery | None":
    if database.connections is None:
        return None
    # psycopg is an optional dependency, present only with PostgreSQL.
    from registry.metadata.revisions.query import RevisionQuery  # noqa: PLC0415

    return RevisionQuery(database, database.connections)


def _listen(database: Database, commits: "_Commits | None") -> OwnCommits | None:
    if commits is None:
        return None
    own = OwnCommits(commits.find_header)
    database.listen(own)
    return own


class _Commits:
    """The commits to an embedded database by other connections, in any process."""

    def __init__(self, path: Path) -> None:
        # Used on the event loop, so it never waits: a locked file counts as unreadable now.
        self._path = path
        self._connection = sqlite3.connect(
            path, timeout=0, isolation_level=None, check_same_thread=False
        )
        self._connection.execute("PRAGMA query_only=1")
        self._header: mmap.mmap | None = None

    def mark(self) -> bytes | None:
        """Return a value that every commit changes, or None if it cannot be read now."""
        if self._header is not None:
            return read_header(self._header)
        try:
            # This also opens the WAL index, which stays valid while the connection is open.
            (value,) = self._connection.execute("PRAGMA data_version").fetchone()
        except sqlite3.Error:
            return None
        self._header = map_header(self._path)
        return read_header(self._header) if self._header is not None else str(value).encode()

    def find_header(self) -> mmap.mmap | None:
        """Return the mapped header, if `mark` has found it. Called on any thread."""
        return self._header

    def has_mark(self, mark: bytes) -> bool:
        """Return whether the mark is still the same."""
        header = self._header
        return (self.mark() if header is None else header[:HEADER]) == mark

    def close(self) -> None:
        self._header = None
        self._connection.close()
