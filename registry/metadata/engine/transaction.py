"""An open transaction, as used by the query modules."""

import random
from collections import Counter
from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import Any, NamedTuple, TypeVar

import sqlalchemy as sa
from msgspec import Struct, field

from registry.metadata import tables
from registry.metadata.engine.statements import (
    DatabaseClock,
    Row,
    Statement,
    Values,
    bind,
    bind_now,
    insert_into,
)
from registry.oci.names import RepositoryName
from storage.digest import Digest

CHUNK = 500
"""Values per IN list, well below the limit of either database."""

Value = TypeVar("Value", Digest, str)

SHARDS = 16
"""Rows over which the bytes of a usage counter are spread."""


class Change(StrEnum):
    """Kinds of changes in the change feed."""

    REPOSITORY_CREATE = "repository.create"
    REPOSITORY_DELETE = "repository.delete"
    MANIFEST_PUT = "manifest.put"
    MANIFEST_DELETE = "manifest.delete"
    TAG_SET = "tag.set"
    TAG_DELETE = "tag.delete"
    BLOB_LINK = "blob.link"
    BLOB_UNLINK = "blob.unlink"


class CandidateKind(StrEnum):
    """Kinds of items that the garbage collector deletes."""

    MANIFEST = "manifest"
    # A blob's link to a repository.
    LINK = "link"
    # The blob itself, once no repository links it.
    BLOB = "blob"


class Part(StrEnum):
    """Parts of the policy, as named by a row of `policy_changes`."""

    USER = "user"
    # The groups of a user.
    GROUPS = "groups"
    ROBOT = "robot"
    SECRET = "secret"  # noqa: S105 - a part of the policy
    GRANT = "grant"
    KEYS = "keys"
    QUOTAS = "quotas"
    REMOVAL = "removal"
    # Nothing that the in-memory policy contains.
    NOTHING = "nothing"
    ALL = "all"


MOST_PARTS = 500
"""Number of changed parts above which the whole policy is reloaded."""

NO_REPOSITORY = 0
"""Placeholder for a repository ID, because blobs belong to no repository."""

Key = tuple[int, CandidateKind, Digest]
"""A candidate: repository ID or NO_REPOSITORY, kind and digest."""


def _prepare_queue() -> Statement:
    table = tables.gc_queue
    given = sa.bindparam("since", type_=sa.BigInteger)
    rows = insert_into(table).values(
        **bind("repository_id", "kind", "digest"),
        grace_started_at=sa.func.coalesce(given, DatabaseClock()),
        parked_by="",
    )
    started, before = rows.excluded.grace_started_at, table.c.grace_started_at
    changed = {
        "grace_started_at": sa.case((started > before, started), else_=before),
        "parked_by": "",
    }
    keys = list(table.primary_key.columns)
    return Statement(rows.on_conflict_do_update(index_elements=keys, set_=changed))


def _prepare_usage() -> Statement:
    table = tables.usage_counter_shards
    rows = insert_into(table).values(bind("counter_id", "shard", "bytes"))
    total = {"bytes": table.c.bytes + rows.excluded.bytes}
    return Statement(rows.on_conflict_do_update(index_elements=["counter_id", "shard"], set_=total))


def _prepare_removed_repository() -> Statement:
    values = bind("name", "policy_revision")
    rows = insert_into(tables.removed_repositories).values(**values, removed_at=bind_now())
    changed = {name: rows.excluded[name] for name in ("policy_revision", "removed_at")}
    return Statement(rows.on_conflict_do_update(index_elements=["name"], set_=changed))


def _prepare_advance(table: sa.Table, count: sa.ColumnElement[int]) -> Statement:
    revision = table.c.revision
    return Statement(sa.update(table).values(revision=revision + count).returning(revision))


def _prepare_name_lock(function: str) -> Statement:
    key = sa.func.hashtextextended(sa.bindparam("name", type_=sa.Text), 0)
    return Statement(sa.select(sa.Function(function, key)))


