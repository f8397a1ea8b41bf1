"""The commits of this process, so that no query has to read their revisions and rows (SQLite).

The writer holds SQLite's write lock until its transaction is committed, so nothing else is
committed between the two reads of the header, unless another process commits just after it.
"""

import mmap
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from msgspec import Struct

from registry.metadata.engine.group_changes import GroupChanges
from registry.metadata.engine.transaction import RowChange, Transaction
from registry.metadata.revisions import revisions
from registry.metadata.revisions.revisions import Revisions
from registry.metadata.revisions.wal_index import is_next, read_header
from registry.oci.names import RepositoryName

MOST = 64
"""Commits that are kept until the event loop needs the revisions."""


MOST_ROWS = 10_000
"""Rows that are kept."""


class OwnCommit(Struct, frozen=True):
    """The state of the database directly after a commit of this process.

    `feed_before` is the revision of the feed before it, and `changed` are the repositories that it
    changed. `read_at` is a time before the commit, of `time.monotonic`.
    """

    mark: bytes
    revisions: Revisions
    feed_before: int
    changed: frozenset[RepositoryName]
    read_at: float


class OwnCommits:
    """The latest commits of this process. The thread of the writer adds them."""

    def __init__(self, find_header: Callable[[], mmap.mmap | None]) -> None:
        """`find_header` returns the mapped header, if there is one."""
        self._find_header = find_header
        self._commits: deque[OwnCommit] = deque(maxlen=MOST)
        self._last: OwnCommit | None = None
        self._rows: dict[str, Any] = {}
        self._pending: tuple[bytes, Revisions, GroupChanges, float] | None = None

    def before_commit(self, tx: Transaction, changes: GroupChanges) -> None:
        """Note the revisions that the transaction leaves, before it is committed."""
        self._pending = None
        header = self._find_header()
        before = None if header is None else read_header(header)
        if before is not None:
            read_at = time.monotonic()
            self._pending = before, self._find_revisions(tx, before, changes), changes, read_at

    def _find_revisions(self, tx: Transaction, before: bytes, changes: GroupChanges) -> Revisions:
        last = self._last
        if last is not None and last.mark == before and not changes.policy:
            return Revisions(last.revisions.feed + len(changes.repositories), last.revisions.policy)
        return revisions.read_revisions(tx)

    def after_commit(self) -> None:
        """Add the commit, unless another process has committed since."""
        pending, self._pending = self._pending, None
        header = self._find_header()
        mark = None if header is None else read_header(header)
        if pending is None or mark is None:
            self._lose_track()
            return
        before, latest, changes, read_at = pending
        if mark != before and not is_next(before, mark):
            self._lose_track()
            return
        names = changes.repositories
        commit = OwnCommit(mark, latest, latest.feed - len(names), frozenset(names), read_at)
        if self._last is None or self._last.mark != before or changes.may_change_others:
            self._rows.clear()
        if not changes.may_change_others:
            self._keep_rows(changes.rows)
        self._last = commit  # not before its rows are kept: see `find_row`
        self._commits.append(commit)

    def _lose_track(self) -> None:
        self._last = None
        self._rows.clear()

    def _keep_rows(self, rows: list[RowChange]) -> None:
        for key, before, after in rows:
            # A row that was dropped meanwhile may have changed in columns that `after` does not
            # know.
            if after is not None and (before is None or self._rows.get(key) == before):
                self._rows[key] = after
            else:
                self._rows.pop(key, None)
        while len(self._rows) > MOST_ROWS:
            del self._rows[next(iter(self._rows))]

    def find_row(self, key: str) -> Any | None:
        """Return a row that this process has written, if nothing has changed it since.

        No other process may have committed since the last commit of this one, and a commit that is
        in progress counts as one. Called on the event loop.
        """
        last, row, header = self._last, self._rows.get(key), self._find_header()
        if last is None or header is None:
            return None
        return row if read_header(header) == last.mark else None

    def take(self) -> Iterator[OwnCommit]:
        """Yield the commits that were added since the last call, the oldest first."""
        while self._commits:
            yield self._commits.popleft()
