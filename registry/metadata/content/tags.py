"""Rows of tags, the mutable names of manifests."""

import sqlalchemy as sa

from registry.metadata.content.repositories import RepositoryRow
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


def find(
    tx: Transaction, repository: RepositoryRow, tag: Tag, *, lock: bool = False
) -> Digest | None:
    """Return the digest that the tag points at. `lock` locks the tag until the transaction ends."""
    query = sa.select(_t.digest).where(_t.repository_id == repository.id, _t.name == str(tag))
    if lock:
        query = query.with_for_update()
    return tx.execute(query).scalar_one_or_none()


def put(tx: Transaction, repository: RepositoryRow, tag: Tag, digest: Digest) -> Digest | None:
    """Point the tag at a manifest of the repository and return the previous digest."""
    values = {"digest": digest, "updated_at": tx.now}
    insert = (
        tx.insert(tags)
        .values(repository_id=repository.id, name=str(tag), **values)
        .on_conflict_do_nothing(index_elements=[_t.repository_id, _t.name])
        .returning(_t.name)
    )
    # The old digest is read under the lock. Otherwise the feed could miss a change in between.
    old = find(tx, repository, tag, lock=True)
    while old is None and tx.execute(insert).first() is None:
        old = find(tx, repository, tag, lock=True)
    if old is not None:
        here = sa.and_(_t.repository_id == repository.id, _t.name == str(tag))
        tx.execute(sa.update(tags).where(here).values(**values))
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
    query = (
        sa.delete(tags)
        .where(_t.repository_id == repository.id, _t.name == str(tag))
        .returning(_t.digest)
    )
    old = tx.execute(query).scalar_one_or_none()
    if old is None:
        return False
    _record_delete(tx, repository, str(tag), old)
    return True


def delete_all_of(tx: Transaction, repository: RepositoryRow, digest: Digest) -> None:
    """Delete every tag of the manifest."""
    query = (
        sa.delete(tags)
        .where(_t.repository_id == repository.id, _t.digest == digest)
        .returning(_t.name)
    )
    for name in sorted(tx.execute(query).scalars()):
        _record_delete(tx, repository, name, digest)


def _record_delete(tx: Transaction, repository: RepositoryRow, tag: str, old: Digest) -> None:
    tx.queue_for_gc((repository.id, CandidateKind.MANIFEST, old))
    tx.record_change(
        Change.TAG_DELETE, repository.name, repository.generation, tag=tag, old_digest=old
    )


def list_names(tx: Transaction, repository: RepositoryRow, n: int, last: str) -> list[str]:
    """Return at most `n` tags after `last`, in byte order."""
    query = (
        sa.select(_t.name)
        .where(_t.repository_id == repository.id, _t.name > last)
        .order_by(_t.name)
        .limit(n)
    )
    return list(tx.execute(query).scalars())


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
    query = sa.select(_t.name).where(_t.repository_id == repository.id, _t.digest == digest)
    return list(tx.execute(query.order_by(_t.name)).scalars())


def list_digests(tx: Transaction, repository: RepositoryRow) -> set[Digest]:
    """Return the manifests of the repository that have tags."""
    query = sa.select(_t.digest).where(_t.repository_id == repository.id).distinct()
    return set(tx.execute(query).scalars())
