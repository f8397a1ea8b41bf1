"""Rows of tags, the mutable names of manifests."""

import sqlalchemy as sa

from registry.metadata.content.repositories import RepositoryRow
from registry.metadata.engine.statements import Statement, bind, bind_limit, bind_now, insert_into
from registry.metadata.engine.transaction import CandidateKind, Change, Transaction
from registry.metadata.tables import (
    manifest_edges,
    manifests,
    repositories,
    repository_blobs,
    tags,
)
from registry.oci.names import RepositoryName
from registry.oci.references import Tag
from storage.digest import Digest

_t, _m, _e, _l = tags.c, manifests.c, manifest_edges.c, repository_blobs.c

_IN_REPOSITORY = _t.repository_id == sa.bindparam("repository")
_IS_TAG = sa.and_(_IN_REPOSITORY, _t.name == sa.bindparam("tag"))
_IS_DIGEST = sa.and_(_IN_REPOSITORY, _t.digest == sa.bindparam("digest"))

_FIND = Statement(sa.select(_t.digest).where(_IS_TAG))
_FIND_LOCKED = Statement(sa.select(_t.digest).where(_IS_TAG).with_for_update())
_INSERT = Statement(
    insert_into(tags)
    .values(**bind("repository_id", "name", "digest"), updated_at=bind_now())
    .on_conflict_do_nothing(index_elements=[_t.repository_id, _t.name])
    .returning(_t.name)
)
_MOVE = Statement(
    sa.update(tags).where(_IS_TAG).values(digest=sa.bindparam("new_digest"), updated_at=bind_now())
)
_DELETE = Statement(sa.delete(tags).where(_IS_TAG).returning(_t.digest))
_DELETE_ALL_OF = Statement(sa.delete(tags).where(_IS_DIGEST).returning(_t.name))
_LIST_NAMES = Statement(
    sa.select(_t.name)
    .where(_IN_REPOSITORY, _t.name > sa.bindparam("last"))
    .order_by(_t.name)
    .limit(bind_limit())
)
_LIST_OF = Statement(sa.select(_t.name).where(_IS_DIGEST).order_by(_t.name))


def find(
    tx: Transaction, repository: RepositoryRow, tag: Tag, *, lock: bool = False
) -> Digest | None:
    """Return the digest that the tag points at. `lock` locks the tag until the transaction ends."""
    statement = _FIND_LOCKED if lock else _FIND
    found: Digest | None = tx.fetch_value(statement, repository=repository.id, tag=str(tag))
    return found


def put(tx: Transaction, repository: RepositoryRow, tag: Tag, digest: Digest) -> Digest | None:
    """Point the tag at a manifest of the repository and return the previous digest."""
    row = {"repository_id": repository.id, "name": str(tag), "digest": digest}
    # The old digest is read under the lock. Otherwise the feed could miss a change in between.
    old = find(tx, repository, tag, lock=True)
    while old is None and tx.fetch_one(_INSERT, **row) is None:
        old = find(tx, repository, tag, lock=True)
    if old is not None:
        tx.run(_MOVE, repository=repository.id, tag=str(tag), new_digest=digest)
    if old is not None and old != digest:
        tx.queue_for_gc((repository.id, CandidateKind.MANIFEST, old))
    tx.unqueue((repository.id, CandidateKind.MANIFEST, digest))
    tx.record_change(
        Change.TAG_SET,
        repository.name,
        repository.generation,
        tag=str(tag),
        digest=digest,
        old_digest=old,
    )
    return old


def delete(tx: Transaction, repository: RepositoryRow, tag: Tag) -> bool:
    """Delete the tag, but not its manifest. Returns False if there is none."""
    old = tx.fetch_value(_DELETE, repository=repository.id, tag=str(tag))
    if old is None:
        return False
    _record_delete(tx, repository, str(tag), old)
    return True


def delete_all_of(tx: Transaction, repository: RepositoryRow, digest: Digest) -> None:
    """Delete every tag of the manifest."""
    names = tx.fetch_values(_DELETE_ALL_OF, repository=repository.id, digest=digest)
    for name in sorted(names):
        _record_delete(tx, repository, name, digest)


def _record_delete(tx: Transaction, repository: RepositoryRow, tag: str, old: Digest) -> None:
    tx.queue_for_gc((repository.id, CandidateKind.MANIFEST, old))
    tx.record_change(
        Change.TAG_DELETE, repository.name, repository.generation, tag=tag, old_digest=old
    )


def list_names(tx: Transaction, repository: RepositoryRow, n: int, last: str) -> list[str]:
    """Return at most `n` tags after `last`, in byte order."""
    return tx.fetch_values(_LIST_NAMES, repository=repository.id, last=last, n=n)


def list_tags_needing_blob(
    tx: Transaction, blob: Digest, n: int
) -> list[tuple[RepositoryName, str]]:
    """Return at most `n` tags whose image or index is incomplete without the blob, in byte order.

    Searches all repositories.
    """
    straight = (
        sa.select(_m.id, _m.repository_id, _m.digest)
        .join(manifest_edges, _e.manifest_id == _m.id)
        # The links give the repositories to search.
        .join(
            repository_blobs,
            sa.and_(_l.repository_id == _e.repository_id, _l.digest == _e.blob_digest),
        )
        .where(_l.digest == blob)
    )
    return _list_above(tx, straight, n)


def list_tags_reaching(
    tx: Transaction, name: RepositoryName, manifest: Digest, n: int
) -> list[tuple[RepositoryName, str]]:
    """Return at most `n` tags of the manifest, and of indexes that contain it, in byte order."""
    itself = (
        sa.select(_m.id, _m.repository_id, _m.digest)
        .join(repositories, repositories.c.id == _m.repository_id)
        .where(repositories.c.name == name, _m.digest == manifest)
    )
    return _list_above(tx, itself, n)


def _list_above(
    tx: Transaction, lowest: sa.Select[tuple[int, int, Digest]], n: int
) -> list[tuple[RepositoryName, str]]:
    needing = lowest.cte("needing", recursive=True)
    above = (
        sa.select(_m.id, _m.repository_id, _m.digest)
        .join(manifest_edges, _e.manifest_id == _m.id)
        .join(
            needing,
            sa.and_(
                needing.c.repository_id == _e.repository_id, needing.c.digest == _e.child_digest
            ),
        )
    )
    needing = needing.union(above)
    query = (
        sa.select(repositories.c.name, _t.name)
        .join(repositories, repositories.c.id == _t.repository_id)
        .join(
            needing,
            sa.and_(needing.c.repository_id == _t.repository_id, needing.c.digest == _t.digest),
        )
        .order_by(repositories.c.name, _t.name)
        .limit(n)
    )
    return [(name, tag) for name, tag in tx.execute(query)]


def list_of(tx: Transaction, repository: RepositoryRow, digest: Digest) -> list[str]:
    """Return the tags of the manifest."""
    return tx.fetch_values(_LIST_OF, repository=repository.id, digest=digest)


def list_digests(tx: Transaction, repository: RepositoryRow) -> set[Digest]:
    """Return the manifests of the repository that have tags."""
    query = sa.select(_t.digest).where(_t.repository_id == repository.id).distinct()
    return set(tx.execute(query).scalars())
