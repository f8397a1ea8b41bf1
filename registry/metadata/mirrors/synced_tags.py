"""Rows of tags that a sync has set."""

import sqlalchemy as sa

from registry.metadata.engine.statements import insert_into
from registry.metadata.engine.transaction import Transaction
from registry.metadata.tables import synced_tags
from registry.oci.names import RepositoryName
from registry.oci.references import Tag
from storage.digest import Digest

_t = synced_tags.c


def put(tx: Transaction, repository: RepositoryName, tag: Tag, digest: Digest) -> None:
    """Record that a sync has set the tag."""
    row = insert_into(synced_tags).values(repository=repository, tag=str(tag), digest=digest)
    changed = {"digest": row.excluded.digest}
    tx.execute(row.on_conflict_do_update(index_elements=[_t.repository, _t.tag], set_=changed))


def list_of(tx: Transaction, repository: RepositoryName) -> dict[str, Digest]:
    """Return the tags of a repository that a sync has set."""
    query = sa.select(_t.tag, _t.digest).where(_t.repository == repository)
    return {row.tag: row.digest for row in tx.execute(query)}


def delete(tx: Transaction, repository: RepositoryName, tag: Tag) -> None:
    """Forget a tag."""
    tx.execute(sa.delete(synced_tags).where(_t.repository == repository, _t.tag == str(tag)))
