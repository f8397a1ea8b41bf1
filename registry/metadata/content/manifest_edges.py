"""Rows of manifest edges: what each manifest references in its repository."""

import sqlalchemy as sa
from msgspec import Struct

from registry.metadata.content.repositories import RepositoryRow
from registry.metadata.engine.statements import Statement, bind
from registry.metadata.engine.transaction import CandidateKind, Transaction
from registry.metadata.tables import manifest_edges
from storage.digest import Digest

_e = manifest_edges.c


class Edge(Struct, frozen=True):
    """A reference in a manifest.

    `blob` and `child` say whether the digest is a blob or a manifest of this repository.
    """

    kind: str
    digest: Digest
    blob: bool = False
    child: bool = False


_OF_MANIFEST = _e.manifest_id == sa.bindparam("manifest")
_IN_REPOSITORY = _e.repository_id == sa.bindparam("repository")

_INSERT = Statement(sa.insert(manifest_edges).values(bind(*_e.keys())))
_DELETE = Statement(
    sa.delete(manifest_edges).where(_OF_MANIFEST).returning(_e.blob_digest, _e.child_digest)
)
_RESOLVE = Statement(
    sa.update(manifest_edges)
    .where(_IN_REPOSITORY, _e.digest == sa.bindparam("child"), _e.kind == "entry")
    .where(_e.blob_digest.is_(None), _e.child_digest.is_(None))
    .values(child_digest=sa.bindparam("child", type_=_e.digest.type))
)
_DETACH = Statement(
    sa.update(manifest_edges)
    .where(_OF_MANIFEST, _e.child_digest == sa.bindparam("child"), _IN_REPOSITORY)
    .values(child_digest=sa.null())
)
_LIST = Statement(
    sa.select(_e.kind, _e.digest, _e.blob_digest, _e.child_digest)
    .where(_OF_MANIFEST)
    .order_by(_e.digest, _e.kind)
)


def put(tx: Transaction, repository: RepositoryRow, manifest_id: int, edges: list[Edge]) -> None:
    """Replace the edges of the manifest."""
    delete(tx, repository, manifest_id)
    tx.run_each(
        _INSERT,
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


def delete(tx: Transaction, repository: RepositoryRow, manifest_id: int) -> None:
    """Delete the edges, and queue their targets, which may have no other retainer."""
    for blob, child in tx.fetch_all(_DELETE, manifest=manifest_id):
        if blob is not None:
            tx.queue_for_gc((repository.id, CandidateKind.LINK, blob))
        if child is not None:
            tx.queue_for_gc((repository.id, CandidateKind.MANIFEST, child))


def resolve_child(tx: Transaction, repository: RepositoryRow, child: Digest) -> None:
    """Resolve the edges of sparse indexes that reference this manifest, now that it exists."""
    tx.run(_RESOLVE, repository=repository.id, child=child)


def detach_child(tx: Transaction, repository: RepositoryRow, index_id: int, child: Digest) -> None:
    """Detach a child from an index.

    The index of a referrers fallback tag does not retain its children.
    """
    tx.run(_DETACH, repository=repository.id, manifest=index_id, child=child)


def list_of(tx: Transaction, manifest_id: int) -> list[Edge]:
    """Return the edges of the manifest, by digest."""
    return [
        Edge(kind, digest, blob is not None, child is not None)
        for kind, digest, blob, child in tx.fetch_all(_LIST, manifest=manifest_id)
    ]