_LOCK_NAME = _prepare_name_lock("pg_advisory_xact_lock")
_LOCK_NAME_SHARED = _prepare_name_lock("pg_advisory_xact_lock_shared")
_QUEUE = _prepare_queue()
_ADD_USAGE = _prepare_usage()
_REMOVE_REPOSITORY = _prepare_removed_repository()
_ADVANCE_POLICY = _prepare_advance(tables.policy_revision, sa.literal(1))
_ADD_POLICY_CHANGE = Statement(
    sa.insert(tables.policy_changes).values(bind("revision", "part", "key"))
)
_ADVANCE_FEED = _prepare_advance(
    tables.change_feed_revision, sa.bindparam("count", type_=sa.BigInteger)
)
_ADD_CHANGE = Statement(
    sa.insert(tables.change_feed).values(bind(*tables.change_feed.columns.keys()))
)


class RowChange(NamedTuple):
    """A row before and after a change. `after` is None if it is deleted or unknown.

    `before` is None if the row is complete in `after`. Otherwise `after` has what the transaction
    wrote, and the rest of `before`.
    """

    key: str
    before: Any | None
    after: Any | None


class Transaction(Struct):
    """One open transaction.

    `now` is its start time in microseconds; `actor` is the caller on whose behalf it runs.
    """

    connection: sa.Connection
    actor: str
    now: int
    changes: list[dict[str, Any]] = field(default_factory=list)
    policy_changes: set[tuple[Part, str]] = field(default_factory=set)
    removed_repositories: list[RepositoryName] = field(default_factory=list)
    queued: dict[Key, int | None] = field(default_factory=dict)
    # Growth in bytes, by usage counter.
    quota_deltas: Counter[int] = field(default_factory=Counter)
    # Changes of rows that the process may keep in memory.
    row_changes: list[RowChange] = field(default_factory=list)
    # Whether statements ran that may have changed other rows of that kind.
    may_change_others: bool = False

    def execute(self, statement: sa.Executable) -> sa.CursorResult[*tuple[Any, ...]]:
        self.may_change_others = True
        return self.connection.execute(statement)

    def fetch_all(self, statement: Statement, /, **values: Any) -> list[Row]:
        """Return all rows of a statement."""
        return self._run(statement, values)[0]

    def fetch_one(self, statement: Statement, /, **values: Any) -> Row | None:
        """Return the only row of a statement, or None. Raises MultipleResultsFound."""
        rows, _ = self._run(statement, values)
        if len(rows) > 1:
            raise sa.exc.MultipleResultsFound(f"{len(rows)} rows, where one was expected")
        return rows[0] if rows else None

    def fetch_values(self, statement: Statement, /, **values: Any) -> list[Any]:
        """Return the first column of all rows."""
        return [row[0] for row in self._run(statement, values)[0]]

    def fetch_value(self, statement: Statement, /, **values: Any) -> Any:
        """Return the first column of the only row, or None. Raises MultipleResultsFound."""
        row = self.fetch_one(statement, **values)
        return row[0] if row else None

    def run(self, statement: Statement, /, **values: Any) -> int:
        """Run a statement and return the number of changed rows."""
        return self._run(statement, values)[1]

    def run_each(self, statement: Statement, rows: Iterable[Values]) -> None:
        """Run a statement for each of the rows, in order."""
        statement.run_each(self.connection, self.now, rows)

    def _run(self, statement: Statement, values: dict[str, Any]) -> tuple[list[Row], int]:
        return statement.run(self.connection, self.now, values)

    def read_clock(self) -> sa.ColumnElement[int]:
        """Return the time of the database's clock, in microseconds.

        All processes share this clock. Leases use it, because the clocks of machines differ.
        """
        if self.connection.dialect.name == "postgresql":
            return DatabaseClock()
        return sa.literal(self.now)

    def lock_name(self, name: str, *, shared: bool = False) -> None:
        """Take an advisory lock on `name` until the transaction ends, exclusive or shared.

        A row of that name need not exist. PostgreSQL grants the locks in the order of the requests.
        SQLite has only one writer and needs no lock.
        """
        if self.connection.dialect.name == "postgresql":
            self.fetch_all(_LOCK_NAME_SHARED if shared else _LOCK_NAME, name=name)

    def lock_rows(self, query: sa.Select[Any]) -> None:
        """Lock the rows of a query in its order.

        Two transactions that lock the same rows in different orders deadlock.
        """
        if self.connection.dialect.name == "postgresql":
            held = query.with_for_update().subquery()
            self.execute(sa.select(sa.func.count()).select_from(held))

    def record_change(
        self,
        kind: Change,
        repository: RepositoryName,
        generation: str,
        *,
        digest: Digest | None = None,
        tag: str | None = None,
        old_digest: Digest | None = None,
    ) -> None:
        """Record a change in the feed. It is written when the transaction ends, in order."""
        self.changes.append(
            {
                "at": self.now,
                "actor": self.actor,
                "kind": kind.value,
                "repository": repository,
                "generation": generation,
                "digest": digest,
                "tag": tag,
                "old_digest": old_digest,
            }
        )

    def queue_for_gc(self, key: Key, since: int | None = None) -> None:
        """Queue an item that may have lost its last retainer for the garbage collector.

        Its grace period begins now, or at `since` in microseconds. If the item is queued already,
        the later time counts.
        """
        self.queued[key] = since

    def unqueue(self, key: Key) -> None:
        """Undo `queue`, because this transaction references the item or removes it."""
        self.queued.pop(key, None)

    def change_policy(self, part: Part = Part.ALL, key: object = "") -> None:
        """Record a change of the access policy, so that every process reloads it before it answers.

        `key` names one user, robot, secret, grant or repository.
        """
        self.policy_changes.add((part, str(key)))

    def write_changes(self) -> None:
        """Write the recorded changes and assign their numbers.

        These are the last statements before the commit. The locks of the counters are then held
        only during the commit, and numbers follow the order of commits without gaps.
        """
        self._write_queue()
        self._write_usage()
        if self.policy_changes or self.removed_repositories:
            self._write_policy_revision()
        if self.changes:
            self._write_feed()

    def _write_queue(self) -> None:
        """Write the queue in a fixed order, so that concurrent transactions do not deadlock."""
        self.run_each(
            _QUEUE,
            [
                {"repository_id": key[0], "kind": key[1].value, "digest": key[2], "since": since}
                for key, since in sorted(self.queued.items(), key=lambda item: item[0])
            ],
        )

    def _write_usage(self) -> None:
        shard = random.randrange(SHARDS)  # noqa: S311 - against contention
        self.run_each(
            _ADD_USAGE,
            [
                {"counter_id": counter_id, "shard": shard, "bytes": grown}
                for counter_id, grown in sorted(self.quota_deltas.items())
                if grown
            ],
        )

    def _write_policy_revision(self) -> None:
        revision = self.fetch_value(_ADVANCE_POLICY)
        removed = sorted(set(self.removed_repositories))
        self.run_each(
            _REMOVE_REPOSITORY, [{"name": name, "policy_revision": revision} for name in removed]
        )
        for name in removed:
            self.change_policy(Part.REMOVAL, name)
        changes = sorted(self.policy_changes)
        if len(changes) > MOST_PARTS:
            changes = [(Part.ALL, "")]
        self.run_each(
            _ADD_POLICY_CHANGE,
            [{"revision": revision, "part": part.value, "key": key} for part, key in changes],
        )

    def _write_feed(self) -> None:
        count = len(self.changes)
        first = self.fetch_value(_ADVANCE_FEED, count=count) - count + 1
        self.run_each(
            _ADD_CHANGE,
            [{"revision": first + i, **change} for i, change in enumerate(self.changes)],
        )


class SingleRead(Transaction):
    """A read of one prepared statement, which needs no transaction to see one snapshot.

    Raises RuntimeError for anything else, which might see another snapshot.
    """

    is_used: bool = False

    def execute(self, statement: sa.Executable) -> sa.CursorResult[*tuple[Any, ...]]:
        del statement
        raise RuntimeError("a single read runs a prepared statement")

    def run_each(self, statement: Statement, rows: Iterable[Values]) -> None:
        del statement, rows
        raise RuntimeError("a single read runs a prepared statement")

    def _run(self, statement: Statement, values: dict[str, Any]) -> tuple[list[Row], int]:
        if self.is_used:
            raise RuntimeError("a single read runs one statement")
        self.is_used = True
        return statement.run(self.connection, self.now, values)


def in_chunks(values: Iterable[Value]) -> Iterator[list[Value]]:
    """Yield the distinct values in order, in lists short enough for one statement."""
    ordered = sorted(set(values))
    for start in range(0, len(ordered), CHUNK):
        yield ordered[start : start + CHUNK]
