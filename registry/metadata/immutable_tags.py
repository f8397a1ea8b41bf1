"""Rows of rules: which tags of the repositories of a pattern cannot be moved or deleted."""

from collections.abc import Collection
from dataclasses import dataclass

import sqlalchemy as sa

from registry.metadata.tables import immutable_tags
from registry.metadata.transaction import Transaction

_i = immutable_tags.c

_NAME = "immutable tags"


@dataclass(frozen=True, slots=True)
class ImmutableRow:
    """A rule: a pattern of repositories and one of tags, as text. `created_at` in microseconds."""

    id: int
    pattern: str
    tags: str
    created_by: str
    created_at: int


_COLUMNS = (_i.id, _i.pattern, _i.tags, _i.created_by, _i.created_at)


def lock(tx: Transaction, *, shared: bool = False) -> None:
    """Hold the rules: alone, to change them, or with all who go by them. Who goes by them and
    commits later than a new rule would else break it.
    """
    tx.lock_name(_NAME, shared=shared)


def insert(tx: Transaction, pattern: str, tags: str) -> ImmutableRow | None:
    """Add a rule; None if it is there already."""
    query = (
        tx.insert(immutable_tags)
        .values(pattern=pattern, tags=tags, created_by=tx.actor, created_at=tx.now)
        .on_conflict_do_nothing(index_elements=[_i.pattern, _i.tags])
        .returning(*_COLUMNS)
    )
    row = tx.execute(query).one_or_none()
    return ImmutableRow(*row) if row else None


def delete(tx: Transaction, pattern: str, tags: str) -> bool:
    """Remove a rule; whether there was one."""
    query = sa.delete(immutable_tags).where(_i.pattern == pattern, _i.tags == tags)
    return tx.execute(query).rowcount > 0


def list_page(tx: Transaction, n: int, last: int) -> list[ImmutableRow]:
    """At most `n` rules after the id `last`."""
    query = sa.select(*_COLUMNS).where(_i.id > last).order_by(_i.id).limit(n)
    return [ImmutableRow(*row) for row in tx.execute(query)]


def list_of(tx: Transaction, patterns: Collection[str]) -> list[ImmutableRow]:
    """The rules of those patterns of repositories, the oldest first."""
    query = sa.select(*_COLUMNS).where(_i.pattern.in_(patterns)).order_by(_i.id)
    return [ImmutableRow(*row) for row in tx.execute(query)]
