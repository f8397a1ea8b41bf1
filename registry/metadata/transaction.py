"""A transaction as the files of queries see it."""

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
"""Values in one IN list: well below what either database takes."""

Value = TypeVar("Value", Digest, str)

SHARDS = 16
"""Rows that the bytes of a tally are spread over."""


class Change(StrEnum):
    """Kinds of rows in the change feed (design D6)."""

    REPOSITORY_CREATE = "repository.create"
    REPOSITORY_DELETE = "repository.delete"
    MANIFEST_PUT = "manifest.put"
    MANIFEST_DELETE = "manifest.delete"
    TAG_SET = "tag.set"
    TAG_DELETE = "tag.delete"
    BLOB_LINK = "blob.link"
    BLOB_UNLINK = "blob.unlink"


class Kind(StrEnum):
    """What the collector collects."""

    MANIFEST = "manifest"
    # A blob's link to a repository.
    LINK = "link"
    # The blob itself, once nothing links it.
    BLOB = "blob"


class Part(StrEnum):
    """Parts of the policy: what one row of `policy_changes` says has changed."""

    USER = "user"
    # The groups of a user.
    GROUPS = "groups"
    ROBOT = "robot"
    SECRET = "secret"  # noqa: S105 - a part of the policy
    GRANT = "grant"
    KEYS = "keys"
    QUOTAS = "quotas"
    REMOVAL = "removal"
    # Nothing that the policy holds.
    NOTHING = "nothing"
    ALL = "all"


MOST_PARTS = 500
"""Changed parts above which the whole policy is loaded anew."""

NOWHERE = 0
"""In place of a repository's id: blobs are of none."""

Key = tuple[int, Kind, Digest]
"""A candidate: the id of its repository or NOWHERE, what it is, and its digest."""


