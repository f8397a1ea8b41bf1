"""A transaction as the files of queries see it."""

import random
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from registry.metadata import tables
from registry.oci.names import RepositoryName
from storage.digest import Digest

CHUNK = 500
"""Digests in one IN list: well below what either database takes."""

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


@dataclass(slots=True)
class Transaction:
    """One open transaction. `now` is its one time, in microseconds; `actor` who asked for it."""

    connection: sa.Connection
    actor: str
    now: int
    changes: list[dict[str, Any]] = field(default_factory=list)
    policy_changed: bool = False
    removed: list[RepositoryName] = field(default_factory=list)
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

    def lock_absent(self, name: str, *, share: bool = False) -> None:
        """Hold the name of a row that is not there yet until the transaction ends; `share`: with
        others who share it.
        """
        if self.connection.dialect.name == "postgresql":
            lock = sa.func.pg_advisory_xact_lock_shared if share else sa.func.pg_advisory_xact_lock
            self.execute(sa.select(lock(sa.func.hashtextextended(name, 0))))

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

    def change_policy(self) -> None:
        """Note that who may do what has changed: every process looks again before it answers."""
        self.policy_changed = True

    def write_changes(self) -> None:
        """Number and write the noted changes. The last statements before the commit: the counters'
        locks are then held for the commit alone, and numbers follow commits without a gap.
        """
        self._write_tallies()
        if self.policy_changed or self.removed:
            self._write_policy_number()
        if self.changes:
            self._write_feed()

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


def in_chunks(digests: Iterable[Digest]) -> Iterator[list[Digest]]:
    """The digests, each once and in order, in lists short enough for a statement."""
    ordered = sorted(set(digests))
    for start in range(0, len(ordered), CHUNK):
        yield ordered[start : start + CHUNK]
