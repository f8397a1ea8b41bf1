"""Rows of manifests and their bytes."""

import json
from typing import Any

import sqlalchemy as sa
from msgspec import Struct

from registry.metadata.content import manifest_edges as edge_rows
from registry.metadata.content.manifest_edges import Edge
from registry.metadata.content.repositories import RepositoryRow
from registry.metadata.content.repositories import find as find_repository
from registry.metadata.engine.statements import Row, Statement, bind, bind_now, insert_into
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
    ID,
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


class ManifestRow(Struct, frozen=True):
    """A manifest as served. `size` is in bytes; `artifact_type` is the effective one."""

    id: int
    digest: Digest
    media_type: str
    size: int
    artifact_type: str | None


class StoredManifest(Struct, frozen=True):
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


MANIFEST_COLUMNS = (_m.id, _m.digest, _m.media_type, _m.size, _m.artifact_type)
"""The columns of a ManifestRow, in the order of its fields."""


def _prepare(
    query: sa.Select[*tuple[Any, ...]], *of_tag: sa.ColumnElement[Any]
) -> tuple[Statement, Statement]:
    """Return statements for the manifest that a tag, or a digest, names in a repository.

    `of_tag` are columns of the tag, which are null if a digest names the manifest.
    """
    query = query.join(repositories, repositories.c.id == _m.repository_id).where(
        repositories.c.name == sa.bindparam("name")
    )
    same = sa.and_(_t.repository_id == _m.repository_id, _t.digest == _m.digest)
    by_tag = query.add_columns(*of_tag).join(tags, same).where(_t.name == sa.bindparam("tag"))
    by_digest = query.add_columns(*(sa.null() for _ in of_tag))
    return Statement(by_tag), Statement(by_digest.where(_m.digest == sa.bindparam("digest")))


def _fetch(
    tx: Transaction,
    statements: tuple[Statement, Statement],
    name: RepositoryName,
    reference: Reference,
) -> Row | None:
    by_tag, by_digest = statements
    if isinstance(reference, Tag):
        return tx.fetch_one(by_tag, name=name, tag=str(reference))
    return tx.fetch_one(by_digest, name=name, digest=reference)


def _prepare_put() -> Statement:
    values = bind(
        *("repository_id", "digest", "media_type", "size"),
        *("subject", "artifact_type", "annotations"),
    )
    row = insert_into(manifests).values(**values, pushed_at=bind_now())
    changed: dict[str, sa.ColumnElement[Any]] = {
        name: row.excluded[name] for name in ("media_type", "artifact_type", "pushed_at")
    }
    changed["first_pushed_at"] = sa.func.coalesce(_m.first_pushed_at, _m.pushed_at)
    upsert = row.on_conflict_do_update(index_elements=[_m.repository_id, _m.digest], set_=changed)
    return Statement(upsert.returning(_m.id, _m.first_pushed_at, _IS_COUNTED))


def _prepare_put_bytes() -> Statement:
    body = insert_into(manifest_bytes).values(bind("manifest_id", "bytes"))
    # Different existing bytes are damaged.
    return Statement(
        body.on_conflict_do_update(
            index_elements=[manifest_bytes.c.manifest_id],
            set_={"bytes": body.excluded.bytes},
            where=manifest_bytes.c.bytes != body.excluded.bytes,
        )
    )


_IS_COUNTED = usage_counters.counts_manifests(sa.bindparam("repository_id", type_=ID))
_IN_REPOSITORY = _m.repository_id == sa.bindparam("repository")

_FIND = _prepare(sa.select(*MANIFEST_COLUMNS))
_FIND_WITH_BYTES = _prepare(
    sa.select(
        *MANIFEST_COLUMNS,
        manifest_bytes.c.bytes,
        sa.func.coalesce(_m.first_pushed_at, _m.pushed_at),
    ).join(manifests, manifest_bytes.c.manifest_id == _m.id),
    _t.updated_at,
)
_IS_STALE = _prepare(sa.select(queue.is_stale(CandidateKind.MANIFEST, _m.repository_id, _m.digest)))
_PUT, _PUT_BYTES = _prepare_put(), _prepare_put_bytes()
_DELETE = Statement(sa.delete(manifests).where(_m.id == sa.bindparam("id")).returning(_IS_COUNTED))
_DELETE_BYTES = Statement(
    sa.delete(manifest_bytes).where(manifest_bytes.c.manifest_id == sa.bindparam("id"))
)
_LIST_REFERRERS = Statement(
    sa.select(_m.digest).where(_IN_REPOSITORY, _m.subject == sa.bindparam("subject"))
)
_LIST_PARENTS = Statement(
    sa.select(*MANIFEST_COLUMNS)
    .join(manifest_edges, _e.manifest_id == _m.id)
    .where(_e.repository_id == sa.bindparam("repository"))
    .where(_e.child_digest == sa.bindparam("child"))
    .order_by(_m.digest)
    .limit(100)
)
_FIND_SUBJECT = Statement(sa.select(_m.subject).where(_m.id == sa.bindparam("id")))
_LIST_PRESENT = Statement(
    sa.select(*MANIFEST_COLUMNS)
    .where(_IN_REPOSITORY, _m.digest.in_(sa.bindparam("digests")))
    .order_by(_m.digest)
    .with_for_update(read=True, key_share=True)
)