@dataclass(slots=True)
class Transaction:
    """One open transaction. `now` is its one time, in microseconds; `actor` who asked for it."""

    connection: sa.Connection
    actor: str
    now: int
    changes: list[dict[str, Any]] = field(default_factory=list)
    policy_changes: set[tuple[Part, str]] = field(default_factory=set)
    removed: list[RepositoryName] = field(default_factory=list)
    queued: dict[Key, int | None] = field(default_factory=dict)
    # By tally, the bytes by which it grew.
    tallied: Counter[int] = field(default_factory=Counter)

    def execute(self, statement: sa.Executable) -> sa.CursorResult[*tuple[Any, ...]]:
        return self.connection.execute(statement)

    def insert(self, table: sa.Table) -> postgresql.Insert | sqlite.Insert:
        """An insert that knows ON CONFLICT, which both databases write alike."""
        if self.connection.dialect.name == "postgresql":
            return postgresql.insert(table)
        return sqlite.insert(table)

    def read_clock(self) -> sa.ColumnElement[int]:
        """The time by the one clock that all processes share, in microseconds: what a lease is
        measured by, since the clocks of machines differ.
        """
        if self.connection.dialect.name == "postgresql":
            seconds = sa.extract("epoch", sa.func.clock_timestamp())
            return sa.cast(seconds * 1_000_000, sa.BigInteger)
        return sa.literal(self.now)

    def lock_name(self, name: str, *, shared: bool = False) -> None:
        """Hold a name, there be a row of it or not, until the transaction ends: alone, or with all
        who share it. PostgreSQL grants names in the order of asking; SQLite has one writer anyway.
        """
        if self.connection.dialect.name == "postgresql":
            key = sa.func.hashtextextended(name, 0)
            lock = sa.func.pg_advisory_xact_lock_shared if shared else sa.func.pg_advisory_xact_lock
            self.execute(sa.select(lock(key)))

    def lock_rows(self, query: sa.Select[Any]) -> None:
        """Hold the rows of a query in its order, however many: two that take the same rows in two
        orders wait for each other.
        """
        if self.connection.dialect.name == "postgresql":
            held = query.with_for_update().subquery()
            self.execute(sa.select(sa.func.count()).select_from(held))

    def record(
        self,
        kind: Change,
        repository: RepositoryName,
        generation: str,
        *,
        digest: Digest | None = None,
        tag: str | None = None,
        old_digest: Digest | None = None,
    ) -> None:
        """Note a change; it is written as the transaction ends, in its own order."""
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

    def queue(self, key: Key, since: int | None = None) -> None:
        """Note something to which there may be no reference any more: the collector will look. Its
        grace begins now, or began `since`, in microseconds; where it is queued, the later counts.
        """
        self.queued[key] = since

    def keep(self, key: Key) -> None:
        """Take that back: this transaction refers to it, or removes it."""
        self.queued.pop(key, None)

    def change_policy(self, part: Part = Part.ALL, key: object = "") -> None:
        """Note that who may do what has changed, and where: every process looks again before it
        answers. `key` names one user, robot, secret, grant or repository.
        """
        self.policy_changes.add((part, str(key)))

    def write_changes(self) -> None:
        """Number and write the noted changes. The last statements before the commit: the counters'
        locks are then held for the commit alone, and numbers follow commits without a gap.
        """
        self._write_queue()
        self._write_tallies()
        if self.policy_changes or self.removed:
            self._write_policy_number()
        if self.changes:
            self._write_feed()

    def _write_queue(self) -> None:
        """In one order, so that transactions that queue the same things do not deadlock."""
        table = tables.candidates
        keys = sorted(self.queued)
        for start in range(0, len(keys), CHUNK):
            insert = self.insert(table).values(
                [self._candidate(key) for key in keys[start : start + CHUNK]]
            )
            later = insert.excluded.since > table.c.since
            changed = {
                "since": sa.case((later, insert.excluded.since), else_=table.c.since),
                "parked": "",
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
            "since": self.read_clock() if since is None else since,
            "parked": "",
        }

    def _write_tallies(self) -> None:
        shard = random.randrange(SHARDS)  # noqa: S311 - against meeting others there
        for tally_id, grown in sorted(self.tallied.items()):
            if grown:
                insert = self.insert(tables.tally_shards).values(
                    tally_id=tally_id, shard=shard, bytes=grown
                )
                total = tables.tally_shards.c.bytes + insert.excluded.bytes
                self.execute(
                    insert.on_conflict_do_update(
                        index_elements=["tally_id", "shard"], set_={"bytes": total}
                    )
                )

    def _write_policy_number(self) -> None:
        head = tables.policy_head
        number = self.execute(
            sa.update(head).values(number=head.c.number + 1).returning(head.c.number)
        ).scalar_one()
        for name in sorted(set(self.removed)):
            insert = self.insert(tables.removed_repositories).values(
                name=name, number=number, removed_at=self.now
            )
            changed = {"number": number, "removed_at": self.now}
            self.execute(insert.on_conflict_do_update(index_elements=["name"], set_=changed))
            self.change_policy(Part.REMOVAL, name)
        changes = sorted(self.policy_changes)
        if len(changes) > MOST_PARTS:
            changes = [(Part.ALL, "")]
        self.connection.execute(
            sa.insert(tables.policy_changes),
            [{"number": number, "part": part.value, "key": key} for part, key in changes],
        )

    def _write_feed(self) -> None:
        head = self.execute(
            sa.update(tables.feed_head)
            .values(number=tables.feed_head.c.number + len(self.changes))
            .returning(tables.feed_head.c.number)
        ).scalar_one()
        first = head - len(self.changes) + 1
        self.connection.execute(
            sa.insert(tables.feed),
            [{"number": first + i, **change} for i, change in enumerate(self.changes)],
        )


def in_chunks(values: Iterable[Value]) -> Iterator[list[Value]]:
    """The values, each once and in order, in lists short enough for a statement."""
    ordered = sorted(set(values))
    for start in range(0, len(ordered), CHUNK):
        yield ordered[start : start + CHUNK]
