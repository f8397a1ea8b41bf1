"""Rows of manifests, their bytes and their edges."""

import json
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from registry.metadata.content.repositories import RepositoryRow
from registry.metadata.content.repositories import find as find_repository
from registry.metadata.engine.transaction import (
    CandidateKind,
    Change,
    Transaction,
    in_chunks,
)
from registry.metadata.gc import queue, unreadable_manifests
from registry.metadata.protection import holds, removed_manifests
from registry.metadata.quotas import usage_counters
from registry.metadata.tables import (
    manifest_bytes,
    manifest_edges,
    manifests,
    repositories,
    tags,
)
from registry.oci.manifests import Manifest
from registry.oci.names import RepositoryName
from registry.oci.references import Reference, Tag
from storage.digest import Digest

_m, _e, _t = manifests.c, manifest_edges.c, tags.c


@dataclass(frozen=True, slots=True)
class ManifestRow:
    """A manifest as served. `size` is in bytes; `artifact_type` is the effective one."""

    id: int
    digest: Digest
    media_type: str
    size: int
    artifact_type: str | None


@dataclass(frozen=True, slots=True)
class StoredManifest:
    """A manifest with its bytes. Times are in microseconds.

    `tagged_at` is the time at which the tag was set, if the manifest was found by a tag.
    """

    row: ManifestRow
    raw: bytes
    first_pushed_at: int = 0
    tagged_at: int | None = None

    @property
    def modified_at(self) -> int:
        """Time of the last change of the response to the request that found the manifest."""
        return self.first_pushed_at if self.tagged_at is None else self.tagged_at


@dataclass(frozen=True, slots=True)
class Edge:
    """A reference in a manifest.

    `blob` and `child` say whether the digest is a blob or a manifest of this repository.
    """

    kind: str
    digest: Digest
    blob: bool = False
    child: bool = False


MANIFEST_COLUMNS = (_m.id, _m.digest, _m.media_type, _m.size, _m.artifact_type)
"""The columns of a ManifestRow, in the order of its fields."""


def find(tx: Transaction, name: RepositoryName, reference: Reference) -> ManifestRow | None:
    row = tx.execute(_referred(sa.select(*MANIFEST_COLUMNS), name, reference)).one_or_none()
    return ManifestRow(*row) if row else None


def find_with_bytes(
    tx: Transaction, name: RepositoryName, reference: Reference
) -> StoredManifest | None:
    """Return the manifest with its bytes, in one query.

    Returns None also if the bytes do not have the digest. Damaged bytes are then not served, and a
    push replaces them.
    """
    first = sa.func.coalesce(_m.first_pushed_at, _m.pushed_at)
    tagged = _t.updated_at if isinstance(reference, Tag) else sa.null()
    query = sa.select(manifest_bytes.c.bytes, first, tagged, *MANIFEST_COLUMNS).join(
        manifests, manifest_bytes.c.manifest_id == _m.id
    )
    row = tx.execute(_referred(query, name, reference)).one_or_none()
    if row is None:
        return None
    found = StoredManifest(ManifestRow(*row[3:]), *row[:3])
    digest = found.row.digest
    return found if Digest.of(found.raw, digest.algorithm) == digest else None


def is_promised(tx: Transaction, name: RepositoryName, digest: Digest) -> bool:
    """Return whether a response may confirm the manifest; if not, it has to be touched first."""
    stale = queue.is_stale(tx, CandidateKind.MANIFEST, _m.repository_id, _m.digest)
    row = tx.execute(_referred(sa.select(stale), name, digest)).one_or_none()
    return row is not None and not row[0]


def touch(tx: Transaction, name: RepositoryName, digest: Digest, ahead: float) -> bool:
    """Restart the grace period of the manifest. Returns False if the manifest no longer exists.

    For the next `ahead` seconds no other `touch` is needed.
    """
    repository = find_repository(tx, name)
    if repository is not None:
        queue.touch(tx, CandidateKind.MANIFEST, repository.id, digest, ahead)
    # If it is no longer a candidate, it has a retainer or was removed.
    return find(tx, name, digest) is not None


