"""An open transaction, as used by the query modules."""

import random
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from registry.metadata import tables
from registry.oci.names import RepositoryName
from storage.digest import Digest

CHUNK = 500
"""Values per IN list, well below the limit of either database."""

Value = TypeVar("Value", Digest, str)

SHARDS = 16
"""Rows over which the bytes of a usage counter are spread."""


class Change(StrEnum):
    """Kinds of changes in the change feed (design D6)."""

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
"""A candidate: repository ID or NOWHERE, kind and digest."""


@dataclass(slots=True)
class Transaction:
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

    def execute(self, statement: sa.Executable) -> sa.CursorResult[*tuple[Any, ...]]:
        return self.connection.execute(statement)

    def insert(self, table: sa.Table) -> postgresql.Insert | sqlite.Insert:
        """Return an insert that supports ON CONFLICT, whose syntax both databases share."""
        if self.connection.dialect.name == "postgresql":
            return postgresql.insert(table)
        return sqlite.insert(table)

    def read_clock(self) -> sa.ColumnElement[int]:
        """Return the time of the database's clock, in microseconds.

        All processes share this clock. Leases use it, because the clocks of machines differ.
        """
        if self.connection.dialect.name == "postgresql":
            seconds = sa.extract("epoch", sa.func.clock_timestamp())
            return sa.cast(seconds * 1_000_000, sa.BigInteger)
        return sa.literal(self.now)

    def lock_name(self, name: str, *, shared: bool = False) -> None:
        """Take an advisory lock on `name` until the transaction ends, exclusive or shared.

        A row of that name need not exist. PostgreSQL grants the locks in the order of the requests.
        SQLite has only one writer and needs no lock.
        """
        if self.connection.dialect.name == "postgresql":
            key = sa.func.hashtextextended(name, 0)
            lock = sa.func.pg_advisory_xact_lock_shared if shared else sa.func.pg_advisory_xact_lock
            self.execute(sa.select(lock(key)))

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
        table = tables.gc_queue
        keys = sorted(self.queued)
        for start in range(0, len(keys), CHUNK):
            insert = self.insert(table).values(
                [self._candidate(key) for key in keys[start : start + CHUNK]]
            )
            started, before = insert.excluded.grace_started_at, table.c.grace_started_at
            changed = {
                "grace_started_at": sa.case((started > before, started), else_=before),
                "parked_by": "",
            }
            self.execute(
                insert.on_conflict_do_update(
                    index_elements=list(table.primary_key.columns), set_=changed
                )
            )

    def _candidate(self, key: Key) -> dict[str, Any]:
        repository_id, kind, digest = key
        since = self.queued[key]
        return {
            "repository_id": repository_id,
            "kind": kind.value,
            "digest": digest,
            "grace_started_at": self.read_clock() if since is None else since,
            "parked_by": "",
        }

    def _write_usage(self) -> None:
        shard = random.randrange(SHARDS)  # noqa: S311 - against contention
        for counter_id, grown in sorted(self.quota_deltas.items()):
            if grown:
                insert = self.insert(tables.usage_counter_shards).values(
                    counter_id=counter_id, shard=shard, bytes=grown
                )
                total = tables.usage_counter_shards.c.bytes + insert.excluded.bytes
                self.execute(
                    insert.on_conflict_do_update(
                        index_elements=["counter_id", "shard"], set_={"bytes": total}
                    )
                )

    def _write_policy_revision(self) -> None:
        table = tables.policy_revision
        revision = self.execute(
            sa.update(table).values(revision=table.c.revision + 1).returning(table.c.revision)
        ).scalar_one()
        for name in sorted(set(self.removed_repositories)):
            insert = self.insert(tables.removed_repositories).values(
                name=name, policy_revision=revision, removed_at=self.now
            )
            changed = {"policy_revision": revision, "removed_at": self.now}
            self.execute(insert.on_conflict_do_update(index_elements=["name"], set_=changed))
            self.change_policy(Part.REMOVAL, name)
        changes = sorted(self.policy_changes)
        if len(changes) > MOST_PARTS:
            changes = [(Part.ALL, "")]
        self.connection.execute(
            sa.insert(tables.policy_changes),
            [{"revision": revision, "part": part.value, "key": key} for part, key in changes],
        )

    def _write_feed(self) -> None:
        last = self.execute(
            sa.update(tables.change_feed_revision)
            .values(revision=tables.change_feed_revision.c.revision + len(self.changes))
            .returning(tables.change_feed_revision.c.revision)
        ).scalar_one()
        first = last - len(self.changes) + 1
        self.connection.execute(
            sa.insert(tables.change_feed),
            [{"revision": first + i, **change} for i, change in enumerate(self.changes)],
        )


def in_chunks(values: Iterable[Value]) -> Iterator[list[Value]]:
    """Yield the distinct values in order, in lists short enough for one statement."""
    ordered = sorted(set(values))
    for start in range(0, len(ordered), CHUNK):
        yield ordered[start : start + CHUNK]
