"""How far the registry has come: the numbers of the last changes of its content and its policy."""

from dataclasses import dataclass

import sqlalchemy as sa

from registry.metadata.tables import feed, feed_head, policy_head
from registry.metadata.transaction import Transaction
from registry.oci.names import RepositoryName

MOST = 1000
"""Changes behind which it is cheaper to forget everything."""


@dataclass(frozen=True, slots=True)
class Heads:
    """The numbers of the last change in the feed and of the policy."""

    feed: int
    policy: int


NOWHERE = Heads(-1, -1)
"""Before anything was read."""

Changed = frozenset[RepositoryName] | None
"""Repositories that changed between two heads; None if they are too many to tell."""


def read(tx: Transaction, last: Heads) -> tuple[Heads, Changed]:
    """The heads, and what changed since `last`. For SQLite, where a read sees one moment."""
    numbers = [sa.select(head.c.number).scalar_subquery() for head in (feed_head, policy_head)]
    heads = Heads(*tx.execute(sa.select(*numbers)).one())
    if not 0 < heads.feed - last.feed <= MOST:
        return heads, unlisted(last, heads)
    names = tx.execute(sa.select(feed.c.repository).where(feed.c.number > last.feed)).scalars()
    return heads, listed(last, heads, list(names))


def unlisted(last: Heads, heads: Heads) -> Changed:
    """What changed, where no row of the feed was read for it."""
    return frozenset() if heads.feed == last.feed else None


def listed(last: Heads, heads: Heads, names: list[RepositoryName]) -> Changed:
    """What changed, by the rows of the feed between the two; some may have been trimmed."""
    return frozenset(names) if len(names) == heads.feed - last.feed else None
