"""Rows of the history of mirrored tags: when the upstream was first seen to name each digest."""

from collections.abc import Collection

import sqlalchemy as sa
from msgspec import Struct

from registry.metadata.content.repositories import RepositoryRow
from registry.metadata.engine.statements import DatabaseClock, Statement, bind, insert_into
from registry.metadata.engine.transaction import Transaction
from registry.metadata.pattern_filter import matches_pattern
from registry.metadata.tables import mirror_tag_history, mirror_tags
from registry.oci.names import RepositoryName
from registry.oci.references import Tag
from storage.digest import Digest

_h, _t = mirror_tag_history.c, mirror_tags.c

MOST = 20
"""Maximum number of digests that are kept for a tag."""

_SECOND = 1_000_000


class SeenDigest(Struct, frozen=True):
    """A digest of a tag, and how long ago it was first seen, in microseconds."""

    digest: Digest
    age: int


class HeldTag(Struct, frozen=True):
    """A tag with a digest that was first seen within a time, in microseconds.

    `answer` is the digest with which the tag answers, if it has one.
    """

    repository: RepositoryName
    tag: str
    digest: Digest
    first_seen_at: int
    answer: Digest | None


_OF_TAG = sa.and_(_h.repository == sa.bindparam("repository"), _h.tag == sa.bindparam("tag"))
_LIST = Statement(
    sa.select(_h.digest, DatabaseClock() - _h.first_seen_at)
    .where(_OF_TAG)
    .order_by(_h.first_seen_at.desc(), _h.digest)
)
_INSERT = Statement(
    insert_into(mirror_tag_history)
    .values(**bind("repository", "tag", "digest"), first_seen_at=DatabaseClock())
    .on_conflict_do_nothing(index_elements=[_h.repository, _h.tag, _h.digest])
)
_DELETE = Statement(
    sa.delete(mirror_tag_history).where(_OF_TAG, _h.digest.in_(sa.bindparam("digests")))
)


def list_of(tx: Transaction, repository: RepositoryName, tag: Tag) -> list[SeenDigest]:
    """Return the digests of a tag, the last one that appeared first."""
    rows = tx.fetch_all(_LIST, repository=repository, tag=str(tag))
    return [SeenDigest(digest, int(age)) for digest, age in rows]


def observe(
    tx: Transaction, repository: RepositoryName, tag: Tag, digest: Digest
) -> list[SeenDigest]:
    """Record that the tag points to this digest at the upstream now. Return the history.

    If the upstream has returned to an earlier digest, the later ones were withdrawn, and are
    forgotten.
    """
    seen = list_of(tx, repository, tag)
    digests = [each.digest for each in seen]
    if digests[:1] == [digest]:
        return seen
    if digest in digests:
        delete(tx, repository, tag, digests[: digests.index(digest)])
    else:
        tx.run(_INSERT, repository=repository, tag=str(tag), digest=digest)
        delete(tx, repository, tag, digests[MOST - 1 :])
    return list_of(tx, repository, tag)


def delete(
    tx: Transaction, repository: RepositoryName, tag: Tag, digests: Collection[Digest]
) -> None:
    """Forget digests of a tag."""
    if digests:
        tx.run(_DELETE, repository=repository, tag=str(tag), digests=list(digests))


def list_held(tx: Transaction, pattern: str, cooldown: float, n: int) -> list[HeldTag]:
    """Return at most `n` digests first seen in the last `cooldown` seconds, the oldest first."""
    since = tx.read_clock() - int(cooldown * _SECOND)
    query = (
        sa.select(_h.repository, _h.tag, _h.digest, _h.first_seen_at, _t.digest)
        .join(mirror_tags, sa.and_(_t.repository == _h.repository, _t.tag == _h.tag), isouter=True)
        .where(matches_pattern(_h.repository, pattern), _h.first_seen_at > since)
        .where(sa.or_(_t.digest.is_(None), _t.digest != _h.digest))
        .order_by(_h.first_seen_at, _h.repository, _h.tag)
        .limit(n)
    )
    return [HeldTag(*row) for row in tx.execute(query)]


def list_outdated(
    tx: Transaction, repository: RepositoryRow, names: Collection[str], digest: Digest
) -> list[str]:
    """Return those of the tags for which the upstream names a later digest than this one."""
    mine = mirror_tag_history.alias()
    query = (
        sa.select(_h.tag)
        .join(mine, sa.and_(mine.c.repository == _h.repository, mine.c.tag == _h.tag))
        .where(_h.repository == repository.name, _h.tag.in_(names))
        .where(mine.c.digest == digest, _h.first_seen_at > mine.c.first_seen_at)
    )
    return sorted(set(tx.execute(query).scalars()))
