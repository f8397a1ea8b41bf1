"""Rows of immutable tag rules: tags that cannot be moved or deleted, by repository pattern."""

from collections.abc import Collection

import sqlalchemy as sa
from msgspec import Struct

from registry.metadata.engine.statements import Statement, insert_into
from registry.metadata.engine.transaction import Transaction
from registry.metadata.tables import immutable_tags

_i = immutable_tags.c

_NAME = "immutable tags"


class ImmutableRow(Struct, frozen=True):
    """A rule with a pattern of repositories and one of tags. `created_at` is in microseconds."""

    id: int
    pattern: str
    tags: str
    created_by: str
    created_at: int


_COLUMNS = (_i.id, _i.pattern, _i.tag_pattern, _i.created_by, _i.created_at)

_LIST_OF = Statement(
    sa.select(*_COLUMNS).where(_i.pattern.in_(sa.bindparam("patterns"))).order_by(_i.id)
)


def lock(tx: Transaction, *, shared: bool = False) -> None:
    """Lock the rules, exclusively to change them, or shared to apply them.

    Without the lock, a transaction that applies the rules and commits after a new rule would break
    that rule.
    """
    tx.lock_name(_NAME, shared=shared)


def insert(tx: Transaction, pattern: str, tags: str) -> ImmutableRow | None:
    """Add a rule. Returns None if it exists already."""
    query = (
        insert_into(immutable_tags)
        .values(pattern=pattern, tag_pattern=tags, created_by=tx.actor, created_at=tx.now)
        .on_conflict_do_nothing(index_elements=[_i.pattern, _i.tag_pattern])
        .returning(*_COLUMNS)
    )
    row = tx.execute(query).one_or_none()
    return ImmutableRow(*row) if row else None


def delete(tx: Transaction, pattern: str, tags: str) -> bool:
    """Delete a rule. Returns False if there is none."""
    query = sa.delete(immutable_tags).where(_i.pattern == pattern, _i.tag_pattern == tags)
    return tx.execute(query).rowcount > 0


def list_page(tx: Transaction, n: int, last: int) -> list[ImmutableRow]:
    """Return at most `n` rules after the ID `last`."""
    query = sa.select(*_COLUMNS).where(_i.id > last).order_by(_i.id).limit(n)
    return [ImmutableRow(*row) for row in tx.execute(query)]


def list_of(tx: Transaction, patterns: Collection[str]) -> list[ImmutableRow]:
    """Return the rules with these repository patterns, oldest first."""
    return [ImmutableRow(*row) for row in tx.fetch_all(_LIST_OF, patterns=patterns)]