def find(tx: Transaction, name: RepositoryName, reference: Reference) -> ManifestRow | None:
    row = _fetch(tx, _FIND, name, reference)
    return ManifestRow(*row) if row else None


def find_with_bytes(
    tx: Transaction, name: RepositoryName, reference: Reference
) -> StoredManifest | None:
    """Return the manifest with its bytes, in one query.

    Returns None also if the bytes do not have the digest. Damaged bytes are then not served, and a
    push replaces them.
    """
    row = _fetch(tx, _FIND_WITH_BYTES, name, reference)
    if row is None:
        return None
    found = StoredManifest(ManifestRow(*row[:5]), *row[5:])
    digest = found.row.digest
    return found if Digest.of(found.raw, digest.algorithm) == digest else None


def is_promised(tx: Transaction, name: RepositoryName, digest: Digest) -> bool:
    """Return whether a response may confirm the manifest; if not, it has to be touched first."""
    row = _fetch(tx, _IS_STALE, name, digest)
    return row is not None and not row[0]


def touch(tx: Transaction, name: RepositoryName, digest: Digest, extend_by: float) -> bool:
    """Restart the grace period of the manifest. Returns False if the manifest no longer exists.

    For the next `extend_by` seconds no other `touch` is needed.
    """
    repository = find_repository(tx, name)
    if repository is not None:
        queue.touch(tx, CandidateKind.MANIFEST, repository.id, digest, extend_by)
    # If it is no longer a candidate, it has a retainer or was removed.
    return find(tx, name, digest) is not None


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
    ((manifest_id, earlier, is_counted),) = tx.fetch_all(
        _PUT,
        repository_id=repository.id,
        digest=digest,
        media_type=manifest.media_type,
        size=len(manifest.raw),
        subject=manifest.subject.digest if manifest.subject else None,
        artifact_type=manifest.artifact_type,
        annotations=annotations,
    )
    # Of two equal concurrent pushes, one inserts the row and finds no earlier push in it.
    if earlier is None and is_counted:
        usage_counters.add_manifests(tx, repository.id, len(manifest.raw))
    tx.run(_PUT_BYTES, manifest_id=manifest_id, bytes=manifest.raw)
    edge_rows.put(tx, repository, manifest_id, edges)
    edge_rows.resolve_child(tx, repository, digest)
    unreadable_manifests.forget(tx, repository.id, digest)
    tx.queue_for_gc((repository.id, CandidateKind.MANIFEST, digest))
    tx.record_change(Change.MANIFEST_PUT, repository.name, repository.generation, digest=digest)


def delete(tx: Transaction, repository: RepositoryRow, row: ManifestRow) -> None:
    """Delete the manifest, but keep its bytes for the grace period.

    Its tags must be deleted before. The caller has locked the repository and checked the holds.
    """
    removed_manifests.keep(tx, repository.id, row.id)
    holds.drop_over(tx, repository.id, row.digest)
    edge_rows.delete(tx, repository, row.id)
    tx.run(_DELETE_BYTES, id=row.id)
    if tx.fetch_value(_DELETE, id=row.id, repository_id=repository.id):
        usage_counters.add_manifests(tx, repository.id, -row.size)
    unreadable_manifests.forget(tx, repository.id, row.digest)
    for digest in tx.fetch_values(_LIST_REFERRERS, repository=repository.id, subject=row.digest):
        tx.queue_for_gc((repository.id, CandidateKind.MANIFEST, digest))
    tx.unqueue((repository.id, CandidateKind.MANIFEST, row.digest))
    tx.record_change(
        Change.MANIFEST_DELETE, repository.name, repository.generation, digest=row.digest
    )


def list_parents(tx: Transaction, repository: RepositoryRow, digest: Digest) -> list[ManifestRow]:
    """Return at most 100 indexes of the repository that reference the manifest."""
    rows = tx.fetch_all(_LIST_PARENTS, repository=repository.id, child=digest)
    return [ManifestRow(*row) for row in rows]


def find_subject(tx: Transaction, row: ManifestRow) -> Digest | None:
    """Return the digest of the manifest's subject, whether or not the subject exists."""
    subject: Digest | None = tx.fetch_value(_FIND_SUBJECT, id=row.id)
    return subject


def list_present(
    tx: Transaction, repository: RepositoryRow, digests: list[Digest]
) -> dict[Digest, ManifestRow]:
    """Return those of `digests` that are manifests of the repository. A write locks them."""
    found: dict[Digest, ManifestRow] = {}
    for chunk in in_chunks(digests):
        rows = tx.fetch_all(_LIST_PRESENT, repository=repository.id, digests=chunk)
        found.update({row[1]: ManifestRow(*row) for row in rows})
    return found


def list_repositories(tx: Transaction, digest: Digest, n: int) -> list[RepositoryName]:
    """Return at most `n` repositories that have the manifest. Reads all manifests."""
    query = (
        sa.select(repositories.c.name)
        .join(manifests, _m.repository_id == repositories.c.id)
        .where(_m.digest == digest)
    )
    return list(tx.execute(query.order_by(repositories.c.name).limit(n)).scalars())
