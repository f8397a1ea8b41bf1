"""Rows of mirrored tags: the digests that the upstreams last confirmed."""

from dataclasses import dataclass

import sqlalchemy as sa

from registry.metadata.engine.statements import DatabaseClock, Statement, bind, insert_into
from registry.metadata.engine.transaction import Transaction
from registry.metadata.tables import mirror_tags
from registry.oci.names import RepositoryName
from registry.oci.references import Tag
from storage.digest import Digest

_t = mirror_tags.c


@dataclass(frozen=True, slots=True)
class MirrorTag:
    """What the upstream last said of a tag. `age` is in microseconds, by the database's clock."""

    digest: Digest
    age: int


def _prepare_put() -> Statement:
    row = insert_into(mirror_tags).values(
        **bind("repository", "tag", "digest"), checked_at=DatabaseClock()
    )
    changed = {name: row.excluded[name] for name in ("digest", "checked_at")}
    return Statement(
        row.on_conflict_do_update(index_elements=[_t.repository, _t.tag], set_=changed)
    )


_PUT = _prepare_put()
_FIND = Statement(
    sa.select(_t.digest, DatabaseClock() - _t.checked_at).where(
        _t.repository == sa.bindparam("repository"), _t.tag == sa.bindparam("tag")
    )
)


def put(tx: Transaction, repository: RepositoryName, tag: Tag, digest: Digest) -> None:
    """Record that the tag now points to this digest at the upstream."""
    tx.run(_PUT, repository=repository, tag=str(tag), digest=digest)


def find(tx: Transaction, repository: RepositoryName, tag: Tag) -> MirrorTag | None:
    """Return what the upstream last said of the tag."""
    rows = tx.fetch_all(_FIND, repository=repository, tag=str(tag))
    return MirrorTag(*rows[0]) if rows else None
