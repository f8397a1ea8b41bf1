"""Retainers: what keeps a manifest, a blob's repository link or a blob from collection.

The collector, its preview and `gc why` all use these queries. Add new retainers only here.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from registry.metadata.engine.transaction import CandidateKind, Transaction
from registry.metadata.tables import (
    DigestText,
    holds,
    manifest_edges,
    manifests,
    repositories,
    repository_blobs,
    tags,
)
from storage.digest import Digest

Query = sa.Select[tuple[Any]]


class Retainer(StrEnum):
    """Kinds of retainers."""

    # A tag of the manifest.
    TAG = "tag"
    # An index that has the manifest as a child.
    INDEX = "index"
    # The subject of the manifest, which makes the manifest a referrer.
    SUBJECT = "subject"
    # A hold on the manifest. An expired hold counts until the collector deletes it.
    HOLD = "hold"
    # A manifest of the repository that uses the blob.
    MANIFEST = "manifest"
    # A repository that links the blob.
    LINK = "link"


def list_retainers(
    kind: CandidateKind, repository_id: sa.ColumnElement[int], digest: sa.ColumnElement[Any]
) -> Mapping[Retainer, Query]:
    """Return a query of all retainers, by kind.

    Tags are selected by name, manifests by digest, holds by reason, repositories by name.
    `repository_id` and `digest` are values, or columns of the enclosing query.
    """
    match kind:
        case CandidateKind.MANIFEST:
            return _of_manifest(repository_id, digest)
        case CandidateKind.LINK:
            return {
                Retainer.MANIFEST: _users(manifest_edges.alias(), "blob", repository_id, digest)
            }
        case CandidateKind.BLOB:
            return {Retainer.LINK: _links(digest)}


def list_retained_by(
    tx: Transaction, kind: CandidateKind, repository_id: int, digest: Digest, n: int
) -> list[tuple[Retainer, Any]]:
    """Return at most `n` retainers of each kind, identified as in `list_retainers`."""
    place = sa.literal(repository_id), sa.literal(digest, DigestText)
    return [
        (keeper, found)
        for keeper, query in list_retainers(kind, *place).items()
        for found in tx.execute(query.distinct().limit(n)).scalars()
    ]


def is_retained(
    kind: CandidateKind, repository_id: sa.ColumnElement[int], digest: sa.ColumnElement[Any]
) -> sa.ColumnElement[bool]:
    """Return the condition that the item has a retainer."""
    queries = list_retainers(kind, repository_id, digest).values()
    return sa.or_(*(query.exists() for query in queries))


def _of_manifest(
    repository_id: sa.ColumnElement[int], digest: sa.ColumnElement[Any]
) -> Mapping[Retainer, Query]:
    tag, referrer, subject = tags.alias(), manifests.alias(), manifests.alias()
    hold = holds.alias()
    return {
        Retainer.TAG: sa.select(tag.c.name).where(
            tag.c.repository_id == repository_id, tag.c.digest == digest
        ),
        Retainer.INDEX: _users(manifest_edges.alias(), "child", repository_id, digest),
        Retainer.SUBJECT: sa.select(subject.c.digest)
        .join(
            referrer,
            sa.and_(
                referrer.c.repository_id == subject.c.repository_id,
                referrer.c.subject == subject.c.digest,
            ),
        )
        .where(referrer.c.repository_id == repository_id, referrer.c.digest == digest),
        Retainer.HOLD: sa.select(hold.c.reason).where(
            hold.c.repository_id == repository_id, hold.c.digest == digest
        ),
    }


def _users(
    edge: sa.FromClause,
    edge_kind: str,
    repository_id: sa.ColumnElement[int],
    digest: sa.ColumnElement[Any],
) -> Query:
    """Return a query of the manifests whose edges resolve to the digest."""
    user = manifests.alias()
    return (
        sa.select(user.c.digest)
        .join(edge, edge.c.manifest_id == user.c.id)
        .where(edge.c.repository_id == repository_id, edge.c[f"{edge_kind}_digest"] == digest)
    )


def _links(digest: sa.ColumnElement[Any]) -> Query:
    link, repository = repository_blobs.alias(), repositories.alias()
    return (
        sa.select(repository.c.name)
        .join(link, link.c.repository_id == repository.c.id)
        .where(link.c.digest == digest)
    )
