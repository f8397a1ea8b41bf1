"""Rows of deleted manifests: their bytes, and the content that they referenced."""

from collections.abc import Collection

import sqlalchemy as sa
from msgspec import Struct

from registry.metadata.engine.statements import DatabaseClock, Statement, insert_into
from registry.metadata.engine.transaction import Transaction, in_chunks
from registry.metadata.tables import (
    TEXT,
    manifest_bytes,
    manifest_edges,
    manifests,
    removed_manifests,
    repositories,
)
from registry.oci.names import RepositoryName
from storage.digest import Digest

_x, _m, _e = removed_manifests.c, manifests.c, manifest_edges.c

Key = tuple[RepositoryName, Digest, str]
"""Repository name, digest and repository generation."""


class RemovedManifest(Struct, frozen=True):
    """A deleted manifest with the blobs and manifests of its repository that it referenced."""

    raw: bytes
    media_type: str
    blobs: frozenset[Digest]
    children: frozenset[Digest]


def keep(tx: Transaction, repository_id: int, manifest_id: int | None = None) -> None:
    """Save a manifest that is about to be deleted, or all manifests of a repository.

    The database copies the rows; they are not read into memory.
    """
    if manifest_id is None:
        tx.run(_KEEP_ALL, repository=repository_id, actor=tx.actor)
    else:
        tx.run(_KEEP, repository=repository_id, actor=tx.actor, manifest=manifest_id)


def _prepare_keep(*which: sa.ColumnElement[bool]) -> Statement:
    rows = (
        sa.select(
            repositories.c.name,
            _m.digest,
            repositories.c.generation,
            _m.media_type,
            manifest_bytes.c.bytes,
            _list_ties(_e.blob_digest),
            _list_ties(_e.child_digest),
            sa.bindparam("actor", type_=TEXT),
            DatabaseClock(),
        )
        .join(repositories, repositories.c.id == _m.repository_id)
        .join(manifest_bytes, manifest_bytes.c.manifest_id == _m.id)
        .where(_m.repository_id == sa.bindparam("repository"), *which)
    )
    saved = insert_into(removed_manifests).from_select(list(_x.keys()), rows)
    key = removed_manifests.primary_key.columns.values()
    changed = {each.name: saved.excluded[each.name] for each in _x if not each.primary_key}
    return Statement(saved.on_conflict_do_update(index_elements=key, set_=changed))


def _list_ties(column: sa.ColumnElement[Digest]) -> sa.ColumnElement[str]:
    """Return the expression of the resolved digests of the manifest, separated by spaces."""
    ties = sa.func.aggregate_strings(column, " ")
    query = sa.select(ties).where(_e.manifest_id == _m.id).correlate(manifests)
    return sa.func.coalesce(query.scalar_subquery(), "")


_KEEP_ALL = _prepare_keep()
_KEEP = _prepare_keep(_m.id == sa.bindparam("manifest"))


def find(tx: Transaction, name: RepositoryName, digest: Digest) -> RemovedManifest | None:
    """Return the manifest as last deleted from a repository of this name."""
    query = (
        sa.select(_x.bytes, _x.media_type, _x.blobs, _x.children)
        .where(_x.repository == name, _x.digest == digest)
        .order_by(_x.removed_at.desc())
        .limit(1)
    )
    row = tx.execute(query).one_or_none()
    if row is None:
        return None
    return RemovedManifest(row[0], row[1], _read_ties(row[2]), _read_ties(row[3]))


def _read_ties(text: str) -> frozenset[Digest]:
    return frozenset(Digest.parse(word) for word in text.split())


def list_digests(tx: Transaction, name: RepositoryName, digests: Collection[Digest]) -> set[Digest]:
    """Return those of `digests` that were deleted and can still be restored."""
    found: set[Digest] = set()
    for chunk in in_chunks(digests):
        query = sa.select(_x.digest).where(_x.repository == name, _x.digest.in_(chunk))
        found.update(tx.execute(query).scalars())
    return found


def list_due(tx: Transaction, until: int, n: int) -> list[Key]:
    """Return at most `n` manifests deleted by `until`, in microseconds, oldest first."""
    query = (
        sa.select(_x.repository, _x.digest, _x.generation)
        .where(_x.removed_at <= until)
        .order_by(_x.removed_at)
        .limit(n)
    )
    return [(row[0], row[1], row[2]) for row in tx.execute(query)]


def delete(tx: Transaction, key: Key) -> None:
    """Delete a saved manifest permanently."""
    name, digest, generation = key
    here = sa.and_(_x.repository == name, _x.digest == digest, _x.generation == generation)
    tx.execute(sa.delete(removed_manifests).where(here))