def _referred(
    query: sa.Select[*tuple[Any, ...]], name: RepositoryName, reference: Reference
) -> sa.Select[*tuple[Any, ...]]:
    """Restrict the query to the manifest that the reference names."""
    query = query.join(repositories, repositories.c.id == _m.repository_id).where(
        repositories.c.name == name
    )
    if isinstance(reference, Tag):
        return query.join(
            tags, sa.and_(_t.repository_id == _m.repository_id, _t.digest == _m.digest)
        ).where(_t.name == str(reference))
    return query.where(_m.digest == reference)


def put(
    tx: Transaction,
    repository: RepositoryRow,
    digest: Digest,
    manifest: Manifest,
    edges: list[Edge],
) -> None:
    """Insert the manifest, its bytes and its edges. A repeated push updates the media type."""
    annotations = None
    if manifest.subject:
        # Not escaped, because that would make some texts three times as long.
        annotations = json.dumps(dict(manifest.annotations), ensure_ascii=False)
    insert = tx.insert(manifests).values(
        repository_id=repository.id,
        digest=digest,
        media_type=manifest.media_type,
        size=len(manifest.raw),
        subject=manifest.subject.digest if manifest.subject else None,
        artifact_type=manifest.artifact_type,
        annotations=annotations,
        pushed_at=tx.now,
    )
    changed: dict[str, sa.ColumnElement[Any]] = {
        name: insert.excluded[name] for name in ("media_type", "artifact_type", "pushed_at")
    }
    changed["first_pushed_at"] = sa.func.coalesce(_m.first_pushed_at, _m.pushed_at)
    upsert = insert.on_conflict_do_update(
        index_elements=[_m.repository_id, _m.digest], set_=changed
    )
    counts = usage_counters.counts_manifests(repository.id)
    # Of two equal concurrent pushes, one inserts the row and finds no earlier push in it.
    manifest_id, earlier, is_counted = tx.execute(
        upsert.returning(_m.id, _m.first_pushed_at, counts)
    ).one()
    if earlier is None and is_counted:
        usage_counters.add_manifests(tx, repository.id, len(manifest.raw))
    body = tx.insert(manifest_bytes).values(manifest_id=manifest_id, bytes=manifest.raw)
    # Different existing bytes are damaged.
    tx.execute(
        body.on_conflict_do_update(
            index_elements=[manifest_bytes.c.manifest_id],
            set_={"bytes": body.excluded.bytes},
            where=manifest_bytes.c.bytes != body.excluded.bytes,
        )
    )
    _put_edges(tx, repository, manifest_id, edges)
    _resolve_sparse_edges(tx, repository, digest)
    unreadable_manifests.forget(tx, repository.id, digest)
    tx.queue_for_gc((repository.id, CandidateKind.MANIFEST, digest))
    tx.record_change(Change.MANIFEST_PUT, repository.name, repository.generation, digest=digest)


def _put_edges(
    tx: Transaction, repository: RepositoryRow, manifest_id: int, edges: list[Edge]
) -> None:
    _drop_edges(tx, repository, manifest_id)
    if edges:
        tx.connection.execute(
            sa.insert(manifest_edges),
            [
                {
                    "manifest_id": manifest_id,
                    "kind": edge.kind,
                    "digest": edge.digest,
                    "repository_id": repository.id,
                    "blob_digest": edge.digest if edge.blob else None,
                    "child_digest": edge.digest if edge.child else None,
                }
                for edge in edges
            ],
        )
    for edge in edges:
        if edge.blob:
            tx.unqueue((repository.id, CandidateKind.LINK, edge.digest))
        if edge.child:
            tx.unqueue((repository.id, CandidateKind.MANIFEST, edge.digest))


def _drop_edges(tx: Transaction, repository: RepositoryRow, manifest_id: int) -> None:
    """Delete the edges, and queue their targets, which may have no other retainer."""
    dropped = sa.delete(manifest_edges).where(_e.manifest_id == manifest_id)
    for blob, child in tx.execute(dropped.returning(_e.blob_digest, _e.child_digest)):
        if blob is not None:
            tx.queue_for_gc((repository.id, CandidateKind.LINK, blob))
        if child is not None:
            tx.queue_for_gc((repository.id, CandidateKind.MANIFEST, child))


