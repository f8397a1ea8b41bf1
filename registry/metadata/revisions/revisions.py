"""Revisions of the registry: the numbers of the last change of content and of policy."""

import sqlalchemy as sa
from msgspec import Struct

from registry.metadata.engine.statements import Statement
from registry.metadata.engine.transaction import Transaction
from registry.metadata.tables import change_feed, change_feed_revision, policy_revision
from registry.oci.names import RepositoryName

MAX_LISTED = 1000
"""Number of changes above which caches are dropped instead of updated."""


class Revisions(Struct, frozen=True):
    """The numbers of the last change in the feed and of the policy."""

    feed: int
    policy: int


UNKNOWN = Revisions(-1, -1)
"""The value before anything was read."""

Changed = frozenset[RepositoryName] | None
"""Repositories that changed between two revisions; None if there are too many to list."""


_READ = Statement(
    sa.select(
        *(
            sa.select(table.c.revision).scalar_subquery()
            for table in (change_feed_revision, policy_revision)
        )
    )
)
_LIST_CHANGED = Statement(
    sa.select(change_feed.c.repository).where(change_feed.c.revision > sa.bindparam("last"))
)


def read_revisions(tx: Transaction) -> Revisions:
    """Return the revisions that the transaction sees."""
    ((feed, policy),) = tx.fetch_all(_READ)
    return Revisions(feed, policy)


def read(tx: Transaction, last: Revisions) -> tuple[Revisions, Changed]:
    """Return the revisions, and the repositories that changed since `last`.

    For SQLite, where one read sees one snapshot.
    """
    revisions = read_revisions(tx)
    if not 0 < revisions.feed - last.feed <= MAX_LISTED:
        return revisions, unlisted(last, revisions)
    return revisions, listed(last, revisions, tx.fetch_values(_LIST_CHANGED, last=last.feed))


def unlisted(last: Revisions, revisions: Revisions) -> Changed:
    """Return the changes if no row of the feed was read."""
    return frozenset() if revisions.feed == last.feed else None


def listed(last: Revisions, revisions: Revisions, names: list[RepositoryName]) -> Changed:
    """Return the changes from the rows of the feed, of which some may have been deleted."""
    return frozenset(names) if len(names) == revisions.feed - last.feed else None