def _resolve_sparse_edges(tx: Transaction, repository: RepositoryRow, digest: Digest) -> None:
    """Resolve the edges of sparse indexes that reference this manifest, now that it exists."""
    tx.execute(
        sa.update(manifest_edges)
        .where(
            _e.repository_id == repository.id,
            _e.digest == digest,
            _e.kind == "entry",
            _e.blob_digest.is_(None),
            _e.child_digest.is_(None),
        )
        .values(child_digest=digest)
    )


def delete(tx: Transaction, repository: RepositoryRow, row: ManifestRow) -> None:
    """Delete the manifest, but keep its bytes for the grace period.

    Its tags must be deleted before. The caller has locked the repository and checked the holds.
    """
    removed_manifests.keep(tx, repository.id, row.id)
    holds.drop_over(tx, repository.id, row.digest)
    _drop_edges(tx, repository, row.id)
    tx.execute(sa.delete(manifest_bytes).where(manifest_bytes.c.manifest_id == row.id))
    deleted = sa.delete(manifests).where(_m.id == row.id)
    counts = usage_counters.counts_manifests(repository.id)
    if tx.execute(deleted.returning(counts)).scalar_one_or_none():
        usage_counters.add_manifests(tx, repository.id, -row.size)
    unreadable_manifests.forget(tx, repository.id, row.digest)
    referrers = sa.select(_m.digest).where(
        _m.repository_id == repository.id, _m.subject == row.digest
    )
    for digest in tx.execute(referrers).scalars():
        tx.queue_for_gc((repository.id, CandidateKind.MANIFEST, digest))
    tx.unqueue((repository.id, CandidateKind.MANIFEST, row.digest))
    tx.record_change(
        Change.MANIFEST_DELETE, repository.name, repository.generation, digest=row.digest
    )


def list_edges(tx: Transaction, row: ManifestRow) -> list[Edge]:
    query = sa.select(_e.kind, _e.digest, _e.blob_digest, _e.child_digest).where(
        _e.manifest_id == row.id
    )
    return [
        Edge(kind, digest, blob is not None, child is not None)
        for kind, digest, blob, child in tx.execute(query.order_by(_e.digest, _e.kind))
    ]


def list_parents(tx: Transaction, repository: RepositoryRow, digest: Digest) -> list[ManifestRow]:
    """Return at most 100 indexes of the repository that reference the manifest."""
    query = (
        sa.select(*MANIFEST_COLUMNS)
        .join(manifest_edges, _e.manifest_id == _m.id)
        .where(_e.repository_id == repository.id, _e.child_digest == digest)
        .order_by(_m.digest)
        .limit(100)
    )
    return [ManifestRow(*row) for row in tx.execute(query)]


def find_subject(tx: Transaction, row: ManifestRow) -> Digest | None:
    """Return the digest of the manifest's subject, whether or not the subject exists."""
    subject: Digest | None = tx.execute(
        sa.select(_m.subject).where(_m.id == row.id)
    ).scalar_one_or_none()
    return subject


def detach_child(
    tx: Transaction, repository: RepositoryRow, index: ManifestRow, child: Digest
) -> None:
    """Detach a child from an index.

    The index of a referrers fallback tag does not retain its children.
    """
    tx.execute(
        sa.update(manifest_edges)
        .where(_e.manifest_id == index.id, _e.child_digest == child)
        .where(_e.repository_id == repository.id)
        .values(child_digest=None)
    )


def list_present(
    tx: Transaction, repository: RepositoryRow, digests: list[Digest]
) -> dict[Digest, ManifestRow]:
    """Return those of `digests` that are manifests of the repository. A write locks them."""
    found: dict[Digest, ManifestRow] = {}
    for chunk in in_chunks(digests):
        query = (
            sa.select(*MANIFEST_COLUMNS)
            .where(_m.repository_id == repository.id, _m.digest.in_(chunk))
            .order_by(_m.digest)
            .with_for_update(read=True, key_share=True)
        )
        found.update({row[1]: ManifestRow(*row) for row in tx.execute(query)})
    return found


def list_repositories(tx: Transaction, digest: Digest, n: int) -> list[RepositoryName]:
    """Return at most `n` repositories that have the manifest. Reads all manifests."""
    query = (
        sa.select(repositories.c.name)
        .join(manifests, _m.repository_id == repositories.c.id)
        .where(_m.digest == digest)
    )
    return list(tx.execute(query.order_by(repositories.c.name).limit(n)).scalars())
